//! What an absolute path is to everybody: for who remembers it for all.
//!
//! A walk of its own, through what is cached: it goes only where names change by us alone and everybody may search and list, and marks
//! what it finds on its way (see [`crate::names`]). Whatever is not plain it leaves to the walk that knows who asks.

use std::sync::Arc;

use crate::context::VfsCx;
use crate::dentry::{Child, Path};
use crate::inode::LinkTarget;
use crate::path::follow_mounts;
use abi::stat::FileType;

/// See [`look`].
#[derive(Debug)]
pub enum KnownPath {
    /// Every walk says `ENOENT`.
    Absent,
    /// It is there, and no symbolic link.
    Plain(Path),
    /// It is a symbolic link, which leads there.
    Linked(Path),
}

/// `r-xr-xr-x`. Who may list a directory learns nothing when others tell what is in it.
const OPEN_TO_ALL: u32 = 0o555;
/// Where links are not followed by everybody (`protected_symlinks`, proc(5)).
const STICKY: u32 = 0o1000;
const MOST_LINKS: u32 = 8;

/// What `text` is, seen from `root`, as long as `generation` is that of the names; `None`: not known, or not for everybody, or a link
/// that is not to be followed.
#[must_use]
pub fn look(
    cx: &VfsCx<'_>,
    root: &Path,
    (text, follows): (&[u8], bool),
    generation: u64,
) -> Option<KnownPath> {
    let mut at = root.clone();
    let mut rest = text.strip_prefix(b"/")?.to_vec();
    let (mut links, mut is_linked) = (0, false);
    loop {
        if at.inode().file_type() != FileType::Directory {
            return None;
        }
        let mode = at.inode().attr().ok()?.mode;
        if mode & OPEN_TO_ALL != OPEN_TO_ALL {
            return None;
        }
        let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let is_last = after.is_empty();
        match name {
            b"" | b"." => {}
            b".." => at = above(root, at),
            _ => match at.dentry.remember(name, generation)? {
                // Where guests make names, this one may be next.
                Child::Absent(_) if is_linked || !at.inode().is_settled() => return None,
                Child::Absent(_) => return Some(KnownPath::Absent),
                Child::Present(child) if child.inode().file_type() == FileType::Symlink => {
                    links += 1;
                    let is_ours = follows || !is_last;
                    if !is_ours || mode & STICKY != 0 || links > MOST_LINKS {
                        return None;
                    }
                    is_linked |= is_last;
                    let LinkTarget::Text(mut target) = child.inode().follow(cx).ok()? else {
                        return None;
                    };
                    if target.first()? == &b'/' {
                        at = root.clone();
                    }
                    target.extend_from_slice(after);
                    rest = target;
                    continue;
                }
                Child::Present(child) => {
                    at = follow_mounts(Path::new(Arc::clone(&at.mount), child));
                }
            },
        }
        if is_last {
            return Some(if is_linked { KnownPath::Linked(at) } else { KnownPath::Plain(at) });
        }
        rest.drain(..=end);
    }
}

/// `..`
fn above(root: &Path, mut at: Path) -> Path {
    while !at.is_same(root) {
        if !Arc::ptr_eq(&at.dentry, at.mount.root_dentry()) {
            if let Some(parent) = at.dentry.parent() {
                at.dentry = parent;
            }
            return follow_mounts(at);
        }
        match at.mount.mount_point() {
            Some(point) => at = point,
            None => break,
        }
    }
    at
}
