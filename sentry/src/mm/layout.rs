//! Who may change the layout of an address space in which several threads run.
//!
//! Linux has `mmap_lock`. Here the lock must cover what the host does, too, which happens in the guest's process: else an
//! address could be given out twice, or operations arrive in another order than they were planned in. To wait there and
//! then costs a round trip, so the host's part goes with the caller's way back to guest code and the lock stays with it:
//! the change is *underway*. It ends
//!
//! * with the next event of its thread, which has carried it out then, or says that the host refused;
//! * when somebody else wants the layout and the thread's shim says that it is done (a lie harms that address space only);
//! * when its thread is not to run guest code yet (signals, stops, the end): then it is carried out at once.
//!
//! Who finds a change underway that is not done makes its thread come back, as membarrier(2) does
//! ([`RunState::begin_pass`](crate::task::run_state::RunState::begin_pass)). That costs more than was won: where somebody waits,
//! or had to wait lately, changes are carried out at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::{Errno, Result};
use async_lock::MutexGuardArc;
use base::lock::Mutex;
use platform::{Context, PlatformError};

use crate::lock_order;
use crate::mm::Mm;
use crate::mm::state::{MmState, Plan, Undo};
use crate::task::Thread;

/// The lock, and the change that has it.
#[derive(Default)]
pub(in crate::mm) struct Layout {
    lock: Arc<async_lock::Mutex<()>>,
    /// Who waits for the lock: counted before `underway` is looked at, looked at after that was set. So one of both sees
    /// the other.
    waiting: AtomicU32,
    underway: Mutex<Option<Underway>, lock_order::Leaf>,
    /// So many of the next changes are not left underway, and how many it will be the next time. Hints.
    contended: AtomicU32,
    penalty: AtomicU32,
}

/// How many changes are carried out at once after one for which somebody had to wait: doubled each time, one less for each for
/// which nobody had to.
const LEAST_PENALTY: u32 = 64;
const MOST_PENALTY: u32 = 1 << 14;

/// A change whose host part goes with its thread's way back.
struct Underway {
    owner: Arc<Thread>,
    undo: Undo,
    _lock: MutexGuardArc<()>,
}

/// Keeps the layout of an address space as it is; for the time of a host fork.
pub struct LayoutGuard {
    lock: MutexGuardArc<()>,
}

/// Counts somebody who waits.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Layout {
    fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) != 0
    }

    fn note_contention(&self) {
        let penalty = self.penalty.load(Ordering::Relaxed).max(LEAST_PENALTY);
        self.contended.store(penalty, Ordering::Relaxed);
        self.penalty.store((penalty * 2).min(MOST_PENALTY), Ordering::Relaxed);
    }

    fn note_underway(&self) {
        let penalty = self.penalty.load(Ordering::Relaxed);
        self.penalty.store(penalty.saturating_sub(1), Ordering::Relaxed);
    }

    /// Whether a change is better carried out at once.
    fn is_contended(&self) -> bool {
        if self.is_wanted() {
            return true;
        }
        let left = self.contended.load(Ordering::Relaxed);
        if left != 0 {
            self.contended.store(left - 1, Ordering::Relaxed);
        }
        left != 0
    }

    fn try_lock(&self) -> Option<LayoutGuard> {
        let lock = self.lock.try_lock_arc().or_else(|| {
            self.end_if_done();
            self.lock.try_lock_arc()
        });
        lock.map(|lock| LayoutGuard { lock })
    }

    /// Ends the change that is underway if its thread says that it is done; else whose it is.
    fn end_if_done(&self) -> Option<Arc<Thread>> {
        let mut underway = self.underway.lock();
        let owner = &underway.as_ref()?.owner;
        if !owner.run.has_carried_out() {
            return Some(Arc::clone(owner));
        }
        let done = underway.take();
        drop(underway);
        // It may hold the last reference to a file.
        drop(done);
        None
    }

    /// Takes the change if it is `owner`'s.
    fn take(&self, owner: &Arc<Thread>) -> Option<Underway> {
        self.underway.lock().take_if(|change| Arc::ptr_eq(&change.owner, owner))
    }
}

impl Mm {
    /// Stops layout changes until the guard is dropped. Not by a thread whose own change is underway.
    pub async fn lock_layout(&self) -> LayoutGuard {
        if let Some(lock) = self.layout.lock.try_lock_arc() {
            return LayoutGuard { lock };
        }
        let _waiting = Waiting::new(&self.layout.waiting);
        if let Some(owner) = self.layout.end_if_done() {
            self.layout.note_contention();
            // It may be long until its next event.
            owner.run.begin_pass();
        }
        LayoutGuard { lock: self.layout.lock.lock_arc().await }
    }

    /// Makes a change: plans it on the tree, has the host execute it. At most one per system call.
    ///
    /// # Errors
    /// Of the plan; `ENOMEM` (or what the host says) when the host refuses, with the tree as before. Perhaps only later:
    /// see [`Mm::change_failed`].
    pub async fn change(
        &self,
        thread: &Arc<Thread>,
        context: &mut dyn Context,
        plan: impl FnOnce(&mut MmState) -> Result<Plan>,
    ) -> Result<u64> {
        if self.is_alone() {
            return self.change_alone(context, plan);
        }
        let is_contended = self.layout.is_contended();
        let guard = self.lock_layout().await;
        let (_done, plan) = self.with_state(|state| (state.take_deferred(), plan(state)));
        let plan = plan?;
        if plan.ops.is_empty() || !(is_contended || self.layout.is_wanted()) {
            return self.leave_underway(thread, context, plan, guard);
        }
        match context.execute(plan.ops.to_vec()).await {
            Ok(Ok(())) => plan.value,
            Ok(Err((index, errno))) => {
                let value = plan.value;
                self.with_state(|state| state.undo(plan.undo, index, errno)).unwrap_or(value)
            }
            Err(PlatformError::Exhausted(errno)) => {
                let value = plan.value;
                self.with_state(|state| state.undo(plan.undo, 0, errno)).unwrap_or(value)
            }
            // The next resume tells why; no guest code sees this answer.
            Err(PlatformError::Died(_) | PlatformError::Broken(_)) => Err(Errno::EFAULT),
        }
    }

    /// As [`Mm::change`], when that need not wait; `None`: it must, and nothing has happened yet.
    pub fn try_change(
        &self,
        thread: &Arc<Thread>,
        context: &mut dyn Context,
        plan: impl FnOnce(&mut MmState) -> Result<Plan>,
    ) -> Option<Result<u64>> {
        if self.is_alone() {
            return Some(self.change_alone(context, plan));
        }
        if self.layout.is_wanted() || self.layout.contended.load(Ordering::Relaxed) != 0 {
            return None;
        }
        let guard = self.layout.try_lock()?;
        let (_done, plan) = self.with_state(|state| (state.take_deferred(), plan(state)));
        Some(plan.and_then(|plan| self.leave_underway(thread, context, plan, guard)))
    }

    fn leave_underway(
        &self,
        thread: &Arc<Thread>,
        context: &mut dyn Context,
        plan: Plan,
        guard: LayoutGuard,
    ) -> Result<u64> {
        if plan.ops.is_empty() {
            return plan.value;
        }
        for op in plan.ops {
            context.defer(op);
        }
        thread.set_changes_layout(true);
        self.layout.note_underway();
        let change = Underway { owner: Arc::clone(thread), undo: plan.undo, _lock: guard.lock };
        *self.layout.underway.lock() = Some(change);
        if self.layout.is_wanted() {
            // Once it was resumed.
            thread.run.begin_pass();
        }
        plan.value
    }

    /// The thread has carried out its change, if it had one, or will never do so.
    pub fn end_change(&self, thread: &Arc<Thread>) {
        if thread.set_changes_layout(false) {
            let done = self.layout.take(thread);
            drop(done);
        }
    }

    /// For [`platform::Event::DeferredFailed`]: takes back what the tree says. `Some` is what the guest finds in its
    /// return register instead; `None`: the operation did not matter.
    pub fn change_failed(&self, thread: &Arc<Thread>, index: usize, errno: Errno) -> Option<u64> {
        let is_underway = thread.set_changes_layout(false);
        let change = if is_underway { self.layout.take(thread) } else { None };
        let outcome = self.with_state(|state| {
            // Of a change that its shim has called done nothing can be taken back.
            let undo = match (is_underway, change) {
                (true, change) => change.map(|change| change.undo),
                (false, _) => state.take_deferred(),
            };
            undo.map_or(Some(Err(errno)), |undo| state.undo(undo, index, errno))
        });
        outcome.map(|outcome| outcome.unwrap_or_else(Errno::to_return))
    }
}
