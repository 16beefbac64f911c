//! Reading clocks, and sleeping.

use std::future::pending;

use abi::time::{TIMER_ABSTIME, Timespec, Timeval, Timex, Timezone};
use abi::{Errno, Result};
use base::clock::Nanos;

use crate::cx::Cx;
use crate::error::{Restart, SysError, SysResult};
use crate::mm::UserRef;
use crate::syscalls::args::{FromArg, In, Out, Render};
use crate::task::Blocked;
use crate::time::{ClockId, resolution};

impl FromArg for ClockId {
    fn from_arg(word: u64) -> Result<Self> {
        Self::from_raw(word as i32)
    }
}

impl Render for ClockId {
    fn render(&self, out: &mut String, _mm: &crate::mm::Mm) {
        out.push_str(match self {
            Self::Realtime => "CLOCK_REALTIME",
            Self::Monotonic => "CLOCK_MONOTONIC",
            Self::MonotonicRaw => "CLOCK_MONOTONIC_RAW",
            Self::RealtimeCoarse => "CLOCK_REALTIME_COARSE",
            Self::MonotonicCoarse => "CLOCK_MONOTONIC_COARSE",
            Self::Boottime => "CLOCK_BOOTTIME",
            Self::RealtimeAlarm => "CLOCK_REALTIME_ALARM",
            Self::BoottimeAlarm => "CLOCK_BOOTTIME_ALARM",
            Self::Tai => "CLOCK_TAI",
            Self::Cpu(cpu) => {
                let kind = if cpu.is_thread { "THREAD" } else { "PROCESS" };
                out.push_str(&format!("CLOCK_{kind}_CPUTIME_ID"));
                if cpu.id.0 != 0 {
                    out.push_str(&format!(" of {}", cpu.id));
                }
                return;
            }
        });
    }
}

/// clock_gettime. See [clock_gettime(2)](https://man7.org/linux/man-pages/man2/clock_gettime.2.html).
pub fn clock_gettime(cx: &mut Cx<'_>, clock: ClockId, out: Out<Timespec>) -> SysResult {
    let now = clock.now(cx.kernel, cx.thread)?;
    out.write(&cx.mm(), &Timespec::from_nanos(now))?;
    Ok(0)
}

/// clock_getres. See [clock_getres(2)](https://man7.org/linux/man-pages/man2/clock_getres.2.html).
pub fn clock_getres(cx: &mut Cx<'_>, clock: ClockId, out: Out<Timespec>) -> SysResult {
    clock.now(cx.kernel, cx.thread)?;
    if !out.is_null() {
        out.write(&cx.mm(), &Timespec::from_nanos(resolution(clock)))?;
    }
    Ok(0)
}

/// clock_settime: the host's clock is not the guest's to set.
/// See [clock_settime(2)](https://man7.org/linux/man-pages/man2/clock_settime.2.html).
pub fn clock_settime(cx: &mut Cx<'_>, clock: ClockId, time: In<Timespec>) -> SysResult {
    if clock != ClockId::Realtime {
        return Err(Errno::EINVAL.into());
    }
    if !time.read(&cx.mm())?.is_valid() {
        return Err(Errno::EINVAL.into());
    }
    Err(Errno::EPERM.into())
}

/// gettimeofday. See [gettimeofday(2)](https://man7.org/linux/man-pages/man2/gettimeofday.2.html).
pub fn gettimeofday(cx: &mut Cx<'_>, time: Out<Timeval>, zone: Out<Timezone>) -> SysResult {
    if !time.is_null() {
        time.write(&cx.mm(), &Timeval::from_nanos(cx.kernel.clock.realtime()))?;
    }
    if !zone.is_null() {
        zone.write(&cx.mm(), &Timezone::default())?;
    }
    Ok(0)
}

/// settimeofday: as [`clock_settime`].
/// See [settimeofday(2)](https://man7.org/linux/man-pages/man2/settimeofday.2.html).
pub fn settimeofday(cx: &mut Cx<'_>, time: In<Timeval>, _zone: UserRef<Timezone>) -> SysResult {
    if !time.is_null() {
        time.read(&cx.mm())?.to_nanos().ok_or(Errno::EINVAL)?;
    }
    Err(Errno::EPERM.into())
}

/// time. See [time(2)](https://man7.org/linux/man-pages/man2/time.2.html).
pub fn time(cx: &mut Cx<'_>, out: UserRef<i64>) -> SysResult {
    let seconds = cx.kernel.clock.realtime() / 1_000_000_000;
    if let Some(out) = out.optional() {
        out.write(&cx.mm(), &seconds.cast_signed())?;
    }
    Ok(seconds)
}

/// adjtimex: reading only. See [adjtimex(2)](https://man7.org/linux/man-pages/man2/adjtimex.2.html).
pub fn adjtimex(cx: &mut Cx<'_>, buf: Out<Timex>) -> SysResult {
    clock_adjtime(cx, ClockId::Realtime, buf)
}

/// clock_adjtime: reading only. See [clock_adjtime(2)](https://man7.org/linux/man-pages/man2/clock_adjtime.2.html).
pub fn clock_adjtime(cx: &mut Cx<'_>, clock: ClockId, buf: Out<Timex>) -> SysResult {
    /// `ADJ_OFFSET_SS_READ`: asks for what is left of an old adjtime(3); nothing is.
    const SS_READ: u32 = 0xa001;
    /// `STA_UNSYNC` and `TIME_ERROR`: nobody synchronises this clock, as far as the guest can know.
    const UNSYNC: i32 = 0x40;
    const TIME_ERROR: u64 = 5;
    if clock != ClockId::Realtime {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let request = buf.read(&cx.mm())?;
    if request.modes != 0 && request.modes != SS_READ {
        return Err(Errno::EPERM.into());
    }
    let answer = Timex {
        modes: request.modes,
        maxerror: 16_000_000,
        esterror: 16_000_000,
        status: UNSYNC,
        constant: 2,
        precision: 1,
        tolerance: 32_768_000,
        time: Timeval::from_nanos(cx.kernel.clock.realtime()),
        tick: 10_000,
        ..Timex::default()
    };
    buf.write(&cx.mm(), &answer)?;
    Ok(TIME_ERROR)
}

/// nanosleep. See [nanosleep(2)](https://man7.org/linux/man-pages/man2/nanosleep.2.html).
pub async fn nanosleep(
    cx: &mut Cx<'_>,
    request: In<Timespec>,
    rest: UserRef<Timespec>,
) -> SysResult {
    let time = request.read(&cx.mm())?;
    if !time.is_valid() {
        return Err(Errno::EINVAL.into());
    }
    let deadline = cx.deadline_after(time.to_nanos());
    sleep_relative(cx, deadline, rest).await
}

/// clock_nanosleep. See [clock_nanosleep(2)](https://man7.org/linux/man-pages/man2/clock_nanosleep.2.html).
pub async fn clock_nanosleep(
    cx: &mut Cx<'_>,
    clock: ClockId,
    flags: u32,
    request: In<Timespec>,
    rest: UserRef<Timespec>,
) -> SysResult {
    match clock {
        ClockId::Cpu(cpu) if cpu.is_thread => return Err(Errno::EINVAL.into()),
        ClockId::MonotonicRaw | ClockId::RealtimeCoarse | ClockId::MonotonicCoarse => {
            return Err(Errno::EOPNOTSUPP.into());
        }
        _ if clock.is_alarm() => return Err(Errno::EPERM.into()),
        _ => {}
    }
    let time = request.read(&cx.mm())?;
    if !time.is_valid() {
        return Err(Errno::EINVAL.into());
    }
    let (ns, is_absolute) = (time.to_nanos(), flags & TIMER_ABSTIME != 0);
    if let ClockId::Cpu(_) = clock {
        return sleep_on_cpu(cx, clock, ns, is_absolute).await;
    }
    if !is_absolute {
        let deadline = cx.deadline_after(ns);
        return sleep_relative(cx, deadline, rest).await;
    }
    let ahead = ns.saturating_sub(clock.now(cx.kernel, cx.thread)?);
    let deadline = cx.kernel.now().saturating_add(ahead);
    match cx.block_on(pending::<()>(), Some(deadline)).await {
        Ok(()) | Err(Blocked::TimedOut) => Ok(0),
        Err(Blocked::Interrupted) => Err(SysError::Restart(Restart::NoHandler)),
    }
}

/// Sleeps until a deadline that came from a relative time: interrupted, it tells what is left.
async fn sleep_relative(cx: &mut Cx<'_>, deadline: Nanos, rest: UserRef<Timespec>) -> SysResult {
    match cx.block_on(pending::<()>(), Some(deadline)).await {
        Ok(()) | Err(Blocked::TimedOut) => Ok(0),
        Err(Blocked::Interrupted) => {
            let left = deadline.saturating_sub(cx.kernel.now());
            if left == 0 {
                return Ok(0);
            }
            if let Some(rest) = rest.optional() {
                rest.write(&cx.mm(), &Timespec::from_nanos(left))?;
            }
            Err(cx.restart_until(deadline))
        }
    }
}

/// Sleeps until a process has used up so much CPU time: looks as often as that could have happened.
async fn sleep_on_cpu(cx: &mut Cx<'_>, clock: ClockId, ns: Nanos, is_absolute: bool) -> SysResult {
    const LOOK_NS: Nanos = 4_000_000;
    let start = clock.now(cx.kernel, cx.thread)?;
    let goal = if is_absolute { ns } else { start.saturating_add(ns) };
    loop {
        let used = clock.now(cx.kernel, cx.thread)?;
        let Some(left) = goal.checked_sub(used).filter(|left| *left > 0) else { return Ok(0) };
        let look_at = cx.kernel.now().saturating_add((left / 2).max(LOOK_NS));
        if cx.block_on(pending::<()>(), Some(look_at)).await == Err(Blocked::Interrupted) {
            return Err(SysError::Restart(Restart::NoHandler));
        }
    }
}
