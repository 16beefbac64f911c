//! The inode behind a pipe: no path, but /proc/PID/fd/N can open it again.

use std::any::Any;
use std::sync::Arc;

use abi::ids::{Gid, Uid};
use abi::open::OpenFlags;
use abi::stat::{Attr, FileType, S_IFIFO, makedev};
use abi::{Errno, Result};
use base::cred::Credentials;
use base::lock::Mutex;

use super::fifo::{self, FifoOpen};
use super::pipe::Pipe;
use crate::context::VfsCx;
use crate::file::FileOps;
use crate::fs::anonfs::next_ino;
use crate::inode::{Inode, SetAttr};
use crate::lock_order;

const PIPE_DEV: u64 = makedev(0, 14);

/// A pipe as fstat(2) sees it.
#[derive(Debug)]
pub struct PipeInode {
    pipe: Arc<Pipe>,
    ino: u64,
    owner: Mutex<Owner, lock_order::InodeState>,
}

#[derive(Debug, Clone, Copy)]
struct Owner {
    uid: Uid,
    gid: Gid,
    mode: u32,
}

impl PipeInode {
    pub(super) fn new(pipe: Arc<Pipe>, cred: &Credentials) -> Arc<Self> {
        let owner = Owner { uid: cred.fsuid, gid: cred.fsgid, mode: 0o600 };
        Arc::new(Self { pipe, ino: next_ino(), owner: Mutex::new(owner) })
    }

    /// What /proc/PID/fd shows.
    #[must_use]
    pub fn path_text(&self) -> Vec<u8> {
        format!("pipe:[{}]", self.ino).into_bytes()
    }
}

impl Inode for PipeInode {
    fn attr(&self) -> Result<Attr> {
        let owner = *self.owner.lock();
        Ok(Attr {
            dev: PIPE_DEV,
            ino: self.ino,
            mode: S_IFIFO | owner.mode,
            nlink: 1,
            uid: owner.uid,
            gid: owner.gid,
            blksize: 4096,
            ..Attr::default()
        })
    }

    fn file_type(&self) -> FileType {
        FileType::Fifo
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        if change.size.is_some() {
            return Err(Errno::EINVAL);
        }
        let mut owner = self.owner.lock();
        owner.uid = change.uid.unwrap_or(owner.uid);
        owner.gid = change.gid.unwrap_or(owner.gid);
        owner.mode = change.mode.map_or(owner.mode, |mode| mode & 0o7777);
        Ok(())
    }

    fn opens_itself(&self) -> bool {
        true
    }

    fn open(self: Arc<Self>, _: &VfsCx<'_>, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        // Whoever opens it anew does not wait: the other end is, or was, open.
        match fifo::open_pipe(&self.pipe, flags | OpenFlags::NONBLOCK)? {
            FifoOpen::Done(ops) => Ok(ops),
            FifoOpen::Wait(_) => Err(Errno::ENXIO),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
