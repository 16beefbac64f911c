//! Descriptors: closing and duplicating.

use std::sync::Arc;

use abi::Errno;
use abi::fcntl::CloseRangeFlags;
use abi::ids::Fd;
use abi::open::OpenFlags;
use vfs::{File, record_lock};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::strict_flags_arg;

strict_flags_arg!(CloseRangeFlags as "CLOSE_RANGE_");

/// close. See [close(2)](https://man7.org/linux/man-pages/man2/close.2.html).
pub fn close(cx: &mut Cx<'_>, fd: Fd) -> SysResult {
    let file = cx.files().close(fd)?;
    closed(cx, [file]);
    Ok(0)
}

/// close_range. See [close_range(2)](https://man7.org/linux/man-pages/man2/close_range.2.html).
pub fn close_range(cx: &mut Cx<'_>, first: u32, last: u32, flags: CloseRangeFlags) -> SysResult {
    if first > last {
        return Err(Errno::EINVAL.into());
    }
    if flags.contains(CloseRangeFlags::UNSHARE) {
        cx.context.know_descriptors(false);
        cx.thread.set_files(cx.files().duplicate());
    }
    let files = cx.files();
    if flags.contains(CloseRangeFlags::CLOEXEC) {
        files.set_cloexec_range(first, last);
    } else {
        closed(cx, files.close_range(first, last));
    }
    Ok(0)
}

/// dup. See [dup(2)](https://man7.org/linux/man-pages/man2/dup.2.html).
pub fn dup(cx: &mut Cx<'_>, fd: Fd) -> SysResult {
    cx.return_fd(cx.path_file(fd)?, OpenFlags::empty())
}

/// dup2. See [dup2(2)](https://man7.org/linux/man-pages/man2/dup2.2.html).
pub fn dup2(cx: &mut Cx<'_>, old: Fd, new: Fd) -> SysResult {
    dup_to(cx, old, new, OpenFlags::empty())
}

/// dup3. See [dup3(2)](https://man7.org/linux/man-pages/man2/dup3.2.html).
pub fn dup3(cx: &mut Cx<'_>, old: Fd, new: Fd, flags: OpenFlags) -> SysResult {
    if old == new || !OpenFlags::CLOEXEC.contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    dup_to(cx, old, new, flags)
}

fn dup_to(cx: &Cx<'_>, old: Fd, new: Fd, flags: OpenFlags) -> SysResult {
    let cloexec = flags.contains(OpenFlags::CLOEXEC);
    let replaced = cx.files().dup_to(old, new, cloexec, cx.fd_limit())?;
    closed(cx, replaced);
    Ok(u64::from(new.0.cast_unsigned()))
}

/// A process that closes any descriptor of a file loses all its record locks on it; see fcntl(2).
fn closed(cx: &Cx<'_>, files: impl IntoIterator<Item = Arc<File>>) {
    for file in files {
        record_lock::release_process(&file, cx.thread.tgid());
    }
}
