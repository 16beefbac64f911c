//! Entries of directories.

use std::sync::Arc;

use abi::open::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};

use super::copy_up::open_lower;
use super::inode::OverlayInode;
use crate::context::VfsCx;
use crate::fs::tmpfs::dir::Entries;
use crate::inode::{Inode, RenameFlags};

/// What a name stands for, when not for what the lower directory says.
pub(super) enum Change {
    /// Nothing.
    Whiteout,
    Node {
        node: Arc<OverlayInode>,
        /// The lower directory has the name too: when the node goes, a whiteout must stay.
        covers: bool,
    },
}

/// How a directory differs from its lower half.
#[derive(Default)]
pub(super) struct Dir {
    pub changes: Entries<Change>,
    /// Entries that are nodes.
    pub nodes: usize,
    /// Removed: nothing may be made in it any more.
    pub is_dead: bool,
}

impl OverlayInode {
    fn dir(&self) -> Result<base::lock::MutexGuard<'_, Dir>> {
        self.dir.as_ref().map(base::lock::Mutex::lock).ok_or(Errno::ENOTDIR)
    }

    /// What the changes say about `name`: nothing, that it is gone, or a node.
    fn changed(&self, name: &[u8]) -> Result<Option<Option<Arc<Self>>>> {
        Ok(self.dir()?.changes.get(name).map(|change| match change {
            Change::Whiteout => None,
            Change::Node { node, .. } => Some(Arc::clone(node)),
        }))
    }

    /// True when the lower directory's entry is not what the name stands for.
    pub(super) fn hides(&self, name: &[u8]) -> bool {
        self.dir().is_ok_and(|dir| !dir.changes.is_empty() && dir.changes.contains(name))
    }

    pub(super) fn child(&self, cx: &VfsCx<'_>, name: &[u8]) -> Result<Arc<Self>> {
        if let Some(change) = self.changed(name)? {
            return change.ok_or(Errno::ENOENT);
        }
        let lower = self.lower.as_ref().ok_or(Errno::ENOENT)?;
        self.layers.wrap(lower.inode.lookup(cx, name)?)
    }

    /// As [`Inode::lookup_many`]: one question to the lower layer.
    pub(super) fn children(&self, cx: &VfsCx<'_>, names: &[&[u8]]) -> Result<Vec<Arc<dyn Inode>>> {
        let first = names.first().ok_or(Errno::ENOENT)?;
        if let Some(change) = self.changed(first)? {
            let node = change.ok_or(Errno::ENOENT)?;
            return Ok(vec![node as Arc<dyn Inode>]);
        }
        let lower = self.lower.as_ref().ok_or(Errno::ENOENT)?;
        let found = lower.inode.lookup_many(cx, names)?;
        let mut nodes: Vec<Arc<dyn Inode>> = Vec::with_capacity(found.len());
        let following = names.iter().skip(1).map(Some).chain([None]);
        for (inode, next) in found.into_iter().zip(following) {
            let node = self.layers.wrap(inode)?;
            let stops = next.is_some_and(|next| node.hides(next));
            nodes.push(node);
            if stops {
                break;
            }
        }
        Ok(nodes)
    }

    /// Gives `name` to `child`; what stood there before (if it may be replaced) must be dealt with by the caller.
    pub(super) fn put(&self, name: &[u8], child: &Arc<Self>, replaces: bool) -> Result<()> {
        let upper = Arc::clone(self.copy_up_attr()?);
        let old = {
            let mut dir = self.dir()?;
            if dir.is_dead {
                return Err(Errno::ENOENT);
            }
            let covers = match dir.changes.get(name) {
                Some(Change::Node { .. }) if !replaces => return Err(Errno::EEXIST),
                Some(Change::Node { covers, .. }) => *covers,
                Some(Change::Whiteout) => true,
                // The caller looked the name up: what it replaces can only be the lower directory's.
                None => replaces && self.lower.is_some(),
            };
            let node = Arc::clone(child);
            let old = dir.changes.insert(name, Change::Node { node, covers });
            dir.nodes += usize::from(!matches!(old, Some(Change::Node { .. })));
            old
        };
        drop(old);
        if child.is_dir() {
            self.add_links(1);
        }
        upper.touch_modified();
        self.pin();
        Ok(())
    }

    /// Takes `name`, which stands for `child`, away.
    pub(super) fn take_out(&self, name: &[u8], child: &Arc<Self>) -> Result<()> {
        let upper = Arc::clone(self.copy_up_attr()?);
        let old = {
            let mut dir = self.dir()?;
            let needs_whiteout = match dir.changes.get(name) {
                Some(Change::Node { covers, .. }) => *covers,
                Some(Change::Whiteout) => return Err(Errno::ENOENT),
                None => true,
            };
            let old = if needs_whiteout {
                dir.changes.insert(name, Change::Whiteout)
            } else {
                dir.changes.remove(name)
            };
            dir.nodes -= usize::from(matches!(old, Some(Change::Node { .. })));
            old
        };
        drop(old);
        if child.is_dir() {
            self.add_links(-1);
        }
        upper.touch_modified();
        self.pin();
        Ok(())
    }

    /// Marks an empty directory dead.
    pub(super) fn bury(&self) -> Result<()> {
        if !self.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        if !self.is_lower_hidden()? {
            return Err(Errno::ENOTEMPTY);
        }
        let mut dir = self.dir()?;
        if dir.nodes > 0 {
            return Err(Errno::ENOTEMPTY);
        }
        dir.is_dead = true;
        Ok(())
    }

    /// No entry of the lower directory shows through.
    fn is_lower_hidden(&self) -> Result<bool> {
        let Some(lower) = &self.lower else { return Ok(true) };
        let cx = self.layers.kernel_cx();
        let file = open_lower(&lower.inode, &cx, OpenFlags::DIRECTORY)?;
        let mut is_hidden = true;
        file.ops().readdir(&cx, &file, 0, &mut |entry| {
            is_hidden = matches!(entry.name, b"." | b"..") || self.hides(entry.name);
            is_hidden
        })?;
        Ok(is_hidden)
    }

    /// The new entry comes before the old one goes, so that a name that is replaced is never missing.
    pub(super) fn rename_to(
        &self,
        old: &[u8],
        to: &Self,
        new: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        let cx = self.layers.kernel_cx();
        let child = self.child(&cx, old)?;
        let victim = match to.child(&cx, new) {
            Ok(victim) => Some(victim),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        if flags.contains(RenameFlags::EXCHANGE) {
            return self.exchange(old, &child, to, new, &victim.ok_or(Errno::ENOENT)?);
        }
        match &victim {
            Some(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Errno::EEXIST),
            Some(victim) if Arc::ptr_eq(victim, &child) => return Ok(()),
            Some(victim) => match (child.is_dir(), victim.is_dir()) {
                (true, true) => victim.bury()?,
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                (false, false) => {}
            },
            None => {}
        }
        let upper = Arc::clone(child.copy_up_attr()?);
        to.put(new, &child, victim.is_some())?;
        if victim.as_ref().is_some_and(|victim| victim.is_dir()) {
            to.add_links(-1);
        }
        self.take_out(old, &child)?;
        if let Some(victim) = victim {
            victim.lost_name();
        }
        upper.touch_changed();
        Ok(())
    }

    fn exchange(
        &self,
        old: &[u8],
        child: &Arc<Self>,
        to: &Self,
        new: &[u8],
        other: &Arc<Self>,
    ) -> Result<()> {
        let uppers = [Arc::clone(child.copy_up_attr()?), Arc::clone(other.copy_up_attr()?)];
        self.copy_up_attr()?;
        to.put(new, child, true)?;
        self.put(old, other, true)?;
        // Each directory lost as many subdirectories as it had under the name.
        to.add_links(-i64::from(other.kind() == FileType::Directory));
        self.add_links(-i64::from(child.kind() == FileType::Directory));
        for upper in uppers {
            upper.touch_changed();
        }
        Ok(())
    }
}
