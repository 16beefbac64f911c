//! What the sentry's process gives up before it boots: files, users, capabilities. Its filter of host calls comes
//! later (`policy`), once the platform has made its first guest process, which must not inherit it.
//!
//! Each wall is used when the host offers it. What may not fail: giving up all capabilities and the chance to gain
//! any.

use std::path::Path;

use host::clone::Namespaces;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};
use rustix::process::{DumpableBehavior, Gid, Pid, Signal, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// The user that root's sentry becomes; it owns nothing on any host.
const NOBODY: u32 = 65534;

/// Whose rights the sentry's process has on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    uid: u32,
    gid: u32,
    /// Whether the process has to change to it. Decided outside: in a new user namespace an unmapped root calls
    /// itself nobody, without being it.
    is_new: bool,
}

impl Identity {
    /// The caller itself, or nobody when that is root.
    pub fn of_sentry() -> Self {
        let uid = rustix::process::geteuid();
        if uid.is_root() {
            return Self { uid: NOBODY, gid: NOBODY, is_new: true };
        }
        Self { uid: uid.as_raw(), gid: rustix::process::getegid().as_raw(), is_new: false }
    }
}

/// Lets the new user namespace of `child` know one user and one group. Called by its parent.
pub fn write_id_maps(child: Pid, Identity { uid, gid, .. }: Identity) -> std::io::Result<()> {
    let proc = Path::new("/proc").join(child.as_raw_nonzero().to_string());
    // Only a namespace that can never change its groups may map them without privilege.
    if !rustix::process::geteuid().is_root() {
        std::fs::write(proc.join("setgroups"), "deny")?;
    }
    std::fs::write(proc.join("uid_map"), format!("{uid} {uid} 1"))?;
    std::fs::write(proc.join("gid_map"), format!("{gid} {gid} 1"))
}

/// Shuts the calling process in. The message says which necessary wall could not be built.
pub fn enter(namespaces: Namespaces, identity: Identity) -> Result<(), String> {
    // Before files are gone, and before the identity changes (which would be in the way of both).
    let is_empty_view = namespaces.contains(Namespaces::MOUNT)
        && empty_root().inspect_err(|e| tracing::debug!(error = %e, "no empty root")).is_ok();
    // A container's root may lack the right to change, or a user to change to.
    if let Err(error) = become_user(identity) {
        tracing::debug!(%error, "the sentry keeps the caller's user, without capabilities");
    }
    drop_capabilities().map_err(|e| format!("the sentry cannot give up capabilities: {e}"))?;
    // A changed identity makes a process undumpable, but it must read its children's memory; and it resets
    // the death signal.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
        .map_err(|e| format!("the sentry cannot become dumpable: {e}"))?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| format!("the sentry cannot ask to die with its supervisor: {e}"))?;
    rustix::thread::set_no_new_privs(true)
        .map_err(|e| format!("the sentry cannot renounce new privileges: {e}"))?;
    let has_landlock = !is_empty_view && deny_files();
    tracing::debug!(?namespaces, is_empty_view, has_landlock, "the sentry is shut in");
    Ok(())
}

/// Makes an empty, read-only directory the root, in a mount namespace of our own.
fn empty_root() -> rustix::io::Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private)?;
    // Any directory will do: it is covered in this namespace only, and gone with the old root.
    let place = ["/tmp", "/proc", "/dev"].into_iter().find(|dir| Path::new(dir).is_dir());
    let place = place.ok_or(rustix::io::Errno::NOENT)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("sentry", place, "tmpfs", flags, Some(c"size=4k,nr_inodes=2,mode=0555"))?;
    rustix::process::chdir(place)?;
    rustix::process::pivot_root(".", ".")?;
    // The old root lies on top of the new one now.
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    mount_remount("/", flags | MountFlags::RDONLY, "")
}

/// Becomes a user without rights, unless the caller is one.
fn become_user(Identity { uid, gid, is_new }: Identity) -> rustix::io::Result<()> {
    if !is_new {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

fn drop_capabilities() -> rustix::io::Result<()> {
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )
}

/// Landlock without any rule: no file can be opened. For hosts that refuse mount namespaces.
fn deny_files() -> bool {
    use landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetStatus};
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(ABI::V5));
    let status = ruleset.and_then(Ruleset::create).and_then(|rules| rules.restrict_self());
    status.is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced)
}
