//! Inodes behind sockets. The sockets themselves live elsewhere; here is only what fstat(2) and /proc show.

use std::any::Any;
use std::sync::Arc;

use abi::ids::{Gid, Uid};
use abi::open::OpenFlags;
use abi::stat::{Attr, FileType, S_IFSOCK, makedev};
use abi::{Errno, Result};

use super::anonfs::next_ino;
use crate::context::VfsCx;
use crate::dentry::Path;
use crate::file::{File, FileOps};
use crate::inode::Inode;

/// Device that `stat` reports for sockets.
const SOCK_DEV: u64 = makedev(0, 8);

/// The inode of one socket.
#[derive(Debug)]
pub struct SockInode {
    ino: u64,
    uid: Uid,
    gid: Gid,
}

/// An open file for the socket `ops`, owned by its creator.
#[must_use]
pub fn open_socket(ops: Arc<dyn FileOps>, cx: &VfsCx<'_>, flags: OpenFlags) -> Arc<File> {
    let inode = Arc::new(SockInode { ino: next_ino(), uid: cx.cred.fsuid, gid: cx.cred.fsgid });
    let text = format!("socket:[{}]", inode.ino);
    let path = Path::anonymous(text.as_bytes(), Arc::clone(&inode) as Arc<dyn Inode>);
    File::new(ops, inode, path, flags | OpenFlags::RDWR)
}

impl Inode for SockInode {
    fn attr(&self) -> Result<Attr> {
        Ok(Attr {
            dev: SOCK_DEV,
            ino: self.ino,
            mode: S_IFSOCK | 0o777,
            nlink: 1,
            uid: self.uid,
            gid: self.gid,
            blksize: 4096,
            ..Attr::default()
        })
    }

    fn file_type(&self) -> FileType {
        FileType::Socket
    }

    fn open(self: Arc<Self>, _: &VfsCx<'_>, _: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Err(Errno::ENXIO)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
