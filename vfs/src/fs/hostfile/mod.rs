//! Host descriptors that were donated at launch: the guest's stdin, stdout and stderr when they are pipes,
//! sockets, files or devices of the host.
//!
//! | module | what |
//! | --- | --- |
//! | `reactor` | how the host's readiness reaches us: a trait of the sentry's |
//! | `inode` | attributes, and opening again by /proc/self/fd |
//! | `file` | reading and writing without ever blocking the sentry |

mod file;
mod inode;
mod reactor;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::open::OpenFlags;
use abi::{Errno, Result};
use rustix::fs::OFlags;

pub use file::HostFile;
pub use inode::HostInode;
pub use reactor::{Reactor, ReactorRegistration};

use crate::file::FileOps;
use crate::inode::Inode;

/// What a donated descriptor becomes.
pub struct Donated {
    pub inode: Arc<dyn Inode>,
    pub ops: Arc<dyn FileOps>,
    /// Access mode and `O_APPEND` of the host's description.
    pub flags: OpenFlags,
}

/// Wraps a donated descriptor.
///
/// # Errors
/// What the host says of it, such as `EBADF`.
pub fn adopt(fd: OwnedFd, reactor: Arc<dyn Reactor>) -> Result<Donated> {
    let host = rustix::fs::fcntl_getfl(&fd).map_err(to_errno)?;
    let mut flags = OpenFlags::from_bits_retain(host.bits() & OpenFlags::ACCMODE);
    if host.contains(OFlags::APPEND) {
        flags |= OpenFlags::APPEND;
    }
    let inode = Arc::new(HostInode::new(Arc::new(fd), reactor)?);
    let ops = inode.new_file();
    Ok(Donated { inode, ops, flags })
}

fn to_errno(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}
