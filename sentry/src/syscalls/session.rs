//! Process groups and sessions.

use std::sync::Arc;

use abi::ids::Tid;
use abi::{Errno, Result};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::task::{ThreadGroup, session};

/// setpgid: moves a process to a process group. See [setpgid(2)](https://man7.org/linux/man-pages/man2/setpgid.2.html).
pub fn setpgid(cx: &mut Cx<'_>, pid: Tid, pgid: Tid) -> SysResult {
    session::set_process_group(&cx.kernel.tasks, &cx.thread.group, pid, pgid)?;
    Ok(0)
}

/// getpgid: process group of a process. See [getpgid(2)](https://man7.org/linux/man-pages/man2/getpgid.2.html).
pub fn getpgid(cx: &mut Cx<'_>, pid: Tid) -> SysResult {
    Ok(number(group_by_id(cx, pid)?.pgid()))
}

/// getpgrp: process group of the caller. See [getpgrp(2)](https://man7.org/linux/man-pages/man2/getpgrp.2.html).
pub fn getpgrp(cx: &mut Cx<'_>) -> SysResult {
    Ok(number(cx.thread.group.pgid()))
}

/// setsid: starts a session. See [setsid(2)](https://man7.org/linux/man-pages/man2/setsid.2.html).
pub fn setsid(cx: &mut Cx<'_>) -> SysResult {
    Ok(number(session::start_session(&cx.kernel.tasks, &cx.thread.group)?))
}

/// getsid: session of a process. See [getsid(2)](https://man7.org/linux/man-pages/man2/getsid.2.html).
pub fn getsid(cx: &mut Cx<'_>, pid: Tid) -> SysResult {
    Ok(number(group_by_id(cx, pid)?.sid()))
}

fn group_by_id(cx: &Cx<'_>, pid: Tid) -> Result<Arc<ThreadGroup>> {
    if pid.0 == 0 {
        return Ok(Arc::clone(&cx.thread.group));
    }
    cx.kernel.tasks.thread(pid).map(|thread| Arc::clone(&thread.group)).ok_or(Errno::ESRCH)
}

fn number(id: Tid) -> u64 {
    u64::from(id.0.cast_unsigned())
}
