//! Opening files.

use std::mem::size_of;
use std::sync::Arc;

use abi::open::{OpenFlags, OpenHow as UserHow, ResolveFlags};
use abi::poll::PollEvents;
use abi::{Errno, Result};
use vfs::ops::{self, OpenHow, Opened, PendingFifo};
use vfs::{File, LookupFlags};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::io_wait::on_queue;
use crate::known_paths::{self, Question};
use crate::mm::{UserCStr, UserRef};
use crate::syscalls::args::{DirFd, Mode};
use crate::syscalls::descriptor::PathAt;
use crate::syscalls::table::Attempt;
use crate::{ledger, loans, ready};

/// open. See [open(2)](https://man7.org/linux/man-pages/man2/open.2.html).
pub async fn open(cx: &mut Cx<'_>, path: UserCStr, flags: OpenFlags, mode: Mode) -> SysResult {
    openat(cx, DirFd::CWD, path, flags, mode).await
}

/// [`open`], unless it is a FIFO that has to wait for its peer.
pub fn try_open(cx: &mut Cx<'_>, path: UserCStr, flags: OpenFlags, mode: Mode) -> Attempt {
    try_openat(cx, DirFd::CWD, path, flags, mode)
}

/// creat. See [creat(2)](https://man7.org/linux/man-pages/man2/creat.2.html).
pub async fn creat(cx: &mut Cx<'_>, path: UserCStr, mode: Mode) -> SysResult {
    let flags = OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC;
    openat(cx, DirFd::CWD, path, flags, mode).await
}

/// openat. See [openat(2)](https://man7.org/linux/man-pages/man2/openat.2.html).
pub async fn openat(
    cx: &mut Cx<'_>,
    dir: DirFd,
    path: UserCStr,
    flags: OpenFlags,
    mode: Mode,
) -> SysResult {
    let how = plain_how(flags, mode);
    let at = cx.path_at(dir, path)?;
    match open_at(cx, &at, how)? {
        Opened::File(file) => opened(cx, (dir, &at), file, flags),
        Opened::Fifo(pending) => wait_for_peer(cx, pending, flags).await,
    }
}

/// [`openat`], unless it is a FIFO that has to wait for its peer.
pub fn try_openat(
    cx: &mut Cx<'_>,
    dir: DirFd,
    path: UserCStr,
    flags: OpenFlags,
    mode: Mode,
) -> Attempt {
    let open = |cx: &Cx<'_>| {
        let at = cx.path_at(dir, path)?;
        Ok((open_at(cx, &at, plain_how(flags, mode))?, at))
    };
    match open(cx) {
        Ok((Opened::File(file), at)) => Attempt::Done(opened(cx, (dir, &at), file, flags)),
        // The walk is made again; what it has created stays.
        Ok((Opened::Fifo(_), _)) => Attempt::WouldBlock { begun: 0 },
        Err(errno) => Attempt::Done(Err(Errno::into(errno))),
    }
}

/// openat2. See [openat2(2)](https://man7.org/linux/man-pages/man2/openat2.2.html).
pub async fn openat2(
    cx: &mut Cx<'_>,
    dir: DirFd,
    path: UserCStr,
    how: UserRef<UserHow>,
    size: usize,
) -> SysResult {
    let how = strict_how(read_how(cx, how, size)?)?;
    let at = cx.path_at(dir, path)?;
    match open_at(cx, &at, how)? {
        Opened::File(file) => opened(cx, (dir, &at), file, how.flags),
        Opened::Fifo(pending) => wait_for_peer(cx, pending, how.flags).await,
    }
}

/// The end of a call that has opened a file.
fn opened(
    cx: &mut Cx<'_>,
    (dir, at): (DirFd, &PathAt),
    file: Arc<File>,
    flags: OpenFlags,
) -> SysResult {
    let fd = cx.install(Arc::clone(&file), flags)?;
    loans::after_open(cx, fd, &file);
    ledger::after_open(cx, fd, &file);
    ready::after_open(cx, dir, at, &file);
    Ok(u64::from(fd.0.cast_unsigned()))
}

fn open_at(cx: &Cx<'_>, at: &PathAt, how: OpenHow) -> Result<Opened> {
    // As a 64-bit kernel does (`force_o_largefile`); it shows in F_GETFL.
    let how = OpenHow { flags: how.flags | OpenFlags::LARGEFILE, ..how };
    // An empty path is refused by the walk, which knows no AT_EMPTY_PATH here.
    let opened = cx.with_vfs(|vfs| ops::open(vfs, at.start(), &at.text, how));
    if matches!(opened, Err(Errno::ENOENT)) && !how.flags.contains(OpenFlags::CREAT) {
        known_paths::after_question(cx, &at.text, Question::Kind, false);
    }
    opened
}

/// The arguments of open(2) and openat(2), which forgive: unknown flags are ignored, so are mode bits without use.
fn plain_how(flags: OpenFlags, mode: Mode) -> OpenHow {
    let creates = flags.intersects(OpenFlags::CREAT) || flags.contains(OpenFlags::TMPFILE);
    let mode = if creates { mode.0 & 0o7777 } else { 0 };
    // The type bit of O_TMPFILE without O_DIRECTORY is nothing.
    let tmpfile_bit = OpenFlags::TMPFILE - OpenFlags::DIRECTORY;
    let lone = flags.intersects(tmpfile_bit) && !flags.contains(OpenFlags::TMPFILE);
    let flags = if lone { flags - tmpfile_bit } else { flags };
    OpenHow { flags: flags & known_flags(), mode, resolve: LookupFlags::empty() }
}

fn known_flags() -> OpenFlags {
    OpenFlags::from_bits_retain(OpenFlags::ACCMODE)
        | OpenFlags::CREAT
        | OpenFlags::EXCL
        | OpenFlags::NOCTTY
        | OpenFlags::TRUNC
        | OpenFlags::APPEND
        | OpenFlags::NONBLOCK
        | OpenFlags::SYNC
        | OpenFlags::ASYNC
        | OpenFlags::DIRECT
        | OpenFlags::LARGEFILE
        | OpenFlags::DIRECTORY
        | OpenFlags::NOFOLLOW
        | OpenFlags::NOATIME
        | OpenFlags::CLOEXEC
        | OpenFlags::PATH
        | OpenFlags::TMPFILE
}

/// Copies `struct open_how` in as copy_struct_from_user does: shorter is padded, longer must be zero behind.
fn read_how(cx: &Cx<'_>, at: UserRef<UserHow>, size: usize) -> Result<UserHow> {
    let known = size_of::<UserHow>();
    if size < known {
        return Err(Errno::EINVAL);
    }
    if size > abi::addr::PAGE_SIZE as usize {
        return Err(Errno::E2BIG);
    }
    let mm = cx.mm();
    let how = at.read(&mm)?;
    let mut rest = vec![0; size - known];
    mm.read(at.addr.checked_add(known as u64).ok_or(Errno::EFAULT)?, &mut rest)?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    Ok(how)
}

/// The checks of openat2(2), which forgives nothing.
fn strict_how(how: UserHow) -> Result<OpenHow> {
    let flags = u32::try_from(how.flags).map_err(|_| Errno::EINVAL)?;
    let flags = OpenFlags::from_bits_retain(flags);
    let resolve = ResolveFlags::from_bits(how.resolve).ok_or(Errno::EINVAL)?;
    if !known_flags().contains(flags) {
        return Err(Errno::EINVAL);
    }
    if resolve.contains(ResolveFlags::BENEATH | ResolveFlags::IN_ROOT) {
        return Err(Errno::EINVAL);
    }
    let tmpfile_bit = OpenFlags::TMPFILE - OpenFlags::DIRECTORY;
    let is_tmpfile = flags.contains(OpenFlags::TMPFILE);
    if flags.intersects(tmpfile_bit) && (!is_tmpfile || !flags.writes()) {
        return Err(Errno::EINVAL);
    }
    if flags.contains(OpenFlags::PATH) {
        let with_path =
            OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC;
        if !with_path.contains(flags) {
            return Err(Errno::EINVAL);
        }
    }
    let creates = flags.contains(OpenFlags::CREAT) || is_tmpfile;
    let most = if creates { 0o7777 } else { 0 };
    if how.mode & !most != 0 {
        return Err(Errno::EINVAL);
    }
    if resolve.contains(ResolveFlags::CACHED) && (creates || flags.contains(OpenFlags::TRUNC)) {
        return Err(Errno::EAGAIN);
    }
    // The values are the same; see `LookupFlags`.
    let resolve = LookupFlags::from_bits_retain(how.resolve as u32);
    Ok(OpenHow { flags, mode: how.mode as u32, resolve })
}

/// Opening a FIFO waits for the other end; see fifo(7).
async fn wait_for_peer(cx: &mut Cx<'_>, pending: PendingFifo, flags: OpenFlags) -> SysResult {
    let queue = pending.wait_queue();
    let mut pending = Some(pending);
    let file = on_queue(cx, &queue, PollEvents::all(), None, |_: &mut Cx<'_>| {
        match pending.take().ok_or(Errno::EIO)?.finish() {
            Ok(file) => Ok(file),
            Err(still) => {
                pending = Some(still);
                Err(Errno::EAGAIN)
            }
        }
    })
    .await?;
    cx.return_fd(file, flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict(flags: u64, mode: u64, resolve: u64) -> Result<OpenHow> {
        strict_how(UserHow { flags, mode, resolve })
    }

    #[test]
    fn openat2_forgives_nothing() {
        assert!(strict(0, 0, 0).is_ok());
        assert_eq!(strict(0, 0o600, 0).err(), Some(Errno::EINVAL));
        assert!(strict(0o100, 0o600, 0).is_ok());
        assert_eq!(strict(0o100, 0o10600, 0).err(), Some(Errno::EINVAL));
        assert_eq!(strict(1 << 32, 0, 0).err(), Some(Errno::EINVAL));
        assert_eq!(strict(1 << 30, 0, 0).err(), Some(Errno::EINVAL));
        assert_eq!(strict(0, 0, 0x18).err(), Some(Errno::EINVAL));
        assert_eq!(strict(0, 0, 0x40).err(), Some(Errno::EINVAL));
        assert_eq!(strict(0o10000000 | 1, 0, 0).err(), Some(Errno::EINVAL));
    }

    #[test]
    fn open_ignores_what_it_does_not_know() {
        let how = plain_how(OpenFlags::from_bits_retain(1 << 30), Mode(0o644));
        assert_eq!((how.flags, how.mode), (OpenFlags::empty(), 0));
        assert_eq!(plain_how(OpenFlags::CREAT, Mode(0o10644)).mode, 0o644);
    }
}
