//! What a tmpfs may use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::{Errno, Result};

/// No reserve takes more than one of so many parts of all pages.
const MOST_SHARE: u64 = 64;

/// Pages and inodes in use, and their limits.
#[derive(Debug)]
pub(super) struct Quota {
    page_limit: u64,
    pages: AtomicU64,
    /// Pages that are kept free for what guest code may have written already.
    reserved: AtomicU64,
    inode_limit: u64,
    inodes: AtomicU64,
}

fn take(used: &AtomicU64, count: u64, limit: u64) -> Result<()> {
    let grown = |used: u64| used.checked_add(count).filter(|sum| *sum <= limit);
    let taken = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown);
    taken.map(drop).map_err(|_| Errno::ENOSPC)
}

fn give(used: &AtomicU64, count: u64) {
    let lowered = |used: u64| Some(used.saturating_sub(count));
    let _ = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lowered);
}

impl Quota {
    pub(super) fn new(page_limit: u64, inode_limit: u64) -> Self {
        let (pages, inodes) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { page_limit, pages, reserved: AtomicU64::new(0), inode_limit, inodes }
    }

    pub(super) fn take_pages(&self, count: u64) -> Result<()> {
        take(&self.pages, count, self.free_limit())
    }

    fn free_limit(&self) -> u64 {
        self.page_limit.saturating_sub(self.reserved.load(Ordering::Relaxed))
    }

    /// Keeps pages free until that is dropped; they are then [counted](Quota::force_pages) when they are used. `None`: half of all
    /// are not free, or so many would be missed by others, who are refused them until then.
    pub(super) fn reserve(self: &Arc<Self>, count: u64) -> Option<Reserve> {
        let is_half_full = self.pages.load(Ordering::Relaxed) > self.page_limit / 2;
        if is_half_full || count > self.page_limit / MOST_SHARE {
            return None;
        }
        self.reserved.fetch_add(count, Ordering::Relaxed);
        let reserve = Reserve { quota: Arc::clone(self), count };
        reserve.is_there().then_some(reserve)
    }

    pub(super) fn give_pages(&self, count: u64) {
        give(&self.pages, count);
    }

    /// Counts pages that are in use already, beyond the limit if need be.
    pub(super) fn force_pages(&self, count: u64) {
        self.pages.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn take_inode(&self) -> Result<()> {
        take(&self.inodes, 1, self.inode_limit)
    }

    /// Counts the root.
    pub(super) fn force_inode(&self) {
        self.inodes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn give_inode(&self) {
        give(&self.inodes, 1);
    }

    /// Limit and use of pages, then of inodes.
    pub(super) fn figures(&self) -> [u64; 4] {
        let (pages, inodes) =
            (self.pages.load(Ordering::Relaxed), self.inodes.load(Ordering::Relaxed));
        [self.page_limit, pages, self.inode_limit, inodes]
    }
}

/// See [`Quota::reserve`].
#[derive(Debug)]
pub(crate) struct Reserve {
    quota: Arc<Quota>,
    count: u64,
}

impl Reserve {
    /// Whether they are still free after some were used.
    pub(crate) fn is_there(&self) -> bool {
        let reserved = self.quota.reserved.load(Ordering::Relaxed);
        self.quota.pages.load(Ordering::Relaxed).saturating_add(reserved) <= self.quota.page_limit
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        give(&self.quota.reserved, self.count);
    }
}
