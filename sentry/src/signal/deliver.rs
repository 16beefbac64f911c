//! What a thread does with its signals on the way back to guest code, and with calls that they interrupted.

use std::sync::Arc;

use abi::Errno;
use abi::siginfo::SigInfo;
use abi::signal::{SaFlags, SigAction, SigSet, Signal};
use platform::Context;

use crate::error::Restart;
use crate::kernel::Kernel;
use crate::signal::frame::{self, Delivery};
use crate::signal::{DefaultAction, ExitStatus, GroupSignals, Wakes, send, stop};
use crate::syscalls::dispatch::RESTART_SYSCALL;
use crate::task::Thread;

/// Length of the `syscall` instruction: how far a restarted call goes back.
const SYSCALL_LEN: u64 = 2;

/// Whether the thread goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Run,
    End,
}

/// An interrupted call: how it may be restarted and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupted {
    pub restart: Restart,
    pub number: u64,
}

/// What a thread found when it looked.
enum Found {
    Nothing,
    End,
    Stop { tell_parent: Option<i32> },
    TellParent(i32),
    Signal(SigInfo, SigAction),
}

/// Handles everything that is pending: ends, stops, default actions, handlers.
pub async fn deliver(
    kernel: &Arc<Kernel>,
    thread: &Arc<Thread>,
    context: &mut dyn Context,
    mut interrupted: Option<Interrupted>,
) -> Flow {
    loop {
        thread.run.clear_attention();
        match look(thread) {
            Found::End => {
                // Whoever looks later (a wait in the exit path) is to see it too.
                thread.run.interrupt();
                return Flow::End;
            }
            Found::Stop { tell_parent } => {
                tell(kernel, thread, tell_parent);
                stop::stand_still(kernel, thread).await;
            }
            Found::TellParent(code) => tell(kernel, thread, Some(code)),
            Found::Signal(info, action) => {
                if !action.is_default() && !action.is_ignore() {
                    // For the frame; when the guest is dead, the next resume says so.
                    let _ = context.settle().await;
                }
                act(kernel, thread, context, &info, action, &mut interrupted);
            }
            Found::Nothing => {
                if let Some(call) = interrupted.take() {
                    restart(context, call);
                }
                if !restore_mask(thread) {
                    return Flow::Run;
                }
            }
        }
    }
}

fn tell(kernel: &Kernel, thread: &Thread, code: Option<i32>) {
    if let Some(code) = code {
        stop::tell_parent(kernel, &thread.group, code);
    }
}

/// Takes the next thing to do.
fn look(thread: &Thread) -> Found {
    let group = &thread.group;
    let mut state = group.signals.lock();
    if must_end(&state, thread) {
        return Found::End;
    }
    let tell_parent = state.tell_parent.take();
    if state.stop.is_some() {
        return Found::Stop { tell_parent };
    }
    if let Some(code) = tell_parent {
        return Found::TellParent(code);
    }
    let mut own = thread.signals.lock();
    let wanted = SigSet::ALL.without(own.mask());
    let taken = own.queue.take(wanted).or_else(|| state.queue.take(wanted));
    own.note_pending(&state.queue);
    let Some(info) = taken else { return Found::Nothing };
    drop(own);
    let mut actions = group.actions.lock();
    let Some(signal) = info.signal() else { return Found::Nothing };
    let action = actions.get(signal);
    let is_handled = !action.is_default() && !action.is_ignore();
    if is_handled && action.flags().contains(SaFlags::RESETHAND) {
        let reset = SigAction { handler: abi::signal::SIG_DFL, ..action };
        actions.set(signal, reset);
        drop(actions);
        state.tell_action(signal, &reset);
    }
    Found::Signal(info, action)
}

/// True when this thread is not to see guest code again.
fn must_end(state: &GroupSignals, thread: &Thread) -> bool {
    state.exit.is_some() || state.exec.is_some_and(|survivor| survivor != thread.tid())
}

/// One signal: ignored, default action or handler.
fn act(
    kernel: &Kernel,
    thread: &Arc<Thread>,
    context: &mut dyn Context,
    info: &SigInfo,
    action: SigAction,
    interrupted: &mut Option<Interrupted>,
) {
    let Some(signal) = info.signal() else { return };
    if action.is_ignore() {
        return;
    }
    if !action.is_default() {
        handle(thread, context, signal, info, &action, interrupted.take());
        return;
    }
    match DefaultAction::of(signal) {
        DefaultAction::Ignore | DefaultAction::Continue => {}
        DefaultAction::Stop => stop::begin(kernel, &thread.group, signal),
        // RLIMIT_CORE or not, there are no core dumps: no core bit, as Linux with a limit of 0.
        DefaultAction::Terminate | DefaultAction::Core => {
            tracing::debug!(tid = thread.tid().0, %signal, "process ends by signal");
            end_group(thread, ExitStatus::Signaled { signal, core: false });
        }
    }
}

/// Makes the whole process of `thread` end.
pub fn end_group(thread: &Thread, status: ExitStatus) {
    let mut wakes = Wakes::default();
    send::begin_exit(&mut thread.group.signals.lock(), status, &mut wakes);
    wakes.fire();
}

/// Enters a handler.
fn handle(
    thread: &Arc<Thread>,
    context: &mut dyn Context,
    signal: Signal,
    info: &SigInfo,
    action: &SigAction,
    interrupted: Option<Interrupted>,
) {
    if let Some(call) = interrupted {
        match call.restart {
            Restart::Always => rewind(context, call.number),
            Restart::IfAsked if action.flags().contains(SaFlags::RESTART) => {
                rewind(context, call.number);
            }
            _ => context.regs_mut().rax = Errno::EINTR.to_return(),
        }
    }
    // restart_syscall(2) after a handler has nothing to go on with.
    thread.attrs.lock().restart_block = None;
    let (mask, stack, trap) = {
        let mut own = thread.signals.lock();
        (own.saved_mask.take().unwrap_or(own.mask()), own.stack(), own.trap)
    };
    let delivery = Delivery { signal, info, action, mask, stack, trap };
    let entered = frame::enter_handler(&thread.mm(), context, &delivery);
    if entered.is_err() {
        force_segv(thread, signal);
        return;
    }
    let mut own = thread.signals.lock();
    if stack.flags & abi::signal::SS_AUTODISARM != 0 {
        own.set_stack(super::NO_STACK);
    }
    let mut blocked = own.mask().union(action.mask());
    if !action.flags().contains(SaFlags::NODEFER) {
        blocked.insert(signal);
    }
    own.set_mask(blocked);
}

/// A frame could not be written or read: SIGSEGV, and when that was its own handler's frame, the default action.
pub fn force_segv(thread: &Arc<Thread>, failed: Signal) {
    if failed == Signal::SIGSEGV {
        let state = thread.group.signals.lock();
        let mut actions = thread.group.actions.lock();
        let action = actions.get(Signal::SIGSEGV);
        let reset = SigAction { handler: abi::signal::SIG_DFL, ..action };
        actions.set(Signal::SIGSEGV, reset);
        drop(actions);
        state.tell_action(Signal::SIGSEGV, &reset);
    }
    send::force(thread, SigInfo::kernel(Signal::SIGSEGV));
}

/// No handler ran: the call starts again.
fn restart(context: &mut dyn Context, call: Interrupted) {
    let number = if call.restart == Restart::Block { RESTART_SYSCALL } else { call.number };
    rewind(context, number);
}

fn rewind(context: &mut dyn Context, number: u64) {
    let regs = context.regs_mut();
    regs.rax = number;
    regs.rip = regs.rip.wrapping_sub(SYSCALL_LEN);
}

/// After sigsuspend and its kin: the old mask comes back. True when a signal became deliverable by that.
fn restore_mask(thread: &Thread) -> bool {
    let group = thread.group.signals.lock();
    let mut own = thread.signals.lock();
    let Some(mask) = own.saved_mask.take() else { return false };
    own.set_mask(mask);
    let pending = own.queue.set().union(group.queue.set());
    !pending.without(mask).is_empty()
}

impl Thread {
    /// Replaces the mask; a signal that becomes deliverable is delivered before guest code runs.
    pub fn set_signal_mask(&self, mask: SigSet) {
        let mut wakes = Wakes::default();
        let is_pending = {
            let group = self.group.signals.lock();
            let mut own = self.signals.lock();
            let before = own.mask();
            own.set_mask(mask);
            own.note_pending(&group.queue);
            let pending = own.queue.set().union(group.queue.set());
            let is_pending = !pending.without(own.mask()).is_empty();
            drop(own);
            // This thread was perhaps chosen for one of them.
            send::retarget(&group, self, mask.without(before), &mut wakes);
            is_pending
        };
        if is_pending {
            self.run.interrupt();
        }
        wakes.fire();
    }

    /// Sets a mask for the duration of a call (ppoll, pselect, epoll_pwait, sigsuspend): the old one comes back when the
    /// call's signals were delivered, or with [`Thread::end_temporary_mask`].
    pub fn begin_temporary_mask(&self, mask: SigSet) {
        {
            let mut own = self.signals.lock();
            own.saved_mask = Some(own.mask());
        }
        self.set_signal_mask(mask);
    }

    /// The call ended without being interrupted: the old mask at once.
    pub fn end_temporary_mask(&self) {
        let saved = self.signals.lock().saved_mask.take();
        if let Some(mask) = saved {
            self.set_signal_mask(mask);
        }
    }

    /// Signals that are pending for this thread or its process, blocked or not.
    pub fn pending_signals(&self) -> SigSet {
        let group = self.group.signals.lock();
        let own = self.signals.lock();
        own.queue.set().union(group.queue.set())
    }

    /// Takes a pending signal of `wanted`, blocked or not: sigtimedwait(2), signalfd(2).
    pub fn take_signal(&self, wanted: SigSet) -> Option<SigInfo> {
        let mut group = self.group.signals.lock();
        let mut own = self.signals.lock();
        let taken = own.queue.take(wanted).or_else(|| group.queue.take(wanted));
        own.note_pending(&group.queue);
        taken
    }
}
