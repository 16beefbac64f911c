//! Threads whose posts are looked for.
//!
//! A thread is in the list from its answer to its next event. While somebody looks it stays there in between (*taken*), for mostly it
//! is answered at once; only when a look finds it taken still, because its call waits, it is put out of the list. So:
//!
//! 1. A thread is awaited when it is in the list and not taken.
//! 2. Who answers clears `is_taken`, then looks at `position`. Who puts a taken thread out changes `position`, then looks at
//!    `is_taken` again, and takes it back if that is clear. In sequentially consistent order one of both sees the other.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use parking_lot::Mutex;

use super::shared::Shared;
use super::thread::Thread;
use crate::Kicker;

/// As [`Thread::position`]: not in the list.
pub const NOWHERE: usize = usize::MAX;

/// See the module.
#[derive(Default)]
pub struct Awaited {
    list: Mutex<Vec<Arc<Thread>>>,
    /// Its length, for a look without the lock.
    count: AtomicUsize,
}

/// What a look at the channels found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// The thread that was asked for has posted; it was not woken.
    pub is_own: bool,
    /// Others have, and were woken.
    pub are_others: bool,
}

impl Found {
    pub const fn is_any(self) -> bool {
        self.is_own || self.are_others
    }
}

impl Awaited {
    /// How many are in the list.
    pub fn len(&self) -> usize {
        self.count.load(SeqCst)
    }

    fn enter(&self, list: &mut Vec<Arc<Thread>>, thread: &Arc<Thread>) {
        thread.position.store(list.len(), SeqCst);
        list.push(Arc::clone(thread));
        self.count.store(list.len(), SeqCst);
    }

    fn leave(&self, list: &mut Vec<Arc<Thread>>, at: usize) {
        list.swap_remove(at);
        if let Some(moved) = list.get(at) {
            moved.position.store(at, SeqCst);
        }
        self.count.store(list.len(), SeqCst);
    }

    /// Puts out who is taken (rule 2).
    fn put_out_taken(&self, list: &mut Vec<Arc<Thread>>) {
        let mut at = 0;
        while let Some(thread) = list.get(at) {
            if thread.is_taken() {
                thread.position.store(NOWHERE, SeqCst);
                if thread.is_taken() {
                    self.leave(list, at);
                    continue;
                }
                thread.position.store(at, SeqCst);
            }
            at += 1;
        }
    }

    /// The same, when it has turned out that they may be there for long.
    pub fn tidy(&self) {
        self.put_out_taken(&mut self.list.lock());
    }
}

impl Shared {
    /// From now on the thread's post is looked for.
    pub fn await_thread(&self, thread: &Arc<Thread>) {
        thread.give_up();
        let is_hot = self.spin.is_hot();
        if is_hot && thread.position.load(SeqCst) != NOWHERE && self.listener.is_listener() {
            thread.answered_ms.store(self.spin.account_ms(), Relaxed);
            self.listener.before_reply(self.awaited.len(), false);
            return;
        }
        let mut list = self.awaited.list.lock();
        self.awaited.put_out_taken(&mut list);
        thread.answered_ms.store(self.spin.account_ms(), Relaxed);
        if thread.position.load(SeqCst) == NOWHERE {
            self.awaited.enter(&mut list, thread);
        }
        let is_other = |other: &&Arc<Thread>| !Arc::ptr_eq(other, thread);
        // While somebody looks, nobody is answered on this CPU anyway.
        let has_others = !is_hot && list.iter().filter(is_other).any(|other| !other.is_asleep());
        // Who sleeps in a futex of the host may be woken without our knowledge.
        let is_alone = list.len() == 1;
        self.listener.before_reply(list.len(), has_others);
        drop(list);
        self.choose_place(thread, is_alone);
    }

    /// The thread's event was taken. While somebody looks it stays in the list.
    pub fn note_taken(&self, thread: &Thread) {
        thread.take();
        if !self.spin.is_hot() {
            self.unawait(thread);
        }
    }

    pub fn unawait(&self, thread: &Thread) {
        let mut list = self.awaited.list.lock();
        let at = thread.position.swap(NOWHERE, SeqCst);
        if at < list.len() {
            self.awaited.leave(&mut list, at);
        }
    }

    /// Whether one of those who run has posted nothing since then, by [`Spin::account_ms`](super::spin::Spin::account_ms).
    pub fn has_silent(&self, since_ms: u32) -> bool {
        let list = self.awaited.list.lock();
        let mut awake = list.iter().filter(|thread| thread.is_awake());
        awake.any(|thread| thread.answered_ms.load(Relaxed) < since_ms)
    }

    /// How many awaited threads may want a CPU: those that do not sleep in a futex of the host, or say so.
    pub fn awake_count(&self) -> usize {
        match self.awaited.len() {
            0 => 0,
            _ => self.awaited.list.lock().iter().filter(|thread| thread.is_awake()).count(),
        }
    }

    /// Wakes the owners of posted slots; true when there were any.
    pub fn scan(&self) -> bool {
        self.scan_beside(None).is_any()
    }

    /// The same, but for `own`.
    pub fn scan_beside(&self, own: Option<&Arc<Thread>>) -> Found {
        let is_own = own.is_some_and(|own| own.is_posted());
        if own.is_some() && self.awaited.len() == 1 {
            // That is this one.
            return Found { is_own, are_others: false };
        }
        // Mostly there is none or one: without allocation.
        let (mut first, mut others) = (None, Vec::new());
        {
            let mut list = self.awaited.list.lock();
            let mut is_untidy = false;
            for thread in &*list {
                if thread.is_taken() {
                    is_untidy = true;
                } else if thread.is_posted() && !own.is_some_and(|own| Arc::ptr_eq(own, thread)) {
                    match first {
                        None => first = Some(Arc::clone(thread)),
                        Some(_) => others.push(Arc::clone(thread)),
                    }
                }
            }
            if is_untidy {
                self.awaited.put_out_taken(&mut list);
            }
        }
        for thread in first.iter().chain(&others) {
            self.on_post(thread);
        }
        Found { is_own, are_others: first.is_some() }
    }
}
