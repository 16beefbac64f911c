//! Inodes of files that have no path: eventfd, epoll, timerfd, inotify, and what the sentry adds.
//!
//! On Linux one inode serves them all; here each has its own, so that `fstat` tells them apart harmlessly.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::open::OpenFlags;
use abi::stat::{Attr, FileType, makedev};
use abi::{Errno, Result};

use crate::context::VfsCx;
use crate::dentry::Path;
use crate::file::{File, FileOps};
use crate::inode::Inode;

/// Device that `stat` reports for anonymous inodes.
const ANON_DEV: u64 = makedev(0, 15);

/// Inode numbers of everything without a path (pipes too): unique, never 0.
pub fn next_ino() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1000);
    // Only uniqueness matters.
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// An inode known only by its kind.
#[derive(Debug)]
pub struct AnonInode {
    ino: u64,
    kind: &'static str,
}

impl AnonInode {
    /// `kind` as /proc/PID/fd shows it, such as `[eventfd]`.
    #[must_use]
    pub fn new(kind: &'static str) -> Arc<Self> {
        Arc::new(Self { ino: next_ino(), kind })
    }

    /// What /proc/PID/fd shows.
    #[must_use]
    pub fn path_text(&self) -> Vec<u8> {
        format!("anon_inode:{}", self.kind).into_bytes()
    }
}

/// A file description around `ops`, as /proc/PID/fd shows an anonymous inode of this kind.
#[must_use]
pub fn new_file(ops: Arc<dyn FileOps>, kind: &'static str, flags: OpenFlags) -> Arc<File> {
    let inode = AnonInode::new(kind);
    let path = Path::anonymous(&inode.path_text(), inode.clone());
    File::new(ops, inode, path, flags)
}

impl Inode for AnonInode {
    fn attr(&self) -> Result<Attr> {
        // No type bits: that is how Linux shows them.
        let mode = 0o600;
        Ok(Attr { dev: ANON_DEV, ino: self.ino, mode, nlink: 1, blksize: 4096, ..Attr::default() })
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn open(self: Arc<Self>, _: &VfsCx<'_>, _: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Err(Errno::ENXIO)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
