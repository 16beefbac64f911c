//! Entries of a tmpfs directory: put, taken out, moved. Each directory is locked by itself; that two of them, or a
//! directory and its parent, change together is the caller's care (the path operations lock directories).

use std::sync::Arc;

use abi::stat::FileType;
use abi::{Errno, Result};

use super::inode::TmpInode;
use crate::inode::RenameFlags;

impl TmpInode {
    /// Marks an empty directory dead.
    pub(super) fn bury(&self) -> Result<()> {
        let mut state = self.state.lock();
        let dir = state.dir()?;
        if !dir.entries.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        dir.is_dead = true;
        Ok(())
    }

    /// Takes `name` out of this directory.
    pub(super) fn remove_entry(&self, name: &[u8]) -> Result<Arc<Self>> {
        let now = self.shared.now();
        let mut state = self.state.lock();
        let dir = state.dir()?;
        let gone = dir.entries.remove(name).ok_or(Errno::ENOENT)?;
        if gone.kind == FileType::Directory {
            dir.subdirs = dir.subdirs.saturating_sub(1);
        }
        state.modified(now);
        Ok(gone)
    }

    /// Puts `child` under `name`; what was there is returned.
    pub(super) fn put_entry(
        &self,
        name: &[u8],
        child: &Arc<Self>,
        may_replace: bool,
    ) -> Result<Option<Arc<Self>>> {
        let now = self.shared.now();
        let mut state = self.state.lock();
        let dir = state.dir()?;
        if dir.is_dead {
            return Err(Errno::ENOENT);
        }
        if !may_replace && dir.entries.contains(name) {
            return Err(Errno::EEXIST);
        }
        let old = dir.entries.insert(name, Arc::clone(child));
        let was_dir = old.as_ref().is_some_and(|old| old.kind == FileType::Directory);
        dir.subdirs += u32::from(child.kind == FileType::Directory);
        dir.subdirs = dir.subdirs.saturating_sub(u32::from(was_dir));
        state.modified(now);
        Ok(old)
    }

    pub(super) fn entry(&self, name: &[u8]) -> Result<Arc<Self>> {
        self.state.lock().dir()?.entries.get(name).cloned().ok_or(Errno::ENOENT)
    }

    pub(super) fn exchange(&self, old: &[u8], to: &Self, new: &[u8]) -> Result<()> {
        let (a, b) = (self.entry(old)?, to.entry(new)?);
        to.put_entry(new, &a, true)?;
        self.put_entry(old, &b, true)?;
        a.touch_changed();
        b.touch_changed();
        Ok(())
    }

    /// The new entry comes before the old one goes, so that a name that is replaced is never missing.
    pub(super) fn rename_to(
        &self,
        old: &[u8],
        to: &Self,
        new: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        if flags.contains(RenameFlags::EXCHANGE) {
            return self.exchange(old, to, new);
        }
        let child = self.entry(old)?;
        let victim = to.entry(new).ok();
        match &victim {
            Some(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Errno::EEXIST),
            Some(victim) if Arc::ptr_eq(victim, &child) => return Ok(()),
            Some(victim) => match (child.kind, victim.kind) {
                (FileType::Directory, FileType::Directory) => victim.bury()?,
                (FileType::Directory, _) => return Err(Errno::ENOTDIR),
                (_, FileType::Directory) => return Err(Errno::EISDIR),
                _ => {}
            },
            None => {}
        }
        to.put_entry(new, &child, true)?;
        self.remove_entry(old)?;
        if let Some(victim) = victim {
            victim.unlinked();
        }
        child.touch_changed();
        Ok(())
    }
}
