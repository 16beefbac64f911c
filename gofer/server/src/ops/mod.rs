//! The operations.
//!
//! | module | what |
//! | --- | --- |
//! | `read` | walking, attributes, links, listings, opening |
//! | `write` | creating, removing, renaming, changing |
//! | `xattr` | extended attributes |

mod read;
mod write;
mod xattr;

use std::os::fd::OwnedFd;

use abi::{Errno, Result};
use gofer_protocol::{Op, TreePath};

use crate::tree::ServedTree;

/// Appends the answer's fields to `out`; returns the descriptor to donate. The caller refused what may write to a
/// read-only tree.
pub fn perform(
    tree: &ServedTree,
    path: TreePath<'_>,
    op: Op<'_>,
    out: &mut Vec<u8>,
) -> Result<Option<OwnedFd>> {
    match op {
        Op::Walk { names } => read::walk(tree, path, names, out)?,
        Op::Attr => read::attr(tree, path, out)?,
        Op::Open { flags } => return read::open(tree, path, flags, out).map(Some),
        Op::ReadLink => read::read_link(tree, path, out)?,
        Op::ReadDir { cursor, plus } => read::read_dir(tree, path, cursor, plus, out)?,
        Op::StatFs => read::stat_fs(tree, path, out)?,
        Op::Access { mode } => read::access(tree, path, mode)?,
        Op::Create { owner } => return write::create(tree, path, owner, out).map(Some),
        Op::Mkdir { owner } => write::mkdir(tree, path, owner, out)?,
        Op::Symlink { target, owner } => write::symlink(tree, path, target, owner, out)?,
        Op::Link { existing } => write::link(tree, existing, path, out)?,
        Op::Unlink => write::unlink(tree, path)?,
        Op::Rmdir => write::rmdir(tree, path)?,
        Op::Rename { to, flags } => write::rename(tree, path, to, flags)?,
        Op::Mknod { kind, owner } => write::mknod(tree, path, kind, owner, out)?,
        Op::SetAttr { change } => write::set_attr(tree, path, &change, out)?,
        Op::Sync { scope } => write::sync(tree, path, scope)?,
        Op::GetXattr { name } => xattr::get(tree, path, name, out)?,
        Op::SetXattr { name, value, flags } => xattr::set(tree, path, name, value, flags)?,
        Op::ListXattr => xattr::list(tree, path, out)?,
        Op::RemoveXattr { name } => xattr::remove(tree, path, name)?,
        // Sockets of the host belong to host services; whoever gives a sandbox one will say so by policy.
        Op::Connect | Op::Hello { .. } => return Err(Errno::EPERM),
    }
    Ok(None)
}
