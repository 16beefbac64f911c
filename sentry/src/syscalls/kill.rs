//! Sending signals.

use std::sync::Arc;

use abi::ids::{Fd, Tid};
use abi::siginfo::{SI_TKILL, SI_USER, SigInfo};
use abi::signal::Signal;
use abi::{Errno, Result};
use base::cred::{Caps, Credentials};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::files::pidfd;
use crate::signal::{Wakes, send, send_to_group, send_to_thread};
use crate::syscalls::args::In;
use crate::syscalls::signal::SignalArg;
use crate::task::exit::INIT;
use crate::task::{Thread, ThreadGroup};

/// kill: sends to processes. See [kill(2)](https://man7.org/linux/man-pages/man2/kill.2.html).
pub fn kill(cx: &mut Cx<'_>, pid: Tid, signal: SignalArg) -> SysResult {
    let signal = signal.optional()?;
    match pid.0 {
        1.. => {
            let target = cx.kernel.tasks.thread(pid).ok_or(Errno::ESRCH)?;
            may_signal(cx, &target, signal)?;
            if let Some(signal) = signal {
                send_to_group(&target.group, from_caller(cx, signal, SI_USER))?;
            }
        }
        i32::MIN => return Err(Errno::ESRCH.into()),
        -1 => {
            let own = cx.thread.tgid();
            let is_target = |group: &ThreadGroup| group.tgid != own && group.tgid != INIT;
            let targets = cx.kernel.tasks.all_groups().into_iter().filter(|group| is_target(group));
            kill_all(cx, targets.collect(), signal)?;
        }
        _ => {
            let pgid = if pid.0 == 0 { cx.thread.group.pgid() } else { Tid(-pid.0) };
            let targets = cx.kernel.tasks.lock().members_of(pgid).cloned().collect();
            kill_all(cx, targets, signal)?;
        }
    }
    Ok(0)
}

/// Succeeds when at least one process may be signalled.
fn kill_all(cx: &Cx<'_>, targets: Vec<Arc<ThreadGroup>>, signal: Option<Signal>) -> Result<()> {
    let mut result = Err(Errno::ESRCH);
    let mut wakes = Wakes::default();
    for group in targets {
        let Some(target) = cx.kernel.tasks.thread(group.tgid) else { continue };
        match may_signal(cx, &target, signal) {
            Ok(()) => {
                if let Some(signal) = signal {
                    let _ = send::send(&group, None, from_caller(cx, signal, SI_USER), &mut wakes);
                }
                result = Ok(());
            }
            Err(errno) if result.is_err() => result = Err(errno),
            Err(_) => {}
        }
    }
    wakes.fire();
    result
}

/// tkill: sends to a thread. See [tkill(2)](https://man7.org/linux/man-pages/man2/tkill.2.html).
pub fn tkill(cx: &mut Cx<'_>, tid: Tid, signal: SignalArg) -> SysResult {
    if tid.0 <= 0 {
        return Err(Errno::EINVAL.into());
    }
    send_directed(cx, None, tid, signal, None)
}

/// tgkill: sends to a thread of a process. See [tkill(2)](https://man7.org/linux/man-pages/man2/tkill.2.html).
pub fn tgkill(cx: &mut Cx<'_>, tgid: Tid, tid: Tid, signal: SignalArg) -> SysResult {
    if tid.0 <= 0 || tgid.0 <= 0 {
        return Err(Errno::EINVAL.into());
    }
    send_directed(cx, Some(tgid), tid, signal, None)
}

fn send_directed(
    cx: &Cx<'_>,
    tgid: Option<Tid>,
    tid: Tid,
    signal: SignalArg,
    info: Option<SigInfo>,
) -> SysResult {
    let signal = signal.optional()?;
    let target = cx.kernel.tasks.thread(tid).ok_or(Errno::ESRCH)?;
    if tgid.is_some_and(|tgid| target.tgid() != tgid) {
        return Err(Errno::ESRCH.into());
    }
    may_signal(cx, &target, signal)?;
    if let Some(signal) = signal {
        let info = info.unwrap_or_else(|| from_caller(cx, signal, SI_TKILL));
        send_to_thread(&target, info)?;
    }
    Ok(0)
}

/// rt_sigqueueinfo: sends to a process with data. See [rt_sigqueueinfo(2)](https://man7.org/linux/man-pages/man2/rt_sigqueueinfo.2.html).
pub fn rt_sigqueueinfo(
    cx: &mut Cx<'_>,
    pid: Tid,
    signal: SignalArg,
    info: In<SigInfo>,
) -> SysResult {
    let info = read_info(cx, info, signal, pid)?;
    let signal = signal.optional()?;
    let target = cx.kernel.tasks.thread(pid).ok_or(Errno::ESRCH)?;
    may_signal(cx, &target, signal)?;
    if signal.is_some() {
        send_to_group(&target.group, info)?;
    }
    Ok(0)
}

/// rt_tgsigqueueinfo: sends to a thread with data. See [rt_sigqueueinfo(2)](https://man7.org/linux/man-pages/man2/rt_sigqueueinfo.2.html).
pub fn rt_tgsigqueueinfo(
    cx: &mut Cx<'_>,
    tgid: Tid,
    tid: Tid,
    signal: SignalArg,
    info: In<SigInfo>,
) -> SysResult {
    if tid.0 <= 0 || tgid.0 <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let info = read_info(cx, info, signal, tid)?;
    send_directed(cx, Some(tgid), tid, signal, Some(info))
}

/// Who sends to others must not pretend to be the kernel or kill(2).
fn read_info(cx: &Cx<'_>, info: In<SigInfo>, signal: SignalArg, target: Tid) -> Result<SigInfo> {
    let mut info = info.read(&cx.mm())?;
    info.signo = signal.0;
    let is_forged = info.code >= 0 || info.code == SI_TKILL;
    if is_forged && target != cx.thread.tid() && target != cx.thread.tgid() {
        return Err(Errno::EPERM);
    }
    Ok(info)
}

/// pidfd_send_signal: sends to the process of a pidfd. See [pidfd_send_signal(2)](https://man7.org/linux/man-pages/man2/pidfd_send_signal.2.html).
pub fn pidfd_send_signal(
    cx: &mut Cx<'_>,
    fd: Fd,
    signal: SignalArg,
    info: In<SigInfo>,
    flags: u32,
) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = cx.thread.files().get(fd)?;
    let group = pidfd::group_of(&file).ok_or(Errno::EBADF)?;
    let queued = match info.optional() {
        Some(_) => Some(read_info(cx, info, signal, group.tgid)?),
        None => None,
    };
    let signal = signal.optional()?;
    if group.exit_status().is_some() && cx.kernel.tasks.group(group.tgid).is_none() {
        return Err(Errno::ESRCH.into());
    }
    let target = cx.kernel.tasks.thread(group.tgid).ok_or(Errno::ESRCH)?;
    may_signal(cx, &target, signal)?;
    if let Some(signal) = signal {
        let info = queued.unwrap_or_else(|| from_caller(cx, signal, SI_USER));
        send_to_group(&group, info)?;
    }
    Ok(0)
}

fn from_caller(cx: &Cx<'_>, signal: Signal, code: i32) -> SigInfo {
    SigInfo::user(signal, code, cx.thread.tgid(), cx.cred().ruid)
}

/// The check of kill(2).
///
/// # Errors
/// `EPERM`.
fn may_signal(cx: &Cx<'_>, target: &Thread, signal: Option<Signal>) -> Result<()> {
    if target.tgid() == cx.thread.tgid() {
        return Ok(());
    }
    let is_continue_in_session =
        signal == Some(Signal::SIGCONT) && target.group.sid() == cx.thread.group.sid();
    if is_continue_in_session || is_allowed(&cx.cred(), &target.cred()) {
        return Ok(());
    }
    Err(Errno::EPERM)
}

fn is_allowed(caller: &Credentials, target: &Credentials) -> bool {
    let matches = |id| id == target.suid || id == target.ruid;
    matches(caller.euid) || matches(caller.ruid) || caller.has(Caps::KILL)
}
