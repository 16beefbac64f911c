//! Wait queues: who is told when a file or another object changes state.
//!
//! A queue knows observers, not tasks. An observer is registered with a mask, is told every event that
//! overlaps it (a hint, never a promise: whoever is told looks again), and is removed by dropping its
//! registration. Observers are called with no lock held; they must be quick and must not block.
//!
//! The rule that loses no wake-up: register first, then look at the state, then wait.

use std::sync::{Arc, Weak};
use std::time::Duration;

use abi::poll::PollEvents;
use parking_lot::Mutex;
use smallvec::SmallVec;

/// Someone to tell about readiness.
pub trait Observer: Send + Sync {
    /// `events` is what may have become true; a hint.
    fn notify(&self, events: PollEvents);
}

/// The observers of one object.
#[derive(Clone, Default)]
pub struct WaitQueue {
    // A leaf lock: nothing is called and no other lock is taken while it is held. Lazily allocated, because
    // most files are never waited for.
    inner: Arc<Mutex<Entries>>,
}

#[derive(Default)]
struct Entries {
    next_id: u64,
    hurries: u32,
    list: SmallVec<[Entry; 2]>,
}

struct Entry {
    id: u64,
    mask: PollEvents,
    observer: Arc<dyn Observer>,
}

impl WaitQueue {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an observer until the registration is dropped. `ERR` and `HUP` are always in the mask.
    #[must_use = "dropping the registration removes the observer"]
    pub fn register(&self, mask: PollEvents, observer: Arc<dyn Observer>) -> Registration {
        let mut inner = self.inner.lock();
        let id = inner.next_id;
        inner.next_id += 1;
        let mask = mask | PollEvents::ERR | PollEvents::HUP;
        inner.list.push(Entry { id, mask, observer });
        Registration { queue: Arc::downgrade(&self.inner), id }
    }

    /// Tells every observer whose mask overlaps `events`.
    pub fn notify(&self, events: PollEvents) {
        crate::later::forget(self, events);
        let told: SmallVec<[Arc<dyn Observer>; 4]> = {
            let inner = self.inner.lock();
            if inner.list.is_empty() {
                return;
            }
            inner
                .list
                .iter()
                .filter(|entry| entry.mask.intersects(events))
                .map(|entry| Arc::clone(&entry.observer))
                .collect()
        };
        for observer in told {
            observer.notify(events);
        }
    }

    /// The same after `patience` at most, where the calling thread can put it off (see [`crate::later`]): for who gains when more is there at once.
    pub fn notify_later(&self, events: PollEvents, patience: Duration) {
        if self.is_awaited(events) {
            crate::later::put_off(self, events, patience, false);
        }
    }

    /// The same of what may have happened by then without a call, for an observer that is about to wait for it on this thread.
    pub fn look_later(&self, events: PollEvents, patience: Duration) {
        crate::later::put_off(self, events, patience, true);
    }

    /// What [`WaitQueue::notify_later`] would tell of these is over.
    pub fn take_back(&self, events: PollEvents) {
        crate::later::forget(self, events);
    }

    /// How often somebody else had to wait while observers were to be told later.
    #[must_use]
    pub fn hurries(&self) -> u32 {
        self.inner.lock().hurries
    }

    pub(crate) fn note_hurry(&self) {
        let mut inner = self.inner.lock();
        inner.hurries = inner.hurries.wrapping_add(1);
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Whether somebody waits for one of these.
    #[must_use]
    pub fn is_awaited(&self, events: PollEvents) -> bool {
        self.inner.lock().list.iter().any(|entry| entry.mask.intersects(events))
    }

    /// True when nobody waits; lets a producer skip work.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.lock().list.is_empty()
    }
}

impl std::fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WaitQueue({} observers)", self.inner.lock().list.len())
    }
}

/// Keeps an observer registered.
#[derive(Debug)]
pub struct Registration {
    queue: Weak<Mutex<Entries>>,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(queue) = self.queue.upgrade() else { return };
        // The observer itself is dropped after the lock is released: it may own anything.
        let removed = {
            let mut inner = queue.lock();
            let at = inner.list.iter().position(|entry| entry.id == self.id);
            at.map(|at| inner.list.remove(at))
        };
        drop(removed);
    }
}

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} entries", self.list.len())
    }
}
