//! Donated descriptors that are kept for later opens: read-only ones, a bounded number, the least used go first.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::lock::Mutex;

use crate::lock_order;

/// Descriptors kept per filesystem.
const LIMIT: usize = 512;

/// A descriptor and whether it was wanted again since the cache last looked at it.
#[derive(Debug)]
pub struct Kept {
    pub fd: Arc<OwnedFd>,
    was_used: AtomicBool,
}

impl Kept {
    pub fn new(fd: Arc<OwnedFd>) -> Arc<Self> {
        Arc::new(Self { fd, was_used: AtomicBool::new(false) })
    }

    /// The descriptor, for one more open.
    pub fn again(&self) -> Arc<OwnedFd> {
        self.was_used.store(true, Ordering::Relaxed);
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
