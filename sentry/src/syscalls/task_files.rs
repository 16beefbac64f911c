//! Descriptors for processes and signals.

use abi::ids::{Fd, Tid};
use abi::open::OpenFlags;
use abi::signal::SigSet;
use abi::{Errno, Result};
use base::cred::Caps;

use crate::cx::Cx;
use crate::error::SysResult;
use crate::files::signalfd::SignalFd;
use crate::files::{install, pidfd};
use crate::mm::UserRef;
use crate::syscalls::signal::read_mask;

fn number(fd: Fd) -> u64 {
    u64::from(fd.0.cast_unsigned())
}

/// pidfd_open: a process as a descriptor. See [pidfd_open(2)](https://man7.org/linux/man-pages/man2/pidfd_open.2.html).
pub fn pidfd_open(cx: &mut Cx<'_>, pid: Tid, flags: OpenFlags) -> SysResult {
    if pid.0 <= 0 || !OpenFlags::NONBLOCK.contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let group = match cx.kernel.tasks.group(pid) {
        Some(group) => group,
        // A thread that is no leader: ENOENT since 6.9, EINVAL before.
        None if cx.kernel.tasks.thread(pid).is_some() => return Err(Errno::ENOENT.into()),
        None => return Err(Errno::ESRCH.into()),
    };
    let fd = pidfd::open(cx.thread, &group, flags.contains(OpenFlags::NONBLOCK))?;
    Ok(number(fd))
}

/// pidfd_getfd: a descriptor of another process. See [pidfd_getfd(2)](https://man7.org/linux/man-pages/man2/pidfd_getfd.2.html).
pub fn pidfd_getfd(cx: &mut Cx<'_>, fd: Fd, target: Fd, flags: u32) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = cx.thread.files().get(fd)?;
    let group = pidfd::group_of(&file).ok_or(Errno::EBADF)?;
    let thread = group.any_thread().ok_or(Errno::ESRCH)?;
    let (caller, other) = (cx.cred(), thread.cred());
    let is_same = [other.ruid, other.euid, other.suid].iter().all(|uid| *uid == caller.fsuid);
    if !is_same && !caller.has(Caps::SYS_PTRACE) {
        return Err(Errno::EPERM.into());
    }
    let wanted = thread.files_if_alive().ok_or(Errno::ESRCH)?.get(target)?;
    let limit = cx.thread.group.limit(abi::rlimit::Resource::Nofile);
    Ok(number(cx.thread.files().install(wanted, true, Fd(0), limit)?))
}

/// signalfd: signals as a descriptor. See [signalfd(2)](https://man7.org/linux/man-pages/man2/signalfd.2.html).
pub fn signalfd(cx: &mut Cx<'_>, fd: Fd, mask: UserRef<u64>, size: usize) -> SysResult {
    signalfd4(cx, fd, mask, size, OpenFlags::empty())
}

/// signalfd4: signalfd with flags. See [signalfd(2)](https://man7.org/linux/man-pages/man2/signalfd.2.html).
pub fn signalfd4(
    cx: &mut Cx<'_>,
    fd: Fd,
    mask: UserRef<u64>,
    size: usize,
    flags: OpenFlags,
) -> SysResult {
    if !(OpenFlags::NONBLOCK | OpenFlags::CLOEXEC).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let mask = read_mask(&cx.mm(), mask, size)?.ok_or(Errno::EINVAL)?;
    if fd.0 == -1 {
        let ops = SignalFd::new(cx.kernel, cx.thread, mask);
        return Ok(number(install(cx.thread, ops, "[signalfd]", flags | OpenFlags::RDWR)?));
    }
    change_mask(cx, fd, mask)?;
    Ok(number(fd))
}

fn change_mask(cx: &Cx<'_>, fd: Fd, mask: SigSet) -> Result<()> {
    let file = cx.thread.files().get(fd)?;
    let signalfd = file.ops().as_any().downcast_ref::<SignalFd>().ok_or(Errno::EINVAL)?;
    signalfd.set_mask(mask);
    Ok(())
}
