//! How a thread is interrupted, wherever it is: waiting in a call or running guest code.
//!
//! `attention` is Linux's `TIF_SIGPENDING`: there is something to look at before guest code may run and because of
//! which waiting ends. Who sets it: `attention = true`, then look at `in_guest`, then kick or wake. The thread: `in_guest
//! = true`, resume, then look at `attention` and kick itself. Both in sequentially consistent order, so one of them
//! sees the other; a spurious kick is harmless.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Waker};

use abi::poll::PollEvents;
use abi::rlimit::Rlimit;
use base::WaitQueue;
use parking_lot::Mutex;
use platform::{Answers, Heap, Kicker};

use crate::executor::notify::wait_until;

/// See the module's documentation.
#[derive(Default)]
pub struct RunState {
    attention: AtomicBool,
    in_guest: AtomicBool,
    /// Somebody waits until guest code was interrupted once; the same protocol as `attention`, but it ends no wait.
    exit_wanted: AtomicBool,
    /// How often guest code was left.
    exits: AtomicU64,
    /// Told when guest code is left while `exit_wanted`.
    left: WaitQueue,
    /// Guest code is not to run for a while; the same protocol as `attention`, but it ends no wait.
    held: AtomicBool,
    /// Told when it may run again.
    released: WaitQueue,
    // Leaf locks; waker and kicker are called after they are released.
    waker: Mutex<Option<Waker>>,
    kicker: Mutex<Option<Arc<dyn Kicker>>>,
}

impl RunState {
    /// True when the thread must look at its signals (or end) before it goes on.
    pub fn has_attention(&self) -> bool {
        self.attention.load(Ordering::SeqCst)
    }

    /// Makes the thread look: ends a wait, interrupts guest code. Not under a lock.
    pub fn interrupt(&self) {
        self.attention.store(true, Ordering::SeqCst);
        self.kick();
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Starts to interrupt guest code of this thread once, if any runs: what it did before is then visible to all
    /// (membarrier(2)). Wait for it with [`RunState::finish_pass`].
    pub fn begin_pass(&self) -> Option<u64> {
        let exits = self.exits.load(Ordering::SeqCst);
        self.has_passed(exits).is_none().then_some(exits)
    }

    /// Waits until guest code was left after [`RunState::begin_pass`] answered `exits`.
    pub async fn finish_pass(&self, exits: u64) {
        wait_until(&self.left, PollEvents::IN, || self.has_passed(exits)).await;
    }

    fn has_passed(&self, exits: u64) -> Option<()> {
        // Each time: another waiter may have been served in between.
        self.exit_wanted.store(true, Ordering::SeqCst);
        let has_left = self.exits.load(Ordering::SeqCst) != exits || !self.is_in_guest();
        if !has_left {
            self.kick();
        }
        has_left.then_some(())
    }

    /// Keeps guest code from running again, or lets it. What runs goes on: see [`RunState::begin_pass`].
    pub fn set_held(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
        if !held {
            self.released.notify(PollEvents::IN);
        }
    }

    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    /// Told when the thread is not held any more.
    pub fn released(&self) -> &WaitQueue {
        &self.released
    }

    /// True when the thread, just resumed, must be kicked: see the module's documentation.
    pub fn must_leave(&self) -> bool {
        self.has_attention() || self.exit_wanted.load(Ordering::SeqCst)
    }

    /// Makes a thread that runs guest code come back once.
    pub fn kick(&self) {
        if self.in_guest.load(Ordering::SeqCst) {
            let kicker = self.kicker.lock().clone();
            if let Some(kicker) = kicker {
                kicker.kick();
            }
        }
    }

    /// The thread's call waits for something.
    pub fn note_blocked(&self) {
        let kicker = self.kicker.lock().clone();
        if let Some(kicker) = kicker {
            kicker.blocks();
        }
    }

    /// The thread is about to look; what comes later sets it again.
    pub fn clear_attention(&self) {
        self.attention.store(false, Ordering::SeqCst);
    }

    /// Who is woken by [`RunState::interrupt`]; then look at [`RunState::has_attention`].
    pub fn watch(&self, cx: &Context<'_>) {
        let mut waker = self.waker.lock();
        match &mut *waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            slot => *slot = Some(cx.waker().clone()),
        }
    }

    /// A new execution context (start, execve).
    pub fn set_kicker(&self, kicker: Arc<dyn Kicker>) {
        let old = self.kicker.lock().replace(kicker);
        drop(old);
    }

    /// Whether guest code runs, as far as it says, and what was deferred to that is carried out.
    pub fn has_carried_out(&self) -> bool {
        let kicker = self.kicker.lock().clone();
        kicker.is_some_and(|kicker| kicker.has_carried_out())
    }

    /// Tells the context what it may answer itself.
    pub fn set_answers(&self, answers: &Answers) {
        // Under the lock: see `forget_context`. It only writes.
        if let Some(kicker) = &*self.kicker.lock() {
            kicker.set_answers(answers);
        }
    }

    /// See [`Kicker::tell_heap`].
    pub fn tell_heap(&self, heap: Option<&Heap>) {
        if let Some(kicker) = &*self.kicker.lock() {
            kicker.tell_heap(heap);
        }
    }

    /// See [`Kicker::fix_heap`].
    pub fn fix_heap(&self) {
        if let Some(kicker) = &*self.kicker.lock() {
            kicker.fix_heap();
        }
    }

    /// See [`Kicker::set_alone`].
    pub fn set_alone(&self, is_alone: bool) {
        if let Some(kicker) = &*self.kicker.lock() {
            kicker.set_alone(is_alone);
        }
    }

    /// Tells the context the process's RLIMIT_STACK. Under the lock of the group's signals.
    pub fn tell_stack_limit(&self, limit: Rlimit) {
        if let Some(kicker) = &*self.kicker.lock() {
            kicker.tell_stack_limit(limit.cur, limit.max);
        }
    }

    /// The execution context is about to be given up: what stands for it may then be another's.
    pub fn forget_context(&self) {
        let old = self.kicker.lock().take();
        drop(old);
    }

    /// Whether what is lent to its address space is of the thread's descriptors. While it stands still.
    pub fn set_lends(&self, lends: bool) {
        if let Some(kicker) = &*self.kicker.lock() {
            kicker.set_lends(lends);
        }
    }

    /// Guest code is about to run.
    pub fn enter_guest(&self) {
        self.in_guest.store(true, Ordering::SeqCst);
    }

    /// Guest code stands still.
    pub fn leave_guest(&self) {
        // Nobody else writes it: without a locked operation.
        let exits = self.exits.load(Ordering::Relaxed);
        self.exits.store(exits.wrapping_add(1), Ordering::Release);
        self.in_guest.store(false, Ordering::SeqCst);
        if self.exit_wanted.load(Ordering::SeqCst) && self.exit_wanted.swap(false, Ordering::SeqCst)
        {
            self.left.notify(PollEvents::IN);
        }
    }

    /// True while guest code has the thread.
    fn is_in_guest(&self) -> bool {
        self.in_guest.load(Ordering::SeqCst)
    }

    /// True while guest code runs and does not wait for a futex there, for /proc's state letter.
    pub fn is_running(&self) -> bool {
        let kicker = self.kicker.lock().clone();
        self.is_in_guest() && !kicker.is_some_and(|kicker| kicker.is_asleep())
    }
}
