//! Moving bytes between files and guest memory, and the position.

use std::sync::Arc;

use abi::ids::Fd;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use abi::uio::{IOV_MAX, Iovec, MAX_RW_COUNT, RwFlags};
use abi::{Errno, Result, UserAddr, fcntl};
use smallvec::SmallVec;
use vfs::File;
use vfs::file::Whence;

use crate::cx::Cx;
use crate::error::{SysError, SysResult};
use crate::io_wait::{READABLE, WRITABLE, until_ready};
use crate::mm::{UserRef, UserSink, UserSlice, UserSource};
use crate::signal::send_to_thread;
use crate::strict_flags_arg;
use crate::syscalls::args::OutSlice;
use crate::syscalls::names::SeekOrigin;
use crate::syscalls::table::Attempt;
use crate::{ledger, loans, pipe_rings};

strict_flags_arg!(RwFlags as "RWF_");

/// Guest ranges of one transfer; one range needs no heap.
type Ranges = SmallVec<[UserSlice; 4]>;

/// Where in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// At the position, which moves.
    Position,
    Offset(u64),
}

impl At {
    /// # Errors
    /// `EINVAL` for a negative offset.
    fn offset(offset: i64) -> Result<Self> {
        u64::try_from(offset).map(Self::Offset).map_err(|_| Errno::EINVAL)
    }

    const fn plus(self, bytes: usize) -> Self {
        match self {
            Self::Position => self,
            Self::Offset(at) => Self::Offset(at.saturating_add(bytes as u64)),
        }
    }
}

/// read: from the position. See [read(2)](https://man7.org/linux/man-pages/man2/read.2.html).
pub async fn read(cx: &mut Cx<'_>, fd: Fd, buf: OutSlice) -> SysResult {
    let file = cx.file(fd)?;
    let count = read_waiting(cx, &file, &one(buf.0), At::Position).await?;
    pipe_rings::after_transfer(cx, fd, &file);
    Ok(count)
}

/// [`read`], as long as it need not wait.
pub fn try_read(cx: &mut Cx<'_>, fd: Fd, buf: OutSlice) -> Attempt {
    let read = |cx: &mut Cx<'_>| {
        let file = cx.file(fd)?;
        let result = read_now(cx, &file, &one(buf.0), At::Position);
        if let Ok(count) = result
            && !pipe_rings::after_transfer(cx, fd, &file)
        {
            loans::after_read(cx, fd, &file, count, false);
        }
        Ok(first_result(&file, result))
    };
    read(cx).unwrap_or_else(|errno: Errno| Attempt::Done(Err(errno.into())))
}

/// readv. See [readv(2)](https://man7.org/linux/man-pages/man2/readv.2.html).
pub async fn readv(cx: &mut Cx<'_>, fd: Fd, vector: UserRef<Iovec>, count: usize) -> SysResult {
    let (file, ranges) = (cx.file(fd)?, read_vector(cx, vector, count)?);
    read_waiting(cx, &file, &ranges, At::Position).await
}

/// pread64. See [pread(2)](https://man7.org/linux/man-pages/man2/pread.2.html).
pub fn pread64(cx: &mut Cx<'_>, fd: Fd, buf: OutSlice, offset: i64) -> SysResult {
    let at = At::offset(offset)?;
    let file = cx.file(fd)?;
    let count = read_now(cx, &file, &one(buf.0), at)?;
    loans::after_read(cx, fd, &file, count, true);
    ledger::after_look(cx, fd, &file);
    Ok(count as u64)
}

/// preadv. See [preadv(2)](https://man7.org/linux/man-pages/man2/preadv.2.html).
pub fn preadv(
    cx: &mut Cx<'_>,
    fd: Fd,
    vector: UserRef<Iovec>,
    count: usize,
    offset: i64,
) -> SysResult {
    let at = At::offset(offset)?;
    let (file, ranges) = (cx.file(fd)?, read_vector(cx, vector, count)?);
    Ok(read_now(cx, &file, &ranges, at)? as u64)
}

/// preadv2: offset -1 is the position. See [preadv2(2)](https://man7.org/linux/man-pages/man2/preadv2.2.html).
pub async fn preadv2(
    cx: &mut Cx<'_>,
    fd: Fd,
    vector: UserRef<Iovec>,
    count: usize,
    offset: i64,
    _high: u64,
    flags: RwFlags,
) -> SysResult {
    let at = if offset == -1 { At::Position } else { At::offset(offset)? };
    let (file, ranges) = (cx.file(fd)?, read_vector(cx, vector, count)?);
    if flags.intersects(RwFlags::APPEND | RwFlags::NOAPPEND) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if flags.contains(RwFlags::NOWAIT) {
        return Ok(read_now(cx, &file, &ranges, at)? as u64);
    }
    read_waiting(cx, &file, &ranges, at).await
}

/// write: at the position. See [write(2)](https://man7.org/linux/man-pages/man2/write.2.html).
pub async fn write(cx: &mut Cx<'_>, fd: Fd, buf: UserSlice) -> SysResult {
    let file = cx.file(fd)?;
    let begun = std::mem::take(&mut cx.begun);
    let count = write_waiting(cx, &file, &one(buf), At::Position, begun).await?;
    pipe_rings::after_transfer(cx, fd, &file);
    Ok(count)
}

/// [`write`], as long as it need not wait.
pub fn try_write(cx: &mut Cx<'_>, fd: Fd, buf: UserSlice) -> Attempt {
    let write = |cx: &mut Cx<'_>| {
        let (file, ranges) = (cx.file(fd)?, one(buf));
        let result = write_now(cx, &file, &ranges, At::Position);
        if let Ok(begun) = result
            && begun < total(&ranges)
            && begun > 0
            && waits(&file)
        {
            return Ok(Attempt::WouldBlock { begun });
        }
        if result.is_ok() {
            pipe_rings::after_transfer(cx, fd, &file);
        }
        Ok(first_result(&file, result))
    };
    write(cx).unwrap_or_else(|errno: Errno| Attempt::Done(Err(errno.into())))
}

/// writev. See [writev(2)](https://man7.org/linux/man-pages/man2/writev.2.html).
pub async fn writev(cx: &mut Cx<'_>, fd: Fd, vector: UserRef<Iovec>, count: usize) -> SysResult {
    let (file, ranges) = (cx.file(fd)?, read_vector(cx, vector, count)?);
    write_waiting(cx, &file, &ranges, At::Position, 0).await
}

/// pwrite64. See [pwrite(2)](https://man7.org/linux/man-pages/man2/pwrite.2.html).
pub fn pwrite64(cx: &mut Cx<'_>, fd: Fd, buf: UserSlice, offset: i64) -> SysResult {
    let at = At::offset(offset)?;
    let file = cx.file(fd)?;
    let count = write_now(cx, &file, &one(buf), at)?;
    ledger::after_write(cx, fd, &file);
    Ok(count as u64)
}

/// pwritev. See [pwritev(2)](https://man7.org/linux/man-pages/man2/pwritev.2.html).
pub fn pwritev(
    cx: &mut Cx<'_>,
    fd: Fd,
    vector: UserRef<Iovec>,
    count: usize,
    offset: i64,
) -> SysResult {
    let at = At::offset(offset)?;
    let (file, ranges) = (cx.file(fd)?, read_vector(cx, vector, count)?);
    Ok(write_now(cx, &file, &ranges, at)? as u64)
}

/// pwritev2: offset -1 is the position. See [pwritev2(2)](https://man7.org/linux/man-pages/man2/pwritev2.2.html).
pub async fn pwritev2(
    cx: &mut Cx<'_>,
    fd: Fd,
    vector: UserRef<Iovec>,
    count: usize,
    offset: i64,
    _high: u64,
    flags: RwFlags,
) -> SysResult {
    let at = if offset == -1 { At::Position } else { At::offset(offset)? };
    let (file, ranges) = (cx.file(fd)?, read_vector(cx, vector, count)?);
    if flags.intersects(RwFlags::APPEND | RwFlags::NOAPPEND) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let count = if flags.contains(RwFlags::NOWAIT) {
        write_now(cx, &file, &ranges, at)? as u64
    } else {
        write_waiting(cx, &file, &ranges, at, 0).await?
    };
    if flags.intersects(RwFlags::SYNC | RwFlags::DSYNC) && count > 0 {
        file.ops().sync(!flags.contains(RwFlags::SYNC))?;
    }
    Ok(count)
}

/// lseek. See [lseek(2)](https://man7.org/linux/man-pages/man2/lseek.2.html).
pub fn lseek(cx: &mut Cx<'_>, fd: Fd, offset: i64, whence: SeekOrigin) -> SysResult {
    let file = cx.file(fd)?;
    let whence = match whence.0 {
        fcntl::SEEK_SET => Whence::Set,
        fcntl::SEEK_CUR => Whence::Current,
        fcntl::SEEK_END => Whence::End,
        fcntl::SEEK_DATA => Whence::Data,
        fcntl::SEEK_HOLE => Whence::Hole,
        _ => return Err(Errno::EINVAL.into()),
    };
    Ok(file.seek(offset, whence)?)
}

fn one(buf: UserSlice) -> Ranges {
    let len = buf.len.min(MAX_RW_COUNT);
    SmallVec::from_iter([UserSlice { addr: buf.addr, len }])
}

fn total(ranges: &[UserSlice]) -> usize {
    ranges.iter().map(|range| range.len).sum()
}

/// Reads a vector of buffers; what goes beyond the most that one call moves is cut off.
///
/// # Errors
/// `EINVAL` for too many elements or a length beyond `SSIZE_MAX`; `EFAULT`.
pub fn read_vector(cx: &Cx<'_>, vector: UserRef<Iovec>, count: usize) -> Result<Ranges> {
    if count > IOV_MAX {
        return Err(Errno::EINVAL);
    }
    let mm = cx.mm();
    let mut ranges = Ranges::new();
    let mut left = MAX_RW_COUNT;
    let mut push = |iovec: &Iovec| {
        if iovec.len > i64::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        let len = usize::try_from(iovec.len).map_err(|_| Errno::EINVAL)?.min(left);
        left -= len;
        ranges.push(UserSlice { addr: UserAddr(iovec.base), len });
        Ok(())
    };
    if count <= 8 {
        let mut small = [Iovec::default(); 8];
        let bytes = zerocopy::IntoBytes::as_mut_bytes(small.get_mut(..count).unwrap_or_default());
        mm.read(vector.addr, bytes)?;
        small.iter().take(count).try_for_each(&mut push)?;
    } else {
        vector.read_array(&mm, count)?.iter().try_for_each(&mut push)?;
    }
    Ok(ranges)
}

/// What is left of `ranges` behind the first `done` bytes.
fn behind(ranges: &[UserSlice], mut done: usize) -> Result<Ranges> {
    let mut rest = Ranges::new();
    for range in ranges {
        let skip = done.min(range.len);
        done -= skip;
        if skip < range.len {
            let addr = range.addr.checked_add(skip as u64).ok_or(Errno::EFAULT)?;
            rest.push(UserSlice { addr, len: range.len - skip });
        }
    }
    Ok(rest)
}

/// True when a call on this file waits rather than fails with `EAGAIN`.
fn waits(file: &File) -> bool {
    !file.is_nonblocking() && file.ops().wait_queue().is_some()
}

fn first_result(file: &File, result: Result<usize>) -> Attempt {
    match result {
        Err(Errno::EAGAIN) if waits(file) => Attempt::WouldBlock { begun: 0 },
        Ok(count) => Attempt::Done(Ok(count as u64)),
        Err(errno) => Attempt::Done(Err(errno.into())),
    }
}

/// Reads without waiting: what the file gives at once.
fn read_now(cx: &Cx<'_>, file: &File, ranges: &[UserSlice], at: At) -> Result<usize> {
    if file.flags().reads() {
        check_ranges(ranges)?;
    }
    let mm = cx.mm();
    let mut sink = UserSink::new(&mm, ranges);
    cx.with_vfs(|vfs| match at {
        At::Position => file.read(vfs, &mut sink),
        At::Offset(offset) => file.pread(vfs, &mut sink, offset),
    })
}

async fn read_waiting(
    cx: &mut Cx<'_>,
    file: &Arc<File>,
    ranges: &[UserSlice],
    at: At,
) -> SysResult {
    let attempt = |cx: &mut Cx<'_>| read_now(cx, file, ranges, at);
    Ok(until_ready(cx, file, READABLE, None, attempt).await? as u64)
}

/// Writes without waiting, as much as the file takes; raises SIGPIPE and SIGXFSZ.
/// As Linux's access_ok: what no program could have is refused whatever a file would do with it.
fn check_ranges(ranges: &[UserSlice]) -> Result<()> {
    const LIMIT: u64 = (1 << 47) - 4096;
    let is_possible = |range: &UserSlice| {
        let end = range.addr.0.checked_add(range.len as u64);
        end.is_some_and(|end| end <= LIMIT)
    };
    if ranges.iter().all(is_possible) { Ok(()) } else { Err(Errno::EFAULT) }
}

fn write_now(cx: &Cx<'_>, file: &File, ranges: &[UserSlice], at: At) -> Result<usize> {
    if file.flags().writes() {
        check_ranges(ranges)?;
    }
    let mm = cx.mm();
    let mut source = UserSource::new(&mm, ranges);
    let wanted = total(ranges);
    let mut done = 0;
    let stopped = cx.with_vfs(|vfs| {
        loop {
            let step = match at.plus(done) {
                At::Position => file.write(vfs, &mut source),
                At::Offset(offset) => file.pwrite(vfs, &mut source, offset),
            };
            match step {
                Ok(0) => return None,
                Ok(count) => done += count,
                Err(errno) => return Some(errno),
            }
            if done >= wanted {
                return None;
            }
        }
    });
    let Some(errno) = stopped else { return Ok(done) };
    signal_failure(cx, errno, done);
    if done > 0 { Ok(done) } else { Err(errno) }
}

/// The signals that come with a failed write: SIGPIPE, and SIGXFSZ when nothing was written.
pub fn signal_failure(cx: &Cx<'_>, errno: Errno, done: usize) {
    // A signal that cannot be queued (RLIMIT_SIGPENDING) is lost, as on Linux.
    let raise = |signal| {
        let _ = send_to_thread(cx.thread, user_signal(cx, signal));
    };
    match errno {
        Errno::EPIPE => raise(Signal::SIGPIPE),
        Errno::EFBIG if done == 0 && cx.with_vfs(|vfs| vfs.file_size_limit) != u64::MAX => {
            raise(Signal::SIGXFSZ);
        }
        _ => {}
    }
}

/// What `send_sig(sig, current, 0)` of Linux makes.
fn user_signal(cx: &Cx<'_>, signal: Signal) -> SigInfo {
    SigInfo::user(signal, abi::siginfo::SI_USER, cx.thread.tgid(), cx.cred().ruid)
}

/// Writes everything, waiting for room in a stream. A signal ends it with what was written so far.
async fn write_waiting(
    cx: &mut Cx<'_>,
    file: &Arc<File>,
    ranges: &[UserSlice],
    at: At,
    begun: usize,
) -> SysResult {
    let wanted = total(ranges);
    let mut done = begun;
    loop {
        let rest = if done == 0 { Ranges::from_slice(ranges) } else { behind(ranges, done)? };
        let attempt = |cx: &mut Cx<'_>| write_now(cx, file, &rest, at.plus(done));
        match until_ready(cx, file, WRITABLE, None, attempt).await {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(SysError::Errno(_) | SysError::Restart(_)) if done > 0 => break,
            Err(error) => return Err(error),
        }
        // A short count that no waiting can complete: a full disk, a file-size limit, a bad page.
        if done >= wanted || !waits(file) {
            break;
        }
    }
    Ok(done as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(addr: u64, len: usize) -> UserSlice {
        UserSlice { addr: UserAddr(addr), len }
    }

    fn shape(ranges: &[UserSlice]) -> Vec<(u64, usize)> {
        ranges.iter().map(|range| (range.addr.0, range.len)).collect()
    }

    #[test]
    fn what_is_left_starts_in_the_middle() {
        let ranges = [slice(0x1000, 4), slice(0x2000, 0), slice(0x3000, 8)];
        assert_eq!(shape(&behind(&ranges, 0).unwrap()), [(0x1000, 4), (0x3000, 8)]);
        assert_eq!(shape(&behind(&ranges, 6).unwrap()), [(0x3002, 6)]);
        assert_eq!(shape(&behind(&ranges, 12).unwrap()), []);
        assert!(behind(&[slice(u64::MAX, 4)], 2).is_err());
    }

    #[test]
    fn offsets_are_not_negative_and_do_not_wrap() {
        assert_eq!(At::offset(-1), Err(Errno::EINVAL));
        assert_eq!(At::Offset(u64::MAX).plus(9), At::Offset(u64::MAX));
        assert_eq!(At::Position.plus(9), At::Position);
    }
}
