//! A guest thread as its task sees it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::task::{Context as TaskContext, Poll};

use abi::arch::Registers;
use abi::{Errno, UserAddr};
use shim_abi::{MAX_OPS, Slot, kind, op, reply, state};

use super::frame;
use super::ops::{RawOp, split_batch};
use super::process::Process;
use super::shared::Shared;
use super::thread::{Donation, Reply, Thread};
use crate::{
    AddressSpace, BoxFuture, CallMemory, Context, Event, Fault, HostOp, Kicker, NewContext,
    PlatformError,
};

/// What a slot said when it was posted.
#[derive(Debug, Clone, Copy)]
enum Post {
    Signal {
        signal: u32,
        frame: u64,
    },
    /// Without a signal: registers are in [`Fast`].
    Call,
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
    dirty: Dirty,
    /// The thread came without a signal: its vector state is where only it can reach it.
    is_fast: bool,
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
    /// The slot is the guest's for an `execute` whose answer was not taken: perhaps its future was dropped.
    is_executing: bool,
    /// The same for a `settle`.
    is_settling: bool,
    /// It was resumed while one of the above was so: to be done when the answer is there.
    owes_resume: bool,
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
            dirty: Dirty::All,
            is_fast: false,
            has_windows: false,
            fs_base: 0,
            gs_base: 0,
            frame,
            deferred: VecDeque::new(),
            deferred_done: 0,
            is_partial: false,
            is_executing: false,
            is_settling: false,
            owes_resume: false,
        }
    }

    /// Puts what a call's handler wrote where the guest finds it, whatever way its answer goes.
    pub(super) fn flush_windows(&mut self) {
        if std::mem::take(&mut self.has_windows) {
            self.thread.windows.flush(&self.process, self.thread.slot());
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

    fn head(&self) -> &Slot {
        self.thread.slot().head()
    }

    /// The guest wrote nonsense: it dies of it.
    fn broken(&self, what: &str) -> PlatformError {
        self.process.fail(&format!("broke its channel: {what}"));
        self.process.death()
    }

    /// Waits until the slot is posted and takes what it says.
    fn poll_post(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<Post, PlatformError>> {
        if !self.thread.is_posted() {
            self.thread.set_waker(cx.waker());
            // Again: it may have been posted, or died, before the waker was there.
            if !self.thread.is_posted() {
                if self.process.is_dead() {
                    self.shared.unawait(&self.thread);
                    return Poll::Ready(Err(self.process.death()));
                }
                return Poll::Pending;
            }
        }
        self.shared.unawait(&self.thread);
        if self.process.is_dead() {
            return Poll::Ready(Err(self.process.death()));
        }
        Poll::Ready(self.take_post())
    }

    /// Copies out once and checks.
    fn take_post(&mut self) -> Result<Post, PlatformError> {
        let head = self.head();
        let what = head.kind.load(Relaxed);
        let (done, errno) = (head.ops_done.load(Relaxed), head.errno.load(Relaxed));
        let errno = match i32::try_from(errno) {
            Ok(0) => None,
            Ok(raw) => Some(Errno::from_raw(raw)),
            Err(_) => return Err(self.broken("impossible errno")),
        };
        let done = done as usize;
        if matches!(what, kind::OPS_DONE | kind::DEFER_FAILED) && done > MAX_OPS {
            return Err(self.broken("impossible count of operations"));
        }
        match (what, errno) {
            (kind::SIGNAL, _) => {
                let (signal, frame) = (head.signal.load(Relaxed), head.frame.load(Relaxed));
                Ok(Post::Signal { signal, frame: u64::from(frame) })
            }
            (kind::OPS_DONE, errno) => {
                Ok(Post::Done { done, errno, result: head.result.load(Relaxed) })
            }
            (kind::CALL, _) => Ok(Post::Call),
            (kind::KICKED, _) => Ok(Post::Kicked),
            (kind::COPY_FAILED, _) => Ok(Post::CopyFailed),
            (kind::DEFER_FAILED, Some(errno)) => Ok(Post::DeferFailed { done, errno }),
            _ => Err(self.broken("unknown event")),
        }
    }

    /// Registers and cause out of a signal's frame.
    fn take_signal(&mut self, signal: u32, at: u64) -> Result<Event, PlatformError> {
        let slot = self.thread.slot();
        let in_stack = (shim_abi::STACK_OFFSET..=frame::LAST).contains(&at);
        let Some(regs) = frame::read_registers(slot, at).filter(|_| in_stack) else {
            return Err(self.broken("frame outside of its slot"));
        };
        self.frame = at;
        self.regs = regs;
        self.dirty = Dirty::No;
        self.is_fast = false;
        self.take_bases();
        match i32::try_from(signal).unwrap_or(0) {
            libc::SIGSYS => Ok(Event::Syscall),
            shim_abi::KICK_SIGNAL => Ok(Event::Interrupted),
            libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP => {
                let Some(info) = frame::read_fault(self.thread.slot(), at) else {
                    return Err(self.broken("frame outside of its slot"));
                };
                Ok(Event::Fault(Fault {
                    signal: signal as u8,
                    code: info.code,
                    addr: info.addr,
                    trapno: info.trapno,
                    err: info.err,
                    cr2: info.cr2,
                }))
            }
            _ => Err(self.broken("unknown signal")),
        }
    }

    /// The bases of fs and gs as of a signal.
    fn take_bases(&mut self) {
        if self.shared.has_fsgsbase {
            self.fs_base = self.head().fs_base.load(Relaxed);
            self.gs_base = self.guest_gs(self.head().gs_base.load(Relaxed));
        }
    }

    /// What the guest believes to be the base of gs: the slot's address is our own affair.
    fn guest_gs(&self, base: u64) -> u64 {
        if base == self.thread.slot().guest_address() { 0 } else { base }
    }

    /// The other way round.
    fn host_op(&self, op: HostOp) -> HostOp {
        match op {
            HostOp::SetGsBase(0) if self.shared.has_fast_entry() => {
                HostOp::SetGsBase(self.thread.slot().guest_address())
            }
            op => op,
        }
    }

    /// Registers of an event without a signal.
    fn take_fast(&mut self) -> Result<(), PlatformError> {
        let Some(regs) = frame::read_registers(self.thread.slot(), FAST_CONTEXT) else {
            return Err(self.broken("frame outside of its slot"));
        };
        self.frame = FAST_CONTEXT;
        self.regs = regs;
        self.dirty = Dirty::No;
        self.is_fast = true;
        Ok(())
    }

    /// Puts the registers where the guest will load them from.
    fn give_registers(&mut self) {
        let head = self.thread.slot().head();
        if std::mem::take(&mut self.has_windows) {
            self.thread.windows.close(self.thread.slot());
        } else {
            head.copy_count.store(0, Relaxed);
        }
        let (dirty, frame) = (std::mem::replace(&mut self.dirty, Dirty::No), self.frame);
        if dirty == Dirty::Return && self.is_fast {
            head.returned.store(self.regs.rax, Relaxed);
            head.reply.store(reply::RETURN, Relaxed);
            return;
        }
        head.reply.store(reply::REGISTERS, Relaxed);
        if dirty != Dirty::No
            && frame::write_registers(self.thread.slot(), frame, &self.regs).is_none()
        {
            self.process.fail("broke its channel: frame outside of its slot");
        }
    }

    /// The answer to a `settle`: a signal of the shim's own, with the guest's registers but for `rip`.
    fn poll_settled(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), PlatformError>> {
        self.poll_post(cx).map(|post| {
            self.is_settling = false;
            let Post::Signal { signal, frame } = post? else {
                return Err(self.broken("answer to no order"));
            };
            if i32::try_from(signal) != Ok(libc::SIGILL) {
                return Err(self.broken("another signal than ordered"));
            }
            let regs = self.regs;
            self.take_signal(signal, frame)?;
            *self.regs_mut() = regs;
            Ok(())
        })
    }

    /// Writes operations into the slot and gives it to the guest.
    fn send(&mut self, ops: &[RawOp], order: u32) {
        let head = self.thread.slot().head();
        let mut files: Vec<Donation> = Vec::new();
        for (at, (raw, place)) in ops.iter().zip(&head.ops).enumerate() {
            place.nr.store(raw.nr, Relaxed);
            for (from, to) in raw.args.iter().zip(&place.args) {
                to.store(*from, Relaxed);
            }
            let Some(file) = &raw.file else { continue };
            if let Some(number) = self.process.held(file) {
                place.args[4].store(u64::from(number), Relaxed);
                continue;
            }
            if raw.nr == op::NOTHING && !self.process.may_hold(file) {
                continue;
            }
            match files.iter_mut().find(|known| Arc::ptr_eq(&known.file, file)) {
                Some(donation) => donation.users.push(at),
                None => files.push(Donation {
                    file: Arc::clone(file),
                    users: vec![at],
                    keep: self.process.may_hold(file),
                }),
            }
        }
        let mut count = ops.len();
        // The last descriptor is the doorbell's return value and closed by the shim unasked.
        let closed = files.len().saturating_sub(1);
        for donation in files.iter_mut().take(closed).filter(|donation| !donation.keep) {
            if let Some(place) = head.ops.get(count) {
                place.nr.store(libc::SYS_close.cast_unsigned(), Relaxed);
                donation.users.push(count);
                count += 1;
            }
        }
        head.op_count.store(count as u32, Relaxed);
        head.has_fd.store(0, Relaxed);
        if !files.is_empty() {
            self.shared.cool_down();
        } else if order == state::RESUME {
            self.shared.heat_up();
        }
        self.shared.keep_away(&self.thread);
        self.shared.await_thread(&self.thread);
        self.thread.reply(&self.shared.listener, Reply { state: order, files });
    }

    /// Sends the next part of the deferred operations, the last one with the order to run.
    fn send_deferred(&mut self) {
        let part = split_batch(&mut self.deferred);
        self.is_partial = !self.deferred.is_empty();
        let order = if self.is_partial { state::EXECUTE } else { state::RESUME };
        self.send(&part, order);
    }

    /// Waits for what a dropped future has left behind.
    fn poll_rest(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), PlatformError>> {
        if self.is_settling {
            return self.poll_settled(cx);
        }
        if self.is_executing {
            return self.poll_done(cx).map(|done| done.map(|_| ()));
        }
        Poll::Ready(Ok(()))
    }

    /// Executes one batch; how many took effect, why the next did not, the last one's result.
    async fn run(&mut self, ops: &[RawOp]) -> Result<(usize, Option<Errno>, u64), PlatformError> {
        poll_fn(|cx| self.poll_rest(cx)).await?;
        if self.process.is_dead() {
            return Err(self.process.death());
        }
        self.is_executing = true;
        self.send(ops, state::EXECUTE);
        let (done, errno, result) = poll_fn(|cx| self.poll_done(cx)).await?;
        // A close that failed is nothing that the caller asked for.
        if errno.is_some() && done < ops.len() {
            return Ok((done, errno, result));
        }
        Ok((ops.len(), None, result))
    }

    /// The answer to an `execute`.
    fn poll_done(
        &mut self,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<(usize, Option<Errno>, u64), PlatformError>> {
        self.poll_post(cx).map(|post| {
            self.is_executing = false;
            match post? {
                Post::Done { done, errno, result } => Ok((done, errno, result)),
                _ => Err(self.broken("a signal while it executed operations")),
            }
        })
    }

    /// One operation that yields a value.
    pub(super) async fn run_one(
        &mut self,
        raw: RawOp,
    ) -> Result<Result<u64, Errno>, PlatformError> {
        let (_, errno, result) = self.run(&[raw]).await?;
        Ok(errno.map_or(Ok(result), Err))
    }

    pub(super) async fn do_settle(&mut self) -> Result<(), PlatformError> {
        poll_fn(|cx| self.poll_rest(cx)).await?;
        if !self.is_fast {
            return Ok(());
        }
        if self.process.is_dead() {
            return Err(self.process.death());
        }
        self.flush_windows();
        self.is_settling = true;
        self.send(&[], state::SETTLE);
        poll_fn(|cx| self.poll_settled(cx)).await
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

    fn regs(&self) -> &Registers {
        &self.regs
    }

    fn regs_mut(&mut self) -> &mut Registers {
        self.dirty = Dirty::All;
        &mut self.regs
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
        self.xstate_or_initial()
    }

    fn set_xstate(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if !self.shared.template.accepts(bytes) {
            return Err(frame::MALFORMED);
        }
        self.shared
            .template
            .write_xstate(self.thread.slot(), self.frame, bytes)
            .ok_or(frame::MALFORMED)
    }

    fn reset_xstate(&mut self) {
        if self.is_fast {
            self.deferred.push_back(HostOp::ResetVectors);
            return;
        }
        let initial = self.shared.template.initial_xstate();
        let written = self.shared.template.write_xstate(self.thread.slot(), self.frame, initial);
        if written.is_none() {
            self.process.fail("broke its channel: vector state outside of its slot");
        }
    }

    fn resume(&mut self) {
        if self.process.is_dead() {
            return;
        }
        // From here on a kick counts, even while operations are executed first.
        self.thread.is_running.store(true, SeqCst);
        if self.is_executing || self.is_settling {
            self.owes_resume = true;
            return;
        }
        self.give_registers();
        self.deferred_done = 0;
        self.send_deferred();
    }

    fn poll_event(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<Event, PlatformError>> {
        let event = self.poll_any_event(cx);
        if event.is_ready() {
            self.thread.is_running.store(false, SeqCst);
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
            let mut total = 0usize;
            while !queue.is_empty() {
                let part = split_batch(&mut queue);
                self.note_bases(&part);
                let (done, errno, _) = self.run(&part).await?;
                total += done;
                if let Some(errno) = errno {
                    return Ok(Err((total.saturating_sub(earlier), errno)));
                }
            }
            Ok(Ok(()))
        })
    }

    fn defer(&mut self, op: HostOp) {
        match op {
            HostOp::SetFsBase(base) => self.fs_base = base,
            HostOp::SetGsBase(base) => self.gs_base = base,
            _ => {}
        }
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
            let result = self.run_one(RawOp { nr: op::COMPARE_EXCHANGE, args, file: None }).await?;
            Ok(result.map(|previous| previous as u32))
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

impl SeccompContext {
    /// As `poll_event`, which also notes that the guest stands still.
    fn poll_any_event(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<Event, PlatformError>> {
        if self.owes_resume {
            match self.poll_rest(cx) {
                Poll::Ready(Ok(())) => {
                    self.owes_resume = false;
                    self.resume();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        loop {
            let post = match self.poll_post(cx) {
                Poll::Ready(Ok(post)) => post,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            let failed = match post {
                Post::Signal { signal, frame } => {
                    return Poll::Ready(self.take_signal(signal, frame));
                }
                Post::Call => {
                    let taken = self.take_fast();
                    self.has_windows = self.thread.windows.open(self.thread.slot());
                    return Poll::Ready(taken.map(|()| Event::Syscall));
                }
                Post::CopyFailed => {
                    if let Err(error) = self.take_fast() {
                        return Poll::Ready(Err(error));
                    }
                    self.set_return(Errno::EFAULT.to_return());
                    self.resume();
                    continue;
                }
                Post::Kicked => return Poll::Ready(self.take_fast().map(|()| Event::Interrupted)),
                Post::Done { done, errno: None, .. } if self.is_partial => {
                    self.deferred_done += done;
                    self.send_deferred();
                    continue;
                }
                Post::Done { done, errno: Some(errno), .. } if self.is_partial => (done, errno),
                Post::DeferFailed { done, errno } => (done, errno),
                Post::Done { .. } => return Poll::Ready(Err(self.broken("answer to no order"))),
            };
            self.deferred.clear();
            self.is_partial = false;
            let index = self.deferred_done + failed.0;
            return Poll::Ready(Ok(Event::DeferredFailed { index, errno: failed.1 }));
        }
    }

    fn note_bases(&mut self, ops: &[RawOp]) {
        for raw in ops {
            match raw.nr {
                op::SET_FS => self.fs_base = raw.args[0],
                op::SET_GS => self.gs_base = self.guest_gs(raw.args[0]),
                _ => {}
            }
        }
    }
}

impl Drop for SeccompContext {
    fn drop(&mut self) {
        self.shared.clear_abandoned();
        self.shared.unawait(&self.thread);
        if self.process.remove_thread(&self.thread) {
            self.shared.doom(&self.process);
        } else if !self.process.is_dead() {
            self.shared.end_thread(&self.thread);
        }
    }
}
