//! What execve(2) does to the rest of the process: the other threads end, the one that goes on becomes the leader.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::poll::PollEvents;
use abi::{Errno, UserAddr};
use platform::Context;

use crate::error::SysError;
use crate::executor::notify::wait_until;
use crate::kernel::Kernel;
use crate::signal::{NO_STACK, Wakes};
use crate::task::Thread;
use crate::task::exit::release_memory_users;
use crate::task::thread_group::Rusage;

/// Ends all other threads of the caller's process and waits until they are gone. The caller then has the process's id.
///
/// # Errors
/// `Exited` when the process is ending; `EAGAIN` when another thread does the same (which ends this one).
pub async fn dethread(kernel: &Kernel, thread: &Arc<Thread>) -> Result<(), SysError> {
    let group = &thread.group;
    let mut wakes = Wakes::default();
    {
        let mut state = group.signals.lock();
        if state.exit.is_some() {
            return Err(SysError::Exited);
        }
        if state.exec.is_some() {
            return Err(Errno::EAGAIN.into());
        }
        if state.threads.len() > 1 {
            state.exec = Some(thread.tid());
        }
        for other in state.threads.iter().filter(|other| !Arc::ptr_eq(other, thread)) {
            wakes.interrupt(other);
        }
    }
    wakes.fire();
    let alone = wait_until(&group.thread_exits, PollEvents::IN, || {
        (group.signals.lock().threads.len() == 1).then_some(())
    });
    if thread.block_killable(alone).await.is_err() {
        return Err(SysError::Exited);
    }
    let mut tables = kernel.tasks.lock();
    if !thread.is_leader() {
        tables.threads.remove(&thread.tid());
        thread.set_tid(group.tgid);
        tables.threads.insert(group.tgid, Arc::clone(thread));
    }
    group.signals.lock().exec = None;
    Ok(())
}

/// Before the old address space is left: robust futexes and the id word in it, its time. `context` is the old one.
pub async fn leave_memory(kernel: &Kernel, thread: &Thread, context: &mut dyn Context) {
    release_memory_users(kernel, thread, context).await;
    let mm = thread.mm();
    if mm.users() <= 1 {
        let usage = Rusage::of_memory(&mm);
        thread.group.usage.lock().own.add(&usage);
    }
}

/// After the new image stands: what execve(2) resets besides memory and credentials. `comm` is the new name,
/// `context` the new execution context. Wakes a parent that waits in vfork(2).
pub fn finish_exec(thread: &Thread, comm: &[u8], context: &dyn Context) {
    thread.set_context(context);
    thread.group.actions.lock().reset_handlers();
    thread.group.timers.delete_posix();
    {
        let mut signals = thread.signals.lock();
        signals.set_stack(NO_STACK);
        signals.set_robust_list(UserAddr::NULL);
        signals.set_tid_address(UserAddr::NULL);
    }
    {
        let mut attrs = thread.attrs.lock();
        attrs.set_comm(comm);
        attrs.restart_block = None;
    }
    thread.group.membarrier.store(0, Ordering::Relaxed);
    thread.group.set_has_execed();
    thread.release();
}
