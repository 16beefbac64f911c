//! Donated descriptors that are kept for later opens: read-only ones, a bounded number, the least used go first.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use base::lock::Mutex;

use crate::lock_order;

/// Descriptors kept per filesystem.
const LIMIT: usize = 512;

/// A descriptor and whether it was wanted again since the cache last looked at it.
#[derive(Debug)]
pub struct Kept {
    pub fd: Arc<OwnedFd>,
    was_used: AtomicBool,
    /// For one that nobody had asked for: where its first use counts.
    ahead: Option<Arc<AtomicU32>>,
}

impl Kept {
    pub fn new(fd: Arc<OwnedFd>) -> Arc<Self> {
        Arc::new(Self { fd, was_used: AtomicBool::new(false), ahead: None })
    }

    /// One that was opened before anybody wanted it.
    pub fn ahead(fd: Arc<OwnedFd>, count: Arc<AtomicU32>) -> Arc<Self> {
        Arc::new(Self { fd, was_used: AtomicBool::new(false), ahead: Some(count) })
    }

    /// The descriptor, for one more open.
    pub fn again(&self) -> Arc<OwnedFd> {
        let was_used = self.was_used.swap(true, Ordering::Relaxed);
        if let Some(count) = self.ahead.as_ref().filter(|_| !was_used) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Arc::clone(&self.fd)
    }
}

/// The strong references; inodes hold weak ones. Second-chance eviction.
#[derive(Debug, Default)]
pub struct OpenFiles(Mutex<VecDeque<Arc<Kept>>, lock_order::GoferCaches>);

impl OpenFiles {
    pub fn keep(&self, kept: Arc<Kept>) {
        let evicted = {
            let mut files = self.0.lock();
            files.push_back(kept);
            let mut evicted = None;
            while files.len() > LIMIT {
                match files.pop_front() {
                    Some(old) if old.was_used.swap(false, Ordering::Relaxed) => {
                        files.push_back(old)
                    }
                    old => evicted = old,
                }
            }
            evicted
        };
        // Closing is a host call: not under the lock.
        drop(evicted);
    }

    /// Gives up all that nobody uses: there is no room for another descriptor.
    pub fn clear(&self) {
        let all = std::mem::take(&mut *self.0.lock());
        drop(all);
    }
}
