//! What a directory knows about its entries: learning, recalling, looking up, moving.

use std::sync::{Arc, Weak};
use std::time::Instant;

use abi::stat::{Attr, FileType};
use abi::{Errno, Result};
use gofer_protocol::{Op, TreePath, Walked};

use super::{GoferInode, is_same_object};
use crate::fs::gofer::known::Entry;

impl GoferInode {
    /// What is known about `name` without asking: `Some(Err(ENOENT))` when it is not there.
    pub(super) fn recall(&self, name: &[u8]) -> Option<Result<Arc<Self>>> {
        if self.shared.is_writable {
            return None;
        }
        let listed = {
            let state = self.state.lock();
            let known = state.known.as_ref()?;
            match known.entries.get(name) {
                Some(Entry::Absent) => return Some(Err(Errno::ENOENT)),
                Some(Entry::Inode(inode)) => return inode.upgrade().map(Ok),
                Some(Entry::Listed(attr)) => **attr,
                None if known.is_complete => return Some(Err(Errno::ENOENT)),
                None => return None,
            }
        };
        Some(Ok(self.adopt(name, listed)))
    }

    /// The inode for an entry that the gofer described.
    pub(super) fn adopt(&self, name: &[u8], attr: Attr) -> Arc<Self> {
        let (inode, is_first) = {
            let mut state = self.state.lock();
            let is_first = state.known.is_none();
            let known = state.known.get_or_insert_default();
            if let Some(Entry::Inode(held)) = known.entries.get(name)
                && let Some(inode) = held.upgrade()
                && inode.kind == attr.file_type()
            {
                drop(state);
                if inode.renew(&attr) {
                    return inode;
                }
                state = self.state.lock();
            }
            let parent = self.this.upgrade();
            let inode = Self::new(Arc::clone(&self.shared), parent, name, attr);
            let known = state.known.get_or_insert_default();
            if self.shared.is_writable {
                known.prune();
            }
            let entry = Entry::Inode(Arc::downgrade(&inode));
            if known.entries.insert(name.into(), entry).is_none() {
                self.shared.budget.learnt(1);
            }
            (inode, is_first)
        };
        self.account(is_first);
        inode
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

    /// Remembers entries that nobody has looked up; only in read-only trees.
    pub(in super::super) fn learn<'n>(&self, entries: impl Iterator<Item = (&'n [u8], Entry)>) {
        if self.shared.is_writable {
            return;
        }
        let is_first = {
            let mut state = self.state.lock();
            let is_first = state.known.is_none();
            let known = state.known.get_or_insert_default();
            let before = known.entries.len();
            for (name, entry) in entries {
                known.entries.entry(name.into()).or_insert(entry);
            }
            self.shared.budget.learnt(known.entries.len() - before);
            is_first
        };
        self.account(is_first);
    }

    /// Every entry was learnt: other names do not exist.
    pub(in super::super) fn knows_all(&self) {
        if let Some(known) = self.state.lock().known.as_mut() {
            known.is_complete = true;
        }
    }

    pub(super) fn account(&self, is_first: bool) {
        if self.shared.is_writable {
            return;
        }
        if is_first {
            self.shared.budget.enrol(Weak::clone(&self.this));
        }
        self.shared.budget.enforce();
    }

    /// Gives back memory; costs round trips later.
    pub(in super::super) fn forget_known(&self) {
        let known = self.state.lock().known.take();
        if let Some(known) = known {
            self.shared.budget.forgot(known.entries.len());
        }
    }

    pub(super) fn known_child(&self, name: &[u8]) -> Option<Arc<Self>> {
        match self.state.lock().known.as_ref()?.entries.get(name)? {
            Entry::Inode(inode) => inode.upgrade(),
            Entry::Listed(_) | Entry::Absent => None,
        }
    }

    /// Takes `name` out of what is known, and its inode if somebody holds it.
    pub(super) fn disown(&self, name: &[u8]) -> Option<Arc<Self>> {
        let child = self.known_child(name);
        let mut state = self.state.lock();
        if let Some(known) = state.known.as_mut()
            && known.entries.remove(name).is_some()
        {
            self.shared.budget.forgot(1);
        }
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
        let mut state = self.state.lock();
        let known = state.known.get_or_insert_default();
        if known.entries.insert(name.into(), Entry::Inode(Arc::downgrade(child))).is_none() {
            self.shared.budget.learnt(1);
        }
    }

    /// The object lost this name.
    pub(super) fn mark_gone(&self) {
        let mut state = self.state.lock();
        state.is_gone = true;
        state.fresh_at = None;
        state.attr.nlink = state.attr.nlink.saturating_sub(1);
    }

    /// Asks for several components at once, `names[0]` here and each further one in the one before; answers those that
    /// exist, up to the first that is no directory.
    pub(super) fn walk(&self, names: &[&[u8]]) -> Result<Vec<Arc<Self>>> {
        let joined = names.join(&b'/');
        let op = Op::Walk { names: TreePath::new(&joined)? };
        let walked = self.ask(op, |fields, _| Walked::decode(fields, names.len()))?;
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
        if let Some(text) = walked.link
            && last.kind == FileType::Symlink
        {
            last.state.lock().link = Some(text.into());
        }
        if walked.stopped == Some(Errno::ENOENT)
            && last.kind == FileType::Directory
            && let Some(missing) = names.get(found.len())
        {
            last.learn(std::iter::once((*missing, Entry::Absent)));
        }
        if found.is_empty() {
            return Err(walked.stopped.unwrap_or(Errno::EIO));
        }
        Ok(found)
    }
}
