//! Who am I: process, thread, user and group ids.

use crate::cx::Cx;
use crate::error::SysResult;

/// getpid: the caller's thread group. See [getpid(2)](https://man7.org/linux/man-pages/man2/getpid.2.html).
pub fn getpid(cx: &mut Cx<'_>) -> SysResult {
    Ok(cx.thread.tgid().0 as u64)
}

/// gettid: the caller's thread. See [gettid(2)](https://man7.org/linux/man-pages/man2/gettid.2.html).
pub fn gettid(cx: &mut Cx<'_>) -> SysResult {
    Ok(cx.thread.tid().0 as u64)
}
