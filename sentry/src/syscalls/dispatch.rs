//! From registers to a handler.

use abi::Errno;

use crate::cx::Cx;
use crate::error::SysResult;
use crate::syscalls::table::{self, Call};

/// Runs the call that the registers ask for.
///
/// # Errors
/// `ENOSYS` for a number without a row.
pub async fn dispatch(cx: &mut Cx<'_>) -> SysResult {
    let regs = cx.context.regs();
    let (number, words) = (regs.syscall_number(), regs.syscall_args());
    match table::row(number).map(|row| row.call) {
        None => Err(Errno::ENOSYS.into()),
        Some(Call::Sync(handler)) => handler(cx, words),
        Some(Call::Async(handler)) => handler(cx, words).await,
    }
}
