//! Credentials, capabilities and the permission check. See credentials(7), capabilities(7).

use std::sync::Arc;

use abi::ids::{Gid, Uid};
use abi::stat::{Attr, S_IFDIR, S_IFMT};
use abi::{Errno, Result};

bitflags::bitflags! {
    /// A capability set, bit n standing for capability n.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Caps: u64 {
        const CHOWN = 1 << 0;
        const DAC_OVERRIDE = 1 << 1;
        const DAC_READ_SEARCH = 1 << 2;
        const FOWNER = 1 << 3;
        const FSETID = 1 << 4;
        const KILL = 1 << 5;
        const SETGID = 1 << 6;
        const SETUID = 1 << 7;
        const SETPCAP = 1 << 8;
        const LINUX_IMMUTABLE = 1 << 9;
        const NET_BIND_SERVICE = 1 << 10;
        const NET_BROADCAST = 1 << 11;
        const NET_ADMIN = 1 << 12;
        const NET_RAW = 1 << 13;
        const IPC_LOCK = 1 << 14;
        const IPC_OWNER = 1 << 15;
        const SYS_MODULE = 1 << 16;
        const SYS_RAWIO = 1 << 17;
        const SYS_CHROOT = 1 << 18;
        const SYS_PTRACE = 1 << 19;
        const SYS_PACCT = 1 << 20;
        const SYS_ADMIN = 1 << 21;
        const SYS_BOOT = 1 << 22;
        const SYS_NICE = 1 << 23;
        const SYS_RESOURCE = 1 << 24;
        const SYS_TIME = 1 << 25;
        const SYS_TTY_CONFIG = 1 << 26;
        const MKNOD = 1 << 27;
        const LEASE = 1 << 28;
        const AUDIT_WRITE = 1 << 29;
        const AUDIT_CONTROL = 1 << 30;
        const SETFCAP = 1 << 31;
        const MAC_OVERRIDE = 1 << 32;
        const MAC_ADMIN = 1 << 33;
        const SYSLOG = 1 << 34;
        const WAKE_ALARM = 1 << 35;
        const BLOCK_SUSPEND = 1 << 36;
        const AUDIT_READ = 1 << 37;
        const PERFMON = 1 << 38;
        const BPF = 1 << 39;
        const CHECKPOINT_RESTORE = 1 << 40;
    }
}

/// Identity of a guest thread; immutable, replaced as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    pub ruid: Uid,
    pub euid: Uid,
    pub suid: Uid,
    pub fsuid: Uid,
    pub rgid: Gid,
    pub egid: Gid,
    pub sgid: Gid,
    pub fsgid: Gid,
    pub groups: Arc<[Gid]>,
    pub permitted: Caps,
    pub effective: Caps,
    pub inheritable: Caps,
    pub bounding: Caps,
    pub ambient: Caps,
    pub securebits: u32,
    pub no_new_privs: bool,
}

bitflags::bitflags! {
    /// What access is asked for: the bits of access(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Access: u32 {
        const EXEC = 1;
        const WRITE = 2;
        const READ = 4;
    }
}

impl Credentials {
    /// A user with these groups; root gets every capability, others none.
    #[must_use]
    pub fn new(uid: Uid, gid: Gid, groups: Arc<[Gid]>) -> Self {
        let caps = if uid == Uid::ROOT { Caps::all() } else { Caps::empty() };
        Self {
            ruid: uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            rgid: gid,
            egid: gid,
            sgid: gid,
            fsgid: gid,
            groups,
            permitted: caps,
            effective: caps,
            inheritable: Caps::empty(),
            bounding: Caps::all(),
            ambient: Caps::empty(),
            securebits: 0,
            no_new_privs: false,
        }
    }

    /// Root with every capability.
    #[must_use]
    pub fn root() -> Self {
        Self::new(Uid::ROOT, Gid::ROOT, Arc::from([]))
    }

    #[must_use]
    pub fn has(&self, caps: Caps) -> bool {
        self.effective.contains(caps)
    }

    /// True when `gid` is the filesystem group or a supplementary one.
    #[must_use]
    pub fn in_group(&self, gid: Gid) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }

    /// True for the owner of the inode or a holder of `CAP_FOWNER`.
    #[must_use]
    pub fn owns(&self, attr: &Attr) -> bool {
        self.fsuid == attr.uid || self.has(Caps::FOWNER)
    }

    /// True for who may search every directory, whatever its attributes are.
    #[must_use]
    pub fn searches_all(&self) -> bool {
        self.effective.intersects(Caps::DAC_OVERRIDE | Caps::DAC_READ_SEARCH)
    }

    /// The check of path_resolution(7): owner, group, other, then capabilities.
    ///
    /// # Errors
    /// `EACCES` when any bit of `access` is refused.
    pub fn check(&self, attr: &Attr, access: Access) -> Result<()> {
        let shift = if self.fsuid == attr.uid {
            6
        } else if self.in_group(attr.gid) {
            3
        } else {
            0
        };
        let granted = Access::from_bits_truncate((attr.mode >> shift) & 7);
        if granted.contains(access) {
            return Ok(());
        }
        let is_dir = attr.mode & S_IFMT == S_IFDIR;
        if self.has(Caps::DAC_OVERRIDE) {
            let executable = is_dir || attr.mode & 0o111 != 0;
            if !access.contains(Access::EXEC) || executable {
                return Ok(());
            }
        }
        if self.has(Caps::DAC_READ_SEARCH)
            && (access == Access::READ || (is_dir && !access.contains(Access::WRITE)))
        {
            return Ok(());
        }
        Err(Errno::EACCES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever searches all directories would pass each one's check.
    #[test]
    fn searching_all_is_what_the_check_says() {
        for bit in 0..Caps::all().bits().count_ones() {
            let Some(cap) = Caps::from_bits(1 << bit) else { continue };
            let mut cred = Credentials::new(Uid(7), Gid(8), Arc::from([Gid(9)]));
            cred.effective = cap;
            let of = |uid, gid, mode| {
                let attr =
                    Attr { uid: Uid(uid), gid: Gid(gid), mode: S_IFDIR | mode, ..Attr::default() };
                cred.check(&attr, Access::EXEC).is_ok()
            };
            let is_any =
                [(7, 1), (1, 8), (1, 9), (1, 1)].iter().all(|(uid, gid)| of(*uid, *gid, 0o666));
            assert_eq!(is_any, cred.searches_all(), "{cap:?}");
        }
    }
}
