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
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::open::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};
use rustix::fs::OFlags;

pub use file::HostFile;
pub use inode::HostInode;
pub use reactor::{Reactor, ReactorRegistration};

use crate::dentry::Path;
use crate::file::{File, FileOps};
use crate::fs::devfs::MemDevice;
use crate::inode::Inode;

/// Wraps a donated descriptor as a file description of the guest's, with the access mode and `O_APPEND` of the host's.
///
/// # Errors
/// What the host says of it, such as `EBADF`.
pub fn adopt(fd: OwnedFd, reactor: Arc<dyn Reactor>) -> Result<Arc<File>> {
    let host = rustix::fs::fcntl_getfl(&fd).map_err(to_errno)?;
    let mut flags = OpenFlags::from_bits_retain(host.bits() & OpenFlags::ACCMODE);
    if host.contains(OFlags::APPEND) {
        flags |= OpenFlags::APPEND;
    }
    let inode = Arc::new(HostInode::new(Arc::new(fd), reactor)?);
    let ops: Arc<dyn FileOps> = match MemDevice::from_rdev(inode.attr()?.rdev) {
        // The host's /dev/null and its like behave as ours do, and ours cost no host call.
        Some(device) if inode.file_type() == FileType::Character => device.open(),
        _ => inode.new_file(),
    };
    let path = Path::anonymous(&inode.path_text(), inode.clone());
    Ok(File::new(ops, inode, path, flags))
}

fn to_errno(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}
