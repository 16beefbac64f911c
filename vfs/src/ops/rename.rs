//! renameat2(2).

use std::sync::Arc;

use abi::stat::FileType;
use abi::{Errno, Result};
use base::cred::Access;

use crate::context::VfsCx;
use crate::dentry::{Dentry, Path};
use crate::inode::RenameFlags;
use crate::notify::{self, Events};
use crate::ops::create::may_create;
use crate::ops::remove::{keeps_absence, may_delete, not_mounted_on, told_of_unlink};
use crate::path::{LastKind, LookupFlags, Parent, Walk, look_up_child, want_write};

/// renameat2(2).
///
/// # Errors
/// Those of rename(2).
pub fn rename(
    cx: &VfsCx<'_>,
    old_start: Option<&Path>,
    old: &[u8],
    new_start: Option<&Path>,
    new: &[u8],
    flags: RenameFlags,
) -> Result<()> {
    let exclusive = flags.intersects(RenameFlags::NOREPLACE | RenameFlags::WHITEOUT);
    if flags.contains(RenameFlags::EXCHANGE) && exclusive {
        return Err(Errno::EINVAL);
    }
    if !(flags - RenameFlags::all()).is_empty() || flags.contains(RenameFlags::WHITEOUT) {
        return Err(Errno::EINVAL);
    }
    let from = Walk::new(cx, old_start, old, LookupFlags::empty())?.parent()?;
    let to = Walk::new(cx, new_start, new, LookupFlags::empty())?.parent()?;
    if !Arc::ptr_eq(&from.dir.mount, &to.dir.mount) {
        return Err(Errno::EXDEV);
    }
    if from.kind != LastKind::Normal {
        return Err(Errno::EBUSY);
    }
    if to.kind != LastKind::Normal {
        let is_exclusive = flags.contains(RenameFlags::NOREPLACE);
        return Err(if is_exclusive { Errno::EEXIST } else { Errno::EBUSY });
    }
    want_write(&from.dir)?;
    let done = Rename { cx, from: &from, to: &to, flags }.run()?;
    if let Some((source, target)) = done {
        tell(&from, &to, flags, &source, target.as_ref());
    }
    Ok(())
}

struct Rename<'a> {
    cx: &'a VfsCx<'a>,
    from: &'a Parent,
    to: &'a Parent,
    flags: RenameFlags,
}

/// What was moved, and what was under the new name.
type Done = Option<(Arc<Dentry>, Option<Arc<Dentry>>)>;

impl Rename<'_> {
    fn is_exchange(&self) -> bool {
        self.flags.contains(RenameFlags::EXCHANGE)
    }

    fn run(&self) -> Result<Done> {
        let (from, to) = (&self.from.dir.dentry, &self.to.dir.dentry);
        if Arc::ptr_eq(from, to) {
            let _ops = from.lock_ops();
            return self.run_locked();
        }
        // With this held no directory changes its ancestors, so the order below stays true.
        let _renames = self.from.dir.mount.sb.renames.lock();
        let to_first = if from.is_within(to) {
            true
        } else if to.is_within(from) {
            false
        } else {
            Arc::as_ptr(to) < Arc::as_ptr(from)
        };
        let (first, second) = if to_first { (to, from) } else { (from, to) };
        let _first = first.lock_ops();
        let _second = second.lock_ops_nested();
        self.run_locked()
    }

    fn run_locked(&self) -> Result<Done> {
        let source = look_up_child(self.cx, &self.from.dir, &self.from.name)?;
        let target = match look_up_child(self.cx, &self.to.dir, &self.to.name) {
            Ok(target) if self.flags.contains(RenameFlags::NOREPLACE) => {
                drop(target);
                return Err(Errno::EEXIST);
            }
            Ok(target) => Some(target),
            Err(Errno::ENOENT) if self.is_exchange() => return Err(Errno::ENOENT),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        self.check_shape(&source, target.as_ref())?;
        if let Some(target) = &target
            && Arc::ptr_eq(target.inode(), source.inode())
        {
            // Two names of one object: rename(2) does nothing.
            return Ok(None);
        }
        self.check_permission(&source, target.as_ref())?;
        not_mounted_on(&source)?;
        if let Some(target) = &target {
            not_mounted_on(target)?;
        }
        self.act(&source, target.as_ref())?;
        Ok(Some((source, target)))
    }

    /// Loops, trailing slashes.
    fn check_shape(&self, source: &Arc<Dentry>, target: Option<&Arc<Dentry>>) -> Result<()> {
        let is_dir = |dentry: &Arc<Dentry>| dentry.inode().file_type() == FileType::Directory;
        if self.to.dir.dentry.is_within(source) {
            return Err(Errno::EINVAL);
        }
        let slash = self.from.trailing_slash || (!self.is_exchange() && self.to.trailing_slash);
        if !is_dir(source) && slash {
            return Err(Errno::ENOTDIR);
        }
        if let Some(target) = target {
            if self.from.dir.dentry.is_within(target) {
                let errno = if self.is_exchange() { Errno::EINVAL } else { Errno::ENOTEMPTY };
                return Err(errno);
            }
            if self.is_exchange() && self.to.trailing_slash && !is_dir(target) {
                return Err(Errno::ENOTDIR);
            }
        }
        Ok(())
    }

    fn check_permission(&self, source: &Arc<Dentry>, target: Option<&Arc<Dentry>>) -> Result<()> {
        let is_dir = |dentry: &Arc<Dentry>| dentry.inode().file_type() == FileType::Directory;
        may_delete(self.cx, &self.from.dir, source)?;
        match target {
            None => may_create(self.cx, &self.to.dir)?,
            Some(target) => {
                may_delete(self.cx, &self.to.dir, target)?;
                if !self.is_exchange() {
                    match (is_dir(source), is_dir(target)) {
                        (true, false) => return Err(Errno::ENOTDIR),
                        (false, true) => return Err(Errno::EISDIR),
                        _ => {}
                    }
                }
            }
        }
        // A directory that moves gets another "..": that needs write access to it.
        let moves = !Arc::ptr_eq(&self.from.dir.dentry, &self.to.dir.dentry);
        if moves && is_dir(source) {
            source.inode().permission(self.cx.cred, Access::WRITE)?;
        }
        Ok(())
    }

    fn act(&self, source: &Arc<Dentry>, target: Option<&Arc<Dentry>>) -> Result<()> {
        let (from, to) = (&self.from.dir, &self.to.dir);
        let cache = &from.mount.sb.cache;
        from.inode().rename(&self.from.name, to.inode(), &self.to.name, self.flags)?;
        match target {
            Some(target) if self.is_exchange() => {
                Dentry::exchanged(source, target, cache);
            }
            _ => {
                if let Some(target) = target {
                    target.mark_deleted();
                }
                source.moved(&to.dentry, &self.to.name, cache);
                from.dentry.removed(&self.from.name, keeps_absence(from), cache);
            }
        }
        Ok(())
    }
}

fn tell(
    from: &Parent,
    to: &Parent,
    flags: RenameFlags,
    source: &Arc<Dentry>,
    target: Option<&Arc<Dentry>>,
) {
    if !notify::is_watched() {
        return;
    }
    let moved = |from: &Parent, to: &Parent, what: &Arc<Dentry>| {
        let cookie = notify::next_cookie();
        let inode = what.inode();
        notify::entry(&from.dir.dentry, &from.name, inode, Events::MOVED_FROM, cookie);
        notify::entry(&to.dir.dentry, &to.name, inode, Events::MOVED_TO, cookie);
        notify::itself(inode, Events::MOVE_SELF);
    };
    moved(from, to, source);
    match target {
        Some(target) if flags.contains(RenameFlags::EXCHANGE) => moved(to, from, target),
        Some(target) => told_of_unlink(target),
        None => {}
    }
}
