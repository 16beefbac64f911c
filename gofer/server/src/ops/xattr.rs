//! Extended attributes of regular files and directories; other objects have none that a sandbox could want.

use std::os::fd::OwnedFd;

use abi::{Errno, Result};
use gofer_protocol::wire::Put;
use gofer_protocol::{MAX_VALUE, TreePath};
use rustix::fs::{OFlags, XattrFlags};

use crate::session::Session;
use crate::tree::{ServedTree, errno};

/// What cannot be opened has no attributes as far as a sandbox is concerned. The host would tell them without the
/// right to read the file, but only by path.
fn open(session: &mut Session, tree: &ServedTree, path: TreePath<'_>) -> Result<OwnedFd> {
    match session.open_object(tree, path, OFlags::RDONLY) {
        Ok((fd, _)) => Ok(fd),
        Err(Errno::ELOOP | Errno::ENXIO | Errno::EACCES) => Err(Errno::EOPNOTSUPP),
        Err(reason) => Err(reason),
    }
}

/// Does not fit the message; getxattr(2) names `E2BIG` for this.
fn fitting(
    ask: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let mut value = vec![0; MAX_VALUE];
    let length = ask(&mut value).map_err(|reason| match reason {
        rustix::io::Errno::RANGE => Errno::E2BIG,
        other => errno(other),
    })?;
    out.put_blob(value.get(..length).ok_or(Errno::EIO)?);
    Ok(())
}

pub fn get(
    session: &mut Session,
    tree: &ServedTree,
    path: TreePath<'_>,
    name: &[u8],
    out: &mut Vec<u8>,
) -> Result<()> {
    let file = open(session, tree, path)?;
    fitting(|value| rustix::fs::fgetxattr(&file, name, value), out)
}

pub fn list(
    session: &mut Session,
    tree: &ServedTree,
    path: TreePath<'_>,
    out: &mut Vec<u8>,
) -> Result<()> {
    match open(session, tree, path) {
        Ok(file) => fitting(|names| rustix::fs::flistxattr(&file, names), out),
        Err(Errno::EOPNOTSUPP) => {
            out.put_blob(b"");
            Ok(())
        }
        Err(reason) => Err(reason),
    }
}

pub fn set(
    session: &mut Session,
    tree: &ServedTree,
    path: TreePath<'_>,
    (name, value, flags): (&[u8], &[u8], u32),
) -> Result<()> {
    let flags = XattrFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    rustix::fs::fsetxattr(open(session, tree, path)?, name, value, flags).map_err(errno)
}

pub fn remove(
    session: &mut Session,
    tree: &ServedTree,
    path: TreePath<'_>,
    name: &[u8],
) -> Result<()> {
    rustix::fs::fremovexattr(open(session, tree, path)?, name).map_err(errno)
}
