//! Timers of a process: setitimer(2), timer_create(2).
//!
//! An expiry's callback runs on the reactor, takes the state's lock, checks that it is still the one that was armed
//! last (`generation`), counts what it missed, arms the next one, and sends the signal after the lock is released.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use abi::ids::Tid;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use abi::{Errno, Result};
use base::clock::{Clock, Nanos};
use base::lock::Mutex;

use crate::executor::timer::{TimerHandle, Timers};
use crate::kernel::Kernel;
use crate::lock_order;
use crate::signal::{send_to_group, send_to_thread};
use crate::task::{Rusage, Thread, ThreadGroup};
use crate::time::clock::ClockId;

/// The interval timers of setitimer(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Itimer {
    Real,
    /// User CPU time.
    Virtual,
    /// User and system CPU time.
    Prof,
}

impl Itimer {
    const fn signal(self) -> Signal {
        match self {
            Self::Real => Signal::SIGALRM,
            Self::Virtual => Signal::SIGVTALRM,
            Self::Prof => Signal::SIGPROF,
        }
    }

    const fn scale(self) -> Scale {
        match self {
            Self::Real => Scale::Monotonic,
            Self::Virtual => Scale::UserCpu,
            Self::Prof => Scale::Cpu,
        }
    }
}

/// What a timer is set to; 0 is disarmed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Setting {
    pub value: Nanos,
    pub interval: Nanos,
}

/// Whom a POSIX timer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// SIGEV_NONE.
    Nobody,
    Process(Signal),
    Thread(Tid, Signal),
}

/// What a timer measures; everything is kept on one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Monotonic,
    UserCpu,
    Cpu,
}

/// A timer of timer_create(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PosixTimer {
    pub clock: ClockId,
    pub target: Target,
    /// `sigev_value`.
    pub value: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Which {
    Itimer(Itimer),
    Posix(i32),
}

/// One timer's state.
#[derive(Default)]
struct Slot {
    /// Next expiry on the timer's scale; `None` when disarmed.
    next: Option<Nanos>,
    interval: Nanos,
    /// Rises with every change: callbacks of earlier ones are stale.
    generation: u64,
    handle: Option<TimerHandle>,
    posix: Option<PosixTimer>,
    /// Expirations since the last signal that was sent, that signal's not counted.
    missed: u64,
    /// What timer_getoverrun(2) tells.
    overrun: i32,
}

/// The timers of one process.
#[derive(Default)]
pub struct GroupTimers {
    slots: Mutex<Slots, lock_order::Timers>,
}

#[derive(Default)]
struct Slots {
    map: BTreeMap<Which, Slot>,
    next_id: i32,
}

/// What a callback needs to know.
#[derive(Clone)]
struct Rig {
    timers: Arc<Timers>,
    clock: Arc<dyn Clock>,
    group: Weak<ThreadGroup>,
}

impl Rig {
    fn new(kernel: &Kernel, group: &Arc<ThreadGroup>) -> Self {
        Self {
            timers: Arc::clone(&kernel.timers),
            clock: Arc::clone(&kernel.clock),
            group: Arc::downgrade(group),
        }
    }

    fn now(&self, scale: Scale) -> Nanos {
        let usage = || self.group.upgrade().map_or_else(Rusage::default, |group| group.rusage());
        match scale {
            Scale::Monotonic => self.clock.monotonic(),
            Scale::UserCpu => usage().user_ns,
            Scale::Cpu => {
                let usage = usage();
                usage.user_ns.saturating_add(usage.system_ns)
            }
        }
    }

    /// Arms the callback for the slot's next expiry. `now` is on the slot's scale.
    fn arm(&self, which: Which, slot: &mut Slot, scale: Scale, now: Nanos) {
        let Some(next) = slot.next else { return };
        let deadline = match scale {
            Scale::Monotonic => next,
            // Several threads can use up the rest at the same time; and do not look more often than every tick.
            _ => {
                let rest = next.saturating_sub(now) / 2;
                self.clock.monotonic().saturating_add(rest.max(CPU_LOOK_NS))
            }
        };
        let (rig, generation) = (self.clone(), slot.generation);
        slot.handle = Some(
            self.timers.schedule(deadline, Box::new(move || expired(&rig, which, generation))),
        );
    }
}

/// Granularity of timers on CPU time, that of a kernel with HZ=250.
const CPU_LOOK_NS: Nanos = 4_000_000;

fn scale_of(which: Which, slot: &Slot) -> Scale {
    match (which, &slot.posix) {
        (Which::Itimer(timer), _) => timer.scale(),
        (_, Some(PosixTimer { clock: ClockId::Cpu(cpu), .. })) if cpu.is_user_only => {
            Scale::UserCpu
        }
        (_, Some(PosixTimer { clock: ClockId::Cpu(_), .. })) => Scale::Cpu,
        _ => Scale::Monotonic,
    }
}

/// What is to be sent once the lock is released.
enum Notice {
    Group(SigInfo),
    Thread(Tid, SigInfo),
}

/// A timer's callback.
fn expired(rig: &Rig, which: Which, generation: u64) {
    let Some(group) = rig.group.upgrade() else { return };
    let pending = group.any_thread().map(|thread| thread.pending_signals());
    // Read before the lock: it asks the host.
    let (mono, cpu) = (rig.now(Scale::Monotonic), group.rusage());
    let (notice, stale) = {
        let mut slots = group.timers.slots.lock();
        let Some(slot) = slots.map.get_mut(&which) else { return };
        if slot.generation != generation {
            return;
        }
        let scale = scale_of(which, slot);
        let now = match scale {
            Scale::Monotonic => mono,
            Scale::UserCpu => cpu.user_ns,
            Scale::Cpu => cpu.user_ns.saturating_add(cpu.system_ns),
        };
        let stale = slot.handle.take();
        let count = slot.advance(now);
        rig.arm(which, slot, scale, now);
        let is_pending = |signal| pending.is_some_and(|pending| pending.contains(signal));
        (slot.notice(which, count, is_pending), stale)
    };
    drop(stale);
    match notice {
        None => {}
        // A signal that cannot be queued (RLIMIT_SIGPENDING) is lost, as on Linux; so below.
        Some(Notice::Group(info)) => {
            let _ = send_to_group(&group, info);
        }
        Some(Notice::Thread(tid, info)) => {
            let threads = group.threads();
            if let Some(thread) = threads.iter().find(|thread| thread.tid() == tid) {
                let _ = send_to_thread(thread, info);
            }
        }
    }
}

impl Slot {
    /// Counts the expirations up to `now` and moves on to the next one.
    fn advance(&mut self, now: Nanos) -> u64 {
        let Some(next) = self.next.filter(|next| *next <= now) else { return 0 };
        if self.interval == 0 {
            self.next = None;
            return 1;
        }
        let count = (now - next) / self.interval + 1;
        self.next = Some(next.saturating_add(count.saturating_mul(self.interval)));
        count
    }

    /// What to send for `count` expirations.
    fn notice(
        &mut self,
        which: Which,
        count: u64,
        is_pending: impl Fn(Signal) -> bool,
    ) -> Option<Notice> {
        if count == 0 {
            return None;
        }
        let (id, posix) = match (which, &self.posix) {
            (Which::Itimer(timer), _) => {
                return Some(Notice::Group(SigInfo::kernel(timer.signal())));
            }
            (Which::Posix(id), Some(posix)) => (id, *posix),
            (Which::Posix(_), None) => return None,
        };
        let (tid, signal) = match posix.target {
            Target::Nobody => return None,
            Target::Process(signal) => (None, signal),
            Target::Thread(tid, signal) => (Some(tid), signal),
        };
        // A timer has at most one signal pending; what expires meanwhile is overrun.
        if is_pending(signal) {
            self.missed = self.missed.saturating_add(count);
            return None;
        }
        let overrun = self.missed.saturating_add(count - 1);
        self.overrun = i32::try_from(overrun).unwrap_or(i32::MAX);
        self.missed = 0;
        let info = SigInfo::timer(signal, id, self.overrun, posix.value);
        Some(match tid {
            None => Notice::Group(info),
            Some(tid) => Notice::Thread(tid, info),
        })
    }

    fn setting(&self, now: Nanos) -> Setting {
        let value = self.next.map_or(0, |next| next.saturating_sub(now).max(1));
        Setting { value, interval: self.interval }
    }
}

impl GroupTimers {
    /// getitimer(2).
    #[must_use]
    pub fn itimer(&self, kernel: &Kernel, group: &Arc<ThreadGroup>, timer: Itimer) -> Setting {
        let now = Rig::new(kernel, group).now(timer.scale());
        let slots = self.slots.lock();
        slots.map.get(&Which::Itimer(timer)).map_or_else(Setting::default, |slot| slot.setting(now))
    }

    /// setitimer(2): `new.value` is relative. Returns what was set.
    pub fn set_itimer(
        &self,
        kernel: &Kernel,
        group: &Arc<ThreadGroup>,
        timer: Itimer,
        new: Setting,
    ) -> Setting {
        let rig = Rig::new(kernel, group);
        let now = rig.now(timer.scale());
        let next = (new.value > 0).then(|| now.saturating_add(new.value));
        let which = Which::Itimer(timer);
        let mut slots = self.slots.lock();
        let slot = slots.map.entry(which).or_default();
        let old = slot.setting(now);
        let stale = slot.set(next, new.interval);
        rig.arm(which, slot, timer.scale(), now);
        drop(slots);
        drop(stale);
        old
    }

    /// timer_create(2): returns the new timer's id.
    ///
    /// # Errors
    /// `EAGAIN` when there are too many.
    pub fn create(&self, timer: PosixTimer, limit: u64) -> Result<i32> {
        let mut slots = self.slots.lock();
        let count = slots.map.keys().filter(|which| matches!(which, Which::Posix(_))).count();
        if count as u64 >= limit {
            return Err(Errno::EAGAIN);
        }
        let mut id = slots.next_id;
        while slots.map.contains_key(&Which::Posix(id)) {
            id = id.wrapping_add(1).max(0);
        }
        slots.next_id = id.wrapping_add(1).max(0);
        slots.map.insert(Which::Posix(id), Slot { posix: Some(timer), ..Slot::default() });
        Ok(id)
    }

    /// Changes the value that a timer passes on (the default is its own id).
    pub fn set_value(&self, id: i32, value: u64) {
        if let Some(Slot { posix: Some(timer), .. }) =
            self.slots.lock().map.get_mut(&Which::Posix(id))
        {
            timer.value = value;
        }
    }

    /// The clock of a timer.
    ///
    /// # Errors
    /// `EINVAL` when there is no such timer.
    pub fn clock_of(&self, id: i32) -> Result<ClockId> {
        let slots = self.slots.lock();
        let slot = slots.map.get(&Which::Posix(id)).ok_or(Errno::EINVAL)?;
        slot.posix.map(|timer| timer.clock).ok_or(Errno::EINVAL)
    }

    /// timer_settime(2). `new.value` is a time of the timer's clock when `is_absolute`. Returns what was set.
    ///
    /// # Errors
    /// `EINVAL` when there is no such timer.
    pub fn set(
        &self,
        kernel: &Kernel,
        thread: &Arc<Thread>,
        id: i32,
        new: Setting,
        is_absolute: bool,
    ) -> Result<Setting> {
        let clock = self.clock_of(id)?;
        let clock_now = clock.now(kernel, thread)?;
        let rig = Rig::new(kernel, &thread.group);
        let which = Which::Posix(id);
        let scale = match clock {
            ClockId::Cpu(cpu) if cpu.is_user_only => Scale::UserCpu,
            ClockId::Cpu(_) => Scale::Cpu,
            _ => Scale::Monotonic,
        };
        let now = rig.now(scale);
        let after = if is_absolute { new.value.saturating_sub(clock_now) } else { new.value };
        let next = (new.value > 0).then(|| now.saturating_add(after));
        let mut slots = self.slots.lock();
        let slot = slots.map.get_mut(&which).ok_or(Errno::EINVAL)?;
        let old = slot.setting(now);
        let stale = slot.set(next, new.interval);
        if slot.posix.is_some_and(|timer| timer.target != Target::Nobody) {
            rig.arm(which, slot, scale, now);
        }
        drop(slots);
        drop(stale);
        Ok(old)
    }

    /// timer_gettime(2).
    ///
    /// # Errors
    /// `EINVAL` when there is no such timer.
    pub fn get(&self, kernel: &Kernel, group: &Arc<ThreadGroup>, id: i32) -> Result<Setting> {
        let rig = Rig::new(kernel, group);
        let scale = match self.clock_of(id)? {
            ClockId::Cpu(cpu) if cpu.is_user_only => Scale::UserCpu,
            ClockId::Cpu(_) => Scale::Cpu,
            _ => Scale::Monotonic,
        };
        let now = rig.now(scale);
        let mut slots = self.slots.lock();
        let slot = slots.map.get_mut(&Which::Posix(id)).ok_or(Errno::EINVAL)?;
        if slot.handle.is_none() {
            // Nobody is told: nobody has counted either.
            slot.advance(now);
        }
        Ok(slot.setting(now))
    }

    /// timer_getoverrun(2).
    ///
    /// # Errors
    /// `EINVAL` when there is no such timer.
    pub fn overrun(&self, id: i32) -> Result<i32> {
        let slots = self.slots.lock();
        slots.map.get(&Which::Posix(id)).map(|slot| slot.overrun).ok_or(Errno::EINVAL)
    }

    /// timer_delete(2).
    ///
    /// # Errors
    /// `EINVAL` when there is no such timer.
    pub fn delete(&self, id: i32) -> Result<()> {
        let removed = self.slots.lock().map.remove(&Which::Posix(id));
        removed.map(drop).ok_or(Errno::EINVAL)
    }

    /// execve(2): POSIX timers go, interval timers stay.
    pub fn delete_posix(&self) {
        let mut removed = BTreeMap::new();
        let mut slots = self.slots.lock();
        removed.append(&mut slots.map.split_off(&Which::Posix(i32::MIN)));
        drop(slots);
        drop(removed);
    }
}

impl Slot {
    /// Returns the handle of what was armed, to be dropped after the lock.
    fn set(&mut self, next: Option<Nanos>, interval: Nanos) -> Option<TimerHandle> {
        self.next = next;
        // A disarmed timer has no interval either.
        self.interval = if next.is_some() { interval } else { 0 };
        self.generation += 1;
        (self.missed, self.overrun) = (0, 0);
        self.handle.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(next: Nanos, interval: Nanos) -> Slot {
        let timer = PosixTimer {
            clock: ClockId::Monotonic,
            target: Target::Process(Signal::SIGUSR1),
            value: 5,
        };
        Slot { next: Some(next), interval, posix: Some(timer), ..Slot::default() }
    }

    #[test]
    fn missed_expirations_are_counted() {
        let mut slot = slot(100, 10);
        assert_eq!(slot.advance(99), 0);
        assert_eq!(slot.advance(125), 3);
        assert_eq!(slot.next, Some(130));
        slot.interval = 0;
        assert_eq!(slot.advance(500), 1);
        assert_eq!(slot.next, None);
    }

    #[test]
    fn a_pending_signal_makes_overruns() {
        let mut slot = slot(100, 10);
        assert!(slot.notice(Which::Posix(0), 2, |_| true).is_none());
        assert!(slot.notice(Which::Posix(0), 2, |_| false).is_some());
        assert_eq!(slot.overrun, 3);
        assert!(slot.notice(Which::Posix(0), 0, |_| false).is_none());
    }

    #[test]
    fn settings_are_never_zero_while_armed() {
        let slot = slot(100, 10);
        assert_eq!(slot.setting(100), Setting { value: 1, interval: 10 });
        assert_eq!(slot.setting(40), Setting { value: 60, interval: 10 });
    }

    #[test]
    fn exec_keeps_interval_timers() {
        let timers = GroupTimers::default();
        let timer = PosixTimer { clock: ClockId::Monotonic, target: Target::Nobody, value: 0 };
        let id = timers.create(timer, 10).unwrap();
        timers.slots.lock().map.insert(Which::Itimer(Itimer::Real), Slot::default());
        assert_eq!(timers.create(timer, 1), Err(Errno::EAGAIN));
        timers.delete_posix();
        assert_eq!(timers.delete(id), Err(Errno::EINVAL));
        assert_eq!(timers.slots.lock().map.len(), 1);
    }
}
