//! Buckets of waiters.
//!
//! 1. A waiter is in the queue of the bucket of its key, or it has been taken out by a waker, never both: whoever
//!    takes it out under the bucket's lock decides its fate.
//! 2. A waiter's key changes only by requeue, under the locks of both buckets.
//! 3. Wakers (of tasks) are called after every bucket's lock is released.

use std::collections::VecDeque;
use std::future::Future;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use abi::Result;
use base::lock::{Mutex, MutexGuard};
use parking_lot::Mutex as LeafMutex;
use smallvec::SmallVec;

use super::Key;
use crate::lock_order;

const BUCKETS: usize = 256;

/// All futexes of a sandbox that somebody waits for.
pub struct FutexTable {
    buckets: Box<[Mutex<Bucket, lock_order::Futexes>]>,
}

#[derive(Default)]
struct Bucket {
    /// Oldest first.
    waiters: VecDeque<Arc<Waiter>>,
}

/// One word somebody waits for.
struct Waiter {
    bitset: u32,
    /// Position in the list of futex_waitv(2).
    index: usize,
    /// Of a thread that waits for a PI futex: its tid.
    pi_tid: Option<i32>,
    state: LeafMutex<State>,
    /// Shared by all words of one futex_waitv(2).
    signal: Arc<Signal>,
}

struct State {
    key: Key,
    is_queued: bool,
}

/// What wakes the waiting task.
#[derive(Default)]
struct Signal {
    state: LeafMutex<SignalState>,
}

#[derive(Default)]
struct SignalState {
    /// Index of the first word that was woken.
    woken: Option<usize>,
    /// The word names the waiter as its owner (PI futexes).
    is_granted: bool,
    waker: Option<Waker>,
}

type WakeList = SmallVec<[Arc<Waiter>; 4]>;

/// That a wait has ended: the index of the word that was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Woken(pub usize);

/// A place in one or more queues; a future that is ready once woken. Dropping it leaves the queues.
#[must_use = "dropping it leaves the queue"]
pub struct Wait<'a> {
    table: &'a FutexTable,
    signal: Arc<Signal>,
    waiters: SmallVec<[Arc<Waiter>; 1]>,
}

impl FutexTable {
    #[must_use]
    pub fn new() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| Mutex::default()).collect() }
    }

    fn bucket_index(key: &Key) -> usize {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        (hasher.hash_one(key) % BUCKETS as u64) as usize
    }

    fn bucket(&self, key: &Key) -> &Mutex<Bucket, lock_order::Futexes> {
        &self.buckets[Self::bucket_index(key)]
    }

    /// A wait without any word yet.
    pub fn wait(&self) -> Wait<'_> {
        Wait { table: self, signal: Arc::default(), waiters: SmallVec::new() }
    }

    /// Wakes at most `count` waiters of `key` whose bitset overlaps `bitset`; returns how many.
    pub fn wake(&self, key: &Key, count: usize, bitset: u32) -> usize {
        let mut woken = WakeList::new();
        self.bucket(key).lock().take_matching(key, count, bitset, &mut woken);
        fire(woken)
    }

    /// Wakes at most `wake` waiters of `from` and moves at most `requeue` of the others to `to`, if `check` (run under
    /// the locks) agrees. Returns how many were woken and moved.
    ///
    /// # Errors
    /// Of `check`.
    pub fn requeue(
        &self,
        from: &Key,
        to: &Key,
        wake: usize,
        requeue: usize,
        check: impl FnOnce() -> Result<()>,
    ) -> Result<(usize, usize)> {
        let mut woken = WakeList::new();
        let moved;
        {
            let (mut source, mut target) = self.lock_pair(from, to);
            check()?;
            source.take_matching(from, wake, u32::MAX, &mut woken);
            if from != to {
                let mut taken = WakeList::new();
                source.take_matching(from, requeue, u32::MAX, &mut taken);
                moved = taken.len();
                let target = target.as_mut().map_or(&mut *source, |target| &mut **target);
                for waiter in taken {
                    target.push(waiter, *to);
                }
            } else {
                let there = source.waiters.iter().filter(|waiter| waiter.state.lock().key == *from);
                moved = there.count().min(requeue);
            }
        }
        Ok((fire(woken), moved))
    }

    /// Both buckets, locked in order of their index; the second is `None` when they are one.
    fn lock_pair(
        &self,
        first: &Key,
        second: &Key,
    ) -> (MutexGuard<'_, Bucket>, Option<MutexGuard<'_, Bucket>>) {
        let (a, b) = (Self::bucket_index(first), Self::bucket_index(second));
        match a.cmp(&b) {
            std::cmp::Ordering::Equal => (self.buckets[a].lock(), None),
            std::cmp::Ordering::Less => {
                let first = self.buckets[a].lock();
                (first, Some(self.buckets[b].lock_nested()))
            }
            std::cmp::Ordering::Greater => {
                let second = self.buckets[b].lock();
                (self.buckets[a].lock_nested(), Some(second))
            }
        }
    }

    /// The tid of the oldest PI waiter of `key`, taken out of the queue but not woken yet, and whether others stay.
    pub fn choose_pi(&self, key: &Key) -> Option<(Chosen, bool)> {
        let mut bucket = self.bucket(key).lock();
        let is_ours =
            |waiter: &&Arc<Waiter>| waiter.pi_tid.is_some() && waiter.state.lock().key == *key;
        let waiter = Arc::clone(bucket.waiters.iter().find(is_ours)?);
        bucket.remove(&waiter);
        let others = bucket.waiters.iter().any(|other| is_ours(&other));
        Some((Chosen { waiter }, others))
    }

    /// True when a PI waiter waits for `key`.
    pub fn has_pi_waiter(&self, key: &Key) -> bool {
        let bucket = self.bucket(key).lock();
        bucket
            .waiters
            .iter()
            .any(|waiter| waiter.pi_tid.is_some() && waiter.state.lock().key == *key)
    }

    /// Puts a chosen waiter back to the front of its queue.
    pub fn put_back(&self, chosen: Chosen) {
        let key = chosen.waiter.state.lock().key;
        let mut bucket = self.bucket(&key).lock();
        chosen.waiter.state.lock().is_queued = true;
        bucket.waiters.push_front(chosen.waiter);
    }
}

/// A PI waiter that is about to be given the lock.
pub struct Chosen {
    waiter: Arc<Waiter>,
}

impl Chosen {
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.waiter.pi_tid.unwrap_or(0)
    }

    /// Lets it go: the word names it as the owner now.
    pub fn grant(self) {
        self.waiter.signal.state.lock().is_granted = true;
        self.waiter.fire();
    }
}

impl Default for FutexTable {
    fn default() -> Self {
        Self::new()
    }
}

impl Bucket {
    fn take_matching(&mut self, key: &Key, count: usize, bitset: u32, into: &mut WakeList) {
        if count == 0 {
            return;
        }
        let mut left = count;
        self.waiters.retain(|waiter| {
            if left == 0 || waiter.bitset & bitset == 0 {
                return true;
            }
            let mut state = waiter.state.lock();
            if state.key != *key {
                return true;
            }
            state.is_queued = false;
            left -= 1;
            into.push(Arc::clone(waiter));
            false
        });
    }

    fn push(&mut self, waiter: Arc<Waiter>, key: Key) {
        *waiter.state.lock() = State { key, is_queued: true };
        self.waiters.push_back(waiter);
    }

    fn remove(&mut self, waiter: &Arc<Waiter>) {
        self.waiters.retain(|other| !Arc::ptr_eq(other, waiter));
        waiter.state.lock().is_queued = false;
    }
}

fn fire(woken: WakeList) -> usize {
    let count = woken.len();
    for waiter in woken {
        waiter.fire();
    }
    count
}

impl Waiter {
    fn fire(&self) {
        let waker = {
            let mut state = self.signal.state.lock();
            state.woken.get_or_insert(self.index);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Wait<'_> {
    /// Enters the queue of `key` if `check`, run under the bucket's lock, agrees.
    ///
    /// # Errors
    /// Of `check`.
    pub fn enqueue(
        &mut self,
        key: Key,
        bitset: u32,
        pi_tid: Option<i32>,
        check: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut bucket = self.table.bucket(&key).lock();
        check()?;
        let waiter = Arc::new(Waiter {
            bitset,
            index: self.waiters.len(),
            pi_tid,
            state: LeafMutex::new(State { key, is_queued: false }),
            signal: Arc::clone(&self.signal),
        });
        self.waiters.push(Arc::clone(&waiter));
        bucket.push(waiter, key);
        Ok(())
    }

    /// Leaves the queues. `Some` when a waker came first: that wake-up must count.
    pub fn leave(&mut self) -> Option<Woken> {
        let mut taken = None;
        for waiter in self.waiters.drain(..) {
            if !self.table.dequeue(&waiter) {
                taken.get_or_insert(Woken(waiter.index));
            }
        }
        let woken = self.signal.state.lock().woken.map(Woken);
        // A waker that has taken the waiter out may not have said so yet; it is about to.
        woken.or(taken)
    }

    /// True when the PI futex was handed over, false when the owner died and the lock is to be tried again.
    pub fn is_granted(&self) -> bool {
        self.signal.state.lock().is_granted
    }

    /// True when somebody has taken a PI waiter out of the queue: the lock is about to be its own.
    pub fn is_chosen(&self) -> bool {
        self.waiters.iter().any(|waiter| !waiter.state.lock().is_queued)
    }
}

impl FutexTable {
    /// False when it was not queued any more.
    fn dequeue(&self, waiter: &Arc<Waiter>) -> bool {
        loop {
            let key = waiter.state.lock().key;
            let mut bucket = self.bucket(&key).lock();
            let (is_queued, is_here) = {
                let state = waiter.state.lock();
                (state.is_queued, state.key == key)
            };
            if !is_queued {
                return false;
            }
            // Rule 2: a requeue came between; look again in the other bucket.
            if is_here {
                bucket.remove(waiter);
                return true;
            }
        }
    }
}

impl Future for Wait<'_> {
    type Output = Woken;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Woken> {
        let mut state = self.signal.state.lock();
        if let Some(index) = state.woken {
            return Poll::Ready(Woken(index));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use abi::Errno;

    use super::*;

    const A: Key = Key::Private { space: 1, addr: 0x1000 };
    const B: Key = Key::Anonymous { object: 7, offset: 8 };

    fn waiting<'a>(table: &'a FutexTable, key: Key, bitset: u32) -> Wait<'a> {
        let mut wait = table.wait();
        wait.enqueue(key, bitset, None, || Ok(())).unwrap();
        wait
    }

    fn is_ready(wait: &mut Wait<'_>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(wait).poll(&mut cx).is_ready()
    }

    #[test]
    fn wakes_oldest_first_and_no_more_than_asked() {
        let table = FutexTable::new();
        let (mut a, mut b) = (waiting(&table, A, !0), waiting(&table, A, !0));
        assert_eq!(table.wake(&B, 9, !0), 0);
        assert_eq!(table.wake(&A, 1, !0), 1);
        assert!(is_ready(&mut a) && !is_ready(&mut b));
        assert_eq!(table.wake(&A, 9, !0), 1);
        assert_eq!(table.wake(&A, 9, !0), 0);
        assert!(is_ready(&mut b));
    }

    #[test]
    fn bitsets_must_overlap() {
        let table = FutexTable::new();
        let _a = waiting(&table, A, 0b01);
        assert_eq!(table.wake(&A, 9, 0b10), 0);
        assert_eq!(table.wake(&A, 9, 0b11), 1);
    }

    #[test]
    fn refused_check_leaves_no_waiter() {
        let table = FutexTable::new();
        let mut wait = table.wait();
        let refused = wait.enqueue(A, !0, None, || Err(Errno::EAGAIN));
        assert_eq!(refused, Err(Errno::EAGAIN));
        assert_eq!(table.wake(&A, 1, !0), 0);
    }

    #[test]
    fn leaving_too_late_counts_as_woken() {
        let table = FutexTable::new();
        let mut a = waiting(&table, A, !0);
        assert_eq!(table.wake(&A, 1, !0), 1);
        assert_eq!(a.leave(), Some(Woken(0)));
        let mut b = waiting(&table, A, !0);
        assert_eq!(b.leave(), None);
        assert_eq!(table.wake(&A, 1, !0), 0);
    }

    #[test]
    fn requeued_waiters_answer_to_their_new_key() {
        let table = FutexTable::new();
        let mut waits: Vec<_> = (0..4).map(|_| waiting(&table, A, !0)).collect();
        assert_eq!(table.requeue(&A, &B, 1, 2, || Ok(())), Ok((1, 2)));
        assert!(is_ready(&mut waits[0]));
        assert_eq!(table.wake(&A, 9, !0), 1);
        drop(waits.remove(1));
        assert_eq!(table.wake(&B, 9, !0), 1);
        assert_eq!(table.requeue(&A, &B, 1, 1, || Err(Errno::EAGAIN)), Err(Errno::EAGAIN));
    }

    #[test]
    fn several_words_wake_one_task() {
        let table = FutexTable::new();
        let mut wait = table.wait();
        wait.enqueue(A, !0, None, || Ok(())).unwrap();
        wait.enqueue(B, !0, None, || Ok(())).unwrap();
        assert_eq!(table.wake(&B, 1, !0), 1);
        assert!(is_ready(&mut wait));
        assert_eq!(wait.leave(), Some(Woken(1)));
        assert_eq!(table.wake(&A, 1, !0), 0);
    }
}
