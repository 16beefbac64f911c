//! The loop of one guest thread.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use abi::Errno;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use platform::{CallMemory, Context, Event, Fault, Note, PlatformError};

use crate::config::Outcome;
use crate::cx::Cx;
use crate::error::{Restart, SysError};
use crate::executor::timer::{Sleep, monotonic};
use crate::kernel::Kernel;
use crate::mm::FaultVerdict;
use crate::signal::frame::Trap;
use crate::signal::{ExitStatus, Flow, Interrupted, deliver, end_group, send};
use crate::syscalls::arch_prctl;
use crate::syscalls::dispatch::{ARCH_PRCTL, EXECVE, EXECVEAT, dispatch};
use crate::task::{OwnParts, Thread, exit};
use crate::{descriptors, heap, library, ready, rewrite};

/// Starts a guest thread that was entered into the pid table and has its context ([`Thread::set_context`]).
pub fn spawn(kernel: &Arc<Kernel>, thread: &Arc<Thread>, context: Box<dyn Context>) {
    // Boxed, because this future contains itself: a thread's calls make threads.
    let body: Pin<Box<dyn Future<Output = ()> + Send>> =
        Box::pin(run(Arc::clone(kernel), Arc::clone(thread), context));
    kernel.executor.spawn(body);
}

/// Runs a guest thread to its end: run guest code, answer what it did, deliver signals, again.
async fn run(kernel: Arc<Kernel>, thread: Arc<Thread>, mut context: Box<dyn Context>) {
    let mut interrupted = None;
    let mut is_dead = false;
    let mut own = None;
    loop {
        if interrupted.is_some() || thread.run.has_attention() {
            finish_change(&thread, &mut *context).await;
            let flow = deliver(&kernel, &thread, &mut *context, interrupted.take()).await;
            if flow == Flow::End {
                break;
            }
        }
        let event = run_guest(&kernel, &thread, &mut *context, own.as_ref()).await;
        if thread.changes_layout() && !matches!(event, Ok(Event::DeferredFailed { .. })) {
            thread.mm().end_change(&thread);
        }
        match event {
            Ok(Event::Syscall) => {
                if let Some(counts) = &kernel.call_counts {
                    counts.note(context.call().number);
                }
                rewrite::on_call(&kernel, &thread, &mut *context).await;
                match syscall(&kernel, &thread, &mut context, &mut own).await {
                    Ok(call) => interrupted = call,
                    Err(Ended) => break,
                }
            }
            Ok(Event::Fault(fault)) => on_fault(&thread, &mut *context, &fault).await,
            Ok(Event::Interrupted) => {}
            Ok(Event::DeferredFailed { index, errno }) => {
                change_failed(&thread, &mut *context, index, errno);
            }
            Err(error) => {
                on_platform_error(&kernel, &thread, &error);
                is_dead = true;
                break;
            }
        }
    }
    drop(own);
    exit::exit_thread(&kernel, &thread, context, is_dead).await;
}

/// The thread has ended by its own call.
struct Ended;

async fn run_guest(
    kernel: &Kernel,
    thread: &Arc<Thread>,
    context: &mut dyn Context,
    own: Option<&OwnParts>,
) -> Result<Event, PlatformError> {
    thread.run.enter_guest();
    while thread.run.is_held() {
        thread.run.leave_guest();
        finish_change(thread, context).await;
        rewrite::wait_while_held(thread, context).await;
        thread.run.enter_guest();
    }
    heap::tell_news(kernel, thread, own);
    let has_more = thread.ready.is_wanted();
    context.resume();
    // See `run_state`: who interrupted before the resume took effect is not lost.
    if thread.run.must_leave() {
        thread.run.kick();
    }
    if has_more {
        ready::after_answer(kernel, thread);
    }
    let mut patience = None;
    let event = poll_fn(|cx| {
        let polled = context.poll_event(cx);
        if polled.is_pending() {
            end_the_deaf(kernel, thread, cx, &mut patience);
        }
        polled
    })
    .await;
    thread.run.leave_guest();
    let notes = context.take_notes();
    for (at, note) in notes.iter().enumerate() {
        if matches!(note, Note::Watched { .. }) {
            descriptors::take_watch(thread, own, &notes, at);
        } else if !descriptors::take_note(thread, note) {
            thread.mm().take_note(note);
        }
    }
    event
}

/// Guest code that is to end gets a while to come back, for what an exit does to its memory. One that cannot be interrupted, because it
/// loops where a kick finds the shim at work, is killed then.
fn end_the_deaf(
    kernel: &Kernel,
    thread: &Thread,
    cx: &mut TaskContext<'_>,
    patience: &mut Option<Sleep>,
) {
    const PATIENCE_NS: u64 = 1_000_000_000;
    thread.run.watch(cx);
    // Now, for who sets it wakes then whom it finds.
    if !thread.run.has_attention() || !thread.group.is_ending() {
        return;
    }
    let patience = patience
        .get_or_insert_with(|| kernel.timers.sleep_until(monotonic().saturating_add(PATIENCE_NS)));
    if Pin::new(patience).poll(cx).is_ready()
        && let Some(mm) = thread.mm_if_alive()
    {
        tracing::warn!(tid = thread.tid().0, "guest code cannot be interrupted, and is killed");
        mm.space().kill();
    }
}

/// The host has refused the last change of the layout.
fn change_failed(thread: &Arc<Thread>, context: &mut dyn Context, index: usize, errno: Errno) {
    library::end(&thread.mm(), context);
    if let Some(value) = thread.mm().change_failed(thread, index, errno) {
        context.regs_mut().rax = value;
    }
}

/// Guest code is not to run at once: others must not wait for the layout so long.
async fn finish_change(thread: &Arc<Thread>, context: &mut dyn Context) {
    if !thread.changes_layout() {
        return;
    }
    match context.flush().await {
        Ok(Err((index, errno))) => change_failed(thread, context, index, errno),
        // When the guest is dead, the next resume says so.
        Ok(Ok(())) | Err(_) => thread.mm().end_change(thread),
    }
}

/// Answers a call in the registers, or says how it was interrupted.
async fn syscall(
    kernel: &Arc<Kernel>,
    thread: &Arc<Thread>,
    context: &mut Box<dyn Context>,
    own: &mut Option<OwnParts>,
) -> Result<Option<Interrupted>, Ended> {
    let number = context.call().number;
    // A new image's old host process dies in the middle of the call, as it should.
    let may_die = matches!(number, EXECVE | EXECVEAT);
    if number == ARCH_PRCTL && arch_prctl::needs_settling(context.call().args[0]) {
        // It looks at more than general registers; when the guest is dead, the next resume says so.
        let _ = context.settle().await;
    }
    if may_die {
        *own = None;
    } else if own.as_ref().is_none_or(|own| !own.is_current(thread)) {
        *own = Some(OwnParts::of(thread, &**context));
    }
    let memory = context.call_memory();
    let mut cx = Cx {
        kernel,
        thread,
        context,
        own: own.as_ref(),
        number,
        restart_deadline: None,
        begun: 0,
        trace: None,
    };
    library::before_call(&mut cx);
    let space = cx.own.map(|own| &own.space);
    let result = {
        let mut call = pin!(dispatch(&mut cx));
        poll_fn(|task| match poll_with(memory.as_ref(), call.as_mut(), task) {
            // Nobody is left to wait for the answer; the next resume says so.
            Poll::Pending if space.is_some_and(|space| space.is_dead()) => Poll::Ready(None),
            Poll::Pending => {
                thread.run.note_blocked();
                Poll::Pending
            }
            polled => polled.map(Some),
        })
        .await
    };
    let Some(result) = result else { return Ok(None) };
    if !matches!(result, Err(SysError::Exited)) {
        descriptors::after_call(&mut cx);
    }
    // The number of the interrupted call, not that of restart_syscall(2).
    let number = cx.number;
    if own.as_ref().is_some_and(|own| !own.is_current(thread)) {
        *own = None;
    }
    match result {
        Ok(value) => context.set_return(value),
        // A terminal made its caller stop: the call starts again after that (`vfs::tty::SIGNALLED`).
        Err(SysError::Errno(Errno::ERESTART)) => {
            return Ok(Some(Interrupted { restart: Restart::IfAsked, number }));
        }
        Err(SysError::Errno(errno)) => context.set_return(errno.to_return()),
        Err(SysError::Restart(restart)) => return Ok(Some(Interrupted { restart, number })),
        Err(SysError::RegsSet) => {}
        Err(SysError::Exited) => return Err(Ended),
    }
    Ok(None)
}

/// Polls a handler within reach of what its call brought along.
fn poll_with<F: Future>(
    memory: Option<&Arc<dyn CallMemory>>,
    call: Pin<&mut F>,
    task: &mut TaskContext<'_>,
) -> Poll<F::Output> {
    let Some(memory) = memory else { return call.poll(task) };
    Arc::clone(memory).enter();
    let polled = call.poll(task);
    memory.leave();
    polled
}

/// A processor exception: a VMA that grows, or a signal.
async fn on_fault(thread: &Arc<Thread>, context: &mut dyn Context, fault: &Fault) {
    let verdict = thread.mm().judge_fault(thread, context, fault).await;
    let FaultVerdict::Signal { code, addr } = verdict else { return };
    let Some(signal) = Signal::new(u64::from(fault.signal)) else { return };
    let Fault { trapno, err, cr2, .. } = *fault;
    thread.signals.lock().trap = Trap { trapno, err, cr2 };
    send::force(thread, SigInfo::fault(signal, code, addr));
}

/// The host process is gone: so is the guest's, as by SIGKILL (the host's out-of-memory killer looks like that too).
fn on_platform_error(kernel: &Kernel, thread: &Thread, error: &PlatformError) {
    if let PlatformError::Broken(message) = error {
        kernel.executor.end(Outcome::Failed { code: 125, message: message.clone() });
    }
    tracing::info!(tgid = thread.tgid().0, tid = thread.tid().0, %error, "guest process is gone");
    end_group(thread, ExitStatus::Signaled { signal: Signal::SIGKILL, core: false });
}
