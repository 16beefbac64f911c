//! Deadlines on `CLOCK_MONOTONIC`: futures and callbacks in one ordered map, one host timerfd armed for the earliest.
//!
//! The timerfd is armed by whoever brings an earlier deadline; it is left armed when that deadline is cancelled (one
//! spurious wake-up at most, cheaper than a host call per cancellation). Due entries are fired by the reactor thread.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use base::clock::Nanos;
use parking_lot::Mutex;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// All pending deadlines of a sandbox.
pub struct Timers {
    fd: OwnedFd,
    // A leaf lock: wakers and callbacks run after it is released.
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    next_id: u64,
    /// By deadline, then by age.
    entries: BTreeMap<(Nanos, u64), Action>,
    /// What the timerfd is set to; `None`: it has fired or was never set.
    armed: Option<Nanos>,
}

enum Action {
    Wake(Waker),
    Call(Box<dyn FnOnce() + Send>),
}

/// A callback that has not fired yet; dropping it cancels.
#[derive(Debug)]
#[must_use = "dropping the handle cancels the timer"]
pub struct TimerHandle {
    timers: Weak<Timers>,
    key: (Nanos, u64),
}

/// Future of [`Timers::sleep_until`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    timers: Arc<Timers>,
    deadline: Nanos,
    key: Option<(Nanos, u64)>,
}

impl Timers {
    /// # Errors
    /// Of timerfd_create(2).
    pub fn new() -> io::Result<Arc<Self>> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Arc::new(Self { fd, pending: Mutex::default() }))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Ready once `CLOCK_MONOTONIC` has reached `deadline` nanoseconds.
    pub fn sleep_until(self: &Arc<Self>, deadline: Nanos) -> Sleep {
        Sleep { timers: Arc::clone(self), deadline, key: None }
    }

    /// Calls `callback` on the reactor thread once `CLOCK_MONOTONIC` has reached `deadline` nanoseconds. It must be
    /// quick and must not block.
    pub fn schedule(
        self: &Arc<Self>,
        deadline: Nanos,
        callback: Box<dyn FnOnce() + Send>,
    ) -> TimerHandle {
        let key = self.insert(deadline, Action::Call(callback));
        TimerHandle { timers: Arc::downgrade(self), key }
    }

    /// Has the reactor come back once `CLOCK_MONOTONIC` has reached `deadline` nanoseconds.
    pub(super) fn wake_at(&self, deadline: Nanos) {
        let mut pending = self.pending.lock();
        if pending.armed.is_none_or(|armed| armed > deadline) {
            self.set(&mut pending, deadline);
        }
    }

    /// Fires everything that is due and arms the timerfd for the rest.
    pub(super) fn fire(&self) {
        let due = {
            let mut pending = self.pending.lock();
            if pending.armed.is_none() && pending.entries.is_empty() {
                return;
            }
            let now = monotonic();
            let later = pending.entries.split_off(&(now.saturating_add(1), 0));
            let due = std::mem::replace(&mut pending.entries, later);
            if pending.armed.is_some_and(|armed| armed <= now) {
                pending.armed = None;
            }
            self.arm(&mut pending);
            due
        };
        for action in due.into_values() {
            match action {
                Action::Wake(waker) => waker.wake(),
                Action::Call(callback) => callback(),
            }
        }
    }

    fn insert(&self, deadline: Nanos, action: Action) -> (Nanos, u64) {
        let mut pending = self.pending.lock();
        let key = (deadline, pending.next_id);
        pending.next_id += 1;
        pending.entries.insert(key, action);
        self.arm(&mut pending);
        key
    }

    /// Makes the timerfd fire no later than the earliest deadline.
    fn arm(&self, pending: &mut Pending) {
        let Some((deadline, _)) = pending.entries.keys().next().copied() else { return };
        if pending.armed.is_some_and(|armed| armed <= deadline) {
            return;
        }
        self.set(pending, deadline);
    }

    fn set(&self, pending: &mut Pending, deadline: Nanos) {
        pending.armed = Some(deadline);
        // A zero value would disarm; whatever is that old is due anyway.
        let spec = Itimerspec { it_interval: timespec(0), it_value: timespec(deadline.max(1)) };
        // The descriptor is ours and the value is in range: it cannot be refused.
        let _ = timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &spec);
    }

    /// The action is dropped by the caller, after the lock.
    fn remove(&self, key: (Nanos, u64)) -> Option<Action> {
        self.pending.lock().entries.remove(&key)
    }
}

fn timespec(ns: Nanos) -> Timespec {
    let seconds = i64::try_from(ns / NANOS_PER_SEC).unwrap_or(i64::MAX);
    Timespec { tv_sec: seconds, tv_nsec: (ns % NANOS_PER_SEC) as _ }
}

/// The host's `CLOCK_MONOTONIC`, in nanoseconds.
#[must_use]
pub fn monotonic() -> Nanos {
    nanos(clock_gettime(ClockId::Monotonic))
}

/// A host timespec as nanoseconds; 0 before the epoch.
#[must_use]
pub fn nanos(time: Timespec) -> Nanos {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(NANOS_PER_SEC).saturating_add(rest)
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(key) = self.key.take() {
            drop(self.timers.remove(key));
        }
        if monotonic() >= self.deadline {
            return Poll::Ready(());
        }
        self.key = Some(self.timers.insert(self.deadline, Action::Wake(cx.waker().clone())));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            drop(self.timers.remove(key));
        }
    }
}

impl Drop for TimerHandle {
    fn drop(&mut self) {
        if let Some(timers) = self.timers.upgrade() {
            drop(timers.remove(self.key));
        }
    }
}

impl std::fmt::Debug for Timers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Timers({} pending)", self.pending.lock().entries.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn due_callbacks_fire_once_and_cancelled_ones_never() {
        let timers = Timers::new().unwrap();
        let fired = Arc::new(AtomicU32::new(0));
        let count = |by: u32| {
            let fired = Arc::clone(&fired);
            Box::new(move || {
                fired.fetch_add(by, Ordering::Relaxed);
            })
        };
        let now = monotonic();
        let _due = timers.schedule(now, count(1));
        drop(timers.schedule(now, count(10)));
        let _later = timers.schedule(now + 3600 * NANOS_PER_SEC, count(100));
        timers.fire();
        timers.fire();
        assert_eq!(fired.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_cancelled_deadline_does_not_keep_the_timerfd_from_later_ones() {
        let timers = Timers::new().unwrap();
        drop(timers.schedule(monotonic(), Box::new(|| {})));
        timers.fire();
        let later = monotonic() + NANOS_PER_SEC;
        let _later = timers.schedule(later, Box::new(|| {}));
        assert_eq!(timers.pending.lock().armed, Some(later));
    }
}
