//! Where guests run while nobody looks at the channels.
//!
//! Guests that take turns (a shell and the program that it waits for, a driver and its compiler) make a *chain*: they and the
//! worker that answers them are held on one CPU, the *home*. Else each new process begins on another CPU and its first ring
//! pulls the worker there, away from all that its caches hold; a wake-up on another CPU takes longer than a call, too. What
//! nobody waits for stays off that CPU: the zygote, the dying, the reaper.
//!
//! A chain is disbanded when guests often run at the same time, when nothing has been heard of a running one for a while (it
//! computes, and perhaps has to share the CPU with others), and for a moment now and then: the scheduler may then move it. While
//! somebody looks there is none: see `spin`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64};
use std::time::Duration;

use abi::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::region::errno;
use super::shared::Shared;
use super::thread::Thread;

/// Values of [`Thread::place`] and [`Listener::home`](super::listener::Listener::home): else a CPU's number + 1.
pub const ROAMS: u32 = 0;
/// Everywhere but on some CPU.
pub const AWAY: u32 = u32::MAX;

/// How often another guest ran, or could be woken by one, when one was answered, of [`ALWAYS`]; the last turns count most.
const ALWAYS: u32 = 256;
const SHARE_OF_ONE: u32 = 8;
const GATHERS_BELOW: u32 = 80;
const DISBANDS_ABOVE: u32 = 160;
/// Between two looks whether the chain goes on.
const ALARM: Duration = Duration::from_millis(4);
/// Nothing was heard for so long: somebody computes, or waits for a CPU that others have.
const SILENCE_NS: u64 = 3_000_000;
/// And then there is no chain for so long.
const PENALTY_NS: u64 = 10_000_000;
/// After so many alarms the scheduler gets its chance.
const ALARMS_PER_MOVE: u32 = 32;

/// State of the policy.
pub struct Chain {
    /// The worker's host thread.
    worker: AtomicI32,
    overlap: AtomicU32,
    not_before_ns: AtomicU64,
    alarm: OwnedFd,
    is_armed: AtomicBool,
    alarms: AtomicU32,
}

impl Chain {
    pub fn new() -> Result<Self, Errno> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self {
            worker: AtomicI32::new(0),
            overlap: AtomicU32::new(0),
            not_before_ns: AtomicU64::new(0),
            alarm: timerfd_create(TimerfdClockId::Monotonic, flags).map_err(errno)?,
            is_armed: AtomicBool::new(false),
            alarms: AtomicU32::new(0),
        })
    }

    /// Readable when [`Shared::on_alarm`] is due.
    pub fn alarm(&self) -> BorrowedFd<'_> {
        self.alarm.as_fd()
    }

    fn arm(&self) {
        if !self.is_armed.load(Relaxed) && !self.is_armed.swap(true, SeqCst) {
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            let it_value = Timespec { tv_sec: 0, tv_nsec: i64::from(ALARM.subsec_nanos()) };
            let due = Itimerspec { it_interval: zero, it_value };
            // Cannot fail with a time that is one.
            let _ = timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &due);
        }
    }

    /// Another turn; how often there were others meanwhile.
    fn note_turn(&self, is_alone: bool) -> u32 {
        let before = self.overlap.load(Relaxed);
        let share = if is_alone { 0 } else { ALWAYS / SHARE_OF_ONE };
        let now = before - before / SHARE_OF_ONE + share;
        self.overlap.store(now, Relaxed);
        now
    }
}

impl Shared {
    /// A guest is about to be answered by the calling thread, alone or while others run.
    pub fn choose_place(&self, thread: &Thread, is_alone: bool) {
        let chain = &self.chain;
        if !self.spin.has_choice() || self.spin.is_hot() {
            return;
        }
        // The reactor answers now and then: it stays where it is.
        if self.listener.is_listener() {
            let overlap = chain.note_turn(is_alone);
            if self.listener.home.load(Relaxed) == ROAMS {
                if overlap < GATHERS_BELOW
                    && self.spin.now_ns() >= chain.not_before_ns.load(Relaxed)
                {
                    self.gather();
                }
            } else if overlap > DISBANDS_ABOVE {
                tracing::debug!("chain ends: guests run at the same time");
                self.disband();
            } else {
                chain.arm();
            }
        }
        let home = self.listener.home.load(Relaxed);
        if thread.place.load(Relaxed) == home {
            return;
        }
        match home {
            ROAMS => self.spin.let_roam(thread.tid()),
            home => self.spin.hold(thread.tid(), home - 1),
        }
        thread.place.store(home, SeqCst);
        if self.listener.home.load(SeqCst) != home {
            // It has changed meanwhile, and whoever changed it may have missed this one.
            thread.place.store(ROAMS, Relaxed);
            self.spin.let_roam(thread.tid());
        }
    }

    /// The calling worker's CPU becomes the home.
    fn gather(&self) {
        let Ok(cpu) = u32::try_from(rustix::thread::sched_getcpu()) else { return };
        let worker = rustix::thread::gettid().as_raw_nonzero().get();
        self.chain.worker.store(worker, Relaxed);
        self.spin.hold(worker, cpu);
        self.spin.send_away(self.pool.zygote_pid());
        self.listener.home.store(cpu + 1, SeqCst);
        self.chain.arm();
        tracing::debug!(cpu, "chain begins");
    }

    /// Everybody may run everywhere. Whom this misses, because it is just being born, is let go at its next turn.
    pub fn disband(&self) {
        if self.listener.home.swap(ROAMS, SeqCst) == ROAMS {
            return;
        }
        self.spin.let_roam(self.chain.worker.load(Relaxed));
        self.spin.let_roam(self.pool.zygote_pid());
        let held: Vec<_> = {
            let threads = self.threads.lock();
            let is_held = |thread: &Thread| !matches!(thread.place.load(Relaxed), ROAMS | AWAY);
            threads.values().filter(|thread| is_held(thread)).cloned().collect()
        };
        for thread in held {
            thread.place.store(ROAMS, Relaxed);
            // Dead meanwhile, its id may be somebody else's.
            if !thread.is_gone() && !thread.process().is_collected() {
                self.spin.let_roam(thread.tid());
            }
        }
    }

    /// The alarm went off.
    pub fn on_alarm(&self) {
        let chain = &self.chain;
        // What it says is known; afterwards it is not readable any more.
        let _ = rustix::io::read(&chain.alarm, &mut [0; 8]);
        chain.is_armed.store(false, SeqCst);
        if self.listener.home.load(Relaxed) == ROAMS || self.awaited.len() == 0 {
            // The next turn sets it again.
            return;
        }
        // Who sleeps in a futex of the host may be woken without a turn, and more than one of them.
        let is_silent = self.spin.since_ring_ns() > SILENCE_NS || self.awake_count() == 0;
        if is_silent || chain.alarms.fetch_add(1, Relaxed) % ALARMS_PER_MOVE == ALARMS_PER_MOVE - 1
        {
            tracing::debug!(is_silent, "chain ends for a moment");
            if is_silent {
                chain.overlap.store(ALWAYS, Relaxed);
                chain.not_before_ns.store(self.spin.now_ns() + PENALTY_NS, Relaxed);
            }
            self.disband();
        } else {
            chain.arm();
        }
    }
}
