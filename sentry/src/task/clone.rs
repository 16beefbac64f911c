//! Making threads and processes. See clone(2), fork(2), vfork(2).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::clone::{CloneArgs, CloneFlags};
use abi::ids::Tid;
use abi::poll::PollEvents;
use abi::rlimit::Resource;
use abi::signal::Signal;
use abi::{Errno, Result, UserAddr};
use base::cred::Caps;
use base::lock::Mutex;
use platform::{Context, NewContext, PlatformError};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::executor::notify::wait_until;
use crate::files::pidfd;
use crate::mm::{Mm, UserRef};
use crate::signal::ThreadSignals;
use crate::task::{Attrs, Links, NewGroup, Parts, Thread, ThreadGroup};
use crate::thread_loop;

/// Carries out clone(2), clone3(2), fork(2), vfork(2); returns the child's id.
///
/// # Errors
/// See clone(2).
pub async fn clone(cx: &mut Cx<'_>, args: &CloneArgs) -> SysResult {
    let flags = CloneFlags::from_bits_retain(args.flags);
    check(cx, flags, args)?;
    cx.thread.take_changed_actions();
    check_limits(cx)?;
    let tid = cx.kernel.tasks.reserve()?;
    match make(cx, flags, args, tid).await {
        Ok(child) => finish(cx, flags, args, child).await,
        Err(error) => {
            cx.kernel.tasks.unreserve(tid);
            Err(error.into())
        }
    }
}

/// Combinations that make no sense, and namespaces, which there are none of.
fn check(cx: &Cx<'_>, flags: CloneFlags, args: &CloneArgs) -> Result<()> {
    let has = |wanted| flags.contains(wanted);
    let is_odd = (has(CloneFlags::THREAD) && !has(CloneFlags::SIGHAND))
        || (has(CloneFlags::SIGHAND) && !has(CloneFlags::VM))
        || (has(CloneFlags::SIGHAND) && has(CloneFlags::CLEAR_SIGHAND))
        || (has(CloneFlags::PIDFD) && flags.intersects(CloneFlags::DETACHED | CloneFlags::THREAD))
        || (has(CloneFlags::FS) && has(CloneFlags::NEWNS))
        || (has(CloneFlags::FS) && has(CloneFlags::NEWUSER))
        || (has(CloneFlags::PARENT) && cx.thread.tgid() == crate::task::exit::INIT)
        || (has(CloneFlags::THREAD) && flags.intersects(CloneFlags::NEWPID | CloneFlags::NEWUSER));
    if is_odd || args.exit_signal > 64 {
        return Err(Errno::EINVAL);
    }
    if flags.intersects(CloneFlags::NAMESPACES) {
        tracing::debug!(?flags, "namespaces are not there yet");
        // As a kernel that was built without them: EPERM first, then EINVAL.
        let may = has(CloneFlags::NEWUSER) || cx.cred().has(Caps::SYS_ADMIN);
        return Err(if may { Errno::EINVAL } else { Errno::EPERM });
    }
    if has(CloneFlags::INTO_CGROUP) {
        return Err(Errno::EBADF);
    }
    Ok(())
}

/// RLIMIT_NPROC, which neither root nor the right capabilities heed.
fn check_limits(cx: &Cx<'_>) -> Result<()> {
    let cred = cx.cred();
    let limit = cx.thread.group.limit(Resource::Nproc);
    if cred.ruid.0 == 0 || cred.has(Caps::SYS_RESOURCE) || cred.has(Caps::SYS_ADMIN) {
        return Ok(());
    }
    let tables = cx.kernel.tasks.lock();
    if (tables.threads.len() as u64) < limit {
        return Ok(());
    }
    let own = tables.threads.values().filter(|thread| thread.cred().ruid == cred.ruid).count();
    if own as u64 >= limit { Err(Errno::EAGAIN) } else { Ok(()) }
}

/// A thread that is made but does not run yet.
struct Child {
    thread: Arc<Thread>,
    context: Box<dyn Context>,
}

async fn make(cx: &mut Cx<'_>, flags: CloneFlags, args: &CloneArgs, tid: Tid) -> Result<Child> {
    let new = new_context(cx, flags, args)?;
    // A vfork child has a table of its own, and its parent waits.
    let is_vfork = flags.contains(CloneFlags::VFORK);
    let shares = CloneFlags::FILES | CloneFlags::FS;
    if flags.intersects(shares) || flags.contains(CloneFlags::VM) && !is_vfork {
        cx.context.know_descriptors(false);
        cx.thread.forget_paths();
    }
    let (mm, context) = if flags.contains(CloneFlags::VM) {
        let mm = Arc::clone(&cx.mm());
        mm.add_user();
        // The new one may move it.
        cx.thread.run.tell_heap(None);
        cx.thread.run.set_alone(false);
        match cx.context.clone_thread(new).await {
            Ok(context) => (mm, context),
            Err(error) => {
                mm.remove_user();
                return Err(platform_errno(&error));
            }
        }
    } else {
        let old = cx.mm();
        // Nobody may change the layout between the host's copy and ours.
        let guard = old.lock_layout().await;
        let forked = cx.context.fork(new).await;
        let context = forked.map_err(|error| platform_errno(&error))?;
        (old.forked(Arc::clone(context.space()), &guard), context)
    };
    let thread = new_thread(cx, flags, args, tid, &mm);
    let child_tid = UserAddr(args.child_tid);
    if flags.contains(CloneFlags::CHILD_SETTID) {
        // As Linux: a bad pointer is the child's loss, not an error of the call.
        let _ = UserRef::new(child_tid).write(&mm, &tid.0);
    }
    let entered = open_pidfd(cx, flags, args, &thread).and_then(|()| enter(cx, flags, &thread));
    if let Err(errno) = entered {
        mm.remove_user();
        return Err(errno);
    }
    Ok(Child { thread, context })
}

/// Registers of the child: the caller's, with 0 as the call's result.
fn new_context(cx: &mut Cx<'_>, flags: CloneFlags, args: &CloneArgs) -> Result<NewContext> {
    let mut regs = *cx.context.regs();
    regs.rax = 0;
    if args.stack != 0 {
        regs.rsp = args.stack.checked_add(args.stack_size).ok_or(Errno::EINVAL)?;
    }
    let fs_base = flags.contains(CloneFlags::SETTLS).then_some(args.tls);
    if fs_base.is_some_and(|base| base >= cx.kernel.platform.layout().task_size) {
        return Err(Errno::EPERM);
    }
    Ok(NewContext { regs, fs_base })
}

/// The errno for a host operation that the platform could not do.
pub fn platform_errno(error: &PlatformError) -> Errno {
    match error {
        PlatformError::Exhausted(errno) => *errno,
        _ => Errno::EAGAIN,
    }
}

fn new_thread(
    cx: &Cx<'_>,
    flags: CloneFlags,
    args: &CloneArgs,
    tid: Tid,
    mm: &Arc<Mm>,
) -> Arc<Thread> {
    let Parts { cred, fs, files, .. } = cx.thread.parts();
    let fs = if flags.contains(CloneFlags::FS) { fs } else { fs.duplicate() };
    let files = if flags.contains(CloneFlags::FILES) { files } else { files.duplicate() };
    let parts = Parts { cred, mm: Arc::clone(mm), fs, files };
    let group = if flags.contains(CloneFlags::THREAD) {
        Arc::clone(&cx.thread.group)
    } else {
        new_group(cx, flags, args, tid)
    };
    let signals = {
        let own = cx.thread.signals.lock();
        let mut signals = ThreadSignals::with_mask(own.mask());
        // A thread in the same memory must not share the alternate stack; a vfork child may.
        if !flags.contains(CloneFlags::VM) || flags.contains(CloneFlags::VFORK) {
            signals.set_stack(own.stack());
        }
        if flags.contains(CloneFlags::CHILD_CLEARTID) {
            signals.set_tid_address(UserAddr(args.child_tid));
        }
        signals
    };
    Thread::new(tid, group, parts, new_attrs(cx), signals)
}

fn new_attrs(cx: &Cx<'_>) -> Attrs {
    let mut attrs = cx.thread.attrs.lock().clone();
    attrs.pdeath_signal = 0;
    attrs.restart_block = None;
    if attrs.reset_on_fork {
        (attrs.policy, attrs.rt_priority) = (0, 0);
        attrs.nice = attrs.nice.max(0);
        attrs.reset_on_fork = false;
    }
    attrs
}

fn new_group(cx: &Cx<'_>, flags: CloneFlags, args: &CloneArgs, tid: Tid) -> Arc<ThreadGroup> {
    let caller = &cx.thread.group;
    let (parent, exit_signal) = if flags.contains(CloneFlags::PARENT) {
        (caller.parent(), caller.exit_signal())
    } else {
        (caller.tgid, i32::try_from(args.exit_signal).unwrap_or(0))
    };
    let actions = {
        let actions = caller.actions.lock();
        if flags.contains(CloneFlags::CLEAR_SIGHAND) {
            actions.without_handlers()
        } else {
            actions.clone()
        }
    };
    // CLONE_SIGHAND without CLONE_THREAD copies the actions too: nobody changes them in one process for another.
    let group = ThreadGroup::new(NewGroup {
        tgid: tid,
        links: Links { parent, pgid: caller.pgid(), sid: caller.sid() },
        exit_signal,
        creator: cx.thread.tid(),
        limits: caller.limits(),
        image: caller.image.lock().clone(),
        actions: Arc::new(Mutex::new(actions)),
    });
    group.membarrier.store(caller.membarrier.load(Ordering::Relaxed), Ordering::Relaxed);
    group
}

/// CLONE_PIDFD.
fn open_pidfd(cx: &Cx<'_>, flags: CloneFlags, args: &CloneArgs, thread: &Thread) -> Result<()> {
    if !flags.contains(CloneFlags::PIDFD) {
        return Ok(());
    }
    let fd = pidfd::open(cx.thread, &thread.group, false)?;
    let written = UserRef::new(UserAddr(args.pidfd)).write(&cx.mm(), &fd.0);
    if written.is_err() {
        let closed = cx.thread.files().close(fd);
        drop(closed);
    }
    written
}

/// Makes the child visible to others.
fn enter(cx: &Cx<'_>, flags: CloneFlags, thread: &Arc<Thread>) -> Result<()> {
    let mut tables = cx.kernel.tasks.lock();
    let group = &thread.group;
    if !flags.contains(CloneFlags::THREAD) {
        let caller = &cx.thread.group;
        group.set_links(caller, flags.contains(CloneFlags::PARENT));
        tables.insert_group(group);
    }
    {
        let mut state = group.signals.lock();
        if state.exit.is_some() || state.exec.is_some() {
            return Err(Errno::EAGAIN);
        }
        state.add_thread(thread);
        if state.stop.is_some() {
            drop(state);
            thread.run.interrupt();
        }
    }
    tables.insert_thread(thread);
    Ok(())
}

/// Lets the child run; a vfork parent waits until it has called execve or ended.
async fn finish(cx: &mut Cx<'_>, flags: CloneFlags, args: &CloneArgs, child: Child) -> SysResult {
    let Child { thread, context } = child;
    let tid = thread.tid();
    if flags.contains(CloneFlags::PARENT_SETTID) {
        let _ = UserRef::new(UserAddr(args.parent_tid)).write(&cx.mm(), &tid.0);
    }
    thread.set_context(&*context);
    if flags.contains(CloneFlags::VFORK) {
        // The child of posix_spawn(3) looks at all of them.
        thread.tell_actions();
    }
    thread_loop::spawn(cx.kernel, &thread, context);
    if flags.contains(CloneFlags::VFORK) {
        let released =
            wait_until(&thread.released, PollEvents::IN, || thread.is_released().then_some(()));
        // Only the end of the process ends this wait; the loop notices that.
        let _ = cx.thread.block_killable(released).await;
    }
    Ok(u64::from(tid.0.cast_unsigned()))
}

/// The arguments of fork(2).
#[must_use]
pub fn fork_args() -> CloneArgs {
    CloneArgs { exit_signal: u64::from(Signal::SIGCHLD.number()), ..CloneArgs::default() }
}
