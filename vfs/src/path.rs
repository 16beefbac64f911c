//! The path walk. See path_resolution(7) and openat2(2).
//!
//! A [`Walk`] goes through a text component by component; symbolic links push their text on a stack. The walk can stop
//! before the last component (for operations that create, remove or rename) and can go on from there, so that
//! open(2) with `O_CREAT` follows a dangling link to where the file is to be made.

mod walk;

use std::sync::Arc;

use abi::stat::FileType;
use abi::{Errno, Result};
use smallvec::SmallVec;

use crate::context::VfsCx;
use crate::dentry::{Child, Dentry, Path};
use crate::inode::CachePolicy;
use crate::mount::MountFlags;

use walk::Ahead;
pub(crate) use walk::Walk;

/// Longest path text, with its NUL; see limits.h.
pub const PATH_MAX: usize = 4096;
/// Longest component.
pub const NAME_MAX: usize = 255;

bitflags::bitflags! {
    /// How to walk.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct LookupFlags: u32 {
        // The low bits are openat2(2)'s RESOLVE_*.
        const NO_XDEV = 0x01;
        const NO_MAGICLINKS = 0x02;
        const NO_SYMLINKS = 0x04;
        const BENEATH = 0x08;
        const IN_ROOT = 0x10;
        const CACHED = 0x20;
        /// Follow a symbolic link in the last component.
        const FOLLOW = 0x1_0000;
        /// The result must be a directory (`ENOTDIR`).
        const DIRECTORY = 0x2_0000;
        /// An empty text means the start itself (`AT_EMPTY_PATH`).
        const EMPTY_PATH = 0x4_0000;
    }
}

impl LookupFlags {
    /// The bits that openat2(2) knows.
    pub const RESOLVE: Self = Self::from_bits_retain(0x3f);
}

/// What the last component of a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastKind {
    Normal,
    /// "."
    Dot,
    /// ".."
    DotDot,
    /// There is none: the text is "/" or only slashes.
    Root,
}

/// A component of a path; short ones live in place.
pub type NameBuf = SmallVec<[u8; 32]>;

/// The directory of a text's last component.
#[derive(Debug, Clone)]
pub struct Parent {
    pub dir: Path,
    /// Empty when `kind` is `Root`.
    pub name: NameBuf,
    pub kind: LastKind,
    /// The text goes on with slashes: only a directory may be meant.
    pub trailing_slash: bool,
}

/// Walks the whole text. `start` is the directory of a relative text; `None` is the current directory.
///
/// # Errors
/// Those of path_resolution(7).
pub fn resolve(
    cx: &VfsCx<'_>,
    start: Option<&Path>,
    path: &[u8],
    flags: LookupFlags,
) -> Result<Path> {
    if path.is_empty() {
        if !flags.contains(LookupFlags::EMPTY_PATH) {
            return Err(Errno::ENOENT);
        }
        let at = start.cloned().unwrap_or_else(|| cx.fs.state.lock().cwd.clone());
        return if flags.contains(LookupFlags::DIRECTORY) { expect_dir(at) } else { Ok(at) };
    }
    let mut walk = Walk::new(cx, start, path, flags)?;
    walk.finish()
}

/// Walks to the directory of the last component.
///
/// # Errors
/// Those of path_resolution(7).
pub fn resolve_parent(
    cx: &VfsCx<'_>,
    start: Option<&Path>,
    path: &[u8],
    flags: LookupFlags,
) -> Result<Parent> {
    Walk::new(cx, start, path, flags)?.parent()
}

fn expect_dir(path: Path) -> Result<Path> {
    if path.inode().file_type() == FileType::Directory { Ok(path) } else { Err(Errno::ENOTDIR) }
}

/// From a dentry to the top of whatever is mounted on it.
pub(crate) fn follow_mounts(mut path: Path) -> Path {
    while path.dentry.mounted.load(std::sync::atomic::Ordering::Relaxed) > 0 {
        let Some(mount) = path.mount.child_at(&path.dentry) else { break };
        let root = Arc::clone(mount.root_dentry());
        path = Path::new(mount, root);
    }
    path
}

/// Looks `names[0]` up in `dir`; what the filesystem says about the rest is handed back for the next steps.
fn look_up(cx: &VfsCx<'_>, dir: &Path, names: &[&[u8]]) -> Result<(Arc<Dentry>, Ahead)> {
    let cache = &dir.mount.sb.cache;
    let parent = &dir.dentry;
    let name = names.first().copied().ok_or(Errno::ENOENT)?;
    let policy = parent.inode.cache_policy();
    loop {
        let changes = cache.changes();
        if policy == CachePolicy::Never {
            let child = Dentry::unlisted(parent, name, parent.inode.lookup(cx, name)?);
            let ahead = Ahead { dir: Arc::clone(&child), inodes: Vec::new().into_iter(), changes };
            return Ok((child, ahead));
        }
        let (_, generation) = parent.cached(name);
        let found = match names {
            [_] => parent.inode.lookup(cx, name).map(|inode| vec![inode]),
            _ => parent.inode.lookup_many(cx, names),
        };
        let inodes = match found {
            Ok(inodes) => inodes,
            Err(errno) => {
                if errno == Errno::ENOENT && policy == CachePolicy::Forever {
                    parent.fill_absent(name, generation, cache);
                } else if errno == Errno::ENOENT {
                    parent.forget(name);
                }
                return Err(errno);
            }
        };
        let mut inodes = inodes.into_iter();
        let first = inodes.next().ok_or(Errno::EIO)?;
        let Some(child) = parent.fill(name, first, generation, cache) else { continue };
        let ahead = Ahead { dir: Arc::clone(&child), inodes, changes };
        return Ok((child, ahead));
    }
}

/// The entry `name` of the directory `dir`, mounts not considered.
pub(crate) fn look_up_child(cx: &VfsCx<'_>, dir: &Path, name: &[u8]) -> Result<Arc<Dentry>> {
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if dir.dentry.inode.cache_policy() == CachePolicy::Forever
        && let (Some(known), _) = dir.dentry.cached(name)
    {
        return match known {
            Child::Present(child) => Ok(child),
            Child::Absent(_) => Err(Errno::ENOENT),
        };
    }
    look_up(cx, dir, &[name]).map(|(child, _)| child)
}

/// `EROFS` when nothing at `path` may be changed.
pub(crate) fn want_write(path: &Path) -> Result<()> {
    if path.mount.is_read_only() { Err(Errno::EROFS) } else { Ok(()) }
}

/// True when programs on this mount may not be executed.
#[must_use]
pub fn is_no_exec(path: &Path) -> bool {
    path.mount.flags().contains(MountFlags::NOEXEC)
}

#[cfg(test)]
mod tests;
