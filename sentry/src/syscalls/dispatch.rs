//! From registers to a handler.

use abi::Errno;

use crate::cx::Cx;
use crate::error::SysResult;
use crate::syscalls::strace::Trace;
use crate::syscalls::table::{self, Attempt, Call};

/// Number of restart_syscall(2).
pub const RESTART_SYSCALL: u64 = 219;
/// rt_sigreturn(2) and arch_prctl(2).
pub const ARCH_PRCTL: u64 = 158;
/// execve(2) and execveat(2).
pub const EXECVE: u64 = 59;
pub const EXECVEAT: u64 = 322;

/// Runs the call that the registers ask for.
///
/// # Errors
/// `ENOSYS` for a number without a row.
pub async fn dispatch(cx: &mut Cx<'_>) -> SysResult {
    let abi::arch::Call { mut number, args: words } = cx.context.call();
    if number == RESTART_SYSCALL {
        // See restart_syscall(2): the arguments are still those of the interrupted call.
        let block = cx.thread.attrs.lock().restart_block.take().ok_or(Errno::EINTR)?;
        number = block.number;
        cx.restart_deadline = Some(block.deadline);
    }
    cx.number = number;
    let row = table::row(number);
    let tracer = cx.kernel.strace.clone();
    if tracer.is_some() {
        cx.trace = Some(Trace::start(number, row.is_none().then_some(&words)));
    }
    let result = match row.map(|row| row.call) {
        None => Err(Errno::ENOSYS.into()),
        Some(Call::Sync(handler)) => handler(cx, words),
        Some(Call::Async(handler)) => handler(cx, words).await,
        Some(Call::Try(first, handler)) => match first(cx, words) {
            Attempt::Done(result) => result,
            Attempt::WouldBlock { begun } => {
                cx.begun = begun;
                handler(cx, words).await
            }
        },
    };
    if let (Some(tracer), Some(trace)) = (tracer, cx.trace.take()) {
        tracer.write_line(&trace.finish(cx.thread.tid(), &cx.mm(), &result));
    }
    result
}
