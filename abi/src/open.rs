//! Flags of open(2) and the `AT_*` family.

bitflags::bitflags! {
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct OpenFlags: u32 {
        const WRONLY = 0o1;
        const RDWR = 0o2;
        const CREAT = 0o100;
        const EXCL = 0o200;
        const NOCTTY = 0o400;
        const TRUNC = 0o1000;
        const APPEND = 0o2000;
        const NONBLOCK = 0o4000;
        const DSYNC = 0o10000;
        const ASYNC = 0o20000;
        const DIRECT = 0o40000;
        const LARGEFILE = 0o100000;
        const DIRECTORY = 0o200000;
        const NOFOLLOW = 0o400000;
        const NOATIME = 0o1000000;
        const CLOEXEC = 0o2000000;
        const SYNC = 0o4010000;
        const PATH = 0o10000000;
        const TMPFILE = 0o20200000;
        // Bits without a name travel too: open(2) ignores them, openat2(2) refuses them.
        const _ = !0;
    }
}

impl OpenFlags {
    pub const ACCMODE: u32 = 3;

    /// True for `O_RDONLY` and `O_RDWR`.
    #[must_use]
    pub const fn reads(self) -> bool {
        !self.contains(Self::PATH) && matches!(self.bits() & Self::ACCMODE, 0 | 2)
    }

    /// True for `O_WRONLY` and `O_RDWR`.
    #[must_use]
    pub const fn writes(self) -> bool {
        !self.contains(Self::PATH) && matches!(self.bits() & Self::ACCMODE, 1 | 2)
    }
}

/// `dirfd` value that means the current directory.
pub const AT_FDCWD: i32 = -100;

bitflags::bitflags! {
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct AtFlags: u32 {
        const SYMLINK_NOFOLLOW = 0x100;
        /// `AT_REMOVEDIR` of unlinkat(2), `AT_EACCESS` of faccessat2(2).
        const REMOVEDIR = 0x200;
        const SYMLINK_FOLLOW = 0x400;
        const NO_AUTOMOUNT = 0x800;
        const EMPTY_PATH = 0x1000;
        const _ = !0;
    }
}

crate::abi_struct! {
    /// `struct open_how` of openat2(2).
    pub struct OpenHow {
        pub flags: u64,
        pub mode: u64,
        pub resolve: u64,
    }
}

bitflags::bitflags! {
    /// `RESOLVE_*` flags of openat2(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct ResolveFlags: u64 {
        const NO_XDEV = 1;
        const NO_MAGICLINKS = 2;
        const NO_SYMLINKS = 4;
        const BENEATH = 8;
        const IN_ROOT = 0x10;
        const CACHED = 0x20;
    }
}
