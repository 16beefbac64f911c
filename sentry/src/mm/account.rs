//! What all guest processes together may take of memory: `--memory`.
//!
//! Counted is private writable memory as it is asked for, not as it is touched (what Linux calls committed), without
//! MAP_NORESERVE ranges and thread stacks. A forked child counts only what it adds: the host copies its pages on write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The sandbox's memory.
#[derive(Debug)]
pub struct MemoryAccount {
    limit: u64,
    /// Bytes; a measure that nothing else is ordered by.
    charged: AtomicU64,
}

impl MemoryAccount {
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, charged: AtomicU64::new(0) })
    }

    /// Bytes that may still be asked for.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.limit.saturating_sub(self.charged.load(Ordering::Relaxed))
    }
}

/// The part of one address space.
#[derive(Debug)]
pub(in crate::mm) struct Charge {
    account: Option<Arc<MemoryAccount>>,
    /// What it had from its parent.
    inherited: u64,
    charged: AtomicU64,
}

impl Charge {
    pub fn new(account: Option<Arc<MemoryAccount>>, inherited: u64) -> Self {
        Self { account, inherited, charged: AtomicU64::new(0) }
    }

    /// Of a child that has `committed` bytes in common with its parent.
    pub fn forked(&self, committed: u64) -> Self {
        Self::new(self.account.clone(), committed)
    }

    /// The address space now has `committed` bytes.
    pub fn settle(&self, committed: u64) {
        let Some(account) = &self.account else { return };
        let new = committed.saturating_sub(self.inherited);
        let old = self.charged.swap(new, Ordering::Relaxed);
        if new >= old {
            account.charged.fetch_add(new - old, Ordering::Relaxed);
        } else {
            account.charged.fetch_sub(old - new, Ordering::Relaxed);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(account) = &self.account {
            account.charged.fetch_sub(*self.charged.get_mut(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_count_what_they_add_and_all_goes_back_at_the_end() {
        let account = MemoryAccount::new(1000);
        let parent = Charge::new(Some(Arc::clone(&account)), 0);
        parent.settle(300);
        let child = parent.forked(300);
        child.settle(350);
        assert_eq!(account.room(), 650);
        child.settle(100);
        assert_eq!(account.room(), 700);
        drop(parent);
        drop(child);
        assert_eq!(account.room(), 1000);
    }
}
