//! The inode behind a donated descriptor: whatever the host's fstat(2) says.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::ids::{Gid, Uid};
use abi::open::OpenFlags;
use abi::stat::{Attr, FileType};
use abi::time::Timespec;
use abi::{Errno, Result};
use rustix::fs::OFlags;

use super::file::HostFile;
use super::reactor::Reactor;
use super::to_errno;
use crate::context::VfsCx;
use crate::file::FileOps;
use crate::fs::devfs::MemDevice;
use crate::inode::{Inode, SetAttr};

/// See the module.
pub struct HostInode {
    fd: Arc<OwnedFd>,
    kind: FileType,
    reactor: Arc<dyn Reactor>,
}

impl HostInode {
    pub(super) fn new(fd: Arc<OwnedFd>, reactor: Arc<dyn Reactor>) -> Result<Self> {
        let stat = rustix::fs::fstat(&*fd).map_err(to_errno)?;
        // anon_inode descriptors have no type bits at all; they are streams as far as we care.
        let kind = FileType::from_mode(stat.st_mode).unwrap_or(FileType::Character);
        Ok(Self { fd, kind, reactor })
    }

    pub(super) fn new_file(&self) -> Arc<dyn FileOps> {
        Arc::new(HostFile::new(Arc::clone(&self.fd), self.kind, &*self.reactor))
    }

    /// What /proc/PID/fd shows.
    #[must_use]
    pub fn path_text(&self) -> Vec<u8> {
        let ino = self.attr().map_or(0, |attr| attr.ino);
        match self.attr().ok().filter(|_| self.kind == FileType::Character) {
            Some(attr) if attr.rdev == MemDevice::Null.rdev() => return b"/dev/null".to_vec(),
            _ => {}
        }
        let kind = match self.kind {
            FileType::Fifo => "pipe",
            FileType::Socket => "socket",
            _ => "host",
        };
        format!("{kind}:[{ino}]").into_bytes()
    }
}

impl Inode for HostInode {
    fn attr(&self) -> Result<Attr> {
        let stat = rustix::fs::fstat(&*self.fd).map_err(to_errno)?;
        let time = |sec: i64, nsec: i64| Timespec { sec, nsec };
        Ok(Attr {
            dev: stat.st_dev,
            ino: stat.st_ino,
            mode: stat.st_mode,
            nlink: stat.st_nlink as u32,
            uid: Uid(stat.st_uid),
            gid: Gid(stat.st_gid),
            rdev: stat.st_rdev,
            size: stat.st_size as u64,
            blksize: stat.st_blksize as u32,
            blocks: stat.st_blocks as u64,
            atime: time(stat.st_atime, stat.st_atime_nsec as i64),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec as i64),
            btime: Timespec::default(),
        })
    }

    fn file_type(&self) -> FileType {
        self.kind
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        match (self.kind, change.size) {
            (FileType::Regular, Some(size)) => {
                rustix::fs::ftruncate(&*self.fd, size).map_err(to_errno)
            }
            (_, Some(_)) => Err(Errno::EINVAL),
            // Owner, mode and times of the host's file are not the guest's to change.
            (_, None) => Err(Errno::EPERM),
        }
    }

    fn opens_itself(&self) -> bool {
        true
    }

    /// Opening /dev/stdin and the like: another view of the same host description.
    fn open(self: Arc<Self>, _: &VfsCx<'_>, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        let host = rustix::fs::fcntl_getfl(&*self.fd).map_err(to_errno)?;
        let mode = host & OFlags::ACCMODE;
        let allowed = match mode {
            OFlags::RDWR => true,
            OFlags::WRONLY => !flags.reads(),
            _ => !flags.writes(),
        };
        if allowed { Ok(self.new_file()) } else { Err(Errno::EACCES) }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
