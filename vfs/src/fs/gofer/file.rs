//! Open regular files: everything happens on the donated descriptor, without the gofer.

use std::any::Any;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use abi::open::OpenFlags;
use abi::{Errno, Result};
use base::io_buf::Filled;
use base::{Sink, Source};
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::{IoSlice, ReadWriteFlags};

use super::errno;
use super::inode::GoferInode;
use crate::context::VfsCx;
use crate::file::{File, FileOps, MapSource, Whence};

/// Bytes moved per host call; on the stack, and never cleared.
const PIECE: usize = 64 * 1024;
/// The same where no more is expected: all pages of a stack's frame are touched when it is entered, and made the first time.
const PAGE: usize = 4096;
/// Reads that are going to give so much are not put into the call's own output first, which takes only their front: a
/// second read, and the way of so many lines through the channel, take longer than the host's copy.
const LARGE: u64 = 48 * 1024;
/// Writes up to this size need no allocation.
const SMALL: usize = 512;

/// See the module.
pub struct GoferFile {
    /// Keeps the object's identity while it is open.
    inode: Arc<GoferInode>,
    fd: Arc<OwnedFd>,
    is_writable: bool,
}

impl GoferFile {
    pub(super) fn new(inode: Arc<GoferInode>, fd: Arc<OwnedFd>, is_writable: bool) -> Self {
        Self { inode, fd, is_writable }
    }

    /// Whether a read at `pos` is going to give much, as far as the size is known.
    fn gives_much(&self, sink: &dyn Sink, pos: u64) -> bool {
        sink.remaining() as u64 >= LARGE && self.inode.known_size().saturating_sub(pos) >= LARGE
    }

    /// One write; at the end whatever `pos` says when `append`.
    fn put(&self, bytes: &[u8], pos: u64, append: bool) -> Result<usize> {
        if append {
            let parts = [IoSlice::new(bytes)];
            return rustix::io::pwritev2(&*self.fd, &parts, 0, ReadWriteFlags::APPEND)
                .map_err(errno);
        }
        rustix::io::pwrite(&*self.fd, bytes, pos).map_err(errno)
    }
}

/// Reads at most `N` bytes at `at` into `sink`; full when there may be more. Never inlined: its frame is as large as that.
#[inline(never)]
fn copy_piece<const N: usize>(fd: &OwnedFd, sink: &mut dyn Sink, at: u64) -> Result<Filled> {
    let mut piece = [MaybeUninit::uninit(); N];
    let wanted = sink.remaining().min(N);
    let got = match rustix::io::pread(fd, &mut piece[..wanted], at) {
        Ok((bytes, _)) => &*bytes,
        Err(rustix::io::Errno::INTR) => return Ok(Filled { bytes: 0, is_full: true }),
        Err(reason) => return Err(errno(reason)),
    };
    let put = base::io_buf::put_all(sink, got)?;
    Ok(Filled { bytes: put, is_full: put == wanted })
}

impl Drop for GoferFile {
    fn drop(&mut self) {
        // From now on attributes may not come from the descriptor any more.
        if self.is_writable {
            self.inode.changed();
        }
    }
}

impl FileOps for GoferFile {
    fn read(&self, _cx: &VfsCx<'_>, _file: &File, sink: &mut dyn Sink, pos: u64) -> Result<usize> {
        let mut total = 0;
        while sink.remaining() > 0 {
            let at = pos.checked_add(total as u64).ok_or(Errno::EINVAL)?;
            let filled =
                if self.gives_much(sink, at) { None } else { sink.put_from(self.fd.as_fd(), at) };
            match filled {
                Some(Ok(Filled { bytes, is_full })) => {
                    total += bytes;
                    if is_full {
                        continue;
                    }
                    break;
                }
                Some(Err(reason)) if total == 0 => return Err(reason),
                Some(Err(_)) => break,
                None => {}
            }
            let rest = self.inode.known_size().saturating_sub(at);
            let copied = if sink.remaining() <= PAGE || total == 0 && rest < PAGE as u64 {
                copy_piece::<PAGE>(&self.fd, sink, at)
            } else {
                copy_piece::<PIECE>(&self.fd, sink, at)
            };
            match copied {
                Ok(Filled { bytes, is_full }) => {
                    total += bytes;
                    if !is_full {
                        break;
                    }
                }
                Err(reason) if total == 0 => return Err(reason),
                Err(_) => break,
            }
        }
        Ok(total)
    }

    fn write(
        &self,
        _cx: &VfsCx<'_>,
        file: &File,
        source: &mut dyn Source,
        pos: u64,
    ) -> Result<usize> {
        let append = file.flags().contains(OpenFlags::APPEND);
        let mut small = [0; SMALL];
        let mut large = Vec::new();
        let mut total = 0;
        while source.remaining() > 0 {
            let wanted = source.remaining().min(PIECE);
            let piece = if wanted <= SMALL {
                &mut small[..wanted]
            } else {
                large.resize(wanted, 0);
                &mut large[..wanted]
            };
            let step = source.take(piece).and_then(|taken| {
                let at = pos.checked_add(total as u64).ok_or(Errno::EFBIG)?;
                Ok((taken, self.put(&piece[..taken], at, append)?))
            });
            match step {
                Ok((taken, written)) => {
                    total += written;
                    if written == 0 || written < taken {
                        break;
                    }
                }
                Err(reason) if total == 0 => return Err(reason),
                Err(_) => break,
            }
        }
        Ok(total)
    }

    fn seek(&self, _file: &File, offset: i64, whence: Whence) -> Result<u64> {
        let unsigned = || u64::try_from(offset).map_err(|_| Errno::ENXIO);
        let origin = match whence {
            Whence::Set | Whence::Current => return Err(Errno::EINVAL),
            Whence::End => SeekFrom::End(offset),
            Whence::Data => SeekFrom::Data(unsigned()?),
            Whence::Hole => SeekFrom::Hole(unsigned()?),
        };
        // Moves the descriptor's own position, which nobody uses.
        rustix::fs::seek(&*self.fd, origin).map_err(errno)
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        let result =
            if data_only { rustix::fs::fdatasync(&*self.fd) } else { rustix::fs::fsync(&*self.fd) };
        result.map_err(errno)
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        let mode = FallocateFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
        rustix::fs::fallocate(&*self.fd, mode, offset, len).map_err(errno)
    }

    fn mappable(&self, _file: &File, writable_shared: bool) -> Result<MapSource> {
        if writable_shared && !self.is_writable {
            return Err(Errno::EACCES);
        }
        Ok(MapSource::Host { fd: Arc::clone(&self.fd), base: 0 })
    }

    fn lendable(&self) -> Option<Arc<OwnedFd>> {
        Some(Arc::clone(&self.fd))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
