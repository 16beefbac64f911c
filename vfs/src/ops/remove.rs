//! unlink(2), rmdir(2).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::stat::{FileType, S_ISVTX};
use abi::{Errno, Result};
use base::cred::{Access, Caps};

use crate::context::VfsCx;
use crate::dentry::{Dentry, Path};
use crate::inode::CachePolicy;
use crate::notify::{self, Events};
use crate::path::{LastKind, LookupFlags, Walk, look_up_child, want_write};

/// Permission to take `victim` out of `dir`: write access, and in a sticky directory ownership.
pub(super) fn may_delete(cx: &VfsCx<'_>, dir: &Path, victim: &Dentry) -> Result<()> {
    dir.inode().permission(cx.cred, Access::WRITE | Access::EXEC)?;
    let parent = dir.inode().attr()?;
    if parent.mode & S_ISVTX == 0 || cx.cred.has(Caps::FOWNER) || parent.uid == cx.cred.fsuid {
        return Ok(());
    }
    let owner = victim.inode().attr()?.uid;
    if owner == cx.cred.fsuid { Ok(()) } else { Err(Errno::EPERM) }
}

/// Whether a name's absence may be remembered in this directory.
pub(super) fn keeps_absence(dir: &Path) -> bool {
    dir.inode().cache_policy() == CachePolicy::Forever
}

/// `EBUSY` for what carries a mount.
pub(super) fn not_mounted_on(victim: &Dentry) -> Result<()> {
    if victim.mounted.load(Ordering::Relaxed) > 0 { Err(Errno::EBUSY) } else { Ok(()) }
}

/// unlink(2).
///
/// # Errors
/// Those of unlink(2).
pub fn unlink(cx: &VfsCx<'_>, start: Option<&Path>, path: &[u8]) -> Result<()> {
    let mut walk = Walk::new(cx, start, path, LookupFlags::empty())?;
    let parent = walk.parent()?;
    if parent.kind != LastKind::Normal {
        return Err(Errno::EISDIR);
    }
    let dir = &parent.dir;
    want_write(dir)?;
    let victim = {
        let _ops = dir.dentry.lock_ops();
        let victim = look_up_child(cx, dir, &parent.name)?;
        let kind = victim.inode().file_type();
        if parent.trailing_slash {
            let is_dir = kind == FileType::Directory;
            return Err(if is_dir { Errno::EISDIR } else { Errno::ENOTDIR });
        }
        may_delete(cx, dir, &victim)?;
        if kind == FileType::Directory {
            return Err(Errno::EISDIR);
        }
        not_mounted_on(&victim)?;
        dir.inode().unlink(&parent.name)?;
        victim.mark_deleted();
        dir.dentry.removed(&parent.name, keeps_absence(dir), &dir.mount.sb.cache);
        victim
    };
    notify::entry(&dir.dentry, &parent.name, victim.inode(), Events::DELETE, 0);
    told_of_unlink(&victim);
    Ok(())
}

pub(super) fn told_of_unlink(victim: &Arc<Dentry>) {
    if !notify::is_watched() {
        return;
    }
    notify::itself(victim.inode(), Events::ATTRIB);
    if victim.inode().attr().is_ok_and(|attr| attr.nlink == 0 || attr.is_dir()) {
        notify::itself(victim.inode(), Events::DELETE_SELF);
    }
}

/// rmdir(2).
///
/// # Errors
/// Those of rmdir(2).
pub fn rmdir(cx: &VfsCx<'_>, start: Option<&Path>, path: &[u8]) -> Result<()> {
    let mut walk = Walk::new(cx, start, path, LookupFlags::empty())?;
    let parent = walk.parent()?;
    match parent.kind {
        LastKind::Normal => {}
        LastKind::Dot => return Err(Errno::EINVAL),
        LastKind::DotDot => return Err(Errno::ENOTEMPTY),
        LastKind::Root => return Err(Errno::EBUSY),
    }
    let dir = &parent.dir;
    want_write(dir)?;
    let victim = {
        let _ops = dir.dentry.lock_ops();
        let victim = look_up_child(cx, dir, &parent.name)?;
        may_delete(cx, dir, &victim)?;
        if victim.inode().file_type() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        not_mounted_on(&victim)?;
        // Nothing may come into the directory between the check that it is empty and its end.
        let _victim_ops = victim.lock_ops_nested();
        dir.inode().rmdir(&parent.name)?;
        victim.mark_deleted();
        dir.dentry.removed(&parent.name, keeps_absence(dir), &dir.mount.sb.cache);
        Arc::clone(&victim)
    };
    notify::entry(&dir.dentry, &parent.name, victim.inode(), Events::DELETE, 0);
    if notify::is_watched() {
        notify::itself(victim.inode(), Events::DELETE_SELF);
    }
    Ok(())
}
