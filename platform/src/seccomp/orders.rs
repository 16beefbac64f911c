//! Orders for new processes and threads, until the new one says hello with the order's token.
//!
//! A token is unguessable: a guest that copies itself on its own can claim at most an order of its own.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::task::{Context as TaskContext, Poll, Waker};

use abi::Errno;
use parking_lot::Mutex;

use super::listener::Listener;
use super::process::Process;
use super::region::SlotRef;
use super::sys;
use crate::PlatformError;

/// The new one, standing in its first doorbell.
#[derive(Debug)]
pub struct Arrival {
    pub tid: i32,
    /// Of a process.
    pub pidfd: Option<OwnedFd>,
    pub notification: u64,
}

#[derive(Default)]
struct Outcome {
    arrival: Option<Result<Arrival, Errno>>,
    waker: Option<Waker>,
}

/// State of an order that its maker and the listener share.
pub struct Pending {
    /// Of a thread: its process.
    process: Option<Arc<Process>>,
    /// Where its creator waits.
    creator: SlotRef,
    outcome: Mutex<Outcome>,
}

/// All open orders.
pub struct Orders {
    secret: RandomState,
    open: Mutex<(u64, HashMap<u64, Arc<Pending>>)>,
    /// How many are open, for a look without the lock.
    count: AtomicUsize,
    /// Arrived, but not wanted any more: to be put down.
    pub abandoned: Mutex<Vec<i32>>,
}

/// An order; dropping it calls it off.
pub struct Order {
    orders: Arc<Orders>,
    token: u64,
    pending: Arc<Pending>,
}

impl Orders {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            secret: RandomState::new(),
            open: Mutex::default(),
            count: AtomicUsize::new(0),
            abandoned: Mutex::default(),
        })
    }

    /// Positive, for it may be a doorbell's return value; bit 61 set and bit 60 clear, see `shared` and `pool`.
    pub fn next_token(&self) -> u64 {
        let mut open = self.open.lock();
        open.0 += 1;
        (self.secret.hash_one(open.0) >> 4) | 1 << 61
    }

    pub fn are_open(&self) -> bool {
        self.count.load(Ordering::SeqCst) != 0
    }

    fn remove(&self, token: u64) -> Option<Arc<Pending>> {
        let mut open = self.open.lock();
        let pending = open.1.remove(&token);
        self.count.store(open.1.len(), Ordering::SeqCst);
        pending
    }

    /// `process`: of a thread, that it is to be one of.
    pub fn place(self: &Arc<Self>, process: Option<&Arc<Process>>, creator: &SlotRef) -> Order {
        let (process, creator) = (process.cloned(), creator.clone());
        creator.head().born.store(0, Ordering::SeqCst);
        let pending = Arc::new(Pending { process, creator, outcome: Mutex::default() });
        let token = self.next_token();
        let mut open = self.open.lock();
        open.1.insert(token, Arc::clone(&pending));
        self.count.store(open.1.len(), Ordering::SeqCst);
        drop(open);
        Order { orders: Arc::clone(self), token, pending }
    }

    /// Somebody said hello; false when nobody ordered it and its process must go.
    pub fn arrive(&self, listener: &Listener, token: u64, tid: i32, notification: u64) -> bool {
        let pending = self.remove(token);
        let Some(pending) = pending else { return false };
        let pidfd = match &pending.process {
            // The claim to be of that process must hold.
            Some(process) if sys::tgkill(process.pid(), tid, 0).is_err() => return false,
            Some(_) => Ok(None),
            // While it waits in its doorbell the id cannot have been used again.
            None => sys::pidfd_open(tid).map(Some).and_then(|pidfd| {
                if listener.is_valid(notification) { Ok(pidfd) } else { Err(Errno::EAGAIN) }
            }),
        };
        pending.complete(pidfd.map(|pidfd| Arrival { tid, pidfd, notification }));
        true
    }

    /// A host process died that is no known guest: perhaps on its way to say hello.
    pub fn fail(&self, token: u64, errno: Errno) {
        let pending = self.remove(token);
        if let Some(pending) = pending {
            pending.complete(Err(errno));
        }
    }
}

impl Pending {
    fn complete(&self, result: Result<Arrival, Errno>) {
        let mut outcome = self.outcome.lock();
        outcome.arrival = Some(result);
        let waker = outcome.waker.take();
        drop(outcome);
        // Before its task looks whether the creator has posted: one of both sees the other (rule 8).
        self.creator.head().born.store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Order {
    pub fn token(&self) -> u64 {
        self.token
    }

    pub fn is_of_thread(&self) -> bool {
        self.pending.process.is_some()
    }

    pub fn has_arrived(&self) -> bool {
        self.pending.outcome.lock().arrival.is_some()
    }

    pub fn poll(
        &self,
        cx: &mut TaskContext<'_>,
        creator: &Process,
    ) -> Poll<Result<Arrival, PlatformError>> {
        let mut outcome = self.pending.outcome.lock();
        match outcome.arrival.take() {
            Some(Ok(arrival)) => Poll::Ready(Ok(arrival)),
            Some(Err(errno)) => Poll::Ready(Err(PlatformError::Exhausted(errno))),
            None if creator.is_dead() => Poll::Ready(Err(creator.death())),
            None => {
                outcome.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        self.orders.remove(self.token);
        // An arrival that nobody took must not live on.
        if let Some(Ok(arrival)) = self.pending.outcome.lock().arrival.take() {
            self.orders.abandoned.lock().push(arrival.tid);
        }
    }
}
