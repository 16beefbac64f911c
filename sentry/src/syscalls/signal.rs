//! Signals: dispositions, masks, waiting, alternate stacks. Sending is in `kill`.

use std::future::{pending, poll_fn};
use std::task::Poll;

use abi::siginfo::SigInfo;
use abi::signal::{
    MINSIGSTKSZ, SIG_BLOCK, SIG_SETMASK, SIG_UNBLOCK, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK,
    SigAction, SigSet, SigStack, Signal,
};
use abi::time::Timespec;
use abi::{Errno, Result};

use crate::cx::Cx;
use crate::error::{Restart, SysError, SysResult};
use crate::mm::{Mm, UserRef};
use crate::signal::{force_segv, frame};
use crate::syscalls::args::{FromArg, In, Out, Render};
use crate::task::Blocked;

/// `sizeof(sigset_t)` of the kernel.
const SIGSET_BYTES: usize = 8;

/// A signal number as an argument: 0 and nonsense travel too.
#[derive(Debug, Clone, Copy)]
pub struct SignalArg(pub i32);

impl SignalArg {
    /// # Errors
    /// `EINVAL` when it is no signal.
    pub fn signal(self) -> Result<Signal> {
        let number = u64::try_from(self.0).map_err(|_| Errno::EINVAL)?;
        Signal::new(number).ok_or(Errno::EINVAL)
    }

    /// `None` for 0, the null signal.
    ///
    /// # Errors
    /// `EINVAL` when it is neither 0 nor a signal.
    pub fn optional(self) -> Result<Option<Signal>> {
        if self.0 == 0 { Ok(None) } else { self.signal().map(Some) }
    }
}

impl FromArg for SignalArg {
    fn from_arg(word: u64) -> Result<Self> {
        i32::from_arg(word).map(Self)
    }
}

impl Render for SignalArg {
    fn render(&self, out: &mut String, mm: &Mm) {
        match self.signal() {
            Ok(signal) => out.push_str(&signal.to_string()),
            Err(_) => self.0.render(out, mm),
        }
    }
}

/// Reads a signal mask argument, as every call that takes one does: null is `None`.
///
/// # Errors
/// `EINVAL` for a wrong size, `EFAULT`.
pub fn read_mask(mm: &Mm, set: UserRef<u64>, size: usize) -> Result<Option<SigSet>> {
    let Some(set) = set.optional() else { return Ok(None) };
    if size != SIGSET_BYTES {
        return Err(Errno::EINVAL);
    }
    Ok(Some(SigSet(set.read(mm)?).without(SigSet::UNBLOCKABLE)))
}

/// rt_sigaction: disposition of a signal. See [sigaction(2)](https://man7.org/linux/man-pages/man2/sigaction.2.html).
pub fn rt_sigaction(
    cx: &mut Cx<'_>,
    signal: SignalArg,
    new: In<SigAction>,
    old: Out<SigAction>,
    size: usize,
) -> SysResult {
    if size != SIGSET_BYTES {
        return Err(Errno::EINVAL.into());
    }
    let mm = cx.mm();
    let new = new.optional().map(|new| new.read(&mm)).transpose()?;
    let signal = signal.signal()?;
    if new.is_some() && matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
        return Err(Errno::EINVAL.into());
    }
    cx.thread.take_changed_actions();
    let group = &cx.thread.group;
    let previous = {
        let mut state = group.signals.lock();
        let mut actions = group.actions.lock();
        let previous = actions.get(signal);
        if let Some(action) = new {
            let action = action.as_kept();
            actions.set(signal, action);
            let is_ignored = actions.ignores(signal);
            drop(actions);
            state.tell_action(signal, &action);
            if is_ignored {
                // POSIX: what is pending is discarded, blocked or not.
                let gone = SigSet::single(signal);
                state.queue.discard(gone);
                for thread in &state.threads {
                    thread.signals.lock().queue.discard(gone);
                }
            }
        }
        previous
    };
    if new.is_none() {
        cx.thread.tell_actions();
    }
    if let Some(old) = old.optional() {
        old.write(&mm, &previous)?;
    }
    Ok(0)
}

/// rt_sigprocmask: blocked signals. See [sigprocmask(2)](https://man7.org/linux/man-pages/man2/sigprocmask.2.html).
pub fn rt_sigprocmask(
    cx: &mut Cx<'_>,
    how: i32,
    set: In<u64>,
    old: Out<u64>,
    size: usize,
) -> SysResult {
    if size != SIGSET_BYTES {
        return Err(Errno::EINVAL.into());
    }
    let mm = cx.mm();
    let mask = cx.thread.signals.lock().mask();
    if let Some(set) = set.optional() {
        let set = SigSet(set.read(&mm)?);
        let new = match how {
            SIG_BLOCK => mask.union(set),
            SIG_UNBLOCK => mask.without(set),
            SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL.into()),
        };
        cx.thread.set_signal_mask(new);
    }
    if let Some(old) = old.optional() {
        old.write(&mm, &mask.0)?;
    }
    Ok(0)
}

/// rt_sigpending: signals that wait because they are blocked. See [sigpending(2)](https://man7.org/linux/man-pages/man2/sigpending.2.html).
pub fn rt_sigpending(cx: &mut Cx<'_>, set: Out<u64>, size: usize) -> SysResult {
    if size > SIGSET_BYTES {
        return Err(Errno::EINVAL.into());
    }
    let mask = cx.thread.signals.lock().mask();
    let blocked = SigSet(cx.thread.pending_signals().0 & mask.0);
    cx.mm().write(set.addr, &blocked.0.to_le_bytes()[..size])?;
    Ok(0)
}

/// rt_sigsuspend: waits for a signal under another mask. See [sigsuspend(2)](https://man7.org/linux/man-pages/man2/sigsuspend.2.html).
pub async fn rt_sigsuspend(cx: &mut Cx<'_>, set: In<u64>, size: usize) -> SysResult {
    if size != SIGSET_BYTES {
        return Err(Errno::EINVAL.into());
    }
    let mask = SigSet(set.read(&cx.mm())?);
    cx.thread.begin_temporary_mask(mask);
    wait_for_signal(cx).await
}

/// pause: waits for a signal. See [pause(2)](https://man7.org/linux/man-pages/man2/pause.2.html).
pub async fn pause(cx: &mut Cx<'_>) -> SysResult {
    wait_for_signal(cx).await
}

async fn wait_for_signal(cx: &mut Cx<'_>) -> SysResult {
    // Never ready and without a deadline: only an interruption ends it.
    let _ = cx.block_on(pending::<()>(), None).await;
    Err(SysError::Restart(Restart::NoHandler))
}

/// rt_sigtimedwait: takes a pending signal, waits for one. See [sigtimedwait(2)](https://man7.org/linux/man-pages/man2/sigtimedwait.2.html).
pub async fn rt_sigtimedwait(
    cx: &mut Cx<'_>,
    set: In<u64>,
    info: Out<SigInfo>,
    timeout: In<Timespec>,
    size: usize,
) -> SysResult {
    if size != SIGSET_BYTES {
        return Err(Errno::EINVAL.into());
    }
    let mm = cx.mm();
    let wanted = SigSet(set.read(&mm)?).without(SigSet::UNBLOCKABLE);
    let timeout = timeout.optional().map(|timeout| timeout.read(&mm)).transpose()?;
    if timeout.is_some_and(|timeout| !timeout.is_valid()) {
        return Err(Errno::EINVAL.into());
    }
    let deadline = timeout.map(|timeout| cx.kernel.now().saturating_add(timeout.to_nanos()));
    let taken = match cx.thread.take_signal(wanted) {
        Some(taken) => taken,
        None if timeout.is_some_and(|timeout| timeout.to_nanos() == 0) => {
            return Err(Errno::EAGAIN.into());
        }
        None => wait_for_one(cx, wanted, deadline).await?,
    };
    if let Some(info) = info.optional() {
        info.write(&mm, &taken)?;
    }
    Ok(u64::from(taken.signo.cast_unsigned()))
}

async fn wait_for_one(cx: &mut Cx<'_>, wanted: SigSet, deadline: Option<u64>) -> Result<SigInfo> {
    // Senders interrupt whoever waits for a signal even while it is blocked.
    cx.thread.signals.lock().waiting = wanted;
    let thread = cx.thread.clone();
    let arrived = poll_fn(move |_| thread.take_signal(wanted).map_or(Poll::Pending, Poll::Ready));
    let waited = cx.block_on(arrived, deadline).await;
    cx.thread.signals.lock().waiting = SigSet::EMPTY;
    waited.map_err(|why| match why {
        Blocked::TimedOut => Errno::EAGAIN,
        Blocked::Interrupted => Errno::EINTR,
    })
}

/// sigaltstack: a stack for handlers. See [sigaltstack(2)](https://man7.org/linux/man-pages/man2/sigaltstack.2.html).
pub fn sigaltstack(cx: &mut Cx<'_>, new: In<SigStack>, old: Out<SigStack>) -> SysResult {
    let mm = cx.mm();
    let rsp = cx.context.regs().rsp;
    let new = new.optional().map(|new| new.read(&mm)).transpose()?;
    let previous = cx.thread.signals.lock().stack();
    if let Some(new) = new {
        set_stack(cx, &previous, &new, rsp)?;
    }
    if let Some(old) = old.optional() {
        let flags = frame::stack_flags(&previous, rsp);
        old.write(&mm, &SigStack { flags, pad: 0, ..previous })?;
    }
    Ok(0)
}

fn set_stack(cx: &Cx<'_>, previous: &SigStack, new: &SigStack, rsp: u64) -> Result<()> {
    if frame::is_on_stack(previous, rsp) {
        return Err(Errno::EPERM);
    }
    let mode = new.flags & !SS_AUTODISARM;
    if !matches!(mode, 0 | SS_ONSTACK | SS_DISABLE) {
        return Err(Errno::EINVAL);
    }
    let mut stack = SigStack { pad: 0, ..*new };
    if mode == SS_DISABLE {
        (stack.sp, stack.size) = (0, 0);
    } else if stack.size < MINSIGSTKSZ {
        return Err(Errno::ENOMEM);
    }
    cx.thread.signals.lock().set_stack(stack);
    Ok(())
}

/// rt_sigreturn: back from a handler. See [sigreturn(2)](https://man7.org/linux/man-pages/man2/sigreturn.2.html).
pub fn rt_sigreturn(cx: &mut Cx<'_>) -> SysResult {
    let mm = cx.mm();
    let xstate_len = cx.kernel.platform.layout().xstate_size;
    match frame::leave_handler(&mm, &mut **cx.context, xstate_len) {
        Ok(restored) => {
            cx.thread.set_signal_mask(restored.mask);
            // The code it was interrupted in may have been rewritten since.
            let rip = cx.context.regs().rip;
            cx.context.regs_mut().rip = mm.with_state(|state| state.rewritten(rip));
            let rsp = cx.context.regs().rsp;
            let previous = cx.thread.signals.lock().stack();
            // As Linux: an alternate stack in the frame that cannot be set is ignored.
            let _ = set_stack(cx, &previous, &restored.stack, rsp);
        }
        Err(_) => force_segv(cx.thread, Signal::SIGUSR1),
    }
    Err(SysError::RegsSet)
}
