//! The shared half of a context: what the listener, the scanner, kickers and the owning task all reach.

mod signals;

use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use abi::Errno;
use parking_lot::Mutex;
use shim_abi::pointers::{inline_place, pointers};
use shim_abi::{answer, kind, sleep, state, task};

use super::awaited::NOWHERE;
use super::chain;
use super::listener::Listener;
use super::loans::Lending;
use super::process::Process;
use super::region::SlotRef;
use super::sys::{self, AfterAddFd};
use super::windows::{Inline, Windows};
use crate::{Answers, Heap, Kicker, SharedSignals};

/// As a count of operations: not known yet.
const UNSENT: u32 = u32::MAX;

/// One guest thread of the host.
pub struct Thread {
    process: Arc<Process>,
    tid: i32,
    slot: SlotRef,
    /// It was resumed and its event was not taken yet: a kick makes sense.
    pub is_running: AtomicBool,
    /// What it posted was taken, and it was given no reply yet: the slot is the sentry's.
    is_taken: AtomicBool,
    /// When it was answered, in milliseconds of `spin`'s clock, which stands still between two accounts.
    pub answered_ms: AtomicU32,
    /// The context is gone; the host thread is to exit as soon as it is ours.
    pub is_doomed: AtomicBool,
    /// It was told to exit.
    pub is_ended: AtomicBool,
    /// Where it may run: see `chain`, and `spin`.
    pub place: AtomicU32,
    /// Flags of the one clone(2) that it was ordered to make; 0: none.
    pub may_clone: AtomicU64,
    /// How many operations went with the last resume that had any; [`UNSENT`] while some wait to be sent.
    expected_ops: AtomicU32,
    /// Place in the list of awaited threads; only that list's lock holder changes it.
    pub position: AtomicUsize,
    /// What its current call brought along.
    pub windows: Windows,
    /// What the slot says, as we know it; even. 0: guest code was not told dispositions.
    actions_version: AtomicU32,
    link: Mutex<Link>,
    waker: Mutex<Option<Waker>>,
}

/// How the host thread can be answered right now.
#[derive(Default)]
struct Link {
    /// Its doorbell that has not been answered.
    notification: Option<u64>,
    /// It was told to ring so that this can be given to it.
    pending: Option<Reply>,
}

/// An answer whose operations are in the slot already.
#[derive(Debug, Default)]
pub struct Reply {
    pub state: u32,
    /// Bits of [`task`], all but `HAS_FD`.
    pub word: u32,
    /// The result of a call that came without a signal, when no other register is new.
    pub returned: Option<u64>,
    /// With [`task::INLINE`]: outputs, which go behind the result.
    pub inline: Inline,
    pub files: Vec<Donation>,
    pub loans: Vec<Lending>,
}

/// A descriptor to install in the guest.
#[derive(Debug)]
pub struct Donation {
    pub file: Arc<OwnedFd>,
    /// Operations that use it.
    pub users: Vec<usize>,
    /// It stays there, for the next time.
    pub keep: bool,
}

impl Reply {
    fn has_files(&self) -> bool {
        !self.files.is_empty() || !self.loans.is_empty()
    }
}

impl Thread {
    pub fn new(process: &Arc<Process>, tid: i32, slot: SlotRef) -> Arc<Self> {
        Arc::new(Self {
            process: Arc::clone(process),
            tid,
            slot,
            is_running: AtomicBool::new(false),
            is_taken: AtomicBool::new(false),
            answered_ms: AtomicU32::new(0),
            is_doomed: AtomicBool::new(false),
            is_ended: AtomicBool::new(false),
            place: AtomicU32::new(chain::ROAMS),
            may_clone: AtomicU64::new(0),
            expected_ops: AtomicU32::new(UNSENT),
            position: AtomicUsize::new(NOWHERE),
            windows: Windows::default(),
            actions_version: AtomicU32::new(0),
            link: Mutex::default(),
            waker: Mutex::default(),
        })
    }

    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    pub fn tid(&self) -> i32 {
        self.tid
    }

    pub fn slot(&self) -> &SlotRef {
        &self.slot
    }

    /// Its host thread is dead, as far as the guest says: the id may be somebody else's by now. Only the first
    /// thread's never is, as long as the process lives.
    pub fn is_gone(&self) -> bool {
        self.slot.index() != 0 && self.slot.head().alive.load(Ordering::Acquire) == 0
    }

    pub fn is_posted(&self) -> bool {
        let now = self.slot.head().state.load(Ordering::Acquire);
        matches!(now, state::POSTED | state::POSTED_ASLEEP)
    }

    /// Its post was found: asks for what goes with it, if anything does.
    pub fn prefetch_post(&self) {
        let head = self.slot.head();
        if head.word.load(Ordering::Relaxed) >> kind::POINTERS_SHIFT == 0 {
            return;
        }
        let [number, arguments @ ..] = &head.call;
        let number = number.load(Ordering::Relaxed);
        let argument = |index: u8| {
            arguments.get(usize::from(index)).map_or(0, |word| word.load(Ordering::Relaxed))
        };
        let [first, ..] = pointers(number);
        if let Some((kind, _, len)) = first.resolve(argument)
            && inline_place(number, kind, len).is_none()
        {
            self.slot.prefetch(shim_abi::BOUNCE_OFFSET);
        }
    }

    /// Whether the guest waits for us, whatever for.
    pub fn is_ours(&self) -> bool {
        let now = self.slot.head().state.load(Ordering::Acquire);
        matches!(now, state::POSTED | state::LONG | state::POSTED_ASLEEP | state::LONG_ASLEEP)
    }

    /// Wakes the task that owns the context.
    pub fn wake(&self) {
        let waker = self.waker.lock().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub fn set_waker(&self, waker: &Waker) {
        let mut place = self.waker.lock();
        match &mut *place {
            Some(old) => old.clone_from(waker),
            None => *place = Some(waker.clone()),
        }
    }

    /// A hello was this thread's: its notification waits for the first reply.
    pub fn hold_hello(&self, notification: u64) {
        self.link.lock().notification = Some(notification);
    }

    /// Operations were deferred that are yet to be sent.
    pub fn note_deferred(&self) {
        self.expected_ops.store(UNSENT, Ordering::Relaxed);
    }

    /// So many operations go with a resume. While the slot is the sentry's.
    pub fn expect_ops(&self, count: u32) {
        self.slot.head().ops_done.store(0, Ordering::Relaxed);
        self.expected_ops.store(count, Ordering::Release);
    }

    /// Whether it stands in its slot after an event: what is written there is what it goes on with.
    pub fn stands_still(&self) -> bool {
        self.is_taken.load(Ordering::Relaxed) && self.is_ours()
    }

    /// What it posted is about to be looked at.
    pub fn take(&self) {
        self.is_taken.store(true, Ordering::Release);
    }

    /// It is about to be answered: see `awaited`.
    pub fn give_up(&self) {
        self.is_taken.store(false, Ordering::SeqCst);
    }

    /// Whether what it posted was taken and it was given no reply yet.
    pub fn is_taken(&self) -> bool {
        self.is_taken.load(Ordering::SeqCst)
    }

    /// Whether it is awaited, being in the list, and does not sleep in a futex of the host.
    pub fn is_awake(&self) -> bool {
        !self.is_taken() && !self.is_asleep()
    }

    /// The thread rang. Its owner is to be woken when that was for an event.
    pub fn on_ring(&self, listener: &Listener, notification: u64) -> bool {
        let mut link = self.link.lock();
        if let Some(reply) = link.pending.take() {
            drop(link);
            self.answer(listener, notification, &reply);
            return self.process.is_dead();
        }
        if self.is_posted() {
            link.notification = Some(notification);
            return true;
        }
        // Late: the reply was given before the bell rang (rule 5).
        drop(link);
        listener.send(notification, 0);
        false
    }

    /// Gives the slot back to the guest. The operations were written.
    pub fn reply(&self, listener: &Listener, reply: Reply) {
        let mut link = self.link.lock();
        if let Some(notification) = link.notification.take() {
            drop(link);
            self.answer(listener, notification, &reply);
            return;
        }
        // Under the lock: who rings meanwhile is late (rule 5), or waits for an answer that is still to come.
        if !reply.has_files() {
            self.publish(&reply, 0);
        } else {
            link.pending = Some(reply);
            self.give_back(state::RING);
        }
    }

    /// What the guest is told, in one go: meanwhile its shim looks at the line that this is written to, and each look takes
    /// it away from us. In particular no lock, which waits for what was written before.
    fn publish(&self, reply: &Reply, bits: u32) {
        let head = self.slot.head();
        if let Some(value) = reply.returned {
            head.call[0].store(value, Ordering::Relaxed);
        }
        if reply.word & task::INLINE != 0 {
            for (to, word) in head.call.iter().skip(1).zip(reply.inline) {
                to.store(word, Ordering::Relaxed);
            }
        }
        head.word.store(reply.word | bits, Ordering::Relaxed);
        self.give_back(reply.state);
    }

    /// From now on the slot is the guest's.
    fn give_back(&self, state: u32) {
        let head = self.slot.head();
        let before = head.state.swap(state, Ordering::SeqCst);
        if matches!(before, state::POSTED_ASLEEP | state::LONG_ASLEEP) {
            sys::futex_wake(&head.state);
        }
    }

    /// Publishes a reply to a thread that waits in its doorbell.
    fn answer(&self, listener: &Listener, notification: u64, reply: &Reply) {
        if !reply.has_files() {
            self.publish(reply, 0);
            if listener.has_others() {
                // It may have rung on another CPU: pulled here, all guests would end up on one.
                listener.send_elsewhere(notification, 0);
            } else {
                listener.send(notification, 0);
            }
            return;
        }
        let is_pulled = self.pull_here(listener);
        for lending in &reply.loans {
            lending.install(listener, notification);
        }
        if let Some((last, others)) = reply.files.split_last() {
            self.donate(listener, notification, reply, last, others);
        } else {
            self.publish(reply, 0);
            listener.send(notification, 0);
        }
        if is_pulled {
            self.let_go(listener);
        }
    }

    /// See [`Listener::pull_here`]; not needed where it is held here already.
    fn pull_here(&self, listener: &Listener) -> bool {
        !listener.is_at_home(self.place.load(Ordering::Relaxed)) && listener.pull_here(self.tid)
    }

    fn let_go(&self, listener: &Listener) {
        self.place.store(chain::ROAMS, Ordering::Relaxed);
        listener.let_go(self.tid);
    }

    fn donate(
        &self,
        listener: &Listener,
        notification: u64,
        reply: &Reply,
        last: &Donation,
        others: &[Donation],
    ) {
        for donation in others {
            match listener.add_fd(notification, donation.file.as_raw_fd(), AfterAddFd::Keep) {
                Ok(number) => {
                    self.set_fd(&donation.users, u64::from(number));
                    self.process.hold(donation, number);
                }
                Err(errno) => return self.lost(errno),
            }
        }
        self.set_fd(&last.users, shim_abi::FD_OF_RING);
        self.publish(reply, if last.keep { 0 } else { task::HAS_FD });
        match listener.add_fd(notification, last.file.as_raw_fd(), AfterAddFd::Answer) {
            Ok(number) => self.process.hold(last, number),
            Err(errno) => self.lost(errno),
        }
    }

    /// Writes a descriptor's number into the operations that use it. For closing it is the first argument.
    fn set_fd(&self, users: &[usize], number: u64) {
        for op in users.iter().filter_map(|at| self.slot.head().ops.get(*at)) {
            let is_close = op.nr.load(Ordering::Relaxed) == libc::SYS_close.cast_unsigned();
            let argument = if is_close { op.args.first() } else { op.args.get(4) };
            if let Some(argument) = argument {
                argument.store(number, Ordering::Relaxed);
            }
        }
    }

    /// A descriptor could not be installed: the process is gone, or must go.
    fn lost(&self, errno: Errno) {
        // ENOENT and ESRCH: it died meanwhile; the reaper says how.
        if errno != Errno::ENOENT && errno != Errno::ESRCH {
            self.process.fail(&format!("no descriptor could be installed: {}", errno.text()));
        }
    }
}

impl Kicker for Thread {
    fn blocks(&self) {
        // Else what is posted is the answer to an order, which is yet to be found.
        if self.is_taken.load(Ordering::Relaxed) {
            let (from, to) = (state::POSTED, state::LONG);
            let word = &self.slot.head().state;
            // Else it sleeps already.
            let _ = word.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn set_answers(&self, answers: &Answers) {
        let fast = self.slot.fast();
        let Range { start, end } = answers.questions;
        for (place, value) in [(answer::QUESTIONS, start), (answer::QUESTIONS_END, end)] {
            if let Some(word) = fast.answers.get(usize::from(place)) {
                word.store(value, Ordering::Relaxed);
            }
        }
        if !self.process.may_answer() {
            return;
        }
        let values = [
            (answer::PID, u64::from(answers.pid)),
            (answer::TID, u64::from(answers.tid)),
            (answer::PARENT, u64::from(answers.parent)),
            (answer::UID, u64::from(answers.uid)),
            (answer::EFFECTIVE_UID, u64::from(answers.effective_uid)),
            (answer::GID, u64::from(answers.gid)),
            (answer::EFFECTIVE_GID, u64::from(answers.effective_gid)),
            (answer::YIELD, 0),
            (answer::RSEQ, answers.rseq.to_return()),
        ];
        let mut answered = 0;
        for (place, value) in values {
            if let Some(word) = fast.answers.get(usize::from(place)) {
                word.store(value, Ordering::Relaxed);
                answered |= 1 << place;
            }
        }
        fast.answered.store(answered, Ordering::SeqCst);
    }

    fn tell_heap(&self, heap: Option<&Heap>) {
        let heap = heap.filter(|_| self.process.may_answer());
        let words = &self.slot.fast().heap;
        words.end.store(heap.map_or(0, |heap| heap.end), Ordering::SeqCst);
        words.start.store(heap.map_or(0, |heap| *heap.range.start()), Ordering::SeqCst);
        words.limit.store(heap.map_or(0, |heap| *heap.range.end()), Ordering::SeqCst);
        words.room_start.store(heap.map_or(0, |heap| heap.room.start), Ordering::SeqCst);
        words.room_end.store(heap.map_or(0, |heap| heap.room.end), Ordering::SeqCst);
    }

    fn fix_heap(&self) {
        self.slot.fast().heap.limit.store(0, Ordering::SeqCst);
        self.slot.fast().heap.room_end.store(0, Ordering::SeqCst);
        self.slot.fast().library.end.store(0, Ordering::SeqCst);
    }

    fn set_alone(&self, is_alone: bool) {
        let is_alone = is_alone && self.process.may_answer();
        self.slot.fast().is_alone.store(u32::from(is_alone), Ordering::SeqCst);
    }

    fn tell_stack_limit(&self, soft: u64, hard: u64) {
        if !self.process.may_answer() {
            return;
        }
        let [soft_word, hard_word] = &self.slot.fast().stack_limit;
        hard_word.store(0, Ordering::SeqCst);
        soft_word.store(soft, Ordering::SeqCst);
        hard_word.store(hard, Ordering::SeqCst);
    }

    fn has_carried_out(&self) -> bool {
        let expected = self.expected_ops.load(Ordering::Acquire);
        self.slot.head().ops_done.load(Ordering::Acquire) == expected
    }

    fn is_asleep(&self) -> bool {
        self.slot.head().asleep.load(Ordering::Relaxed) != sleep::AWAKE
    }

    fn set_lends(&self, lends: bool) {
        self.slot.fast().lends.store(u32::from(lends), Ordering::SeqCst);
    }

    fn share_signals(self: Arc<Self>) -> Option<Arc<dyn SharedSignals>> {
        if !self.process.may_answer() {
            return None;
        }
        let fast = self.slot.fast();
        self.actions_version.store(0, Ordering::Relaxed);
        fast.actions_version.store(0, Ordering::SeqCst);
        fast.has_mask.store(1, Ordering::SeqCst);
        Some(self)
    }

    fn kick(&self) {
        if self.is_running.load(Ordering::SeqCst) && !self.process.is_collected() {
            // The shim blocks it; it is delivered by the return to guest code (rule 6).
            let _ = sys::tgkill(self.process.pid(), self.tid, shim_abi::KICK_SIGNAL);
        }
    }
}
