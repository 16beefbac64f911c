//! From a sender to the thread that will handle the signal.
//!
//! Permission is the caller's business (kill(2)); this is what `send_signal` of Linux does after it.

use std::sync::Arc;

use abi::Result;
use abi::rlimit::Resource;
use abi::siginfo::{CLD_CONTINUED, SigInfo};
use abi::signal::{SIG_DFL, SigAction, SigSet, Signal};

use crate::signal::action::STOP_SIGNALS;
use crate::signal::{DefaultAction, ExitStatus, GroupSignals, Wakes};
use crate::task::{Thread, ThreadGroup};

/// Sends to one thread (tkill(2), faults).
///
/// # Errors
/// `EAGAIN` when RLIMIT_SIGPENDING is reached.
pub fn send_to_thread(thread: &Arc<Thread>, info: SigInfo) -> Result<()> {
    let mut wakes = Wakes::default();
    let sent = send(&thread.group, Some(thread), info, &mut wakes);
    wakes.fire();
    sent
}

/// Sends to a process; some thread of it that does not block the signal handles it.
///
/// # Errors
/// `EAGAIN` when RLIMIT_SIGPENDING is reached.
pub fn send_to_group(group: &Arc<ThreadGroup>, info: SigInfo) -> Result<()> {
    let mut wakes = Wakes::default();
    let sent = send(group, None, info, &mut wakes);
    wakes.fire();
    sent
}

/// Sends, and leaves the waking to the caller. `thread`: directed to that one.
///
/// # Errors
/// `EAGAIN` when RLIMIT_SIGPENDING is reached.
pub fn send(
    group: &Arc<ThreadGroup>,
    thread: Option<&Arc<Thread>>,
    info: SigInfo,
    wakes: &mut Wakes,
) -> Result<()> {
    let Some(signal) = info.signal() else { return Ok(()) };
    let limit = group.limit(Resource::Sigpending);
    let mut state = group.signals.lock();
    if state.exit.is_some() || state.threads.is_empty() {
        return Ok(());
    }
    prepare(&mut state, signal, wakes);
    if is_ignored(group, &state, thread, signal) {
        return Ok(());
    }
    match thread {
        Some(thread) => {
            let mut own = thread.signals.lock();
            own.queue.push(signal, info, limit)?;
            own.add_pending(signal);
        }
        None => {
            state.queue.push(signal, info, limit)?;
            for thread in &state.threads {
                thread.signals.lock().add_pending(signal);
            }
        }
    }
    wakes.tell(&group.signal_events);
    complete(group, &mut state, thread, signal, wakes);
    Ok(())
}

/// SIGCONT and the stop signals cancel each other when they are sent, whatever their dispositions.
fn prepare(state: &mut GroupSignals, signal: Signal, wakes: &mut Wakes) {
    let cancelled = match DefaultAction::of(signal) {
        DefaultAction::Stop => SigSet::single(Signal::SIGCONT),
        DefaultAction::Continue => STOP_SIGNALS,
        _ => return,
    };
    state.queue.discard(cancelled);
    for thread in &state.threads {
        thread.signals.lock().queue.discard(cancelled);
    }
    if signal != Signal::SIGCONT || state.stop.take().is_none() {
        return;
    }
    // Linux tells the parent of a continuation only when the stop was complete.
    let was_stopped = state.stopped == state.threads.len();
    state.stop_report = None;
    state.stopped = 0;
    if was_stopped {
        state.continue_report = true;
        state.tell_parent = Some(CLD_CONTINUED);
    }
    for thread in &state.threads {
        wakes.interrupt(thread);
    }
}

/// A blocked signal is never ignored: the disposition may change before it is unblocked.
fn is_ignored(
    group: &ThreadGroup,
    state: &GroupSignals,
    thread: Option<&Arc<Thread>>,
    signal: Signal,
) -> bool {
    let Some(target) = thread.or(state.threads.first()) else { return true };
    let is_blocked = {
        let signals = target.signals.lock();
        signals.mask().contains(signal) || signals.waiting.contains(signal)
    };
    !is_blocked && group.actions.lock().ignores(signal)
}

/// Chooses who handles it and makes that thread look.
fn complete(
    group: &ThreadGroup,
    state: &mut GroupSignals,
    thread: Option<&Arc<Thread>>,
    signal: Signal,
    wakes: &mut Wakes,
) {
    let chosen = match thread {
        Some(thread) => wants(thread, signal).then(|| Arc::clone(thread)),
        None => state.threads.iter().find(|thread| wants(thread, signal)).cloned(),
    };
    let Some(chosen) = chosen else { return };
    let is_waited_for = chosen.signals.lock().waiting.contains(signal);
    let ends_all = signal == Signal::SIGKILL
        || (!is_waited_for
            && group.actions.lock().is_fatal(signal)
            && DefaultAction::of(signal) == DefaultAction::Terminate);
    if ends_all {
        begin_exit(state, ExitStatus::Signaled { signal, core: false }, wakes);
    } else {
        wakes.interrupt(&chosen);
    }
}

fn wants(thread: &Thread, signal: Signal) -> bool {
    let signals = thread.signals.lock();
    signal == Signal::SIGKILL
        || !signals.mask().contains(signal)
        || signals.waiting.contains(signal)
}

/// `thread` does not handle signals of the set (any more): those that are pending for the process are for the others to
/// look at.
pub fn retarget(state: &GroupSignals, thread: &Thread, signals: SigSet, wakes: &mut Wakes) {
    let pending = SigSet(state.queue.set().0 & signals.0);
    if pending.is_empty() {
        return;
    }
    for other in &state.threads {
        let is_other = !std::ptr::eq(Arc::as_ptr(other), thread);
        if is_other && !pending.without(other.signals.lock().mask()).is_empty() {
            wakes.interrupt(other);
        }
    }
}

/// Makes every thread of the group end; the first status counts.
pub fn begin_exit(state: &mut GroupSignals, status: ExitStatus, wakes: &mut Wakes) {
    state.exit.get_or_insert(status);
    state.stop = None;
    for thread in &state.threads {
        wakes.interrupt(thread);
    }
}

/// Sends a signal that the thread cannot escape (faults): a blocked or ignored one gets its default action.
pub fn force(thread: &Arc<Thread>, info: SigInfo) {
    let Some(signal) = info.signal() else { return };
    let mut wakes = Wakes::default();
    {
        // The group's lock keeps the order with other senders.
        let state = thread.group.signals.lock();
        let mut signals = thread.signals.lock();
        let mut actions = thread.group.actions.lock();
        let action = actions.get(signal);
        let mut mask = signals.mask();
        let mut reset = None;
        if action.is_ignore() || mask.contains(signal) {
            let action = SigAction { handler: SIG_DFL, ..action };
            actions.set(signal, action);
            reset = Some(action);
            mask.remove(signal);
            signals.set_mask(mask);
        }
        // The limit never refuses what the kernel itself sends.
        let _ = signals.queue.push(signal, info, u64::MAX);
        signals.add_pending(signal);
        drop(actions);
        drop(signals);
        if let Some(action) = reset {
            state.tell_action(signal, &action);
        }
        wakes.interrupt(thread);
    }
    wakes.fire();
}
