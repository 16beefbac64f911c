//! What a directory knows about its entries: learning, recalling, looking up, moving.

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Weak};
use std::time::Instant;

use abi::stat::{Attr, FileType};
use abi::{Errno, Result};
use gofer_protocol::{Op, Plus, TreePath, Walked};

use super::{GoferInode, is_same_object};
use crate::fs::gofer::dir::{Brought, Piece};
use crate::fs::gofer::known::{Entry, Known, Listed};
use crate::fs::gofer::open_files::Kept;

impl GoferInode {
    /// What is known about `name` without asking: `Some(Err(ENOENT))` when it is not there.
    /// With `will_open`, the attributes of a file are to be had by opening it as well.
    pub(super) fn recall(&self, name: &[u8], will_open: bool) -> Option<Result<Arc<Self>>> {
        if self.shared.is_writable {
            return None;
        }
        let listed = {
            let mut state = self.state.lock();
            let known = state.known.as_mut()?;
            let is_complete = known.is_complete();
            match known.get(name) {
                Some(Entry::Absent) => return Some(Err(Errno::ENOENT)),
                Some(Entry::Inode(inode)) => return inode.upgrade().map(Ok),
                Some(Entry::Named(kind)) => {
                    if !(will_open && *kind == FileType::Regular) {
                        self.shared.foresight.missed();
                    }
                    return None;
                }
                Some(Entry::Listed(listed)) => Listed::clone(listed),
                None if is_complete => return Some(Err(Errno::ENOENT)),
                None => return None,
            }
        };
        if !listed.attr.is_dir() && !will_open {
            self.shared.foresight.used();
        }
        let inode = self.adopt(name, listed.attr);
        if listed.opened.strong_count() > 0 {
            inode.state.lock().reading = listed.opened;
        }
        Some(Ok(inode))
    }

    /// Whether of `name` no more is known than that it is a regular file.
    pub(super) fn is_named_file(&self, name: &[u8]) -> bool {
        let mut state = self.state.lock();
        let entry = state.known.as_mut().and_then(|known| known.get(name));
        matches!(entry, Some(Entry::Named(FileType::Regular)))
    }

    /// Lets `change` at what is known, and counts what that costs. Called with no inode's state locked.
    fn with_known<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        let (result, is_first) = {
            let mut state = self.state.lock();
            let is_first = state.known.is_none();
            let known = state.known.get_or_insert_default();
            let before = if is_first { 0 } else { known.bytes() };
            let result = change(known);
            self.shared.budget.changed(before, known.bytes());
            (result, is_first)
        };
        if !self.shared.is_writable {
            if is_first {
                self.shared.budget.enrol(Weak::clone(&self.this));
            }
            self.shared.budget.enforce();
        }
        result
    }

    /// The inode for an entry that the gofer described.
    pub(super) fn adopt(&self, name: &[u8], attr: Attr) -> Arc<Self> {
        let known = self.known_child(name);
        if let Some(inode) = &known
            && inode.kind == attr.file_type()
            && inode.renew(&attr)
        {
            return Arc::clone(inode);
        }
        self.with_known(|entries| {
            // Somebody was faster: then both have the one inode.
            if let Some(Entry::Inode(held)) = entries.get(name)
                && let Some(held) = held.upgrade()
                && known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &held))
                && held.kind == attr.file_type()
            {
                return held;
            }
            let parent = self.this.upgrade();
            let inode = Self::new(Arc::clone(&self.shared), parent, name, attr);
            if self.shared.is_writable {
                entries.prune();
            }
            entries.insert(name, Entry::Inode(Arc::downgrade(&inode)));
            inode
        })
    }

    /// Takes news about the object; false when they are about another one.
    pub(super) fn renew(&self, attr: &Attr) -> bool {
        let mut state = self.state.lock();
        let same = !state.is_gone && is_same_object(&state.attr, attr);
        if same {
            state.attr = *attr;
            state.fresh_at = Some(Instant::now());
        }
        same
    }

    /// Remembers a piece of the listing and its entries with their kinds; only in read-only trees.
    pub(in super::super) fn learn(&self, piece: &Arc<Piece>, brought: &[Brought]) {
        if !self.shared.is_writable {
            self.with_known(|known| known.learn(piece, brought));
        }
    }

    /// The whole listing, when it is known.
    pub(in super::super) fn known_listing(&self) -> Option<Arc<Piece>> {
        self.state.lock().known.as_mut()?.listing()
    }

    /// See [`Known::worth_listing`].
    pub(super) fn worth_listing(&self, name: &[u8]) -> Option<Plus> {
        if self.shared.is_writable {
            return None;
        }
        let mut state = self.state.lock();
        let size = state.attr.size;
        state.known.as_mut()?.worth_listing(name, size)
    }

    /// Files of this directory to open along with `name`.
    pub(super) fn open_ahead(&self, name: &[u8]) -> Vec<Arc<[u8]>> {
        if self.shared.is_writable {
            return Vec::new();
        }
        let sure_after = self.shared.foresight.files.sure_after();
        let mut state = self.state.lock();
        state.known.as_mut().map(|known| known.open_ahead(name, sure_after)).unwrap_or_default()
    }

    /// See [`Known::list_ahead`].
    pub(in super::super) fn list_ahead(&self, name: &[u8]) -> Option<(usize, Vec<Arc<[u8]>>)> {
        let sure_after = self.shared.foresight.dirs.sure_after();
        let mut state = self.state.lock();
        state.known.as_mut()?.list_ahead(name, sure_after)
    }

    /// See [`Known::first_dirs`] and [`Known::dirs_after`].
    pub(in super::super) fn dirs_after(
        &self,
        name: Option<&[u8]>,
        count: usize,
    ) -> Option<Vec<Arc<[u8]>>> {
        let mut state = self.state.lock();
        let known = state.known.as_mut()?;
        match name {
            None => known.first_dirs(count),
            Some(name) => known.dirs_after(name, count),
        }
    }

    /// The directory `name`, when what is known suffices to say that it is one; unless its listing is known, too.
    pub(in super::super) fn unlisted_dir(&self, name: &[u8]) -> Option<Arc<Self>> {
        let held = {
            let mut state = self.state.lock();
            match state.known.as_mut()?.get(name)? {
                Entry::Inode(inode) => Ok(inode.upgrade()?),
                Entry::Listed(listed) => Err(listed.attr),
                Entry::Named(_) | Entry::Absent => return None,
            }
        };
        match held {
            Ok(inode) => {
                let is_listed = || {
                    let state = inode.state.lock();
                    state.known.as_ref().is_some_and(|known| known.has_listing())
                };
                (inode.kind == FileType::Directory && !is_listed()).then_some(inode)
            }
            Err(attr) => attr.is_dir().then(|| self.adopt(name, attr)),
        }
    }

    /// The directory was listed before anybody wanted it; its first use counts.
    pub(in super::super) fn was_listed_ahead(&self, count: Arc<AtomicU32>) {
        if let Some(known) = &mut self.state.lock().known {
            known.was_listed_ahead(count);
        }
    }

    /// The file `name` was opened ahead: keeps its descriptor where the open that follows will look.
    pub(in super::super) fn opened_ahead(&self, name: &[u8], attr: Attr, kept: Arc<Kept>) {
        let held = self.with_known(|known| match known.get_mut(name) {
            Some(Entry::Inode(inode)) if inode.strong_count() > 0 => inode.upgrade(),
            Some(entry) => {
                let opened = Arc::downgrade(&kept);
                *entry = Entry::Listed(Box::new(Listed { attr, opened }));
                None
            }
            None => None,
        });
        if let Some(inode) = held
            && inode.kind == attr.file_type()
        {
            let mut state = inode.state.lock();
            if state.reading.strong_count() > 0 {
                return;
            }
            state.reading = Arc::downgrade(&kept);
        }
        self.shared.open_files.keep(kept);
    }

    pub(in super::super) fn is(&self, kind: FileType) -> bool {
        self.kind == kind
    }

    /// The gofer came by the entry `name`; for a symbolic link with its text, for a file perhaps with a descriptor.
    pub(in super::super) fn sighted(
        &self,
        name: &[u8],
        attr: Attr,
        link: Option<Box<[u8]>>,
        opened: Option<OwnedFd>,
    ) -> Arc<Self> {
        let inode = self.adopt(name, attr);
        match (inode.kind, link, opened) {
            (FileType::Symlink, Some(text), _) => inode.state.lock().link = Some(text),
            (FileType::Regular, _, Some(fd)) => inode.keep_opened(fd),
            _ => {}
        }
        inode
    }

    /// Keeps a descriptor for reading where the open that follows will look.
    pub(super) fn keep_opened(&self, fd: OwnedFd) {
        let kept = Kept::new(Arc::new(fd));
        {
            let mut state = self.state.lock();
            if state.reading.strong_count() > 0 {
                return;
            }
            state.reading = Arc::downgrade(&kept);
        }
        self.shared.open_files.keep(kept);
    }

    /// The gofer found no entry `name`.
    pub(in super::super) fn not_sighted(&self, name: &[u8]) {
        self.with_known(|known| known.learn_absent(name));
    }

    /// See [`Known::take_walked`].
    pub(in super::super) fn take_walked(&self) -> bool {
        self.state.lock().known.as_mut().is_some_and(|known| known.take_walked())
    }

    /// Gives back memory; costs round trips later.
    pub(in super::super) fn forget_known(&self) {
        let known = self.state.lock().known.take();
        if let Some(known) = known {
            self.shared.budget.forgot(known.bytes());
        }
    }

    pub(super) fn known_child(&self, name: &[u8]) -> Option<Arc<Self>> {
        match self.state.lock().known.as_mut()?.get(name)? {
            Entry::Inode(inode) => inode.upgrade(),
            Entry::Listed(_) | Entry::Named(_) | Entry::Absent => None,
        }
    }

    /// Takes `name` out of what is known, and its inode if somebody holds it.
    pub(super) fn disown(&self, name: &[u8]) -> Option<Arc<Self>> {
        let child = self.known_child(name);
        self.with_known(|known| known.remove(name));
        child
    }

    /// Puts `child` under `name` here.
    pub(super) fn settle(&self, name: &[u8], child: &Arc<Self>) {
        {
            let mut place = child.state.lock();
            place.parent = self.this.upgrade();
            place.name = name.into();
            place.fresh_at = None;
        }
        self.with_known(|known| known.insert(name, Entry::Inode(Arc::downgrade(child))));
    }

    /// The object lost this name.
    pub(super) fn mark_gone(&self) {
        let mut state = self.state.lock();
        state.is_gone = true;
        state.fresh_at = None;
        state.attr.nlink = state.attr.nlink.saturating_sub(1);
    }

    /// Asks for several components at once, `names[0]` here and each further one in the one before; answers those that
    /// exist, up to the first that is no directory. With `open`, a file at the end comes with its descriptor.
    pub(super) fn walk(&self, names: &[&[u8]], open: bool) -> Result<Vec<Arc<Self>>> {
        let joined = names.join(&b'/');
        let walk = |open| {
            let op = Op::Walk { names: TreePath::new(&joined)?, open };
            self.ask(op, |fields, fds| Ok((Walked::decode(fields, names.len())?, fds)))
        };
        let (walked, fds) = match walk(open) {
            // The answer came, but there was no place for the descriptor.
            Err(Errno::ENFILE) if open => walk(false)?,
            other => other?,
        };
        let mut found: Vec<Arc<Self>> = Vec::with_capacity(walked.found.len());
        for (name, attr) in names.iter().zip(&walked.found) {
            let dir = found.last().map_or(self, |last| &**last);
            if dir.kind != FileType::Directory {
                break;
            }
            let inode = dir.adopt(name, *attr);
            found.push(inode);
        }
        let last = found.last().map_or(self, |last| &**last);
        if let Some(fd) = fds.into_iter().next()
            && found.len() == names.len()
            && last.kind == FileType::Regular
        {
            last.keep_opened(fd);
        }
        if let Some(text) = walked.link
            && last.kind == FileType::Symlink
        {
            last.state.lock().link = Some(text.into());
        }
        if walked.stopped == Some(Errno::ENOENT)
            && !self.shared.is_writable
            && last.kind == FileType::Directory
            && let Some(missing) = names.get(found.len())
        {
            last.with_known(|known| known.learn_absent(missing));
        }
        if found.is_empty() {
            return Err(walked.stopped.unwrap_or(Errno::EIO));
        }
        Ok(found)
    }
}
