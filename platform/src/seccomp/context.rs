//! A guest thread as its task sees it. `post` is what the guest says, `reply` what it is told.

mod post;
mod reply;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::task::{Context as TaskContext, Poll, Waker};

use abi::arch::{Call, Registers};
use abi::{Errno, UserAddr};
use shim_abi::{Slot, op};

use self::reply::{Answer, Lent};
use super::descriptors::Told;
use super::frame;
use super::ops::RawOp;
use super::process::{Process, Resting};
use super::shared::Shared;
use super::thread::Thread;
use crate::{
    AddressSpace, BoxFuture, CallMemory, Context, Descriptor, Event, HostOp, Kicker, Library,
    NewContext, Note, PlatformError, Trapped,
};

/// What a slot said when it was posted.
#[derive(Debug, Clone, Copy)]
enum Post {
    Signal {
        signal: u32,
        frame: u64,
    },
    /// Without a signal: registers are in [`Slot::call`] and [`Fast`](shim_abi::Fast).
    Call {
        /// Pointers that go with it.
        offered: u32,
    },
    Kicked,
    /// An answered call's output had nowhere to go.
    CopyFailed,
    Done {
        done: usize,
        errno: Option<Errno>,
        result: u64,
    },
    DeferFailed {
        done: usize,
        errno: Errno,
    },
}

/// Which registers the guest does not know yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dirty {
    No,
    /// The call's result.
    Return,
    All,
}

/// Where [`Fast`] would be a `ucontext`.
const FAST_CONTEXT: u64 = shim_abi::FAST_OFFSET;

/// A guest thread.
pub struct SeccompContext {
    pub(super) shared: Arc<Shared>,
    pub(super) process: Arc<Process>,
    space: Arc<dyn AddressSpace>,
    pub(super) thread: Arc<Thread>,
    regs: Registers,
    /// Only those of `regs` that say which call are loaded: the rest is on other cache lines.
    lacks_rest: bool,
    dirty: Dirty,
    /// The thread came without a signal: its vector state is where only it can reach it.
    is_fast: bool,
    /// Whom the thread wakes, as far as it was told.
    waker: Option<Waker>,
    /// The slot was given to the guest, and its post not looked for yet.
    is_sent: bool,
    /// The last event is a call that brought something along.
    has_windows: bool,
    pub(super) fs_base: u64,
    pub(super) gs_base: u64,
    /// Offset of the `ucontext` in the slot.
    frame: u64,
    pub(super) deferred: VecDeque<HostOp>,
    /// Deferred operations that took effect in earlier parts of a long list.
    deferred_done: usize,
    /// More parts follow before guest code runs.
    is_partial: bool,
    /// What then goes with the last of them.
    answer: Answer,
    /// The slot is the guest's for an `execute` whose answer was not taken: perhaps its future was dropped.
    is_executing: bool,
    /// The same for a `settle`.
    is_settling: bool,
    /// It was resumed while one of the above was so: to be done when the answer is there.
    owes_resume: bool,
    /// The last event has ended a wait on the host for this futex.
    ended_wait: Option<u64>,
    /// What the shim did on its own, not told yet.
    notes: Vec<Note>,
    /// Calls that cost a signal and went on without one, not told yet.
    traps: Vec<Trapped>,
    /// What the shim knows of the thread's descriptors, if it does.
    told: Option<Box<Told>>,
    /// Parts of this guest code may map; not told yet, or told.
    library: Lent,
    /// Places of loans that the guest was told to close before it goes on.
    closing: u32,
    /// For when guest code runs again.
    new_vectors: NewVectors,
}

/// Vector and floating point state that was set since the last event.
#[derive(Debug)]
enum NewVectors {
    None,
    Initial,
    These(Vec<u8>),
}

impl SeccompContext {
    /// A context that never ran; `None` when the frame does not fit into the slot, which would be our own fault.
    pub fn new(
        shared: &Arc<Shared>,
        thread: Arc<Thread>,
        regs: Registers,
        xstate: &[u8],
    ) -> Option<Self> {
        let head = thread.slot().head();
        let frame = shared.template.build(thread.slot(), xstate)?;
        head.start_frame.store(u32::try_from(frame).ok()?, Relaxed);
        Some(Self::bare(shared, thread, regs, frame))
    }

    fn bare(shared: &Arc<Shared>, thread: Arc<Thread>, regs: Registers, frame: u64) -> Self {
        let process = Arc::clone(thread.process());
        process.add_thread(&thread);
        shared.threads.lock().insert(thread.tid(), Arc::clone(&thread));
        let space: Arc<dyn AddressSpace> = process.clone();
        Self {
            shared: Arc::clone(shared),
            process,
            space,
            thread,
            regs,
            lacks_rest: false,
            dirty: Dirty::All,
            is_fast: false,
            waker: None,
            is_sent: false,
            has_windows: false,
            fs_base: 0,
            gs_base: 0,
            frame,
            deferred: VecDeque::new(),
            deferred_done: 0,
            is_partial: false,
            answer: Answer::default(),
            is_executing: false,
            is_settling: false,
            owes_resume: false,
            ended_wait: None,
            notes: Vec::new(),
            traps: Vec::new(),
            told: None,
            library: Lent::None,
            closing: 0,
            new_vectors: NewVectors::None,
        }
    }

    pub(super) fn is_fast(&self) -> bool {
        self.is_fast
    }

    /// A context that begins like a call's return, with the vector state of its creator, who came without a signal.
    pub fn new_fast(shared: &Arc<Shared>, thread: Arc<Thread>, regs: Registers) -> Self {
        thread.slot().head().start_frame.store(shim_abi::START_FAST, Relaxed);
        let mut context = Self::bare(shared, thread, regs, FAST_CONTEXT);
        context.is_fast = true;
        context
    }

    /// A context for a host thread that rests; its vector state is given as in a frame. `None` when its frame is gone.
    pub fn rouse_thread(
        shared: &Arc<Shared>,
        resting: Resting,
        regs: Registers,
        xstate: &[u8],
    ) -> Option<Self> {
        let Resting { thread, is_fast, frame } = resting;
        if is_fast {
            thread.slot().copy_in(shim_abi::STATE_OFFSET, xstate)?;
        } else {
            shared.template.write_xstate(thread.slot(), frame, xstate)?;
        }
        let mut context = Self::bare(shared, thread, regs, frame);
        context.is_fast = is_fast;
        if is_fast {
            context.deferred.push_back(HostOp::LoadVectors);
        }
        Some(context)
    }

    /// Of a call without a signal: the registers that were not needed so far.
    fn load_rest(&mut self) {
        if std::mem::take(&mut self.lacks_rest) {
            // This frame lies within every slot.
            let saved = frame::read_registers(self.thread.slot(), FAST_CONTEXT).unwrap_or_default();
            self.regs = Registers { rax: self.regs.rax, ..saved };
        }
    }

    /// Keeps the host thread for another context, if it waits for an answer and there are not enough of them.
    fn rest(&self) -> bool {
        if self.is_executing || self.is_settling || !self.thread.stands_still() {
            return false;
        }
        let thread = Arc::clone(&self.thread);
        let resting = Resting { thread, is_fast: self.is_fast, frame: self.frame };
        if !self.process.rest(resting) {
            return false;
        }
        // It need not look for the answer.
        self.thread.blocks();
        true
    }

    fn head(&self) -> &Slot {
        self.thread.slot().head()
    }

    /// The guest wrote nonsense: it dies of it.
    fn broken(&self, what: &str) -> PlatformError {
        self.process.fail(&format!("broke its channel: {what}"));
        self.process.death()
    }

    pub(super) fn xstate_or_initial(&self) -> Vec<u8> {
        debug_assert!(!self.is_fast, "not settled");
        let slot = self.thread.slot();
        self.shared
            .template
            .read_xstate(slot, self.frame)
            .unwrap_or_else(|| self.shared.template.initial_xstate().to_vec())
    }
}

impl Context for SeccompContext {
    fn space(&self) -> &Arc<dyn AddressSpace> {
        &self.space
    }

    fn regs(&mut self) -> &Registers {
        self.load_rest();
        &self.regs
    }

    fn regs_mut(&mut self) -> &mut Registers {
        self.load_rest();
        self.dirty = Dirty::All;
        &mut self.regs
    }

    fn call(&self) -> Call {
        Call { number: self.regs.syscall_number(), args: self.regs.syscall_args() }
    }

    fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    fn take_traps(&mut self) -> Vec<Trapped> {
        std::mem::take(&mut self.traps)
    }

    fn knows_descriptors(&self) -> bool {
        self.told.is_some()
    }

    fn know_descriptors(&mut self, knows: bool) -> bool {
        let may = knows && self.process.may_answer();
        self.told = may.then(|| Box::new(Told::nothing(self.thread.slot().clone())));
        let knows = self.told.is_some();
        let bits = if knows { shim_abi::knows::DESCRIPTORS } else { 0 };
        self.thread.slot().fast().knows.store(bits, Relaxed);
        knows
    }

    fn know_paths(&mut self, knows: bool) {
        let mut bits = if self.told.is_some() { shim_abi::knows::DESCRIPTORS } else { 0 };
        if bits != 0 && knows {
            bits |= shim_abi::knows::PATHS;
        }
        self.thread.slot().fast().knows.store(bits, Relaxed);
    }

    fn tell_descriptor(&mut self, number: usize, state: Option<Descriptor>) {
        if let Some(told) = &mut self.told {
            told.tell(number, state);
        }
    }

    fn lend_library(&mut self, library: Option<Library>) {
        self.prepare_library(library.filter(|_| self.told.is_some()));
    }

    fn lends_library(&self) -> bool {
        !matches!(self.library, Lent::None)
    }

    fn set_return(&mut self, value: u64) {
        self.regs.rax = value;
        if self.dirty == Dirty::No {
            self.dirty = Dirty::Return;
        }
    }

    fn has_trapped(&self) -> bool {
        !self.is_fast
    }

    fn call_memory(&self) -> Option<Arc<dyn CallMemory>> {
        let thread = || -> Arc<dyn CallMemory> { self.thread.clone() };
        self.has_windows.then(thread)
    }

    fn settle(&mut self) -> BoxFuture<'_, Result<(), PlatformError>> {
        Box::pin(self.do_settle())
    }

    fn fs_base(&self) -> u64 {
        self.fs_base
    }

    fn gs_base(&self) -> u64 {
        self.gs_base
    }

    fn xstate(&self) -> Vec<u8> {
        match &self.new_vectors {
            NewVectors::None => self.xstate_or_initial(),
            NewVectors::Initial => self.shared.template.initial_xstate().to_vec(),
            NewVectors::These(bytes) => bytes.clone(),
        }
    }

    fn set_xstate(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if !self.shared.template.accepts(bytes) {
            return Err(frame::MALFORMED);
        }
        self.new_vectors = NewVectors::These(bytes.to_vec());
        Ok(())
    }

    fn reset_xstate(&mut self) {
        self.new_vectors = NewVectors::Initial;
    }

    fn resume(&mut self) {
        self.end_outside_wait();
        if self.process.is_dead() {
            return;
        }
        // From here on a kick counts, even while operations are executed first.
        self.thread.is_running.store(true, SeqCst);
        if self.is_executing || self.is_settling {
            self.owes_resume = true;
            return;
        }
        if self.needs_frame() {
            self.settle_first();
            return;
        }
        self.give_vectors();
        let answer = self.give_registers();
        self.deferred_done = 0;
        self.send_deferred(answer);
    }

    fn poll_event(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<Event, PlatformError>> {
        let event = self.poll_any_event(cx);
        if event.is_ready() {
            // Late kicks are spurious.
            self.thread.is_running.store(false, Release);
        }
        event
    }

    fn execute<'a>(
        &'a mut self,
        ops: Vec<HostOp>,
    ) -> BoxFuture<'a, Result<Result<(), (usize, Errno)>, PlatformError>> {
        Box::pin(async move {
            // What was deferred before comes first.
            let earlier = self.deferred.len();
            let mut queue = std::mem::take(&mut self.deferred);
            queue.extend(ops.into_iter().map(|op| self.host_op(op)));
            let executed = self.execute_queue(queue).await?;
            Ok(executed.map_err(|(index, errno)| (index.saturating_sub(earlier), errno)))
        })
    }

    fn flush<'a>(&'a mut self) -> BoxFuture<'a, Result<Result<(), (usize, Errno)>, PlatformError>> {
        let queue = std::mem::take(&mut self.deferred);
        Box::pin(self.execute_queue(queue))
    }

    fn defer(&mut self, op: HostOp) {
        match op {
            HostOp::SetFsBase(base) => self.fs_base = base,
            HostOp::SetGsBase(base) => self.gs_base = base,
            _ => {}
        }
        self.thread.note_deferred();
        let op = self.host_op(op);
        self.deferred.push_back(op);
    }

    fn compare_exchange<'a>(
        &'a mut self,
        addr: UserAddr,
        expected: u32,
        new: u32,
    ) -> BoxFuture<'a, Result<Result<u32, Errno>, PlatformError>> {
        Box::pin(async move {
            if !addr.0.is_multiple_of(4) || addr.0 >= shim_abi::TASK_SIZE {
                return Ok(Err(Errno::EFAULT));
            }
            let args = [addr.0, u64::from(expected), u64::from(new), 0, 0, 0];
            let result = self.run_one(RawOp::new(op::COMPARE_EXCHANGE, args)).await?;
            Ok(result.map(|previous| previous as u32))
        })
    }

    fn end_outside_wait(&mut self) {
        if let Some(addr) = self.ended_wait.take() {
            self.process.take_off_host(addr);
        }
    }

    fn wake_outside<'a>(
        &'a mut self,
        addr: UserAddr,
        count: u32,
        bitset: u32,
    ) -> BoxFuture<'a, Result<usize, PlatformError>> {
        const WAKE_BITSET_PRIVATE: u64 = 0x8a;
        Box::pin(async move {
            let (count, bitset) = (u64::from(count.min(i32::MAX as u32)), u64::from(bitset));
            let args = [addr.0, WAKE_BITSET_PRIVATE, count, 0, 0, bitset];
            let nr = libc::SYS_futex.cast_unsigned();
            let woken = self.run_one(RawOp::new(nr, args)).await?;
            // More than were asked for would be the guest's lie.
            Ok(woken.map_or(0, |woken| woken.min(count) as usize))
        })
    }

    fn fork<'a>(
        &'a mut self,
        new: NewContext,
    ) -> BoxFuture<'a, Result<Box<dyn Context>, PlatformError>> {
        Box::pin(self.do_fork(new))
    }

    fn clone_thread<'a>(
        &'a mut self,
        new: NewContext,
    ) -> BoxFuture<'a, Result<Box<dyn Context>, PlatformError>> {
        Box::pin(self.do_clone_thread(new))
    }

    fn kicker(&self) -> Arc<dyn Kicker> {
        self.thread.clone()
    }
}

impl Drop for SeccompContext {
    fn drop(&mut self) {
        self.end_outside_wait();
        self.shared.clear_abandoned();
        self.shared.unawait(&self.thread);
        let answered = self.thread.slot().fast().answered_calls.swap(0, Relaxed);
        self.shared.answered_calls.fetch_add(answered, Relaxed);
        let is_last = self.process.remove_thread(&self.thread);
        if !is_last && !self.process.is_dead() && self.rest() {
            return;
        }
        self.process.leave(&self.thread);
        if is_last {
            self.shared.doom(&self.process);
        } else if !self.process.is_dead() {
            self.shared.end_thread(&self.thread);
        }
    }
}
