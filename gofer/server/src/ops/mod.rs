//! The operations.
//!
//! | module | what |
//! | --- | --- |
//! | `explore` | the ways to several places at once |
//! | `read` | walking, attributes, links, listings, opening |
//! | `read_tree` | listings of several directories at once |
//! | `write` | creating, removing, renaming, changing |
//! | `xattr` | extended attributes |

mod explore;
mod read;
pub mod read_tree;
mod write;
mod xattr;

use std::os::fd::OwnedFd;

use abi::{Errno, Result};
use gofer_protocol::{Op, Request};

use crate::session::Session;
use crate::tree::ServedTree;

/// Appends the answer's fields to `out`, and the descriptors to donate to `fds`. The caller refused what may write to
/// a read-only tree.
pub fn perform(
    session: &mut Session,
    tree: &ServedTree,
    request: &Request<'_>,
    out: &mut Vec<u8>,
    fds: &mut Vec<OwnedFd>,
) -> Result<()> {
    let Request { seq, path, op, .. } = *request;
    match op {
        Op::Walk { names, open } => read::walk(session, tree, path, (names, open), out, fds),
        Op::Attr => read::attr(session, tree, path, out),
        Op::Open { flags } => {
            fds.push(read::open(session, tree, path, flags, out)?);
            Ok(())
        }
        Op::OpenFiles { names } => read::open_files(session, tree, path, names, out, fds),
        Op::Explore { paths } => {
            explore::explore(session, tree, paths, out, fds);
            Ok(())
        }
        Op::ReadLink => read::read_link(session, tree, path, out),
        Op::ReadDir { cursor, plus } => read::read_dir(session, tree, path, (cursor, plus), out),
        Op::ReadTree { names, above, plus, dirs, open } => {
            let wanted = (seq, read_tree::Wanted::new(plus, dirs, open));
            read_tree::read_tree(session, tree, (path, names, above), wanted, out, fds)
        }
        Op::ReadOn { walk, plus, dirs, open } => {
            let wanted = (walk, read_tree::Wanted::new(plus, dirs, open));
            read_tree::read_on(session, tree, wanted, out, fds)
        }
        Op::StatFs => read::stat_fs(tree, path, out),
        Op::Access { mode } => read::access(tree, path, mode),
        Op::Create { owner } => {
            fds.push(write::create(tree, path, owner, out)?);
            Ok(())
        }
        Op::Mkdir { owner } => write::mkdir(tree, path, owner, out),
        Op::Symlink { target, owner } => write::symlink(tree, path, target, owner, out),
        Op::Link { existing } => write::link(tree, existing, path, out),
        Op::Unlink => write::unlink(tree, path),
        Op::Rmdir => write::rmdir(tree, path),
        Op::Rename { to, flags } => write::rename(tree, path, to, flags),
        Op::Mknod { kind, owner } => write::mknod(tree, path, kind, owner, out),
        Op::SetAttr { change } => write::set_attr(session, tree, path, &change, out),
        Op::Sync { scope } => write::sync(session, tree, path, scope),
        Op::GetXattr { name } => xattr::get(session, tree, path, name, out),
        Op::SetXattr { name, value, flags } => {
            xattr::set(session, tree, path, (name, value, flags))
        }
        Op::ListXattr => xattr::list(session, tree, path, out),
        Op::RemoveXattr { name } => xattr::remove(session, tree, path, name),
        // Sockets of the host belong to host services; whoever gives a sandbox one will say so by policy.
        Op::Connect | Op::Hello { .. } => Err(Errno::EPERM),
    }
}
