//! What a directory knows about its entries, and how much of that a filesystem may keep.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};

use abi::stat::Attr;
use base::lock::Mutex;

use super::inode::GoferInode;
use crate::lock_order;

/// Entries that the read-only directories of one filesystem may know together (about 200 bytes each).
const LIMIT: usize = 65_536;
/// Entries of one listing whose attributes are asked for along with it.
pub const PLUS_LIMIT: usize = 8_192;

/// An entry of a directory.
pub enum Entry {
    /// It exists, but nobody has looked it up yet: a listing or a walk said so.
    Listed(Box<Attr>),
    /// Somebody may hold it.
    Inode(Weak<GoferInode>),
    /// Looked up and not there.
    Absent,
}

/// The entries a directory knows.
#[derive(Default)]
pub struct Known {
    pub entries: HashMap<Box<[u8]>, Entry>,
    /// Every name is in `entries`.
    pub is_complete: bool,
    /// For writable trees: forget dead inodes when there are this many entries.
    prune_at: usize,
}

impl Known {
    /// Drops entries of inodes that nobody holds.
    pub fn prune(&mut self) {
        if self.entries.len() < self.prune_at.max(64) {
            return;
        }
        self.entries
            .retain(|_, entry| matches!(entry, Entry::Inode(inode) if inode.strong_count() > 0));
        self.prune_at = self.entries.len() * 2;
    }
}

/// Bounds what the directories of a read-only tree know: the ones that began to learn first forget first.
#[derive(Default)]
pub struct KnownBudget {
    /// Entries known by all of them. Only a measure, so relaxed.
    total: AtomicUsize,
    dirs: Mutex<VecDeque<Weak<GoferInode>>, lock_order::GoferCaches>,
}

impl KnownBudget {
    /// `dir` learnt its first entry.
    pub fn enrol(&self, dir: Weak<GoferInode>) {
        self.dirs.lock().push_back(dir);
    }

    pub fn learnt(&self, count: usize) {
        self.total.fetch_add(count, Ordering::Relaxed);
    }

    pub fn forgot(&self, count: usize) {
        self.total.fetch_sub(count, Ordering::Relaxed);
    }

    /// Lets the oldest directories forget until the bound holds. Called with no inode's state locked.
    pub fn enforce(&self) {
        while self.total.load(Ordering::Relaxed) > LIMIT {
            let Some(oldest) = self.dirs.lock().pop_front() else { return };
            if let Some(dir) = oldest.upgrade() {
                dir.forget_known();
            }
        }
    }
}
