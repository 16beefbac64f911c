//! Stubs ahead of demand: clones of the zygote that have their channel, which they map from what it has, and stand in their
//! first doorbell.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context as TaskContext, Poll, Waker};

use abi::Errno;
use parking_lot::Mutex;

use super::common::{Common, Held};
use super::orders::Arrival;
use super::region::Region;
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
    common: Common,
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
    /// What those that the zygote was told of will have.
    births: Vec<Birth>,
    /// Not yet told to the zygote.
    queue: VecDeque<u64>,
    ready: VecDeque<Arc<Thread>>,
    /// How many were taken so far.
    taken: u64,
    waiting: Vec<Waker>,
    failure: Option<Errno>,
    is_dead: bool,
}

/// A stub to be.
struct Birth {
    token: u64,
    region: Arc<Region>,
    held: Vec<Held>,
}

impl Pool {
    pub fn new(zygote_pid: i32, zygote: OwnedFd, target: usize) -> Self {
        let (common, state) = (Common::default(), Mutex::default());
        Self { zygote_pid, zygote, target, common, state }
    }

    pub fn zygote_pid(&self) -> i32 {
        self.zygote_pid
    }

    pub fn zygote(&self) -> &OwnedFd {
        &self.zygote
    }

    pub fn common(&self) -> &Common {
        &self.common
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
        if let Some(order) = order {
            self.tell(shared, order);
        }
    }

    /// Tells the zygote, which waits in its doorbell, to make a stub.
    fn tell(&self, shared: &Shared, (notification, token): (u64, u64)) {
        let region = match shared.take_stub_region() {
            Ok(region) => region,
            Err(errno) => {
                // It goes on waiting.
                self.state.lock().notification = Some(notification);
                return self.fail(token, errno);
            }
        };
        self.common.equip(&shared.listener, notification, &region);
        shared.global.get().next_channel.store(region.offset(), SeqCst);
        let held = self.common.held();
        self.state.lock().births.push(Birth { token, region, held });
        shared.listener.send_elsewhere(notification, token);
    }

    /// Nobody will come.
    fn fail(&self, token: u64, errno: Errno) {
        let mut state = self.state.lock();
        state.forget(token);
        state.failure = Some(errno);
        let wakers = std::mem::take(&mut state.waiting);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The zygote rang: it waits for its next order. `result` is what its last clone returned.
    pub fn on_zygote(&self, shared: &Shared, notification: u64, result: u64) {
        let mut state = self.state.lock();
        let current = state.current.take();
        if let Ok(errno) = i32::try_from(result.cast_signed().wrapping_neg())
            && (1..4096).contains(&errno)
            && let Some(token) = current
        {
            drop(state);
            self.fail(token, Errno::from_raw(errno));
            state = self.state.lock();
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
        if let Some(order) = order {
            self.tell(shared, order);
        }
    }

    /// A stub died before it said hello.
    pub fn on_lost(&self, shared: &Shared, token: u64) {
        let mut state = self.state.lock();
        let before = state.ordered.len();
        state.forget(token);
        let was_ours = state.ordered.len() != before;
        drop(state);
        if was_ours {
            self.refill(shared);
        }
    }

    /// A stub said hello: it is ready.
    pub fn on_stub(&self, shared: &Arc<Shared>, token: u64, tid: i32, notification: u64) -> bool {
        let birth = self.state.lock().forget(token);
        let stub = make_stub(shared, birth, tid, notification);
        let mut state = self.state.lock();
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
    /// An order is none any more; what there was for it.
    fn forget(&mut self, token: u64) -> Option<Birth> {
        self.ordered.retain(|open| *open != token);
        let at = self.births.iter().position(|birth| birth.token == token)?;
        Some(self.births.swap_remove(at))
    }

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
    birth: Option<Birth>,
    tid: i32,
    notification: u64,
) -> Result<Arc<Thread>, Errno> {
    let Birth { token, region, held } = birth.ok_or(Errno::EIO)?;
    let pidfd = Some(sys::pidfd_open(tid)?);
    let arrival = Arrival { tid, pidfd, notification };
    let thread = shared.adopt_process(arrival, region, token).map_err(|error| match error {
        PlatformError::Exhausted(errno) => errno,
        _ => Errno::EIO,
    })?;
    thread.process().begin_with(held);
    shared.threads.lock().insert(tid, Arc::clone(&thread));
    Ok(thread)
}
