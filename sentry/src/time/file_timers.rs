//! The timers that files see: timerfd's, on the executor's.

use std::sync::Arc;

use base::clock::{Clock, Nanos};
use rustix::time::{ClockId, clock_gettime};
use vfs::anon::timers::{Expiry, TimerClock, TimerHandle, Timers as FileTimersTrait};

use crate::executor::timer::{self, Timers, nanos};
use crate::kernel::Kernel;

/// See the module.
pub struct FileTimers {
    timers: Arc<Timers>,
    clock: Arc<dyn Clock>,
}

impl FileTimers {
    #[must_use]
    pub fn new(kernel: &Kernel) -> Arc<Self> {
        Self::on(&kernel.timers, &kernel.clock)
    }

    /// For a kernel in the making.
    #[must_use]
    pub fn on(timers: &Arc<Timers>, clock: &Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { timers: Arc::clone(timers), clock: Arc::clone(clock) })
    }
}

impl FileTimersTrait for FileTimers {
    fn now(&self, clock: TimerClock) -> Nanos {
        match clock {
            TimerClock::Realtime => self.clock.realtime(),
            TimerClock::Monotonic => self.clock.monotonic(),
            TimerClock::Boottime => nanos(clock_gettime(ClockId::Boottime)),
        }
    }

    fn set(
        &self,
        clock: TimerClock,
        deadline: Nanos,
        expiry: Arc<dyn Expiry>,
    ) -> Box<dyn TimerHandle> {
        let ahead = deadline.saturating_sub(self.now(clock));
        let at = self.clock.monotonic().saturating_add(ahead);
        Box::new(Handle { _armed: self.timers.schedule(at, Box::new(move || expiry.expired())) })
    }
}

/// Cancels by being dropped.
struct Handle {
    _armed: timer::TimerHandle,
}

impl TimerHandle for Handle {}
