//! Waiting for many files: epoll.

use std::sync::Arc;

use abi::epoll::{
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLWAKEUP, EpollCreateFlags, EpollEvent,
};
use abi::ids::Fd;
use abi::open::OpenFlags;
use abi::time::Timespec;
use abi::{Errno, Result};
use base::Observer;
use vfs::File;
use vfs::anon::epoll::{self, Epoll, Interest};
use vfs::fs::anonfs;

use crate::cx::Cx;
use crate::error::{Restart, SysError, SysResult};
use crate::executor::notify::Notified;
use crate::io_wait::READABLE;
use crate::mm::UserRef;
use crate::strict_flags_arg;
use crate::syscalls::args::In;
use crate::syscalls::names::EpollOperation;
use crate::syscalls::poll::{Timeout, begin_mask, end_mask, read_mask, timespec_deadline};
use crate::syscalls::table::Attempt;
use crate::task::Blocked;

strict_flags_arg!(EpollCreateFlags as "EPOLL_");

/// Most events of one answer: `EP_MAX_EVENTS` of Linux is more than any guest has room for.
const MAX_EVENTS: i32 = i32::MAX / 12;

/// epoll_create. See [epoll_create(2)](https://man7.org/linux/man-pages/man2/epoll_create.2.html).
pub fn epoll_create(cx: &mut Cx<'_>, size: i32) -> SysResult {
    if size <= 0 {
        return Err(Errno::EINVAL.into());
    }
    epoll_create1(cx, EpollCreateFlags::empty())
}

/// epoll_create1. See [epoll_create1(2)](https://man7.org/linux/man-pages/man2/epoll_create1.2.html).
pub fn epoll_create1(cx: &mut Cx<'_>, flags: EpollCreateFlags) -> SysResult {
    let file = anonfs::new_file(Epoll::new(), "[eventpoll]", OpenFlags::RDWR);
    cx.return_fd(file, OpenFlags::from_bits_retain(flags.bits()))
}

/// epoll_ctl. See [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html).
pub fn epoll_ctl(
    cx: &mut Cx<'_>,
    epfd: Fd,
    operation: EpollOperation,
    fd: Fd,
    event: In<EpollEvent>,
) -> SysResult {
    let operation = operation.0;
    let interest = if operation == EPOLL_CTL_DEL {
        None
    } else {
        let event = event.read(&cx.mm())?;
        // EPOLLWAKEUP without CAP_BLOCK_SUSPEND is silently nothing; here there is no suspend at all.
        Some(Interest { events: { event.events } & !EPOLLWAKEUP, data: event.data })
    };
    let poller = cx.file(epfd)?;
    let target = cx.file(fd)?;
    if target.ops().wait_queue().is_none() {
        return Err(Errno::EPERM.into());
    }
    let epoll = epoll::of(&poller).ok_or(Errno::EINVAL)?;
    if Arc::ptr_eq(&poller, &target) {
        return Err(Errno::EINVAL.into());
    }
    match (operation, interest) {
        (EPOLL_CTL_ADD, Some(interest)) => {
            cx.with_vfs(|vfs| epoll.add(vfs, fd, &target, interest))?;
        }
        (EPOLL_CTL_MOD, Some(interest)) => {
            cx.with_vfs(|vfs| epoll.modify(vfs, fd, &target, interest))?;
        }
        (EPOLL_CTL_DEL, _) => epoll.remove(fd, &target)?,
        _ => return Err(Errno::EINVAL.into()),
    }
    cx.files().note_watch(fd, epoll::of(&target).is_some());
    Ok(0)
}

/// epoll_wait. See [epoll_wait(2)](https://man7.org/linux/man-pages/man2/epoll_wait.2.html).
pub async fn epoll_wait(
    cx: &mut Cx<'_>,
    epfd: Fd,
    events: UserRef<EpollEvent>,
    max: i32,
    timeout_ms: i32,
) -> SysResult {
    let timeout = millis(cx, timeout_ms);
    wait(cx, epfd, events, max, timeout).await
}

/// [`epoll_wait`], as long as it need not wait.
pub fn try_epoll_wait(
    cx: &mut Cx<'_>,
    epfd: Fd,
    events: UserRef<EpollEvent>,
    max: i32,
    timeout_ms: i32,
) -> Attempt {
    let look = |cx: &Cx<'_>| {
        let poller = poller(cx, epfd, max)?;
        collect(cx, &poller, events, max)
    };
    match look(cx) {
        Ok(0) if timeout_ms != 0 => Attempt::WouldBlock { begun: 0 },
        Ok(count) => Attempt::Done(Ok(count)),
        Err(errno) => Attempt::Done(Err(errno.into())),
    }
}

/// epoll_pwait. See [epoll_pwait(2)](https://man7.org/linux/man-pages/man2/epoll_pwait.2.html).
pub async fn epoll_pwait(
    cx: &mut Cx<'_>,
    epfd: Fd,
    events: UserRef<EpollEvent>,
    max: i32,
    timeout_ms: i32,
    mask: UserRef<u64>,
    mask_size: usize,
) -> SysResult {
    let timeout = millis(cx, timeout_ms);
    let mask = read_mask(cx, mask, mask_size)?;
    begin_mask(cx, mask);
    let result = wait(cx, epfd, events, max, timeout).await;
    end_mask(cx, mask, &result);
    result
}

/// epoll_pwait2. See [epoll_pwait2(2)](https://man7.org/linux/man-pages/man2/epoll_pwait2.2.html).
pub async fn epoll_pwait2(
    cx: &mut Cx<'_>,
    epfd: Fd,
    events: UserRef<EpollEvent>,
    max: i32,
    timeout: UserRef<Timespec>,
    mask: UserRef<u64>,
    mask_size: usize,
) -> SysResult {
    let timeout = timespec_deadline(cx, timeout)?;
    let mask = read_mask(cx, mask, mask_size)?;
    begin_mask(cx, mask);
    let result = wait(cx, epfd, events, max, timeout).await;
    end_mask(cx, mask, &result);
    result
}

fn millis(cx: &Cx<'_>, timeout_ms: i32) -> Timeout {
    match u64::try_from(timeout_ms) {
        Ok(ms) => {
            let deadline = cx.kernel.now().saturating_add(ms.saturating_mul(1_000_000));
            Timeout::until(deadline, ms == 0)
        }
        Err(_) => Timeout::Never,
    }
}

fn poller(cx: &Cx<'_>, epfd: Fd, max: i32) -> Result<Arc<File>> {
    if max <= 0 || max > MAX_EVENTS {
        return Err(Errno::EINVAL);
    }
    let file = cx.file(epfd)?;
    epoll::of(&file).ok_or(Errno::EINVAL)?;
    Ok(file)
}

/// Gives what is ready now.
fn collect(cx: &Cx<'_>, file: &File, events: UserRef<EpollEvent>, max: i32) -> Result<u64> {
    let epoll = epoll::of(file).ok_or(Errno::EINVAL)?;
    let max = usize::try_from(max).map_err(|_| Errno::EINVAL)?;
    let ready = cx.with_vfs(|vfs| epoll.wait(vfs, max));
    if ready.is_empty() {
        return Ok(0);
    }
    let ready: Vec<EpollEvent> = ready
        .iter()
        .map(|Interest { events, data }| EpollEvent { events: *events, data: *data })
        .collect();
    events.write_array(&cx.mm(), &ready)?;
    Ok(ready.len() as u64)
}

async fn wait(
    cx: &mut Cx<'_>,
    epfd: Fd,
    events: UserRef<EpollEvent>,
    max: i32,
    timeout: Timeout,
) -> SysResult {
    let file = poller(cx, epfd, max)?;
    let ready = collect(cx, &file, events, max)?;
    if ready > 0 || timeout == Timeout::Now {
        return Ok(ready);
    }
    let notified = Notified::new();
    let queue = file.ops().wait_queue().cloned().ok_or(Errno::EINVAL)?;
    let _registration = queue.register(READABLE, Arc::clone(&notified) as Arc<dyn Observer>);
    loop {
        let ready = collect(cx, &file, events, max)?;
        if ready > 0 {
            return Ok(ready);
        }
        match cx.block_on(notified.wait(), timeout.deadline()).await {
            Ok(()) => {}
            Err(Blocked::TimedOut) => return Ok(collect(cx, &file, events, max)?),
            // Interrupted epoll_wait is never restarted after a handler; see signal(7).
            Err(Blocked::Interrupted) => return Err(SysError::Restart(Restart::NoHandler)),
        }
    }
}
