//! Interval timers, POSIX timers, timerfds.

use abi::epoll::{FdFlags, TimerfdSetFlags};
use abi::ids::{Fd, Tid};
use abi::open::OpenFlags;
use abi::rlimit::Resource;
use abi::signal::Signal;
use abi::time::{
    ITIMER_PROF, ITIMER_REAL, ITIMER_VIRTUAL, Itimerspec, Itimerval, SIGEV_NONE, SIGEV_SIGNAL,
    SIGEV_THREAD, SIGEV_THREAD_ID, Sigevent, TIMER_ABSTIME, Timespec, Timeval,
};
use abi::{Errno, Result};
use base::cred::Caps;
use vfs::anon::timerfd::{self, TimerFd};
use vfs::anon::timers::TimerClock;
use vfs::fs::anonfs;

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::{Mm, UserRef};
use crate::strict_flags_arg;
use crate::syscalls::args::{FromArg, In, Out, Render};
use crate::syscalls::pipe::status_flags;
use crate::time::{ClockId, FileTimers, Itimer, PosixTimer, Setting, Target};

strict_flags_arg!(FdFlags as "TFD_");
strict_flags_arg!(TimerfdSetFlags as "TFD_TIMER_");

impl FromArg for Itimer {
    fn from_arg(word: u64) -> Result<Self> {
        match word as u32 {
            ITIMER_REAL => Ok(Self::Real),
            ITIMER_VIRTUAL => Ok(Self::Virtual),
            ITIMER_PROF => Ok(Self::Prof),
            _ => Err(Errno::EINVAL),
        }
    }
}

impl Render for Itimer {
    fn render(&self, out: &mut String, _mm: &Mm) {
        out.push_str(match self {
            Self::Real => "ITIMER_REAL",
            Self::Virtual => "ITIMER_VIRTUAL",
            Self::Prof => "ITIMER_PROF",
        });
    }
}

/// getitimer. See [getitimer(2)](https://man7.org/linux/man-pages/man2/getitimer.2.html).
pub fn getitimer(cx: &mut Cx<'_>, which: Itimer, out: Out<Itimerval>) -> SysResult {
    let group = &cx.thread.group;
    let setting = group.timers.itimer(cx.kernel, group, which);
    out.write(&cx.mm(), &to_itimerval(setting))?;
    Ok(0)
}

/// setitimer: a null new value disarms. See [setitimer(2)](https://man7.org/linux/man-pages/man2/setitimer.2.html).
pub fn setitimer(
    cx: &mut Cx<'_>,
    which: Itimer,
    new: In<Itimerval>,
    old: Out<Itimerval>,
) -> SysResult {
    let new = match new.optional() {
        None => Setting::default(),
        Some(new) => {
            let new = new.read(&cx.mm())?;
            let nanos = |time: Timeval| time.to_nanos().ok_or(Errno::EINVAL);
            Setting { value: nanos(new.value)?, interval: nanos(new.interval)? }
        }
    };
    let group = &cx.thread.group;
    let before = group.timers.set_itimer(cx.kernel, group, which, new);
    if !old.is_null() {
        old.write(&cx.mm(), &to_itimerval(before))?;
    }
    Ok(0)
}

/// alarm: answers the seconds that were left, rounded as Linux does.
/// See [alarm(2)](https://man7.org/linux/man-pages/man2/alarm.2.html).
pub fn alarm(cx: &mut Cx<'_>, seconds: u32) -> SysResult {
    const SECOND: u64 = 1_000_000_000;
    let group = &cx.thread.group;
    let new = Setting { value: u64::from(seconds) * SECOND, interval: 0 };
    let before = group.timers.set_itimer(cx.kernel, group, Itimer::Real, new).value;
    let (whole, part) = (before / SECOND, before % SECOND);
    // Never 0 for an alarm that is still to come.
    let rounds_up = part >= SECOND / 2 || (whole == 0 && part > 0);
    Ok(whole + u64::from(rounds_up))
}

fn to_itimerval(setting: Setting) -> Itimerval {
    // An armed timer never reads as disarmed.
    let value = if setting.value > 0 { setting.value.max(1000) } else { 0 };
    Itimerval { interval: Timeval::from_nanos(setting.interval), value: Timeval::from_nanos(value) }
}

fn to_itimerspec(value: u64, interval: u64) -> Itimerspec {
    Itimerspec { interval: Timespec::from_nanos(interval), value: Timespec::from_nanos(value) }
}

/// timer_create. See [timer_create(2)](https://man7.org/linux/man-pages/man2/timer_create.2.html).
pub fn timer_create(
    cx: &mut Cx<'_>,
    clock: ClockId,
    event: In<Sigevent>,
    id: Out<i32>,
) -> SysResult {
    if clock.is_alarm() && !cx.cred().has(Caps::WAKE_ALARM) {
        return Err(Errno::EPERM.into());
    }
    match clock {
        ClockId::MonotonicRaw | ClockId::RealtimeCoarse | ClockId::MonotonicCoarse => {
            return Err(Errno::EOPNOTSUPP.into());
        }
        _ => clock.now(cx.kernel, cx.thread).map(drop)?,
    }
    let (target, value) = match event.optional() {
        None => (Target::Process(Signal::SIGALRM), None),
        Some(event) => {
            let event = event.read(&cx.mm())?;
            (target_of(cx, &event)?, Some(event.value))
        }
    };
    let timers = &cx.thread.group.timers;
    let limit = cx.thread.group.limit(Resource::Sigpending);
    let made = timers.create(PosixTimer { clock, target, value: value.unwrap_or(0) }, limit)?;
    if value.is_none() {
        timers.set_value(made, u64::from(made.cast_unsigned()));
    }
    if let Err(errno) = id.write(&cx.mm(), &made) {
        timers.delete(made)?;
        return Err(errno.into());
    }
    Ok(0)
}

fn target_of(cx: &Cx<'_>, event: &Sigevent) -> Result<Target> {
    let signal = || {
        let number = u64::try_from(event.signo).map_err(|_| Errno::EINVAL)?;
        Signal::new(number).ok_or(Errno::EINVAL)
    };
    match event.notify {
        SIGEV_NONE => Ok(Target::Nobody),
        // SIGEV_THREAD is the library's; the kernel only sends its signal.
        SIGEV_SIGNAL | SIGEV_THREAD => Ok(Target::Process(signal()?)),
        SIGEV_THREAD_ID => {
            let thread = cx.kernel.tasks.thread(Tid(event.tid)).ok_or(Errno::EINVAL)?;
            if thread.tgid() != cx.thread.tgid() {
                return Err(Errno::EINVAL);
            }
            Ok(Target::Thread(thread.tid(), signal()?))
        }
        _ => Err(Errno::EINVAL),
    }
}

/// timer_settime. See [timer_settime(2)](https://man7.org/linux/man-pages/man2/timer_settime.2.html).
pub fn timer_settime(
    cx: &mut Cx<'_>,
    id: i32,
    flags: u32,
    new: In<Itimerspec>,
    old: Out<Itimerspec>,
) -> SysResult {
    if new.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let new = read_setting(cx, new)?;
    let is_absolute = flags & TIMER_ABSTIME != 0;
    let timers = &cx.thread.group.timers;
    let before = timers.set(cx.kernel, cx.thread, id, new, is_absolute)?;
    if !old.is_null() {
        old.write(&cx.mm(), &to_itimerspec(before.value, before.interval))?;
    }
    Ok(0)
}

fn read_setting(cx: &Cx<'_>, new: In<Itimerspec>) -> Result<Setting> {
    let new = new.read(&cx.mm())?;
    if !new.value.is_valid() || !new.interval.is_valid() {
        return Err(Errno::EINVAL);
    }
    Ok(Setting { value: new.value.to_nanos(), interval: new.interval.to_nanos() })
}

/// timer_gettime. See [timer_gettime(2)](https://man7.org/linux/man-pages/man2/timer_gettime.2.html).
pub fn timer_gettime(cx: &mut Cx<'_>, id: i32, out: Out<Itimerspec>) -> SysResult {
    let group = &cx.thread.group;
    let setting = group.timers.get(cx.kernel, group, id)?;
    out.write(&cx.mm(), &to_itimerspec(setting.value, setting.interval))?;
    Ok(0)
}

/// timer_getoverrun. See [timer_getoverrun(2)](https://man7.org/linux/man-pages/man2/timer_getoverrun.2.html).
pub fn timer_getoverrun(cx: &mut Cx<'_>, id: i32) -> SysResult {
    Ok(u64::from(cx.thread.group.timers.overrun(id)?.cast_unsigned()))
}

/// timer_delete. See [timer_delete(2)](https://man7.org/linux/man-pages/man2/timer_delete.2.html).
pub fn timer_delete(cx: &mut Cx<'_>, id: i32) -> SysResult {
    cx.thread.group.timers.delete(id)?;
    Ok(0)
}

/// timerfd_create. See [timerfd_create(2)](https://man7.org/linux/man-pages/man2/timerfd_create.2.html).
pub fn timerfd_create(cx: &mut Cx<'_>, clock: ClockId, flags: FdFlags) -> SysResult {
    let (kind, number) = match clock {
        ClockId::Realtime => (TimerClock::Realtime, 0),
        ClockId::Monotonic => (TimerClock::Monotonic, 1),
        ClockId::Boottime => (TimerClock::Boottime, 7),
        ClockId::RealtimeAlarm | ClockId::BoottimeAlarm if !cx.cred().has(Caps::WAKE_ALARM) => {
            return Err(Errno::EPERM.into());
        }
        // Nothing here ever suspends: an alarm clock is its plain twin.
        ClockId::RealtimeAlarm => (TimerClock::Realtime, 8),
        ClockId::BoottimeAlarm => (TimerClock::Boottime, 9),
        _ => return Err(Errno::EINVAL.into()),
    };
    let timer = TimerFd::new(kind, number, FileTimers::new(cx.kernel));
    let status = status_flags(flags.bits());
    cx.return_fd(anonfs::new_file(timer, "[timerfd]", status | OpenFlags::RDWR), status)
}

/// timerfd_settime. See [timerfd_settime(2)](https://man7.org/linux/man-pages/man2/timerfd_settime.2.html).
pub fn timerfd_settime(
    cx: &mut Cx<'_>,
    fd: Fd,
    flags: TimerfdSetFlags,
    new: In<Itimerspec>,
    old: Out<Itimerspec>,
) -> SysResult {
    let new = read_setting(cx, new)?;
    let file = cx.file(fd)?;
    let timer = file.ops().as_any().downcast_ref::<TimerFd>().ok_or(Errno::EINVAL)?;
    let new = timerfd::Setting { value: new.value, interval: new.interval };
    let before = timer.set(new, flags.bits())?;
    if !old.is_null() {
        old.write(&cx.mm(), &to_itimerspec(before.value, before.interval))?;
    }
    Ok(0)
}

/// timerfd_gettime. See [timerfd_gettime(2)](https://man7.org/linux/man-pages/man2/timerfd_gettime.2.html).
pub fn timerfd_gettime(cx: &mut Cx<'_>, fd: Fd, out: UserRef<Itimerspec>) -> SysResult {
    let file = cx.file(fd)?;
    let timer = file.ops().as_any().downcast_ref::<TimerFd>().ok_or(Errno::EINVAL)?;
    let setting = timer.get();
    out.write(&cx.mm(), &to_itimerspec(setting.value, setting.interval))?;
    Ok(0)
}
