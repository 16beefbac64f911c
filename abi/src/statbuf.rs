//! `struct stat`, `struct statx` and `struct statfs`: what a guest sees of an inode and of a filesystem.

use core::fmt;

use crate::stat::{self, Attr};
use crate::time::Timespec;

/// `struct stat` of x86-64. Prints as strace(1) shows it.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(C)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub pad0: u32,
    pub rdev: u64,
    pub size: i64,
    pub blksize: i64,
    pub blocks: i64,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    pub reserved: [i64; 3],
}

impl fmt::Debug for Stat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.mode & stat::S_IFMT {
            stat::S_IFREG => "S_IFREG|",
            stat::S_IFDIR => "S_IFDIR|",
            stat::S_IFLNK => "S_IFLNK|",
            stat::S_IFCHR => "S_IFCHR|",
            stat::S_IFBLK => "S_IFBLK|",
            stat::S_IFIFO => "S_IFIFO|",
            stat::S_IFSOCK => "S_IFSOCK|",
            _ => "",
        };
        write!(f, "Stat {{ st_mode: {kind}0{:o}, st_size: {} }}", self.mode & 0o7777, self.size)
    }
}

crate::abi_struct! {
    /// `struct statx_timestamp`.
    pub struct StatxTimestamp {
        pub sec: i64,
        pub nsec: u32,
        pub reserved: i32,
    }

    /// `struct statx`.
    pub struct Statx {
        pub mask: u32,
        pub blksize: u32,
        pub attributes: u64,
        pub nlink: u32,
        pub uid: u32,
        pub gid: u32,
        pub mode: u16,
        pub spare0: u16,
        pub ino: u64,
        pub size: u64,
        pub blocks: u64,
        pub attributes_mask: u64,
        pub atime: StatxTimestamp,
        pub btime: StatxTimestamp,
        pub ctime: StatxTimestamp,
        pub mtime: StatxTimestamp,
        pub rdev_major: u32,
        pub rdev_minor: u32,
        pub dev_major: u32,
        pub dev_minor: u32,
        pub mnt_id: u64,
        pub dio_mem_align: u32,
        pub dio_offset_align: u32,
        pub spare3: [u64; 12],
    }

    /// `struct statfs` of x86-64.
    pub struct Statfs {
        pub kind: i64,
        pub bsize: i64,
        pub blocks: u64,
        pub bfree: u64,
        pub bavail: u64,
        pub files: u64,
        pub ffree: u64,
        pub fsid: [i32; 2],
        pub namelen: i64,
        pub frsize: i64,
        pub flags: i64,
        pub spare: [i64; 4],
    }
}

bitflags::bitflags! {
    /// `STATX_*` masks of statx(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct StatxMask: u32 {
        const BASIC_STATS = 0x7ff;
        const BTIME = 0x800;
        const MNT_ID = 0x1000;
        const DIOALIGN = 0x2000;
        const MNT_ID_UNIQUE = 0x4000;
        // Later bits travel: the kernel answers what it knows. The top one is reserved.
        const _ = !0;
    }
}

impl StatxMask {
    /// `STATX__RESERVED`: asking for it is `EINVAL`.
    pub const RESERVED: u32 = 0x8000_0000;
}

/// `STATX_ATTR_MOUNT_ROOT`.
pub const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;
/// Either of `AT_STATX_FORCE_SYNC` and `AT_STATX_DONT_SYNC`; both together are `EINVAL`.
pub const AT_STATX_SYNC_TYPE: u32 = 0x6000;

/// Major number of a device number.
#[must_use]
pub const fn major(dev: u64) -> u32 {
    (((dev >> 32) & 0xffff_f000) | ((dev >> 8) & 0xfff)) as u32
}

/// Minor number of a device number.
#[must_use]
pub const fn minor(dev: u64) -> u32 {
    (((dev >> 12) & 0xffff_ff00) | (dev & 0xff)) as u32
}

impl From<&Attr> for Stat {
    fn from(attr: &Attr) -> Self {
        Self {
            dev: attr.dev,
            ino: attr.ino,
            nlink: u64::from(attr.nlink),
            mode: attr.mode,
            uid: attr.uid.0,
            gid: attr.gid.0,
            pad0: 0,
            rdev: attr.rdev,
            size: attr.size.cast_signed(),
            blksize: i64::from(attr.blksize),
            blocks: attr.blocks.cast_signed(),
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            reserved: [0; 3],
        }
    }
}

impl From<Timespec> for StatxTimestamp {
    fn from(time: Timespec) -> Self {
        Self { sec: time.sec, nsec: time.nsec as u32, reserved: 0 }
    }
}

impl From<&Attr> for Statx {
    /// Everything but the mount id. A creation time of zero is unknown and left out of the mask.
    fn from(attr: &Attr) -> Self {
        let mut mask = StatxMask::BASIC_STATS;
        if attr.btime != Timespec::default() {
            mask |= StatxMask::BTIME;
        }
        Self {
            mask: mask.bits(),
            blksize: attr.blksize,
            nlink: attr.nlink,
            uid: attr.uid.0,
            gid: attr.gid.0,
            mode: attr.mode as u16,
            ino: attr.ino,
            size: attr.size,
            blocks: attr.blocks,
            atime: attr.atime.into(),
            btime: attr.btime.into(),
            ctime: attr.ctime.into(),
            mtime: attr.mtime.into(),
            rdev_major: major(attr.rdev),
            rdev_minor: minor(attr.rdev),
            dev_major: major(attr.dev),
            dev_minor: minor(attr.dev),
            ..Self::default()
        }
    }
}
