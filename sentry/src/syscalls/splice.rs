//! Moving bytes between files without passing through the guest: sendfile, copy_file_range, splice.
//!
//! The bytes go through a buffer of the sentry: no host call of that kind may touch page-cache pages that the host
//! shares with others.

use std::sync::Arc;

use abi::fcntl::SpliceFlags;
use abi::ids::Fd;
use abi::open::OpenFlags;
use abi::poll::PollEvents;
use abi::stat::FileType;
use abi::uio::{Iovec, MAX_RW_COUNT};
use abi::{Errno, Result};
use vfs::File;
use vfs::file::Whence;
use vfs::fs::pipefs::PipeEnd;

use crate::cx::Cx;
use crate::error::{SysError, SysResult};
use crate::io_wait::{READABLE, WRITABLE, until_ready};
use crate::mm::UserRef;
use crate::strict_flags_arg;
use crate::syscalls::read_write::{self, signal_failure};

strict_flags_arg!(SpliceFlags as "SPLICE_F_");

/// Bytes that are on their way at once.
const CHUNK: usize = 64 << 10;
/// What a pipe that polls writable takes at once.
const PIPE_CHUNK: usize = 4096;

/// Where one side reads or writes.
#[derive(Debug, Clone, Copy)]
enum Place {
    Position,
    Offset(u64),
}

impl Place {
    fn after(self, bytes: usize) -> Self {
        match self {
            Self::Position => self,
            Self::Offset(at) => Self::Offset(at.saturating_add(bytes as u64)),
        }
    }
}

/// An offset argument: null is the position.
fn place(cx: &Cx<'_>, offset: UserRef<i64>) -> Result<Place> {
    match offset.optional() {
        None => Ok(Place::Position),
        Some(at) => {
            let at = u64::try_from(at.read(&cx.mm())?).map_err(|_| Errno::EINVAL)?;
            Ok(Place::Offset(at))
        }
    }
}

fn give_back(cx: &Cx<'_>, offset: UserRef<i64>, place: Place) -> Result<()> {
    match (offset.optional(), place) {
        (Some(to), Place::Offset(at)) => to.write(&cx.mm(), &at.cast_signed()),
        _ => Ok(()),
    }
}

/// sendfile. See [sendfile(2)](https://man7.org/linux/man-pages/man2/sendfile.2.html).
pub async fn sendfile(
    cx: &mut Cx<'_>,
    out: Fd,
    input: Fd,
    offset: UserRef<i64>,
    count: usize,
) -> SysResult {
    let start = place(cx, offset)?;
    let (source, target) = (cx.file(input)?, cx.file(out)?);
    if !source.flags().reads() || !target.flags().writes() {
        return Err(Errno::EBADF.into());
    }
    if !source.ops().is_seekable() {
        return Err(match start {
            Place::Offset(_) => Errno::ESPIPE,
            Place::Position => Errno::EINVAL,
        }
        .into());
    }
    if target.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL.into());
    }
    // The position moves only past what was written: read at offsets, then move it.
    let from = match start {
        Place::Position => source.seek(0, Whence::Current)?,
        Place::Offset(at) => at,
    };
    let count = count.min(MAX_RW_COUNT);
    let done = copy(cx, &source, from, &target, Place::Position, count).await?;
    match start {
        Place::Position => {
            let end = from.saturating_add(done).cast_signed();
            source.seek(end, Whence::Set)?;
        }
        Place::Offset(at) => give_back(cx, offset, Place::Offset(at.saturating_add(done)))?,
    }
    Ok(done)
}

/// copy_file_range. See [copy_file_range(2)](https://man7.org/linux/man-pages/man2/copy_file_range.2.html).
pub async fn copy_file_range(
    cx: &mut Cx<'_>,
    input: Fd,
    input_offset: UserRef<i64>,
    out: Fd,
    out_offset: UserRef<i64>,
    len: usize,
    flags: u32,
) -> SysResult {
    let (source, target) = (cx.file(input)?, cx.file(out)?);
    let (from, to) = (place(cx, input_offset)?, place(cx, out_offset)?);
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    for file in [&source, &target] {
        match file.inode().file_type() {
            FileType::Regular => {}
            FileType::Directory => return Err(Errno::EISDIR.into()),
            _ => return Err(Errno::EINVAL.into()),
        }
    }
    let appends = target.flags().contains(OpenFlags::APPEND);
    if !source.flags().reads() || !target.flags().writes() || appends {
        return Err(Errno::EBADF.into());
    }
    let begin = |file: &File, place| match place {
        Place::Position => file.seek(0, Whence::Current),
        Place::Offset(at) => Ok(at),
    };
    let (read_at, write_at) = (begin(&source, from)?, begin(&target, to)?);
    let len = len.min(MAX_RW_COUNT);
    let distance = read_at.abs_diff(write_at);
    if Arc::ptr_eq(source.inode(), target.inode()) && distance < len as u64 {
        return Err(Errno::EINVAL.into());
    }
    let done = copy(cx, &source, read_at, &target, Place::Offset(write_at), len).await?;
    let ends = [
        (&source, from, input_offset, read_at.saturating_add(done)),
        (&target, to, out_offset, write_at.saturating_add(done)),
    ];
    for (file, place, offset, end) in ends {
        match place {
            Place::Position => file.seek(end.cast_signed(), Whence::Set).map(drop)?,
            Place::Offset(_) => give_back(cx, offset, Place::Offset(end))?,
        }
    }
    Ok(done)
}

/// Copies from a file with positions; returns how much, or the error when it was nothing.
async fn copy(
    cx: &mut Cx<'_>,
    source: &Arc<File>,
    from: u64,
    target: &Arc<File>,
    to: Place,
    count: usize,
) -> SysResult {
    let mut buffer = vec![0; count.min(CHUNK)];
    let mut done = 0;
    while done < count {
        let room = buffer.len().min(count - done);
        let piece = buffer.get_mut(..room).unwrap_or_default();
        let at = from.saturating_add(done as u64);
        let got = match cx.with_vfs(|vfs| source.pread(vfs, &mut &mut *piece, at)) {
            Ok(0) => break,
            Ok(got) => got,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno.into()),
        };
        let bytes = buffer.get(..got).unwrap_or_default();
        match write_all(cx, target, bytes, to.after(done)).await {
            (written, None) if written == got => done += written,
            (written, error) => {
                done += written;
                return match error {
                    Some(error) if done == 0 => Err(error),
                    _ => Ok(done as u64),
                };
            }
        }
    }
    Ok(done as u64)
}

/// Writes bytes of ours, waiting for room; how much, and why not all of it.
async fn write_all(
    cx: &mut Cx<'_>,
    file: &Arc<File>,
    bytes: &[u8],
    at: Place,
) -> (usize, Option<SysError>) {
    let mut done = 0;
    while done < bytes.len() {
        let rest = bytes.get(done..).unwrap_or_default();
        let here = at.after(done);
        let attempt = |cx: &mut Cx<'_>| {
            cx.with_vfs(|vfs| match here {
                Place::Position => file.write(vfs, &mut &*rest),
                Place::Offset(offset) => file.pwrite(vfs, &mut &*rest, offset),
            })
        };
        match until_ready(cx, file, WRITABLE, None, attempt).await {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) => {
                if let SysError::Errno(errno) = error {
                    signal_failure(cx, errno, done);
                }
                return (done, Some(error));
            }
        }
    }
    (done, None)
}

/// splice: one side is a pipe. See [splice(2)](https://man7.org/linux/man-pages/man2/splice.2.html).
pub async fn splice(
    cx: &mut Cx<'_>,
    input: Fd,
    input_offset: UserRef<i64>,
    out: Fd,
    out_offset: UserRef<i64>,
    len: usize,
    flags: SpliceFlags,
) -> SysResult {
    if len == 0 {
        return Ok(0);
    }
    let (source, target) = (cx.file(input)?, cx.file(out)?);
    if !source.flags().reads() || !target.flags().writes() {
        return Err(Errno::EBADF.into());
    }
    let (from_pipe, to_pipe) = (is_pipe(&source), is_pipe(&target));
    if !from_pipe && !to_pipe {
        return Err(Errno::EINVAL.into());
    }
    if (from_pipe && !input_offset.is_null()) || (to_pipe && !out_offset.is_null()) {
        return Err(Errno::ESPIPE.into());
    }
    if target.flags().contains(OpenFlags::APPEND) && !to_pipe {
        return Err(Errno::EINVAL.into());
    }
    if from_pipe && to_pipe && Arc::ptr_eq(source.inode(), target.inode()) {
        return Err(Errno::EINVAL.into());
    }
    let (from, to) = (place(cx, input_offset)?, place(cx, out_offset)?);
    let is_nonblocking = flags.contains(SpliceFlags::NONBLOCK);
    let most = if to_pipe { PIPE_CHUNK } else { CHUNK };
    let done = move_once(cx, &source, from, &target, to, len.min(most), is_nonblocking).await?;
    give_back(cx, input_offset, from.after(done))?;
    give_back(cx, out_offset, to.after(done))?;
    Ok(done as u64)
}

fn is_pipe(file: &File) -> bool {
    file.ops().as_any().is::<PipeEnd>()
}

/// tee: duplicates what is in a pipe. See [tee(2)](https://man7.org/linux/man-pages/man2/tee.2.html).
pub async fn tee(cx: &mut Cx<'_>, input: Fd, out: Fd, len: usize, flags: SpliceFlags) -> SysResult {
    if len == 0 {
        return Ok(0);
    }
    let (source, target) = (cx.file(input)?, cx.file(out)?);
    if !source.flags().reads() || !target.flags().writes() {
        return Err(Errno::EBADF.into());
    }
    let once = |cx: &mut Cx<'_>| {
        let (from, to) = (pipe_end(&source)?, pipe_end(&target)?);
        from.tee(to, len.min(CHUNK)).inspect_err(|errno| signal_failure(cx, *errno, 0))
    };
    if flags.contains(SpliceFlags::NONBLOCK) {
        return Ok(once(cx)? as u64);
    }
    loop {
        until_ready(cx, &source, READABLE, None, |cx: &mut Cx<'_>| {
            is_ready(cx, &source, PollEvents::IN)
        })
        .await?;
        until_ready(cx, &target, WRITABLE, None, |cx: &mut Cx<'_>| {
            is_ready(cx, &target, PollEvents::OUT)
        })
        .await?;
        match once(cx) {
            // Somebody else was faster.
            Err(Errno::EAGAIN) if !source.is_nonblocking() && !target.is_nonblocking() => {}
            other => return Ok(other? as u64),
        }
    }
}

fn pipe_end(file: &File) -> Result<&PipeEnd> {
    file.ops().as_any().downcast_ref().ok_or(Errno::EINVAL)
}

fn is_ready(cx: &Cx<'_>, file: &File, wanted: PollEvents) -> Result<()> {
    let events = cx.with_vfs(|vfs| file.ops().poll(vfs, file));
    let ends = PollEvents::ERR | PollEvents::HUP;
    if events.intersects(wanted | ends) { Ok(()) } else { Err(Errno::EAGAIN) }
}

/// vmsplice: a pipe's readv or writev; pages are never given away.
/// See [vmsplice(2)](https://man7.org/linux/man-pages/man2/vmsplice.2.html).
pub async fn vmsplice(
    cx: &mut Cx<'_>,
    fd: Fd,
    iov: UserRef<Iovec>,
    count: usize,
    _flags: SpliceFlags,
) -> SysResult {
    let file = cx.file(fd)?;
    if !is_pipe(&file) {
        return Err(Errno::EBADF.into());
    }
    if file.flags().writes() {
        read_write::writev(cx, fd, iov, count).await
    } else {
        read_write::readv(cx, fd, iov, count).await
    }
}

/// One transfer: waits for room first, because what was taken out of a pipe cannot be put back.
async fn move_once(
    cx: &mut Cx<'_>,
    source: &Arc<File>,
    from: Place,
    target: &Arc<File>,
    to: Place,
    len: usize,
    is_nonblocking: bool,
) -> std::result::Result<usize, SysError> {
    let mut buffer = vec![0; len];
    let room = |cx: &mut Cx<'_>| is_ready(cx, target, PollEvents::OUT);
    if is_nonblocking {
        room(cx)?
    } else {
        until_ready(cx, target, WRITABLE, None, room).await?
    }
    let read = |cx: &mut Cx<'_>| {
        let into = &mut buffer[..];
        cx.with_vfs(|vfs| match from {
            Place::Position => source.read(vfs, &mut &mut *into),
            Place::Offset(at) => source.pread(vfs, &mut &mut *into, at),
        })
    };
    let mut read = read;
    let got = if is_nonblocking {
        read(cx)?
    } else {
        until_ready(cx, source, READABLE, None, read).await?
    };
    let bytes = buffer.get(..got).unwrap_or_default();
    let (mut done, mut error) = write_all(cx, target, bytes, to).await;
    // A signal must not lose what was read; see the module.
    while matches!(error, Some(SysError::Restart(_) | SysError::Errno(Errno::EAGAIN)))
        && !cx.thread.group.is_ending()
    {
        let pause = cx.kernel.timers.sleep_until(cx.kernel.now() + RETRY_NS);
        pause.await;
        let rest = bytes.get(done..).unwrap_or_default();
        let (more, next) = write_all(cx, target, rest, to.after(done)).await;
        (done, error) = (done + more, next);
    }
    match error {
        Some(error) if done == 0 => Err(error),
        _ => Ok(done),
    }
}

/// How long to wait between two tries of a write that a signal keeps interrupting.
const RETRY_NS: u64 = 1_000_000;
