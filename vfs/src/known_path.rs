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
}

/// `r-xr-xr-x`. Who may list a directory learns nothing when others tell what is in it.
const OPEN_TO_ALL: u32 = 0o555;
/// Where links are not followed by everybody (`protected_symlinks`, proc(5)).
const STICKY: u32 = 0o1000;
const MOST_LINKS: u32 = 8;

/// What `text` is, seen from `root`, as long as `generation` is that of the names; `None`: not known, or not for everybody.
#[must_use]
pub fn look(cx: &VfsCx<'_>, root: &Path, text: &[u8], generation: u64) -> Option<KnownPath> {
    let mut at = root.clone();
    let mut rest = text.strip_prefix(b"/")?.to_vec();
    let mut links = 0;
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
                Child::Absent(_) if !at.inode().is_settled() => return None,
                Child::Absent(_) => return Some(KnownPath::Absent),
                Child::Present(child) if child.inode().file_type() == FileType::Symlink => {
                    links += 1;
                    if is_last || mode & STICKY != 0 || links > MOST_LINKS {
                        return None;
                    }
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
            return Some(KnownPath::Plain(at));
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
