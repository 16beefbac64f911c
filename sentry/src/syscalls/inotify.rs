//! Watching files for changes. See inotify(7).

use std::sync::Arc;

use abi::epoll::FdFlags;
use abi::ids::Fd;
use abi::open::{AtFlags, OpenFlags};
use abi::stat::FileType;
use abi::{Errno, Result};
use base::cred::Access;
use vfs::File;
use vfs::anon::inotify::{Inotify, WatchMask};
use vfs::fs::anonfs;

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::UserCStr;
use crate::syscalls::args::DirFd;
use crate::syscalls::pipe::status_flags;
use crate::syscalls::stat::lookup;

/// inotify_init. See [inotify_init(2)](https://man7.org/linux/man-pages/man2/inotify_init.2.html).
pub fn inotify_init(cx: &mut Cx<'_>) -> SysResult {
    inotify_init1(cx, FdFlags::empty())
}

/// inotify_init1. See [inotify_init(2)](https://man7.org/linux/man-pages/man2/inotify_init.2.html).
pub fn inotify_init1(cx: &mut Cx<'_>, flags: FdFlags) -> SysResult {
    let status = status_flags(flags.bits());
    let file = anonfs::new_file(Inotify::new(), "inotify", status & OpenFlags::NONBLOCK);
    cx.return_fd(file, status)
}

/// inotify_add_watch. See [inotify_add_watch(2)](https://man7.org/linux/man-pages/man2/inotify_add_watch.2.html).
pub fn inotify_add_watch(cx: &mut Cx<'_>, fd: Fd, path: UserCStr, mask: u32) -> SysResult {
    let file = cx.file(fd)?;
    let inotify = inotify_of(&file)?;
    let mask = WatchMask::from_bits(mask).ok_or(Errno::EINVAL)?;
    let mut flags = AtFlags::empty();
    flags.set(AtFlags::SYMLINK_NOFOLLOW, mask.contains(WatchMask::DONT_FOLLOW));
    let at = lookup(cx, DirFd::CWD, path, flags)?;
    let inode = at.inode();
    if mask.contains(WatchMask::ONLYDIR) && inode.file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR.into());
    }
    inode.permission(&cx.cred(), Access::READ)?;
    cx.kernel.platform.hear_transfers();
    let wd = inotify.add_watch(inode, mask)?;
    Ok(u64::try_from(wd).unwrap_or(0))
}

/// inotify_rm_watch. See [inotify_rm_watch(2)](https://man7.org/linux/man-pages/man2/inotify_rm_watch.2.html).
pub fn inotify_rm_watch(cx: &mut Cx<'_>, fd: Fd, wd: i32) -> SysResult {
    let file = cx.file(fd)?;
    inotify_of(&file)?.remove_watch(wd)?;
    Ok(0)
}

fn inotify_of(file: &Arc<File>) -> Result<&Inotify> {
    file.ops().as_any().downcast_ref().ok_or(Errno::EINVAL)
}
