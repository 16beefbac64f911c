//! Clock ids and what they say. See clock_gettime(2).

use std::sync::Arc;

use abi::ids::Tid;
use abi::time::{
    CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM, CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE,
    CLOCK_MONOTONIC_RAW, CLOCK_PROCESS_CPUTIME_ID, CLOCK_REALTIME, CLOCK_REALTIME_ALARM,
    CLOCK_REALTIME_COARSE, CLOCK_TAI, CLOCK_THREAD_CPUTIME_ID,
};
use abi::{Errno, Result};
use base::clock::Nanos;
use rustix::time::{ClockId as HostClock, clock_getres, clock_gettime};

use crate::executor::timer::nanos;
use crate::kernel::Kernel;
use crate::task::{Thread, ThreadGroup};

/// A clock that a guest can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockId {
    Realtime,
    Monotonic,
    MonotonicRaw,
    RealtimeCoarse,
    MonotonicCoarse,
    Boottime,
    RealtimeAlarm,
    BoottimeAlarm,
    Tai,
    Cpu(CpuClock),
}

/// CPU time of a process or a thread; id 0 is the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuClock {
    pub id: Tid,
    pub is_thread: bool,
    /// CPUCLOCK_VIRT: without the kernel's part.
    pub is_user_only: bool,
}

impl ClockId {
    /// # Errors
    /// `EINVAL` for a clock that Linux does not know, or that needs a device (`CLOCKFD`).
    pub fn from_raw(raw: i32) -> Result<Self> {
        Ok(match raw {
            CLOCK_REALTIME => Self::Realtime,
            CLOCK_MONOTONIC => Self::Monotonic,
            CLOCK_PROCESS_CPUTIME_ID => Self::cpu(Tid(0), false, 2),
            CLOCK_THREAD_CPUTIME_ID => Self::cpu(Tid(0), true, 2),
            CLOCK_MONOTONIC_RAW => Self::MonotonicRaw,
            CLOCK_REALTIME_COARSE => Self::RealtimeCoarse,
            CLOCK_MONOTONIC_COARSE => Self::MonotonicCoarse,
            CLOCK_BOOTTIME => Self::Boottime,
            CLOCK_REALTIME_ALARM => Self::RealtimeAlarm,
            CLOCK_BOOTTIME_ALARM => Self::BoottimeAlarm,
            CLOCK_TAI => Self::Tai,
            // Bits 0 and 1: which accounting, bit 2: a thread's; the rest: the complement of the id.
            _ if raw < 0 && raw & 3 != 3 => Self::cpu(Tid(!(raw >> 3)), raw & 4 != 0, raw & 3),
            _ => return Err(Errno::EINVAL),
        })
    }

    const fn cpu(id: Tid, is_thread: bool, accounting: i32) -> Self {
        Self::Cpu(CpuClock { id, is_thread, is_user_only: accounting == 1 })
    }

    /// What the clock says, in nanoseconds.
    ///
    /// # Errors
    /// `EINVAL` for a process or thread that does not exist.
    pub fn now(self, kernel: &Kernel, thread: &Arc<Thread>) -> Result<Nanos> {
        let host = match self {
            Self::Realtime | Self::RealtimeAlarm => return Ok(kernel.clock.realtime()),
            Self::Monotonic => return Ok(kernel.clock.monotonic()),
            Self::Cpu(cpu) => return cpu.now(kernel, thread),
            Self::MonotonicRaw => HostClock::MonotonicRaw,
            Self::RealtimeCoarse => HostClock::RealtimeCoarse,
            Self::MonotonicCoarse => HostClock::MonotonicCoarse,
            Self::Boottime | Self::BoottimeAlarm => HostClock::Boottime,
            // As far as we know the host: rustix has no name for its TAI, which without NTP is realtime.
            Self::Tai => HostClock::Realtime,
        };
        Ok(nanos(clock_gettime(host)))
    }

    /// True for the clocks whose epoch is 1970.
    #[must_use]
    pub const fn is_wall(self) -> bool {
        matches!(self, Self::Realtime | Self::RealtimeCoarse | Self::RealtimeAlarm | Self::Tai)
    }

    /// True for the clocks that only an owner of `CAP_WAKE_ALARM` may set timers on.
    #[must_use]
    pub const fn is_alarm(self) -> bool {
        matches!(self, Self::RealtimeAlarm | Self::BoottimeAlarm)
    }
}

impl CpuClock {
    fn now(self, kernel: &Kernel, thread: &Arc<Thread>) -> Result<Nanos> {
        let usage = self.group(kernel, thread)?.rusage();
        let system = if self.is_user_only { 0 } else { usage.system_ns };
        Ok(usage.user_ns.saturating_add(system))
    }

    /// The process that is accounted. The host accounts guest processes, not their threads: a thread's clock is its
    /// process's, which is exact for processes of one thread.
    ///
    /// # Errors
    /// `EINVAL` when there is none, or for a thread of another process.
    pub fn group(self, kernel: &Kernel, thread: &Arc<Thread>) -> Result<Arc<ThreadGroup>> {
        if self.id.0 == 0 {
            return Ok(Arc::clone(&thread.group));
        }
        if self.is_thread {
            let other = kernel.tasks.thread(self.id).ok_or(Errno::EINVAL)?;
            let is_kin = Arc::ptr_eq(&other.group, &thread.group);
            return if is_kin { Ok(Arc::clone(&other.group)) } else { Err(Errno::EINVAL) };
        }
        kernel.tasks.group(self.id).ok_or(Errno::EINVAL)
    }
}

/// clock_getres(2): the host's.
#[must_use]
pub fn resolution(clock: ClockId) -> Nanos {
    match clock {
        ClockId::RealtimeCoarse => nanos(clock_getres(HostClock::RealtimeCoarse)),
        ClockId::MonotonicCoarse => nanos(clock_getres(HostClock::MonotonicCoarse)),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_clock_ids_are_decoded() {
        // What clock_getcpuclockid(3) makes of pid 1234.
        let id = (!1234 << 3) | 2;
        let clock = CpuClock { id: Tid(1234), is_thread: false, is_user_only: false };
        assert_eq!(ClockId::from_raw(id), Ok(ClockId::Cpu(clock)));
        let thread = ClockId::from_raw((!7 << 3) | 6);
        let clock = CpuClock { id: Tid(7), is_thread: true, is_user_only: false };
        assert_eq!(thread, Ok(ClockId::Cpu(clock)));
    }

    #[test]
    fn strangers_are_refused() {
        assert_eq!(ClockId::from_raw(10), Err(Errno::EINVAL));
        assert_eq!(ClockId::from_raw(12), Err(Errno::EINVAL));
        assert_eq!(ClockId::from_raw((!3 << 3) | 3), Err(Errno::EINVAL));
    }
}
