//! Waiting for children.

use abi::clone::{P_ALL, P_PGID, P_PID, P_PIDFD, RusageBuf, WaitOptions};
use abi::ids::{Fd, Tid};
use abi::poll::PollEvents;
use abi::siginfo::SigInfo;
use abi::{Errno, Result};
use zerocopy::IntoBytes;

use crate::cx::Cx;
use crate::error::{Restart, SysError, SysResult};
use crate::executor::notify::wait_until;
use crate::files::pidfd;
use crate::mm::UserRef;
use crate::syscalls::args::Out;
use crate::syscalls::usage::rusage_buf;
use crate::task::wait::{Report, Which, poll};

crate::loose_flags_arg!(WaitOptions as "W");

/// Bytes of a siginfo that waitid(2) writes: up to `si_status`.
const WAITID_INFO_BYTES: usize = 28;

/// wait4: waits for a child's end or stop. See [wait4(2)](https://man7.org/linux/man-pages/man2/wait4.2.html).
pub async fn wait4(
    cx: &mut Cx<'_>,
    pid: Tid,
    status: Out<i32>,
    options: WaitOptions,
    usage: Out<RusageBuf>,
) -> SysResult {
    let known = WaitOptions::NOHANG
        | WaitOptions::UNTRACED
        | WaitOptions::CONTINUED
        | WaitOptions::NOTHREAD
        | WaitOptions::CLONE
        | WaitOptions::ALL;
    if !known.contains(options) {
        return Err(Errno::EINVAL.into());
    }
    if pid.0 == i32::MIN {
        return Err(Errno::ESRCH.into());
    }
    let which = match pid.0 {
        -1 => Which::Any,
        0 => Which::ProcessGroup(cx.thread.group.pgid()),
        ..-1 => Which::ProcessGroup(Tid(-pid.0)),
        _ => Which::Process(pid),
    };
    let Some(report) = wait(cx, which, options | WaitOptions::EXITED).await? else {
        return Ok(0);
    };
    let mm = cx.mm();
    if let Some(status) = status.optional() {
        status.write(&mm, &report.wait_word())?;
    }
    if let Some(usage) = usage.optional() {
        usage.write(&mm, &rusage_buf(&report.usage))?;
    }
    Ok(u64::from(report.pid.0.cast_unsigned()))
}

/// waitid: waits for chosen changes of a child. See [waitid(2)](https://man7.org/linux/man-pages/man2/waitid.2.html).
pub async fn waitid(
    cx: &mut Cx<'_>,
    kind: u32,
    id: i32,
    info: Out<SigInfo>,
    options: WaitOptions,
    usage: Out<RusageBuf>,
) -> SysResult {
    let events = WaitOptions::EXITED | WaitOptions::UNTRACED | WaitOptions::CONTINUED;
    let known = events
        | WaitOptions::NOHANG
        | WaitOptions::NOWAIT
        | WaitOptions::NOTHREAD
        | WaitOptions::CLONE
        | WaitOptions::ALL;
    if !known.contains(options) || !options.intersects(events) {
        return Err(Errno::EINVAL.into());
    }
    let which = which(cx, kind, id)?;
    let report = wait(cx, which, options).await?;
    let mm = cx.mm();
    if let Some(usage) = usage.optional() {
        let used = report.map(|report| report.usage).unwrap_or_default();
        usage.write(&mm, &rusage_buf(&used))?;
    }
    if let Some(info) = info.optional() {
        write_info(&mm, info, report.as_ref())?;
    }
    Ok(0)
}

/// Without a report, signal number and pid are 0.
fn write_info(mm: &crate::mm::Mm, at: UserRef<SigInfo>, report: Option<&Report>) -> Result<()> {
    let bytes = match report {
        Some(report) => {
            let Report { code, pid, uid, value, .. } = *report;
            let info = SigInfo::child(code, pid, uid, value, 0, 0);
            info.as_bytes()[..WAITID_INFO_BYTES].to_vec()
        }
        None => vec![0; WAITID_INFO_BYTES],
    };
    mm.write(at.addr, &bytes)
}

fn which(cx: &Cx<'_>, kind: u32, id: i32) -> Result<Which> {
    match kind {
        P_ALL => Ok(Which::Any),
        P_PID if id > 0 => Ok(Which::Process(Tid(id))),
        P_PGID if id == 0 => Ok(Which::ProcessGroup(cx.thread.group.pgid())),
        P_PGID if id > 0 => Ok(Which::ProcessGroup(Tid(id))),
        P_PIDFD if id >= 0 => {
            let file = cx.thread.files().get(Fd(id))?;
            let group = pidfd::group_of(&file).ok_or(Errno::EBADF)?;
            Ok(Which::Process(group.tgid))
        }
        _ => Err(Errno::EINVAL),
    }
}

/// `None` only with `NOHANG`.
async fn wait(
    cx: &mut Cx<'_>,
    which: Which,
    options: WaitOptions,
) -> core::result::Result<Option<Report>, SysError> {
    let group = &cx.thread.group;
    // Mostly there is something already, or nobody wants to wait.
    if let Some(report) = poll(&cx.kernel.tasks, group, which, options)? {
        return Ok(Some(report));
    }
    if options.contains(WaitOptions::NOHANG) {
        return Ok(None);
    }
    let (kernel, group) = (cx.kernel.clone(), group.clone());
    let found = async move {
        wait_until(&group.child_events, PollEvents::IN, || {
            poll(&kernel.tasks, &group, which, options).transpose()
        })
        .await
    };
    match cx.block_on(found, None).await {
        Ok(report) => Ok(Some(report?)),
        Err(_) => Err(SysError::Restart(Restart::IfAsked)),
    }
}
