//! A timer as a file. See timerfd_create(2).
//!
//! Expirations are counted from the clock when someone looks, so a late or lost callback can delay a wake-up but
//! never change a count. The callback only wakes waiters and sets the next interval.

use std::any::Any;
use std::sync::{Arc, Weak};

use abi::ioctl::TFD_IOC_SET_TICKS;
use abi::poll::PollEvents;
use abi::{Errno, Result, UserAddr};
use base::clock::Nanos;
use base::lock::Mutex;
use base::{Sink, WaitQueue};

use super::timers::{Expiry, TimerClock, TimerHandle, Timers};
use crate::context::VfsCx;
use crate::file::{File, FileOps, UserMemory};
use crate::lock_order;

/// What `timerfd_settime` sets and `timerfd_gettime` tells; 0 is disarmed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Setting {
    pub value: Nanos,
    pub interval: Nanos,
}

/// A timerfd.
pub struct TimerFd {
    clock: TimerClock,
    /// `clockid` as it was asked for, for fdinfo.
    clock_id: u32,
    timers: Arc<dyn Timers>,
    state: Mutex<State, lock_order::FileState>,
    queue: WaitQueue,
    myself: Weak<Self>,
}

#[derive(Default)]
struct State {
    /// Next expiry on the clock; `None` when disarmed.
    next: Option<Nanos>,
    interval: Nanos,
    /// Expirations not read yet.
    ticks: u64,
    /// `TFD_TIMER_CANCEL_ON_SET` was asked for.
    cancel_on_set: bool,
    is_cancelled: bool,
    flags: u32,
    /// Rises with every `set`.
    generation: u64,
    handle: Option<Box<dyn TimerHandle>>,
}

impl State {
    /// Counts what has expired by `now`.
    fn catch_up(&mut self, now: Nanos) {
        let Some(next) = self.next.filter(|next| *next <= now) else { return };
        if self.interval == 0 {
            self.ticks = self.ticks.saturating_add(1);
            self.next = None;
            return;
        }
        let passed = (now - next) / self.interval + 1;
        self.ticks = self.ticks.saturating_add(passed);
        self.next = Some(next.saturating_add(passed.saturating_mul(self.interval)));
    }

    fn setting(&self, now: Nanos) -> Setting {
        let value = self.next.map_or(0, |next| next.saturating_sub(now).max(1));
        Setting { value, interval: self.interval }
    }
}

/// `TFD_TIMER_ABSTIME`.
const ABSTIME: u32 = 1;
/// `TFD_TIMER_CANCEL_ON_SET`.
const CANCEL_ON_SET: u32 = 2;

impl TimerFd {
    /// Disarmed. `clock_id` is the number that the guest gave.
    #[must_use]
    pub fn new(clock: TimerClock, clock_id: u32, timers: Arc<dyn Timers>) -> Arc<Self> {
        Arc::new_cyclic(|myself| Self {
            clock,
            clock_id,
            timers,
            state: Mutex::default(),
            queue: WaitQueue::new(),
            myself: Weak::clone(myself),
        })
    }

    /// `timerfd_settime`: returns the setting before.
    ///
    /// # Errors
    /// `EINVAL` for flags that do not exist.
    pub fn set(&self, new: Setting, flags: u32) -> Result<Setting> {
        if flags & !(ABSTIME | CANCEL_ON_SET) != 0 {
            return Err(Errno::EINVAL);
        }
        let now = self.timers.now(self.clock);
        let next = match (new.value, flags & ABSTIME != 0) {
            (0, _) => None,
            (at, true) => Some(at),
            (after, false) => Some(now.saturating_add(after)),
        };
        let (old, old_handle) = {
            let mut state = self.state.lock();
            state.catch_up(now);
            let old = state.setting(now);
            let is_realtime = self.clock == TimerClock::Realtime;
            let cancel_on_set = is_realtime && flags == ABSTIME | CANCEL_ON_SET;
            let old_handle = state.handle.take();
            let generation = state.generation + 1;
            let interval = new.interval;
            *state = State { next, interval, cancel_on_set, flags, generation, ..State::default() };
            (old, old_handle)
        };
        // The timers' own locks are not taken under ours.
        drop(old_handle);
        self.arm();
        Ok(old)
    }

    /// `timerfd_gettime`.
    #[must_use]
    pub fn get(&self) -> Setting {
        let now = self.timers.now(self.clock);
        let mut state = self.state.lock();
        state.catch_up(now);
        state.setting(now)
    }

    /// The realtime clock jumped: who asked for it learns by `ECANCELED`.
    pub fn clock_was_set(&self) {
        {
            let mut state = self.state.lock();
            if !state.cancel_on_set {
                return;
            }
            state.is_cancelled = true;
        }
        self.queue.notify(PollEvents::IN | PollEvents::RDNORM);
    }

    /// Has the next expiry, if there is one, call us.
    fn arm(&self) {
        let (deadline, generation) = {
            let state = self.state.lock();
            let Some(next) = state.next else { return };
            (next, state.generation)
        };
        let expiry = Arc::new(WeakExpiry(Weak::clone(&self.myself)));
        let handle = self.timers.set(self.clock, deadline, expiry);
        let unused = {
            let mut state = self.state.lock();
            // After another `set` in between that one's handle stays. (An expiry that a reader counted in between does
            // no harm: this call comes early then, and arms again.)
            if state.generation == generation { state.handle.replace(handle) } else { Some(handle) }
        };
        drop(unused);
    }
}

/// A timer does not keep its file alive.
struct WeakExpiry(Weak<TimerFd>);

impl Expiry for WeakExpiry {
    fn expired(self: Arc<Self>) {
        let Some(timer) = self.0.upgrade() else { return };
        let now = timer.timers.now(timer.clock);
        let is_due = {
            let mut state = timer.state.lock();
            state.catch_up(now);
            state.ticks > 0
        };
        timer.arm();
        if is_due {
            timer.queue.notify(PollEvents::IN | PollEvents::RDNORM);
        }
    }
}

impl FileOps for TimerFd {
    fn read(&self, _: &VfsCx<'_>, _: &File, sink: &mut dyn Sink, _pos: u64) -> Result<usize> {
        if sink.remaining() < size_of::<u64>() {
            return Err(Errno::EINVAL);
        }
        let now = self.timers.now(self.clock);
        let ticks = {
            let mut state = self.state.lock();
            state.catch_up(now);
            if std::mem::take(&mut state.is_cancelled) {
                state.ticks = 0;
                return Err(Errno::ECANCELED);
            }
            match std::mem::take(&mut state.ticks) {
                0 => return Err(Errno::EAGAIN),
                ticks => ticks,
            }
        };
        sink.put(&ticks.to_ne_bytes())
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: &VfsCx<'_>, _: &File) -> PollEvents {
        let now = self.timers.now(self.clock);
        let mut state = self.state.lock();
        state.catch_up(now);
        if state.ticks > 0 || state.is_cancelled {
            PollEvents::IN | PollEvents::RDNORM
        } else {
            PollEvents::empty()
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn ioctl(
        &self,
        _: &VfsCx<'_>,
        _: &File,
        command: u32,
        arg: u64,
        memory: &dyn UserMemory,
    ) -> Result<u64> {
        if command != TFD_IOC_SET_TICKS {
            return Err(Errno::ENOTTY);
        }
        let mut ticks = [0; size_of::<u64>()];
        memory.read(UserAddr(arg), &mut ticks)?;
        let ticks = u64::from_ne_bytes(ticks);
        if ticks == 0 {
            return Err(Errno::EINVAL);
        }
        self.state.lock().ticks = ticks;
        self.queue.notify(PollEvents::IN | PollEvents::RDNORM);
        Ok(0)
    }

    fn fdinfo(&self) -> String {
        let now = self.timers.now(self.clock);
        let state = self.state.lock();
        let setting = state.setting(now);
        let pair = |ns: Nanos| format!("({}, {})", ns / 1_000_000_000, ns % 1_000_000_000);
        format!(
            "clockid: {}\nticks: {}\nsettime flags: 0{:o}\nit_value: {}\nit_interval: {}\n",
            self.clock_id,
            state.ticks,
            state.flags,
            pair(setting.value),
            pair(setting.interval)
        )
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
