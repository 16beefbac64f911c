//! The trait behind file descriptions: what an open file can do.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::dirent::{Record, dirent64_len};
use abi::poll::PollEvents;
use abi::stat::FileType;
use abi::{Errno, Result, UserAddr};
use base::{Sink, Source, WaitQueue};

use crate::context::VfsCx;

pub use crate::description::File;

/// One entry of a directory listing.
#[derive(Debug, Clone, Copy)]
pub struct DirEntry<'a> {
    pub ino: u64,
    /// Position after this entry: what lseek(2) may be given to go on from here. Never 0.
    pub next: u64,
    pub kind: FileType,
    pub name: &'a [u8],
}

impl DirEntry<'_> {
    /// Appends its record of getdents64(2), unless there would be more bytes than `room` then.
    pub fn push_record(&self, room: usize, out: &mut Vec<u8>) -> bool {
        let Self { ino, next, kind, name } = *self;
        let end = out.len() + dirent64_len(name.len());
        let header = Record { ino, next, kind: kind.dirent_type(), name }.header();
        let Some(header) = header.filter(|_| end <= room) else { return false };
        out.extend_from_slice(&header);
        out.extend_from_slice(name);
        out.resize(end, 0);
        true
    }
}

/// Memory that a file gives for mmap(2).
#[derive(Debug, Clone)]
pub enum MapSource {
    /// A host descriptor; file offset 0 is at `base` in it.
    Host { fd: Arc<OwnedFd>, base: u64 },
    /// Fresh zero pages, as if MAP_ANONYMOUS had been asked for (/dev/zero).
    Anonymous,
}

/// Guest memory as an ioctl may touch it.
pub trait UserMemory {
    /// `EFAULT` unless all of it could be read.
    fn read(&self, addr: UserAddr, into: &mut [u8]) -> Result<()>;
    /// `EFAULT` unless all of it could be written.
    fn write(&self, addr: UserAddr, bytes: &[u8]) -> Result<()>;
}

/// Position that `read` and `write` get from a file that [keeps its own](FileOps::keeps_position).
pub const CURRENT_POSITION: u64 = u64::MAX;

/// Origin of an lseek(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whence {
    Set,
    Current,
    End,
    Data,
    Hole,
}

/// What an open file can do. Nothing here blocks: `EAGAIN` and `wait_queue` + `poll` instead.
/// Defaults refuse as Linux does for a file without that operation.
pub trait FileOps: Send + Sync + Any {
    /// Reads at `pos` (streams ignore it). `Ok(0)` is the end of file.
    fn read(
        &self,
        _cx: &VfsCx<'_>,
        _file: &File,
        _sink: &mut dyn Sink,
        _pos: u64,
    ) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    /// Writes at `pos` (streams ignore it; with `O_APPEND` in `file.flags()` the end of file counts instead).
    fn write(
        &self,
        _cx: &VfsCx<'_>,
        _file: &File,
        _src: &mut dyn Source,
        _pos: u64,
    ) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    /// False for pipes, sockets, ttys: lseek, pread and pwrite give `ESPIPE` and there is no position.
    fn is_seekable(&self) -> bool {
        true
    }

    /// True when the position lives elsewhere (a host description that others share): read(2) and write(2) then pass
    /// [`CURRENT_POSITION`], and lseek(2) passes every origin to `seek` and takes its answer as it is.
    fn keeps_position(&self) -> bool {
        false
    }

    /// New absolute position for the origins that need the file: `End`, `Data`, `Hole`. Default: from `attr`.
    fn seek(&self, file: &File, offset: i64, whence: Whence) -> Result<u64> {
        let size = file.inode().attr()?.size;
        let at = |base: u64| base.checked_add_signed(offset).ok_or(Errno::EINVAL);
        match whence {
            Whence::Set | Whence::Current => Err(Errno::EINVAL),
            Whence::End => at(size),
            Whence::Data if offset >= 0 && (offset as u64) < size => Ok(offset as u64),
            Whence::Hole if offset >= 0 && (offset as u64) < size => Ok(size),
            Whence::Data | Whence::Hole => Err(Errno::ENXIO),
        }
    }

    /// Emits entries from position `pos` until `emit` returns false (that entry was not taken). "." and ".." are
    /// the filesystem's to emit.
    fn readdir(
        &self,
        _cx: &VfsCx<'_>,
        _file: &File,
        _pos: u64,
        _emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()> {
        Err(Errno::ENOTDIR)
    }

    /// Appends the whole listing as getdents64(2) gives it, where that is cheaper than [`FileOps::readdir`].
    ///
    /// # Errors
    /// Those of a listing. `EOPNOTSUPP`: it is not; `EFBIG`: it comes in pieces.
    fn records(&self, _cx: &VfsCx<'_>, _file: &File, _out: &mut Vec<u8>) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// What would not block now.
    fn poll(&self, _cx: &VfsCx<'_>, _file: &File) -> PollEvents {
        PollEvents::IN | PollEvents::OUT | PollEvents::RDNORM | PollEvents::WRNORM
    }

    /// `None`: always ready (and epoll refuses it with `EPERM`).
    fn wait_queue(&self) -> Option<&WaitQueue> {
        None
    }

    /// Nanoseconds that a call may wait for `events` before it gives up with `EAGAIN`; `None`: for ever. Sockets have
    /// such limits (SO_RCVTIMEO).
    fn wait_limit(&self, _events: PollEvents) -> Option<u64> {
        None
    }

    /// See ioctl(2); generic commands (FIONBIO, FIOCLEX...) are handled above.
    fn ioctl(
        &self,
        _cx: &VfsCx<'_>,
        _file: &File,
        _command: u32,
        _arg: u64,
        _memory: &dyn UserMemory,
    ) -> Result<u64> {
        Err(Errno::ENOTTY)
    }

    /// fsync(2); `data_only` is fdatasync(2).
    fn sync(&self, _data_only: bool) -> Result<()> {
        Err(Errno::EINVAL)
    }

    /// fallocate(2).
    fn allocate(&self, _mode: u32, _offset: u64, _len: u64) -> Result<()> {
        Err(Errno::ENODEV)
    }

    /// Memory for mmap(2); `ENODEV` when it cannot be mapped. `writable_shared`: for MAP_SHARED with PROT_WRITE.
    fn mappable(&self, _file: &File, _writable_shared: bool) -> Result<MapSource> {
        Err(Errno::ENODEV)
    }

    /// A descriptor of the host whose bytes are this file's, all of them at their offsets, as long as it says so.
    fn lendable(&self) -> Option<Arc<OwnedFd>> {
        None
    }

    /// Extra lines of /proc/PID/fdinfo/N.
    fn fdinfo(&self) -> String {
        String::new()
    }

    /// fcntl(F_SETPIPE_SZ) / F_GETPIPE_SZ: `Some(size)` sets, `None` asks; returns the size.
    fn pipe_size(&self, _new: Option<usize>) -> Result<usize> {
        Err(Errno::EBADF)
    }

    /// For subsystems to recognise their own (epoll, sockets, signalfd, pidfd...).
    fn as_any(&self) -> &dyn Any;
}
