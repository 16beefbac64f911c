//! mount(2), umount2(2) and statfs(2) flags.

bitflags::bitflags! {
    /// Flags of mount(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MountFlags: u64 {
        const RDONLY = 1;
        const NOSUID = 2;
        const NODEV = 4;
        const NOEXEC = 8;
        const SYNCHRONOUS = 16;
        const REMOUNT = 32;
        const MANDLOCK = 64;
        const DIRSYNC = 128;
        const NOSYMFOLLOW = 256;
        const NOATIME = 1024;
        const NODIRATIME = 2048;
        const BIND = 4096;
        const MOVE = 8192;
        const REC = 16384;
        const SILENT = 32768;
        const UNBINDABLE = 1 << 17;
        const PRIVATE = 1 << 18;
        const SLAVE = 1 << 19;
        const SHARED = 1 << 20;
        const RELATIME = 1 << 21;
        const STRICTATIME = 1 << 24;
        const LAZYTIME = 1 << 25;
        // Unknown bits are ignored by mount(2).
        const _ = !0;
    }

    /// Flags of umount2(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct UmountFlags: u32 {
        const FORCE = 1;
        const DETACH = 2;
        const EXPIRE = 4;
        const NOFOLLOW = 8;
    }
}

/// The magic that old callers put into the high half of mount(2)'s flags.
pub const MS_MGC_VAL: u64 = 0xc0ed_0000;
pub const MS_MGC_MASK: u64 = 0xffff_0000;

/// `f_flags` of statfs(2): the flags are known to be valid.
pub const ST_VALID: u64 = 0x20;
pub const ST_RELATIME: u64 = 0x1000;
