//! Attributes of a synthetic inode.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::ids::{Gid, Uid};
use abi::stat::{Attr, FileType};
use abi::time::Timespec;
use abi::{Errno, Result};
use base::lock::Mutex;

use crate::inode::SetAttr;
use crate::lock_order;

/// Who owns an inode that follows something else, such as a task's credentials.
pub trait OwnerSource: Send + Sync {
    fn owner(&self) -> (Uid, Gid);
}

/// Who owns an inode.
#[derive(Clone)]
pub enum Owner {
    Is(Uid, Gid),
    By(Arc<dyn OwnerSource>),
}

impl Owner {
    pub const ROOT: Self = Self::Is(Uid::ROOT, Gid::ROOT);
}

/// What stat(2) shows of a synthetic inode.
pub struct Node {
    dev: u64,
    ino: u64,
    kind: FileType,
    rdev: u64,
    size: u64,
    time: Timespec,
    changing: Mutex<Changing, lock_order::InodeState>,
}

#[derive(Clone)]
struct Changing {
    mode: u32,
    owner: Owner,
}

impl Node {
    /// Owned by root, born at the epoch.
    #[must_use]
    pub fn new(dev: u64, ino: u64, kind: FileType, mode: u32) -> Self {
        let changing = Mutex::new(Changing { mode, owner: Owner::ROOT });
        Self { dev, ino, kind, rdev: 0, size: 0, time: Timespec::default(), changing }
    }

    /// With a number of our own choosing: unique among nodes made this way, and above 1000.
    #[must_use]
    pub fn numbered(dev: u64, kind: FileType, mode: u32) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1000);
        // Only uniqueness matters.
        Self::new(dev, NEXT.fetch_add(1, Ordering::Relaxed), kind, mode)
    }

    #[must_use]
    pub fn owned_by(mut self, owner: Owner) -> Self {
        self.changing.get_mut().owner = owner;
        self
    }

    #[must_use]
    pub fn born_at(mut self, time: Timespec) -> Self {
        self.time = time;
        self
    }

    /// The least that stat(2) reports as size.
    #[must_use]
    pub fn sized(mut self, size: u64) -> Self {
        self.size = size;
        self
    }

    /// A device node's number.
    #[must_use]
    pub fn device(mut self, rdev: u64) -> Self {
        self.rdev = rdev;
        self
    }

    #[must_use]
    pub fn kind(&self) -> FileType {
        self.kind
    }

    #[must_use]
    pub fn dev(&self) -> u64 {
        self.dev
    }

    #[must_use]
    pub fn ino(&self) -> u64 {
        self.ino
    }

    #[must_use]
    pub fn attr(&self, nlink: u32, size: u64) -> Attr {
        // The owner may ask the sentry: outside the lock.
        let Changing { mode, owner } = self.changing.lock().clone();
        let (uid, gid) = match owner {
            Owner::Is(uid, gid) => (uid, gid),
            Owner::By(source) => source.owner(),
        };
        Attr {
            dev: self.dev,
            ino: self.ino,
            mode: self.kind as u32 | mode,
            nlink,
            uid,
            gid,
            rdev: self.rdev,
            size: size.max(self.size),
            blksize: 4096,
            blocks: 0,
            atime: self.time,
            mtime: self.time,
            ctime: self.time,
            btime: self.time,
        }
    }

    /// chmod and chown; truncation of a device or pseudo file is accepted and does nothing, times stay.
    pub fn set_attr(&self, change: &SetAttr) -> Result<()> {
        if change.size.is_some() && self.kind == FileType::Directory {
            return Err(Errno::EISDIR);
        }
        let mut changing = self.changing.lock();
        if let Some(mode) = change.mode {
            changing.mode = mode & 0o7777;
        }
        if (change.uid.is_some() || change.gid.is_some())
            && let Owner::Is(uid, gid) = &mut changing.owner
        {
            *uid = change.uid.unwrap_or(*uid);
            *gid = change.gid.unwrap_or(*gid);
        }
        Ok(())
    }
}
