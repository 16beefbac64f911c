//! Credentials across execve(2): set-user-id, set-group-id, capabilities. See capabilities(7).

use abi::Result;
use abi::ids::Uid;
use abi::stat::{S_ISGID, S_ISUID};
use base::cred::{Caps, Credentials};
use vfs::{File, MountFlags};

/// SECBIT_NOROOT.
const NO_ROOT: u32 = 1;
/// SECBIT_KEEP_CAPS, which execve clears.
const KEEP_CAPS: u32 = 1 << 4;

/// The credentials after running `file`, and whether it runs with more rights than its caller (AT_SECURE).
///
/// # Errors
/// Of the file's attributes.
pub fn after_exec(old: &Credentials, file: &File) -> Result<(Credentials, bool)> {
    let attr = file.inode().attr()?;
    let mut new = old.clone();
    let honoured = !old.no_new_privs && !file.path().mount.flags().contains(MountFlags::NOSUID);
    if honoured && attr.mode & S_ISUID != 0 {
        new.euid = attr.uid;
    }
    // Without group execution the bit means mandatory locking.
    if honoured && attr.mode & (S_ISGID | 0o010) == S_ISGID | 0o010 {
        new.egid = attr.gid;
    }
    new.suid = new.euid;
    new.fsuid = new.euid;
    new.sgid = new.egid;
    new.fsgid = new.egid;
    let changed_ids = new.euid != old.euid || new.egid != old.egid;
    if changed_ids {
        new.ambient = Caps::empty();
    }
    let is_root = |uid: Uid| uid == Uid::ROOT && new.securebits & NO_ROOT == 0;
    if is_root(new.euid) || is_root(new.ruid) {
        new.permitted = new.bounding | new.inheritable;
        new.effective = if is_root(new.euid) { new.permitted } else { new.ambient };
    } else {
        new.permitted = new.ambient;
        new.effective = new.ambient;
    }
    new.securebits &= !KEEP_CAPS;
    let gained = !old.permitted.contains(new.permitted);
    let is_secure =
        new.euid != new.ruid || new.egid != new.rgid || (gained && new.ruid != Uid::ROOT);
    Ok((new, is_secure))
}
