//! mkdir(2), mknod(2), symlink(2), link(2).

use std::sync::Arc;

use abi::stat::{FileType, S_IFDIR, S_IFMT, S_ISGID, S_ISUID};
use abi::{Errno, Result};
use base::cred::{Access, Caps};

use crate::context::VfsCx;
use crate::dentry::{Kind, Path};
use crate::inode::{NewNode, Ownership};
use crate::notify::{self, Events};
use crate::path::{
    LastKind, LookupFlags, PATH_MAX, Parent, Walk, look_up_child, resolve, want_write,
};

/// Outcome of an attempt to create.
pub(super) enum Creation {
    New(Path),
    Exists(Path),
}

/// Permission to add an entry to `dir`, which the caller has locked.
pub(super) fn may_create(cx: &VfsCx<'_>, dir: &Path) -> Result<()> {
    if dir.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    dir.inode().permission(cx.cred, Access::WRITE | Access::EXEC)
}

/// Owner and mode of something new in `dir`: umask, set-group-id directories; see inode(7).
pub(super) fn new_ownership(
    cx: &VfsCx<'_>,
    dir: &Path,
    mode: u32,
    is_dir: bool,
) -> Result<Ownership> {
    let umask = cx.fs.state.lock().umask;
    let mut own =
        Ownership { uid: cx.cred.fsuid, gid: cx.cred.fsgid, mode: mode & !umask & 0o7777 };
    let parent = dir.inode().attr()?;
    if parent.mode & S_ISGID != 0 {
        own.gid = parent.gid;
        if is_dir {
            own.mode |= S_ISGID;
        } else if own.mode & (S_ISGID | 0o010) == S_ISGID | 0o010
            && !cx.cred.in_group(parent.gid)
            && !cx.cred.has(Caps::FSETID)
        {
            own.mode &= !S_ISGID;
        }
    }
    Ok(own)
}

/// Walks to where something new is to be; `EEXIST` when it is there already.
fn parent_of_new(
    cx: &VfsCx<'_>,
    start: Option<&Path>,
    path: &[u8],
    is_dir: bool,
) -> Result<Parent> {
    let mut walk = Walk::new(cx, start, path, LookupFlags::empty())?;
    let parent = walk.parent()?;
    if parent.kind != LastKind::Normal {
        return Err(Errno::EEXIST);
    }
    match walk.lookup_last(&parent) {
        Ok(_) => Err(Errno::EEXIST),
        // "new/" names a directory that is not there.
        Err(Errno::ENOENT) if parent.trailing_slash && !is_dir => Err(Errno::ENOENT),
        Err(Errno::ENOENT) => Ok(parent),
        Err(errno) => Err(errno),
    }
}

fn make(cx: &VfsCx<'_>, parent: &Parent, node: NewNode<'_>, own: Ownership) -> Result<Path> {
    let dir = &parent.dir;
    let child = {
        let _ops = dir.dentry.lock_ops();
        match look_up_child(cx, dir, &parent.name) {
            Ok(_) => return Err(Errno::EEXIST),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        may_create(cx, dir)?;
        let inode = dir.inode().create(&parent.name, node, own)?;
        dir.dentry.created(&parent.name, inode, &dir.mount.sb.cache)
    };
    notify::entry(&dir.dentry, &parent.name, child.inode(), Events::CREATE, 0);
    Ok(Path::new(Arc::clone(&dir.mount), child))
}

/// mkdir(2).
///
/// # Errors
/// Those of mkdir(2).
pub fn mkdir(cx: &VfsCx<'_>, start: Option<&Path>, path: &[u8], mode: u32) -> Result<Path> {
    let parent = parent_of_new(cx, start, path, true)?;
    want_write(&parent.dir)?;
    // Linux keeps the sticky bit and drops the set-id bits of the argument.
    let own = new_ownership(cx, &parent.dir, mode & 0o1777, true)?;
    make(cx, &parent, NewNode::Directory, own)
}

/// mknod(2); also bind(2) of a unix socket. `mode` has type and permission bits (type 0 is a regular file).
///
/// # Errors
/// Those of mknod(2).
pub fn mknod(
    cx: &VfsCx<'_>,
    start: Option<&Path>,
    path: &[u8],
    mode: u32,
    rdev: u64,
) -> Result<Path> {
    let node = match mode & S_IFMT {
        0 => NewNode::Regular,
        S_IFDIR => return Err(Errno::EPERM),
        _ => match FileType::from_mode(mode).ok_or(Errno::EINVAL)? {
            FileType::Regular => NewNode::Regular,
            FileType::Fifo => NewNode::Fifo,
            FileType::Socket => NewNode::Socket,
            kind @ (FileType::Character | FileType::Block) => NewNode::Device { kind, rdev },
            FileType::Directory | FileType::Symlink => return Err(Errno::EINVAL),
        },
    };
    let parent = parent_of_new(cx, start, path, false)?;
    want_write(&parent.dir)?;
    // A character device 0/0 is a whiteout, which anybody may make; see overlayfs.
    let is_device = matches!(node, NewNode::Device { .. });
    if is_device && !(rdev == 0 && mode & S_IFMT == abi::stat::S_IFCHR) {
        parent.dir.inode().permission(cx.cred, Access::WRITE | Access::EXEC)?;
        if !cx.cred.has(Caps::MKNOD) {
            return Err(Errno::EPERM);
        }
    }
    let own = new_ownership(cx, &parent.dir, mode & 0o7777, false)?;
    make(cx, &parent, node, own)
}

/// symlink(2): `path` becomes a link with the text `target`.
///
/// # Errors
/// Those of symlink(2).
pub fn symlink(cx: &VfsCx<'_>, target: &[u8], start: Option<&Path>, path: &[u8]) -> Result<()> {
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    if target.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let parent = parent_of_new(cx, start, path, false)?;
    want_write(&parent.dir)?;
    let mut own = new_ownership(cx, &parent.dir, 0o777, false)?;
    own.mode = 0o777;
    make(cx, &parent, NewNode::Symlink(target), own).map(drop)
}

/// linkat(2). `flags`: `FOLLOW` is `AT_SYMLINK_FOLLOW`, `EMPTY_PATH` is `AT_EMPTY_PATH`.
///
/// # Errors
/// Those of link(2).
pub fn link(
    cx: &VfsCx<'_>,
    old_start: Option<&Path>,
    old: &[u8],
    new_start: Option<&Path>,
    new: &[u8],
    flags: LookupFlags,
) -> Result<()> {
    let source = resolve(cx, old_start, old, flags)?;
    link_file(cx, &source, new_start, new)
}

/// Gives the object at `source` another name; also for linkat(2) of an open file.
///
/// # Errors
/// Those of link(2).
pub fn link_file(
    cx: &VfsCx<'_>,
    source: &Path,
    new_start: Option<&Path>,
    new: &[u8],
) -> Result<()> {
    let parent = parent_of_new(cx, new_start, new, false)?;
    let dir = &parent.dir;
    want_write(dir)?;
    if !Arc::ptr_eq(&source.mount, &dir.mount) {
        return Err(Errno::EXDEV);
    }
    may_link(cx, source)?;
    {
        let _ops = dir.dentry.lock_ops();
        match look_up_child(cx, dir, &parent.name) {
            Ok(_) => return Err(Errno::EEXIST),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        may_create(cx, dir)?;
        if source.inode().file_type() == FileType::Directory {
            return Err(Errno::EPERM);
        }
        // What has lost its last name stays nameless, unless it was made so.
        if source.dentry.kind != Kind::Temporary && source.inode().attr()?.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        dir.inode().link(&parent.name, source.inode())?;
        dir.dentry.created(&parent.name, Arc::clone(source.inode()), &dir.mount.sb.cache);
    }
    notify::entry(&dir.dentry, &parent.name, source.inode(), Events::CREATE, 0);
    notify::itself(source.inode(), Events::ATTRIB);
    Ok(())
}

/// protected_hardlinks: only owners link what they could not write or what is set-id. See proc(5).
fn may_link(cx: &VfsCx<'_>, source: &Path) -> Result<()> {
    let attr = source.inode().attr()?;
    if cx.cred.owns(&attr) {
        return Ok(());
    }
    let set_gid_exec = attr.mode & (S_ISGID | 0o010) == S_ISGID | 0o010;
    let is_safe = attr.file_type() == FileType::Regular
        && attr.mode & S_ISUID == 0
        && !set_gid_exec
        && source.inode().permission(cx.cred, Access::READ | Access::WRITE).is_ok();
    if is_safe { Ok(()) } else { Err(Errno::EPERM) }
}
