//! A donated host descriptor as an open file.
//!
//! The host's file description is shared with whoever started the sandbox, so `O_NONBLOCK` is never set on it; each
//! transfer asks the host not to wait (`RWF_NOWAIT`, `MSG_DONTWAIT`) or, where the host cannot, polls first and
//! moves no more than the host promises to take at once.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::ioctl::FIONREAD;
use abi::poll::PollEvents;
use abi::stat::FileType;
use abi::{Errno, Result, UserAddr};
use base::{Sink, Source, WaitQueue};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::SeekFrom;
use rustix::io::{IoSlice, IoSliceMut, ReadWriteFlags};
use rustix::net::{RecvFlags, SendFlags};

use super::reactor::{Reactor, ReactorRegistration};
use super::to_errno;
use crate::context::VfsCx;
use crate::file::{CURRENT_POSITION, File, FileOps, MapSource, UserMemory, Whence};

/// Most bytes of one transfer; more is a partial read or write.
const CHUNK: usize = 64 * 1024;

/// What a host pipe takes without waiting once it polls writable.
const PIPE_BUF: usize = 4096;

/// The host's "at the current position" for preadv2 and pwritev2.
const HOST_CURRENT: u64 = u64::MAX;

/// See the module.
pub struct HostFile {
    fd: Arc<OwnedFd>,
    kind: FileType,
    queue: WaitQueue,
    /// `None`: the host cannot poll it, it is always ready.
    registration: Option<Box<dyn ReactorRegistration>>,
}

impl HostFile {
    pub(super) fn new(fd: Arc<OwnedFd>, kind: FileType, reactor: &dyn Reactor) -> Self {
        let queue = WaitQueue::new();
        let registration = match kind {
            FileType::Regular | FileType::Directory | FileType::Block => None,
            _ => reactor.register(Arc::clone(&fd), queue.clone()).ok(),
        };
        Self { fd, kind, queue, registration }
    }

    fn is_regular(&self) -> bool {
        matches!(self.kind, FileType::Regular | FileType::Block)
    }

    fn ready(&self) -> PollFlags {
        let asked = PollFlags::IN
            | PollFlags::OUT
            | PollFlags::PRI
            | PollFlags::RDHUP
            | PollFlags::RDNORM
            | PollFlags::WRNORM;
        let mut fds = [PollFd::new(&*self.fd, asked)];
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) => fds[0].revents(),
            Err(_) => PollFlags::empty(),
        }
    }

    fn read_stream(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        if self.kind == FileType::Socket {
            return rustix::net::recv(&*self.fd, buffer, RecvFlags::DONTWAIT).map(|got| got.0);
        }
        let mut slices = [IoSliceMut::new(buffer)];
        let nowait = ReadWriteFlags::NOWAIT;
        match rustix::io::preadv2(&*self.fd, &mut slices, HOST_CURRENT, nowait) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::INVAL) => {}
            other => return other,
        }
        if !self.ready().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return Err(rustix::io::Errno::AGAIN);
        }
        rustix::io::read(&*self.fd, buffer)
    }

    fn write_stream(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        if self.kind == FileType::Socket {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            return rustix::net::send(&*self.fd, bytes, flags);
        }
        let nowait = ReadWriteFlags::NOWAIT;
        match rustix::io::pwritev2(&*self.fd, &[IoSlice::new(bytes)], HOST_CURRENT, nowait) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::INVAL) => {}
            other => return other,
        }
        if !self.ready().intersects(PollFlags::OUT | PollFlags::HUP | PollFlags::ERR) {
            return Err(rustix::io::Errno::AGAIN);
        }
        rustix::io::write(&*self.fd, &bytes[..bytes.len().min(PIPE_BUF)])
    }
}

impl FileOps for HostFile {
    fn read(&self, _: &VfsCx<'_>, _: &File, sink: &mut dyn Sink, pos: u64) -> Result<usize> {
        let want = sink.remaining().min(CHUNK);
        if want == 0 {
            return Ok(0);
        }
        let mut buffer = vec![0; want];
        let got = match (self.is_regular(), pos) {
            (false, _) => self.read_stream(&mut buffer),
            (true, CURRENT_POSITION) => rustix::io::read(&*self.fd, &mut buffer),
            (true, pos) => rustix::io::pread(&*self.fd, &mut buffer, pos),
        };
        base::io_buf::put_all(sink, &buffer[..got.map_err(to_errno)?])
    }

    fn write(&self, _: &VfsCx<'_>, _: &File, src: &mut dyn Source, pos: u64) -> Result<usize> {
        let mut buffer = vec![0; src.remaining().min(CHUNK)];
        // Only as much as the host surely takes leaves the source, else bytes would be lost.
        if !self.is_regular() && !self.ready().intersects(PollFlags::OUT | PollFlags::ERR) {
            return Err(Errno::EAGAIN);
        }
        let len = src.take(&mut buffer)?;
        let bytes = &buffer[..len];
        match (self.is_regular(), pos) {
            (false, _) => self.write_stream(bytes),
            (true, CURRENT_POSITION) => rustix::io::write(&*self.fd, bytes),
            (true, pos) => rustix::io::pwrite(&*self.fd, bytes, pos),
        }
        .map_err(to_errno)
    }

    fn is_seekable(&self) -> bool {
        self.is_regular()
    }

    fn keeps_position(&self) -> bool {
        self.is_regular()
    }

    fn seek(&self, _: &File, offset: i64, whence: Whence) -> Result<u64> {
        let at = |offset: i64| u64::try_from(offset).map_err(|_| Errno::EINVAL);
        let from = match whence {
            Whence::Set => SeekFrom::Start(at(offset)?),
            Whence::Current => SeekFrom::Current(offset),
            Whence::End => SeekFrom::End(offset),
            Whence::Data => SeekFrom::Data(at(offset)?),
            Whence::Hole => SeekFrom::Hole(at(offset)?),
        };
        rustix::fs::seek(&*self.fd, from).map_err(to_errno)
    }

    fn poll(&self, _: &VfsCx<'_>, _: &File) -> PollEvents {
        if self.registration.is_none() {
            return PollEvents::IN | PollEvents::OUT | PollEvents::RDNORM | PollEvents::WRNORM;
        }
        PollEvents::from_bits_truncate(u32::from(self.ready().bits()))
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        self.registration.as_ref().map(|_| &self.queue)
    }

    fn ioctl(
        &self,
        _: &VfsCx<'_>,
        _: &File,
        command: u32,
        arg: u64,
        memory: &dyn UserMemory,
    ) -> Result<u64> {
        if command != FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let count = rustix::io::ioctl_fionread(&*self.fd).map_err(to_errno)?;
        memory.write(UserAddr(arg), &(count as u32).to_ne_bytes())?;
        Ok(0)
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        if !self.is_regular() {
            return Err(Errno::EINVAL);
        }
        let done =
            if data_only { rustix::fs::fdatasync(&*self.fd) } else { rustix::fs::fsync(&*self.fd) };
        done.map_err(to_errno)
    }

    fn mappable(&self, _: &File, _writable_shared: bool) -> Result<MapSource> {
        match self.kind {
            FileType::Regular => Ok(MapSource::Host { fd: Arc::clone(&self.fd), base: 0 }),
            _ => Err(Errno::ENODEV),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
