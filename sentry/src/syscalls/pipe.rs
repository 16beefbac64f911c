//! Pipes and eventfds.

use abi::Errno;
use abi::epoll::EventfdFlags;
use abi::ids::Fd;
use abi::open::OpenFlags;
use vfs::anon::eventfd::EventFd;
use vfs::fs::{anonfs, pipefs};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::strict_flags_arg;
use crate::syscalls::args::Out;

strict_flags_arg!(EventfdFlags as "EFD_");

/// pipe. See [pipe(2)](https://man7.org/linux/man-pages/man2/pipe.2.html).
pub fn pipe(cx: &mut Cx<'_>, fds: Out<[i32; 2]>) -> SysResult {
    pipe2(cx, fds, OpenFlags::empty())
}

/// pipe2. See [pipe2(2)](https://man7.org/linux/man-pages/man2/pipe2.2.html).
pub fn pipe2(cx: &mut Cx<'_>, fds: Out<[i32; 2]>, flags: OpenFlags) -> SysResult {
    let known = OpenFlags::CLOEXEC | OpenFlags::NONBLOCK | OpenFlags::DIRECT;
    if !known.contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let (read_end, write_end) = pipefs::new_pipe(&cx.cred(), flags);
    let read_fd = cx.install(read_end, flags)?;
    let write_fd = match cx.install(write_end, flags) {
        Ok(fd) => fd,
        Err(errno) => {
            take_back(cx, &[read_fd]);
            return Err(errno.into());
        }
    };
    let written = fds.write(&cx.mm(), &[read_fd.0, write_fd.0]);
    if written.is_err() {
        take_back(cx, &[read_fd, write_fd]);
    }
    written?;
    Ok(0)
}

/// A call that failed after it had made descriptors.
fn take_back(cx: &Cx<'_>, fds: &[Fd]) {
    for fd in fds {
        // Another thread may have closed it already.
        drop(cx.files().close(*fd));
    }
}

/// eventfd. See [eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html).
pub fn eventfd(cx: &mut Cx<'_>, initial: u32) -> SysResult {
    eventfd2(cx, initial, EventfdFlags::empty())
}

/// eventfd2. See [eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html).
pub fn eventfd2(cx: &mut Cx<'_>, initial: u32, flags: EventfdFlags) -> SysResult {
    let event = EventFd::new(initial, flags.contains(EventfdFlags::SEMAPHORE));
    let status = status_flags(flags.bits());
    let file = anonfs::new_file(event, "[eventfd]", status | OpenFlags::RDWR);
    cx.return_fd(file, status)
}

/// `O_NONBLOCK` and `O_CLOEXEC` of the calls whose flags have the same values.
#[must_use]
pub fn status_flags(bits: u32) -> OpenFlags {
    OpenFlags::from_bits_retain(bits) & (OpenFlags::NONBLOCK | OpenFlags::CLOEXEC)
}
