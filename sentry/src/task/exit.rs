//! The end of a thread, and with the last one of a process. See exit_group(2), "NOTES" of wait(2).

use std::sync::Arc;

use abi::ids::Tid;
use abi::siginfo::{CLD_DUMPED, CLD_EXITED, CLD_KILLED, SigInfo};
use abi::signal::{SigSet, Signal};
use abi::{Errno, Result, UserAddr};
use platform::Context;
use vfs::record_lock;

use crate::config::Outcome;
use crate::futex::Key;
use crate::kernel::Kernel;
use crate::mm::{Mm, UserRef};
use crate::signal::{ExitStatus, Wakes, send};
use crate::task::thread_group::Rusage;
use crate::task::{Tables, Thread, ThreadGroup};

/// Entries of a robust list that are looked at (`ROBUST_LIST_LIMIT`).
const ROBUST_LIST_LIMIT: usize = 2048;
const FUTEX_TID_MASK: u32 = 0x3fff_ffff;
const FUTEX_OWNER_DIED: u32 = 0x4000_0000;
const FUTEX_WAITERS: u32 = 0x8000_0000;
/// The sandbox's first process.
pub const INIT: Tid = Tid(1);
const NANOS_PER_TICK: u64 = 10_000_000;

/// Ends `thread`. `is_dead`: its host process is gone already.
pub async fn exit_thread(
    kernel: &Arc<Kernel>,
    thread: &Arc<Thread>,
    mut context: Box<dyn Context>,
    is_dead: bool,
) {
    thread.ready.settle();
    if let Some(mm) = thread.mm_if_alive() {
        mm.settle_ledger();
    }
    if !is_dead {
        release_memory_users(kernel, thread, &mut *context).await;
    }
    let shares = thread.take_shares();
    if let Some(shares) = shares {
        if shares.mm.remove_user() {
            // It is there as long as the context is.
            let space_usage = Rusage::of_memory(&shares.mm);
            thread.group.usage.lock().own.add(&space_usage);
        }
        if let Some(files) = Arc::into_inner(shares.files) {
            for file in files.close_all() {
                record_lock::release_process(&file, thread.tgid());
            }
        }
    }
    // The host thread, and with the last one the host process: before anybody learns of the end.
    thread.forget_context();
    drop(context);
    leave_group(kernel, thread);
    thread.release();
}

/// What a thread leaves behind in memory that others use: robust futexes and its id word.
pub async fn release_memory_users(kernel: &Kernel, thread: &Thread, context: &mut dyn Context) {
    let mm = thread.mm();
    let (robust, clear_tid) = {
        let mut signals = thread.signals.lock();
        let said = (signals.robust_list(), signals.tid_address());
        signals.set_robust_list(UserAddr::NULL);
        signals.set_tid_address(UserAddr::NULL);
        said
    };
    if !robust.is_null() {
        // A list that cannot be read any further is left as it is, as Linux does.
        let _ = walk_robust_list(kernel, thread, &mm, context, robust).await;
    }
    // Nobody is left to see the word when this is the only user.
    if !clear_tid.is_null() && mm.users() > 1 && UserRef::new(clear_tid).write(&mm, &0u32).is_ok() {
        wake_word(kernel, &mm, clear_tid, 1);
    }
}

/// Wakes waiters of a word whether they named it as private or as shared.
fn wake_word(kernel: &Kernel, mm: &Mm, addr: UserAddr, count: usize) {
    let private = Key::Private { space: mm.space().id(), addr: addr.0 };
    kernel.futexes.wake(&private, count, u32::MAX);
    if let Ok(shared) = mm.shared_key(addr)
        && shared != private
    {
        kernel.futexes.wake(&shared, count, u32::MAX);
    }
}

/// See get_robust_list(2): the futexes that this thread still holds are marked and one waiter each is woken.
async fn walk_robust_list(
    kernel: &Kernel,
    thread: &Thread,
    mm: &Mm,
    context: &mut dyn Context,
    head: UserAddr,
) -> Result<()> {
    let [first, offset, pending] = UserRef::<[u64; 3]>::new(head).read(mm)?;
    // Bit 0 marks a PI futex.
    let (mut entry, pending) = (first & !1, pending & !1);
    for _ in 0..ROBUST_LIST_LIMIT {
        if entry == head.0 {
            break;
        }
        let next = UserRef::<u64>::new(UserAddr(entry)).read(mm);
        if entry != pending {
            let word = UserAddr(entry.wrapping_add(offset));
            mark_owner_died(kernel, thread, mm, context, word, false).await?;
        }
        entry = next? & !1;
    }
    if pending != 0 {
        let word = UserAddr(pending.wrapping_add(offset));
        mark_owner_died(kernel, thread, mm, context, word, true).await?;
    }
    Ok(())
}

/// `handle_futex_death` of Linux.
async fn mark_owner_died(
    kernel: &Kernel,
    thread: &Thread,
    mm: &Mm,
    context: &mut dyn Context,
    word: UserAddr,
    is_pending: bool,
) -> Result<()> {
    if !word.0.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    let mut value: u32 = UserRef::new(word).read(mm)?;
    loop {
        // The unlock was done, the wake-up was not: somebody may sleep.
        if is_pending && value & FUTEX_TID_MASK == 0 {
            wake_word(kernel, mm, word, 1);
            return Ok(());
        }
        if value & FUTEX_TID_MASK != thread.tid().0.cast_unsigned() {
            return Ok(());
        }
        let marked = (value & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
        let seen = context.compare_exchange(word, value, marked).await;
        let seen = seen.map_err(|_| Errno::EFAULT)??;
        if seen == value {
            break;
        }
        value = seen;
    }
    if value & FUTEX_WAITERS != 0 {
        wake_word(kernel, mm, word, 1);
    }
    Ok(())
}

/// Takes the thread out of its group; the last one ends the process.
fn leave_group(kernel: &Kernel, thread: &Arc<Thread>) {
    let mut wakes = Wakes::default();
    let group = &thread.group;
    let mut told_stop = false;
    let outcome = {
        let mut tables = kernel.tasks.lock();
        let status = {
            let mut state = group.signals.lock();
            state.threads.retain(|other| !Arc::ptr_eq(other, thread));
            if thread.is_leader() {
                state.leader_exit = thread.attrs.lock().exit_code;
            }
            told_stop |= state.complete_stop();
            // What it would have handled.
            let unblocked = SigSet::ALL.without(thread.signals.lock().mask());
            send::retarget(&state, thread, unblocked, &mut wakes);
            let leader = ExitStatus::Exited(state.leader_exit);
            state.threads.is_empty().then(|| state.exit.unwrap_or(leader))
        };
        if !thread.is_leader() {
            tables.remove_thread(thread.tid());
        }
        wakes.tell(&group.thread_exits);
        send_pdeath_signals(&tables, thread, &mut wakes);
        status.and_then(|status| end_group(&mut tables, group, status, &mut wakes))
    };
    wakes.fire();
    if group.tgid == group.sid() && group.exit_status().is_some() {
        kernel.terminals.session_ended(group.sid());
    }
    if told_stop {
        crate::signal::stop::tell_parent(kernel, group, abi::siginfo::CLD_STOPPED);
    }
    if let Some(outcome) = outcome {
        kernel.executor.end(outcome);
    }
}

/// PR_SET_PDEATHSIG: of the children that this thread made.
fn send_pdeath_signals(tables: &Tables, thread: &Thread, wakes: &mut Wakes) {
    for child in tables.children_of(thread.tgid()) {
        if child.creator() != thread.tid() {
            continue;
        }
        let threads = child.threads();
        for threads in &threads {
            let number = threads.attrs.lock().pdeath_signal;
            if let Some(signal) = Signal::new(u64::from(number)) {
                let uid = thread.cred().ruid;
                let info = SigInfo::user(signal, 0, thread.tgid(), uid);
                let _ = send::send(child, None, info, wakes);
            }
        }
    }
}

/// The process has no thread left: children get another parent, the parent is told.
fn end_group(
    tables: &mut Tables,
    group: &Arc<ThreadGroup>,
    status: ExitStatus,
    wakes: &mut Wakes,
) -> Option<Outcome> {
    if group.tgid == INIT {
        group.set_exit_status(status);
        return Some(match status {
            ExitStatus::Exited(code) => Outcome::Exited(code),
            ExitStatus::Signaled { signal, .. } => Outcome::Signaled(signal.number()),
        });
    }
    release_orphans(tables, group, group.pgid(), wakes);
    reparent_children(tables, group, wakes);
    group.set_exit_status(status);
    wakes.tell(&group.exit_events);
    tell_parent(tables, group, status, wakes);
    None
}

/// A process group that has stopped members and now nobody to continue them gets SIGHUP and SIGCONT.
fn release_orphans(tables: &Tables, ending: &ThreadGroup, pgid: Tid, wakes: &mut Wakes) {
    let parent = tables.groups.get(&ending.parent());
    let ends_control =
        parent.is_some_and(|parent| parent.pgid() != ending.pgid() && parent.sid() == ending.sid());
    if ends_control {
        hang_up_if_orphaned(tables, pgid, ending.tgid, wakes);
    }
}

fn hang_up_if_orphaned(tables: &Tables, pgid: Tid, gone: Tid, wakes: &mut Wakes) {
    if !tables.is_orphaned_without(pgid, Some(gone)) || !tables.has_stopped_member(pgid) {
        return;
    }
    for member in tables.members_of(pgid) {
        for signal in [Signal::SIGHUP, Signal::SIGCONT] {
            let _ = send::send(member, None, SigInfo::kernel(signal), wakes);
        }
    }
}

fn reparent_children(tables: &mut Tables, group: &Arc<ThreadGroup>, wakes: &mut Wakes) {
    let children: Vec<_> = tables.children_of(group.tgid).cloned().collect();
    if children.is_empty() {
        return;
    }
    let reaper = find_reaper(tables, group);
    for child in children {
        tables.set_parent(&child, reaper);
        child.set_exit_signal(i32::from(Signal::SIGCHLD.number()));
        if let Some(status) = child.exit_status() {
            tell_parent(tables, &child, status, wakes);
        }
        if child.pgid() != group.pgid() && child.sid() == group.sid() {
            hang_up_if_orphaned(tables, child.pgid(), group.tgid, wakes);
        }
    }
}

/// The nearest ancestor that asked to be a subreaper, else the first process.
fn find_reaper(tables: &Tables, group: &ThreadGroup) -> Tid {
    let mut at = group.parent();
    while let Some(ancestor) = tables.groups.get(&at) {
        if ancestor.is_subreaper() && ancestor.exit_status().is_none() {
            return at;
        }
        at = ancestor.parent();
    }
    INIT
}

/// Signal and wake-up for the parent of a zombie, which is reaped at once when the parent does not care.
fn tell_parent(
    tables: &mut Tables,
    group: &Arc<ThreadGroup>,
    status: ExitStatus,
    wakes: &mut Wakes,
) {
    let Some(parent) = tables.groups.get(&group.parent()).cloned() else {
        tables.remove_group(group);
        return;
    };
    let exit_signal = u64::try_from(group.exit_signal()).ok().and_then(Signal::new);
    let is_child_signal = exit_signal == Some(Signal::SIGCHLD);
    let is_reaped = is_child_signal && parent.actions.lock().reaps_children();
    let is_ignored = is_child_signal && parent.actions.lock().get(Signal::SIGCHLD).is_ignore();
    if let Some(signal) = exit_signal
        && !is_ignored
    {
        let _ = send::send(&parent, None, child_info(tables, group, signal, status), wakes);
    }
    if is_reaped {
        tables.remove_group(group);
    }
    wakes.tell(&parent.child_events);
}

fn child_info(tables: &Tables, group: &ThreadGroup, signal: Signal, status: ExitStatus) -> SigInfo {
    let (code, value) = child_code(status);
    let uid = tables.threads.get(&group.tgid).map(|thread| thread.cred().ruid).unwrap_or_default();
    let usage = group.usage.lock().own;
    let ticks = (usage.user_ns / NANOS_PER_TICK, usage.system_ns / NANOS_PER_TICK);
    let mut info = SigInfo::child(code, group.tgid, uid, value, ticks.0, ticks.1);
    info.signo = i32::from(signal.number());
    info
}

/// `si_code` and `si_status` for an end.
#[must_use]
pub fn child_code(status: ExitStatus) -> (i32, i32) {
    match status {
        ExitStatus::Exited(code) => (CLD_EXITED, i32::from(code)),
        ExitStatus::Signaled { signal, core } => {
            (if core { CLD_DUMPED } else { CLD_KILLED }, i32::from(signal.number()))
        }
    }
}
