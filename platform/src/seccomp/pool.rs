//! Stubs ahead of demand: clones of the zygote that have their channel and stand in the doorbell.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use abi::Errno;
use parking_lot::Mutex;

use super::orders::Arrival;
use super::shared::Shared;
use super::sys;
use super::thread::Thread;
use crate::PlatformError;

/// Tokens of the pool's orders have this bit, those of contexts do not.
const POOL_BIT: u64 = 1 << 60;

/// The zygote and its children that nobody took yet.
pub struct Pool {
    zygote_pid: i32,
    zygote: OwnedFd,
    /// Stubs to keep ready.
    target: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The zygote's doorbell, when it waits.
    notification: Option<u64>,
    /// Token of the order that the zygote works at.
    current: Option<u64>,
    /// Ordered, not yet arrived.
    ordered: Vec<u64>,
    /// Not yet told to the zygote.
    queue: VecDeque<u64>,
    ready: VecDeque<Arc<Thread>>,
    /// How many were taken so far.
    taken: u64,
    waiting: Vec<Waker>,
    failure: Option<Errno>,
    is_dead: bool,
}

impl Pool {
    pub fn new(zygote_pid: i32, zygote: OwnedFd, target: usize) -> Self {
        Self { zygote_pid, zygote, target, state: Mutex::default() }
    }

    pub fn zygote_pid(&self) -> i32 {
        self.zygote_pid
    }

    pub fn zygote(&self) -> &OwnedFd {
        &self.zygote
    }

    /// Whether a hello's token is one of the pool's open orders.
    pub fn is_ours(&self, token: u64) -> bool {
        token & POOL_BIT != 0 && self.state.lock().ordered.contains(&token)
    }

    /// Orders stubs until enough are ready or on their way.
    pub fn refill(&self, shared: &Shared) {
        let mut state = self.state.lock();
        // The first one is sure to be needed, and many programs need no other.
        let waiting = state.waiting.len();
        let wanted = match state.taken {
            0 => waiting.max(self.target.min(1)),
            1 => waiting,
            _ => waiting + self.target,
        };
        while state.ready.len() + state.ordered.len() < wanted {
            let token = shared.orders.next_token() | POOL_BIT;
            state.ordered.push(token);
            state.queue.push_back(token);
        }
        let order = state.next_order();
        drop(state);
        if let Some((notification, token)) = order {
            shared.listener.send_elsewhere(notification, token);
        }
    }

    /// The zygote rang: it waits for its next order. `result` is what its last clone returned.
    pub fn on_zygote(&self, shared: &Shared, notification: u64, result: u64) {
        let mut state = self.state.lock();
        let current = state.current.take();
        let mut wakers = Vec::new();
        if let Ok(errno) = i32::try_from(result.cast_signed().wrapping_neg())
            && (1..4096).contains(&errno)
        {
            // Nobody will come.
            state.ordered.retain(|token| Some(*token) != current);
            state.failure = Some(Errno::from_raw(errno));
            wakers = std::mem::take(&mut state.waiting);
        }
        let expected = current.filter(|token| state.ordered.contains(token));
        let is_first = state.taken == 0;
        state.notification = Some(notification);
        let order = state.next_order();
        drop(state);
        if let Some(token) = expected
            && let Ok(pid) = i32::try_from(result)
        {
            if is_first && let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // The other CPU is busy with the rest of the start, and we are about to wait for this one.
                host::cpu::start_here(pid);
            }
            shared.watch_unborn(token, pid);
            // Born while we looked?
            if !self.state.lock().ordered.contains(&token) {
                shared.unwatch_unborn(token);
            }
        }
        if let Some((notification, token)) = order {
            shared.listener.send_elsewhere(notification, token);
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// A stub died before it said hello.
    pub fn on_lost(&self, shared: &Shared, token: u64) {
        let mut state = self.state.lock();
        let before = state.ordered.len();
        state.ordered.retain(|open| *open != token);
        let was_ours = state.ordered.len() != before;
        drop(state);
        if was_ours {
            self.refill(shared);
        }
    }

    /// A stub said hello: it gets its channel and is ready.
    pub fn on_stub(&self, shared: &Arc<Shared>, token: u64, tid: i32, notification: u64) -> bool {
        let stub = make_stub(shared, token, tid, notification);
        let mut state = self.state.lock();
        state.ordered.retain(|open| *open != token);
        match stub {
            Ok(thread) => state.ready.push_back(thread),
            Err(errno) => {
                let _ = sys::kill(tid, libc::SIGKILL);
                state.failure = Some(errno);
            }
        }
        let wakers = std::mem::take(&mut state.waiting);
        drop(state);
        let has_woken = !wakers.is_empty();
        wakers.into_iter().for_each(Waker::wake);
        has_woken
    }

    pub fn on_zygote_death(&self, shared: &Shared) {
        let _ = rustix::event::epoll::delete(shared.deaths(), &self.zygote);
        let _ = sys::wait_pid(self.zygote_pid);
        let mut state = self.state.lock();
        state.is_dead = true;
        let wakers = std::mem::take(&mut state.waiting);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Takes a stub.
    pub fn poll_take(
        &self,
        shared: &Shared,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<Arc<Thread>, PlatformError>> {
        let mut state = self.state.lock();
        let taken = loop {
            match state.ready.pop_front() {
                Some(stub) if stub.process().is_dead() => {}
                other => break other,
            }
        };
        let answer = match taken {
            Some(stub) => {
                state.taken += 1;
                Poll::Ready(Ok(stub))
            }
            None if state.is_dead => {
                return Poll::Ready(Err(PlatformError::Broken("the zygote died".to_owned())));
            }
            None => match state.failure.take() {
                Some(errno) => return Poll::Ready(Err(PlatformError::Exhausted(errno))),
                None => {
                    state.waiting.push(cx.waker().clone());
                    Poll::Pending
                }
            },
        };
        drop(state);
        self.refill(shared);
        answer
    }
}

impl State {
    /// The zygote's doorbell with what to answer, when it waits and there is an order.
    fn next_order(&mut self) -> Option<(u64, u64)> {
        let token = *self.queue.front()?;
        let notification = self.notification.take()?;
        self.queue.pop_front();
        self.current = Some(token);
        Some((notification, token))
    }
}

fn make_stub(
    shared: &Arc<Shared>,
    token: u64,
    tid: i32,
    notification: u64,
) -> Result<Arc<Thread>, Errno> {
    let region = shared.take_region()?;
    let pidfd = Some(sys::pidfd_open(tid)?);
    let arrival = Arrival { tid, pidfd, notification };
    let thread =
        shared.adopt_process(arrival, region, token, true).map_err(|error| match error {
            PlatformError::Exhausted(errno) => errno,
            _ => Errno::EIO,
        })?;
    shared.threads.lock().insert(tid, Arc::clone(&thread));
    thread.give_channel_now(&shared.listener);
    Ok(thread)
}
