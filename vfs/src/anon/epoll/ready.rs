//! The items that may have something to report, each once, in the order in which they became so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::poll::PollEvents;
use base::WaitQueue;
use base::lock::Mutex;

use super::item::Item;
use crate::lock_order;

/// See the module.
pub struct ReadyList {
    list: Mutex<VecDeque<Arc<Item>>, lock_order::EpollReady>,
    /// Who waits for the epoll itself.
    queue: WaitQueue,
}

impl ReadyList {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { list: Mutex::default(), queue: WaitQueue::new() })
    }

    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    pub fn len(&self) -> usize {
        self.list.lock().len()
    }

    /// Adds at the end; false when it is in the list already.
    pub fn push(&self, item: &Arc<Item>) -> bool {
        let mut list = self.list.lock();
        let is_new = !item.is_queued.swap(true, Ordering::Relaxed);
        if is_new {
            list.push_back(Arc::clone(item));
        }
        is_new
    }

    /// Takes out an item whose file turned out not to be ready, unless it was told of something meanwhile (its
    /// `is_told` was cleared before the look).
    pub fn forget_unless_told(&self, item: &Arc<Item>) {
        let mut list = self.list.lock();
        // Under the lock that `push` takes after setting it: either we see it, or it finds the item unqueued.
        if !item.is_told.load(Ordering::Relaxed) && item.is_queued.swap(false, Ordering::Relaxed) {
            list.retain(|queued| !Arc::ptr_eq(queued, item));
        }
    }

    pub fn pop(&self) -> Option<Arc<Item>> {
        let mut list = self.list.lock();
        let item = list.pop_front()?;
        item.is_queued.store(false, Ordering::Relaxed);
        Some(item)
    }

    pub fn forget(&self, item: &Arc<Item>) {
        let mut list = self.list.lock();
        if item.is_queued.swap(false, Ordering::Relaxed) {
            list.retain(|queued| !Arc::ptr_eq(queued, item));
        }
    }

    pub fn snapshot(&self) -> Vec<Arc<Item>> {
        self.list.lock().iter().cloned().collect()
    }

    /// Tells those who wait for the epoll.
    pub fn tell(&self) {
        self.queue.notify(PollEvents::IN | PollEvents::RDNORM);
    }
}
