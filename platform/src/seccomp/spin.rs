//! When a worker looks at the channels instead of blocking, and how shims learn of it.
//!
//! Cold is the rule: shims ring, the kernel switches to the worker on the same CPU. After a streak of rings in
//! quick succession the platform turns hot: a worker looks at the awaited channels, shims post without ringing.
//! One look without a find, being put off the CPU, or more guests than CPUs turn it cold again. How long the next
//! streak must be depends on how that went: a machine with work for all its CPUs is left alone for long.
//!
//! With as many guests as CPUs the one that looks takes a CPU from them. That is worth it as long as their calls come in
//! quick succession: each would cost several times as much by the doorbell.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, fence};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::thread::CpuSet;

use super::awaited::Found;
use super::shared::Shared;
use super::sys;
use super::thread::Thread;
use crate::linger;

/// How long a worker looks after the last find: an eighth of the time that it was hot, within these. So what is lost
/// on a guest that has other things to do stays small beside what was won; and a virtual CPU may pause for long.
const PATIENCE: Duration = Duration::from_micros(150);
const MOST_PATIENCE: Duration = Duration::from_micros(250);
const HOT_PER_PATIENCE: u32 = 8;
/// And after it has turned hot: the guest has to be woken on another CPU first, which takes long on a virtual machine.
const FIRST_PATIENCE: Duration = Duration::from_micros(500);
/// Between two glances; after more it is asked whether somebody else had the CPU. (Interrupts and exits of a virtual
/// CPU take long, too, but say nothing about what else is to be run.)
const LONG_GLANCE: Duration = Duration::from_micros(60);
/// After so many glances, or so many finds, it is asked whether somebody has rung nevertheless.
const GLANCES_PER_RING: u32 = 8;
const FINDS_PER_RING: u32 = 16;
/// Rings no further apart than this make a streak. A longer pause takes back a ring for each so much of it: who makes two dozen calls,
/// computes for a while, and so on, is worth to be looked at, too.
const STREAK_GAP: Duration = Duration::from_micros(120);
const GAP_PER_RING_NS: u64 = 30_000;
/// Rings while hot, one after the other, that make it cold.
const MOST_VAIN_RINGS: u32 = 3;
/// More than a short program makes in all: the guest is moved to another CPU for it, and back.
const SHORTEST_STREAK: u32 = 24;
const LONGEST_STREAK: u32 = 4096;
/// The same after it showed that other programs want the CPUs.
const CONTENDED_STREAK: u32 = 1 << 16;
/// The same with as many guests as CPUs.
const CROWDED_GAP: Duration = Duration::from_micros(16);
/// How long a worker looks with as many guests as CPUs.
const CROWDED_PATIENCE: Duration = Duration::from_micros(100);
/// After so many finds it is asked whether they came quickly enough for a worker with as many guests as CPUs: a call costs
/// several microseconds less than by the doorbell, but the guests have one CPU less.
const FINDS_PER_ACCOUNT: u32 = 64;
const CROWDED_FIND_NS: u64 = 25_000;
/// How long a crowd is left alone after it showed that it has other work for its CPUs; doubled each time.
const LEAST_PENALTY_NS: u64 = 4_000_000;
const MOST_PENALTY_NS: u64 = 256_000_000;
/// Who posts nothing for so long computes, and wants a CPU; unless it had to wait for one, so much for each other guest.
const SILENT_MS: u32 = 20;
const TURN_MS: u32 = 8;
/// So many finds pay for the way to them (each saves some 6 µs), when something that needs rings comes between, or nothing.
const WORTH_FINDS: u32 = 20;
/// So many finds say that being hot was right.
const GOOD_FINDS: u32 = 128;
const VERY_GOOD_FINDS: u32 = 2000;
/// Who works beside the workers (`step_aside`) will go on so for a while.
const ASIDE_NS: u64 = 3_000_000;
/// How long a shim looks for its reply before it sleeps.
const SHIM_PATIENCE: Duration = Duration::from_micros(50);

/// State of the policy.
pub struct Spin {
    start: Instant,
    cpus: usize,
    /// CPUs that the sandbox may use.
    pub(super) allowed: CpuSet,
    is_hot: AtomicBool,
    is_spinning: AtomicBool,
    /// Guests that may not run on the looking worker's CPU, and which that was when they were told so.
    pub(super) kept_away: Mutex<Vec<Arc<Thread>>>,
    pub(super) kept_from: AtomicUsize,
    /// Finds since it is hot.
    finds: AtomicU32,
    /// Rings since the last find: being hot is of no use to who sleeps between calls.
    vain_rings: AtomicU32,
    streak: AtomicU32,
    /// Rings at the end of the streak that were close enough together for a crowd.
    dense_streak: AtomicU32,
    wanted_streak: AtomicU32,
    /// With as many guests as CPUs it is not tried again before then, and how long it is left alone the next time.
    not_before_ns: AtomicU64,
    penalty_ns: AtomicU64,
    last_ring_ns: AtomicU64,
    /// When somebody beside the workers began to work last.
    aside_ns: AtomicU64,
    /// Which CPU it avoids.
    pub(super) avoided: AtomicUsize,
    /// Rings for events, ever.
    rings: AtomicU64,
    hot_since_ns: AtomicU64,
    /// Involuntary switches of the looking thread, as of the last question.
    preemptions: AtomicU64,
    /// Since when finds are counted for the next account.
    account_since_ns: AtomicU64,
}

/// Why looking ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// As many guests as CPUs, and too little to do for one of these.
    Crowded,
    /// As many guests as CPUs, and one of them computes.
    Wanted,
    /// The guest has other things to do.
    InVain,
    /// The guest did not come to its first call.
    Late,
    /// Somebody else had our CPU.
    Contended,
}

/// Identifies the calling thread.
pub fn worker_key() -> usize {
    thread_local! { static KEY: u8 = const { 0 }; }
    KEY.with(|key| std::ptr::from_ref(key).addr())
}

impl Spin {
    pub fn new(is_wanted: bool) -> Self {
        Self {
            start: Instant::now(),
            // With one CPU nobody ever looks.
            cpus: if is_wanted { available_cpus() } else { 1 },
            allowed: rustix::thread::sched_getaffinity(None).unwrap_or_default(),
            is_hot: AtomicBool::new(false),
            is_spinning: AtomicBool::new(false),
            kept_away: Mutex::default(),
            kept_from: AtomicUsize::new(usize::MAX),
            finds: AtomicU32::new(0),
            vain_rings: AtomicU32::new(0),
            streak: AtomicU32::new(0),
            dense_streak: AtomicU32::new(0),
            wanted_streak: AtomicU32::new(SHORTEST_STREAK),
            not_before_ns: AtomicU64::new(0),
            penalty_ns: AtomicU64::new(LEAST_PENALTY_NS),
            last_ring_ns: AtomicU64::new(0),
            aside_ns: AtomicU64::new(0),
            avoided: AtomicUsize::new(usize::MAX),
            rings: AtomicU64::new(0),
            hot_since_ns: AtomicU64::new(0),
            preemptions: AtomicU64::new(0),
            account_since_ns: AtomicU64::new(0),
        }
    }

    pub fn is_hot(&self) -> bool {
        self.is_hot.load(Relaxed)
    }

    /// When the last account was opened, in milliseconds.
    pub fn account_ms(&self) -> u32 {
        (self.account_since_ns.load(Relaxed) / 1_000_000) as u32
    }

    /// Somebody beside the workers has something to do.
    pub(super) fn note_aside(&self) {
        self.aside_ns.store(self.now_ns(), Relaxed);
    }

    /// How many beside the workers want a CPU, as far as is known.
    fn aside(&self) -> usize {
        let last = self.aside_ns.load(Relaxed);
        usize::from(last != 0 && self.now_ns().saturating_sub(last) < ASIDE_NS)
    }

    /// For statistics.
    pub fn rings(&self) -> u64 {
        self.rings.load(Relaxed)
    }

    /// Whether there are CPUs to choose from.
    pub fn has_choice(&self) -> bool {
        self.cpus > 1
    }

    /// Time since the last ring that was for an event.
    pub fn since_ring_ns(&self) -> u64 {
        self.now_ns().saturating_sub(self.last_ring_ns.load(Relaxed))
    }

    /// The policy's clock.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn patience(&self) -> Duration {
        let hot_ns = self.now_ns().saturating_sub(self.hot_since_ns.load(Relaxed));
        let share = Duration::from_nanos(hot_ns) / HOT_PER_PATIENCE;
        share.clamp(PATIENCE, MOST_PATIENCE)
    }

    /// Whether the calling thread lost its CPU to another since the last question.
    fn was_preempted(&self) -> bool {
        let now = sys::involuntary_switches();
        self.preemptions.swap(now, Relaxed) != now
    }

    /// Whether calls of `guests` threads have come so quickly that looking promises to pay.
    fn is_streak_enough(&self, guests: usize) -> bool {
        let wanted = self.wanted_streak.load(Relaxed);
        if self.has_room(guests) {
            return self.streak.load(Relaxed) >= wanted;
        }
        self.cpus > 1
            && self.dense_streak.load(Relaxed) >= SHORTEST_STREAK
            && self.now_ns() >= self.not_before_ns.load(Relaxed)
    }

    /// Looking at a crowd ended: how soon to try again.
    fn judge_crowd(&self, was_good: bool) {
        if was_good {
            self.penalty_ns.store(LEAST_PENALTY_NS, Relaxed);
            return;
        }
        let penalty = self.penalty_ns.load(Relaxed);
        self.penalty_ns.store((penalty * 2).min(MOST_PENALTY_NS), Relaxed);
        self.not_before_ns.store(self.now_ns() + penalty, Relaxed);
    }

    /// Begins an account; how long the last one took, in nanoseconds.
    fn open_account(&self) -> u64 {
        let now = self.now_ns();
        now.saturating_sub(self.account_since_ns.swap(now, Relaxed))
    }

    /// Whether `guests` threads leave a CPU to look from.
    pub(super) fn has_room(&self, guests: usize) -> bool {
        guests < self.cpus
    }
}

fn available_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How many pauses a shim makes before it sleeps.
pub fn shim_spins() -> u32 {
    const SAMPLE: u32 = 2000;
    let start = Instant::now();
    for _ in 0..SAMPLE {
        std::hint::spin_loop();
    }
    let sample_ns = start.elapsed().as_nanos().max(1);
    let spins = SHIM_PATIENCE.as_nanos() * u128::from(SAMPLE) / sample_ns;
    u32::try_from(spins).unwrap_or(SAMPLE).clamp(100, 20_000)
}

impl Shared {
    fn set_looking(&self, looking: bool) {
        self.global.get().looking.store(u32::from(looking), SeqCst);
    }

    fn is_looking(&self) -> bool {
        self.global.get().looking.load(Relaxed) != 0
    }

    /// Whether shims may have posted without ringing.
    pub fn may_have_unrung(&self) -> bool {
        self.is_looking()
    }

    /// A shim rang for an event: how many did so in quick succession.
    pub fn note_ring(&self) {
        let spin = &self.spin;
        spin.rings.fetch_add(1, Relaxed);
        if spin.is_hot.load(Relaxed) {
            if self.orders.are_open() {
                // Nobody looks.
            } else if spin.vain_rings.fetch_add(1, Relaxed) >= MOST_VAIN_RINGS {
                self.cool_down();
            }
            return;
        }
        let now_ns = spin.now_ns();
        let gap_ns = now_ns.saturating_sub(spin.last_ring_ns.swap(now_ns, Relaxed));
        if u128::from(gap_ns) > CROWDED_GAP.as_nanos() {
            spin.dense_streak.store(0, Relaxed);
        } else {
            spin.dense_streak.fetch_add(1, Relaxed);
        }
        if u128::from(gap_ns) > STREAK_GAP.as_nanos() {
            let before = spin.streak.load(Relaxed);
            let lost = u32::try_from(gap_ns / GAP_PER_RING_NS).unwrap_or(u32::MAX);
            let after = before.saturating_sub(lost);
            spin.streak.store(after, Relaxed);
            // A streak that was long, but not long enough: the next one need not be quite so long.
            if before >= WORTH_FINDS && after < WORTH_FINDS {
                let wanted = spin.wanted_streak.load(Relaxed);
                spin.wanted_streak.store(wanted - wanted / 8, Relaxed);
            }
            return;
        }
        spin.streak.fetch_add(1, Relaxed);
    }

    /// A thread is about to go on with guest code: turns hot if its calls came in quick succession.
    pub fn heat_up(&self) {
        let spin = &self.spin;
        if !spin.is_hot.load(Relaxed)
            && spin.is_streak_enough(self.awake_count() + 1 + spin.aside())
            && !self.orders.are_open()
            && !spin.is_hot.swap(true, SeqCst)
        {
            spin.finds.store(0, Relaxed);
            spin.open_account();
            spin.hot_since_ns.store(spin.now_ns(), Relaxed);
            spin.vain_rings.store(0, Relaxed);
            self.disband();
            // The guest is to be woken elsewhere: this CPU will be busy looking.
            self.listener.set_sync(false);
        }
    }

    /// What comes next goes through the doorbell: rings are quicker when nobody looks. No fault of the guest.
    pub fn cool_down(&self) {
        let spin = &self.spin;
        if spin.is_hot.swap(false, SeqCst) {
            self.listener.set_sync(true);
            self.let_guests_roam();
            spin.dense_streak.store(0, Relaxed);
            // How soon to look again: as it was worth it this time.
            let (finds, wanted) = (spin.finds.load(Relaxed), spin.wanted_streak.load(Relaxed));
            tracing::debug!(finds, wanted, "looking ends for a ring");
            if finds >= WORTH_FINDS {
                spin.wanted_streak.store((wanted / 2).max(1), Relaxed);
            } else if wanted < SHORTEST_STREAK {
                spin.wanted_streak.store(wanted * 2, Relaxed);
            }
        }
        self.spin.streak.store(0, Relaxed);
    }

    fn turn_cold(&self, ending: Ending) {
        let spin = &self.spin;
        if !spin.is_hot.swap(false, SeqCst) {
            return;
        }
        self.listener.set_sync(true);
        self.let_guests_roam();
        spin.streak.store(0, Relaxed);
        spin.dense_streak.store(0, Relaxed);
        let wanted = spin.wanted_streak.load(Relaxed);
        let finds = spin.finds.load(Relaxed);
        let next = match ending {
            Ending::Crowded | Ending::Wanted => {
                // Crowded for a moment only, perhaps because others had the CPUs.
                let hot_ns = spin.now_ns().saturating_sub(spin.hot_since_ns.load(Relaxed));
                let was_good = u64::from(finds) * CROWDED_FIND_NS >= hot_ns;
                spin.judge_crowd(was_good && ending == Ending::Crowded);
                wanted
            }
            _ if finds >= VERY_GOOD_FINDS => wanted.min(SHORTEST_STREAK),
            Ending::InVain if finds >= WORTH_FINDS => (wanted / 2).max(1),
            Ending::InVain => wanted.saturating_mul(2).min(LONGEST_STREAK.max(wanted)),
            Ending::Late => wanted.saturating_mul(4).min(LONGEST_STREAK.max(wanted)),
            Ending::Contended if finds >= GOOD_FINDS => wanted,
            Ending::Contended => wanted.saturating_mul(16).min(CONTENDED_STREAK),
        };
        spin.wanted_streak.store(next, Relaxed);
        tracing::debug!(?ending, finds, next, "looking ends");
    }

    /// Looks at the channels for a while, when that is worth it; true when somebody was woken: then the worker is to come
    /// back to this, for shims go on to rely on it. Before it returns false none does (rule 4).
    pub fn look(self: &Arc<Self>) -> bool {
        let spin = &self.spin;
        if spin.is_spinning.swap(true, SeqCst) {
            // Somebody else looks.
            return false;
        }
        // New threads and processes ring, whatever is looked at.
        let worth = spin.is_hot.load(SeqCst) && !self.orders.are_open();
        let found = worth && self.look_patiently(None).is_any();
        if found {
            spin.is_spinning.store(false, SeqCst);
            return true;
        }
        let was_looking = self.is_looking();
        self.set_looking(false);
        fence(SeqCst);
        spin.is_spinning.store(false, SeqCst);
        // Whoever posted while the flag was set did not ring.
        was_looking && self.scan()
    }

    /// The same for the task of a thread that was just answered, when it is the only one that this worker has: true when that
    /// thread's next post is there. The task goes on then, without having been woken, queued and run again. After false the
    /// worker comes to [`Shared::look`].
    pub fn linger(self: &Arc<Self>, own: &Arc<Thread>) -> bool {
        let spin = &self.spin;
        let may_stay = linger::has_time()
            && self.is_looking()
            && spin.is_hot.load(SeqCst)
            && !self.orders.are_open()
            && !self.has_doomed();
        if !may_stay || spin.is_spinning.swap(true, SeqCst) {
            return false;
        }
        let found = self.look_patiently(Some(own));
        spin.is_spinning.store(false, Release);
        found.is_own
    }

    fn look_patiently(self: &Arc<Self>, own: Option<&Arc<Thread>>) -> Found {
        let spin = &self.spin;
        if !self.is_looking() {
            self.set_looking(true);
            fence(SeqCst);
        }
        let is_first = spin.finds.load(Relaxed) == 0;
        if is_first {
            spin.was_preempted();
        }
        // The clock is read when the first glances found nothing.
        let mut times: Option<Times> = None;
        for glance in 0_u32.. {
            let is_due = match glance {
                0 => spin.finds.load(Relaxed).is_multiple_of(FINDS_PER_RING),
                _ => glance.is_multiple_of(GLANCES_PER_RING),
            };
            if is_due && let Some(found) = self.ask_for_rings() {
                return found;
            }
            // Who was just answered does not wait for something else.
            if (glance > 0 || own.is_none()) && self.awake_count() == 0 {
                // All wait for something else; it stays hot.
                return Found::default();
            }
            for _ in 0..16 {
                let found = self.scan_beside(own);
                if found.is_any() {
                    self.note_find();
                    return found;
                }
                std::hint::spin_loop();
            }
            let now = Instant::now();
            let Some(times) = &mut times else {
                times = Some(Times { begun: now, last: now });
                continue;
            };
            if let Some(ending) = self.has_looked_enough(times, now, is_first) {
                self.turn_cold(ending);
                return Found::default();
            }
            times.last = now;
        }
        Found::default()
    }

    /// Whether somebody has rung nevertheless; then looking is to be left for it, or it is taken here.
    fn ask_for_rings(self: &Arc<Self>) -> Option<Found> {
        if self.spin.has_room(self.awake_count()) {
            // Others do not know that they are looked at; it stays hot.
            return self.listener.has_rung().then(Found::default);
        }
        // Who rang is one of many: the others are not to ring as well meanwhile.
        let notification = self.listener.take_ring()?;
        let has_woken = self.on_notification(&notification);
        has_woken.then_some(Found { is_own: false, are_others: true })
    }

    /// Why the look is to end, if it is.
    fn has_looked_enough(&self, times: &Times, now: Instant, is_first: bool) -> Option<Ending> {
        let spin = &self.spin;
        if now - times.last > LONG_GLANCE && spin.was_preempted() {
            return Some(Ending::Contended);
        }
        let is_crowded = !spin.has_room(self.awake_count());
        let patience = match (is_first, is_crowded) {
            (true, _) => FIRST_PATIENCE,
            (false, true) => CROWDED_PATIENCE,
            (false, false) => spin.patience(),
        };
        (now - times.begun > patience).then_some(match (is_first, is_crowded) {
            (_, true) => Ending::Crowded,
            // A guest that does not even come to its first call has no CPU.
            (true, false) => Ending::Late,
            (false, false) => Ending::InVain,
        })
    }

    /// Somebody had posted.
    fn note_find(&self) {
        let spin = &self.spin;
        spin.vain_rings.store(0, Relaxed);
        // Only who looks counts: without a locked operation.
        let finds = spin.finds.load(Relaxed).wrapping_add(1);
        spin.finds.store(finds, Relaxed);
        if !finds.is_multiple_of(FINDS_PER_ACCOUNT) {
            return;
        }
        self.follow_looker();
        let took_ns = spin.open_account();
        let guests = self.awake_count();
        if spin.has_room(guests) {
            return;
        }
        let hot_ms = (spin.hot_since_ns.load(Relaxed) / 1_000_000) as u32;
        let turns_ms = TURN_MS.saturating_mul(u32::try_from(guests).unwrap_or(u32::MAX));
        let since_ms = spin.account_ms().saturating_sub(SILENT_MS.saturating_add(turns_ms));
        if since_ms > hot_ms && self.has_silent(since_ms) {
            self.turn_cold(Ending::Wanted);
        } else if took_ns > u64::from(FINDS_PER_ACCOUNT) * CROWDED_FIND_NS {
            self.turn_cold(Ending::Crowded);
        }
    }
}

/// Of one look: its begin, and its last glance.
struct Times {
    begun: Instant,
    last: Instant,
}
