//! Ending a thread or a process.

use crate::cx::Cx;
use crate::error::{SysError, SysResult};
use crate::signal::{ExitStatus, end_group};

/// exit: ends the calling thread. See [_exit(2)](https://man7.org/linux/man-pages/man2/_exit.2.html).
pub fn exit(cx: &mut Cx<'_>, status: i32) -> SysResult {
    cx.thread.attrs.lock().exit_code = low_byte(status);
    Err(SysError::Exited)
}

/// exit_group: ends the process. See [exit_group(2)](https://man7.org/linux/man-pages/man2/exit_group.2.html).
pub fn exit_group(cx: &mut Cx<'_>, status: i32) -> SysResult {
    end_group(cx.thread, ExitStatus::Exited(low_byte(status)));
    Err(SysError::Exited)
}

/// What wait(2) shows of a status.
const fn low_byte(status: i32) -> u8 {
    status.to_le_bytes()[0]
}
