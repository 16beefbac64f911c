//! File types, modes and the attributes of an inode.

use crate::ids::{Gid, Uid};
use crate::time::Timespec;

pub const S_IFMT: u32 = 0o170_000;
pub const S_IFSOCK: u32 = 0o140_000;
pub const S_IFLNK: u32 = 0o120_000;
pub const S_IFREG: u32 = 0o100_000;
pub const S_IFBLK: u32 = 0o060_000;
pub const S_IFDIR: u32 = 0o040_000;
pub const S_IFCHR: u32 = 0o020_000;
pub const S_IFIFO: u32 = 0o010_000;
pub const S_ISUID: u32 = 0o4000;
pub const S_ISGID: u32 = 0o2000;
pub const S_ISVTX: u32 = 0o1000;

/// The type bits of a mode.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
pub enum FileType {
    Socket = S_IFSOCK,
    Symlink = S_IFLNK,
    Regular = S_IFREG,
    Block = S_IFBLK,
    Directory = S_IFDIR,
    Character = S_IFCHR,
    Fifo = S_IFIFO,
}

impl FileType {
    /// `None` when the type bits are no type Linux knows.
    #[must_use]
    pub const fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & S_IFMT {
            S_IFSOCK => Self::Socket,
            S_IFLNK => Self::Symlink,
            S_IFREG => Self::Regular,
            S_IFBLK => Self::Block,
            S_IFDIR => Self::Directory,
            S_IFCHR => Self::Character,
            S_IFIFO => Self::Fifo,
            _ => return None,
        })
    }

    /// `d_type` of getdents64(2).
    #[must_use]
    pub const fn dirent_type(self) -> u8 {
        (self as u32 >> 12) as u8
    }
}

/// Attributes of an inode, in kernel form; stat(2) and statx(2) are renderings of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attr {
    /// Device that holds the inode, as `makedev` encodes it.
    pub dev: u64,
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    pub nlink: u32,
    pub uid: Uid,
    pub gid: Gid,
    /// Device number of a device node.
    pub rdev: u64,
    /// Bytes.
    pub size: u64,
    /// Preferred I/O size in bytes.
    pub blksize: u32,
    /// Units of 512 bytes.
    pub blocks: u64,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    /// Creation; zero when unknown.
    pub btime: Timespec,
}

impl Attr {
    #[must_use]
    pub const fn file_type(&self) -> FileType {
        match FileType::from_mode(self.mode) {
            Some(kind) => kind,
            None => FileType::Regular,
        }
    }

    #[must_use]
    pub const fn is_dir(&self) -> bool {
        self.mode & S_IFMT == S_IFDIR
    }
}

/// Encodes a device number as glibc's `makedev` does.
#[must_use]
pub const fn makedev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    ((major & 0xffff_f000) << 32)
        | ((major & 0xfff) << 8)
        | ((minor & 0xffff_ff00) << 12)
        | (minor & 0xff)
}
