//! What an open tmpfs object does: an inode is its own file.

use std::any::Any;
use std::cell::RefCell;
use std::sync::Arc;

use abi::fcntl::FallocateMode;
use abi::stat::FileType;
use abi::{Errno, Result};
use base::{Sink, Source};
use smallvec::SmallVec;

use super::contents::read_memfd;
use super::dir::FIRST;
use super::inode::{Body, TmpInode};
use crate::context::VfsCx;
use crate::dentry::Name;
use crate::description::File;
use crate::file::{DirEntry, FileOps, MapSource, Whence};
use crate::ops::dropped_set_id_bits;

/// Bytes that go through a buffer at once; guest memory is touched without the inode's lock.
const CHUNK: usize = 256 * 1024;
/// Directory entries taken out under one lock.
const BATCH: usize = 64;

thread_local! {
    /// Grows to the largest piece this thread has moved; saves clearing a buffer for each call.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of `len` bytes, at most `CHUNK`, with anything in it.
fn with_scratch<R>(len: usize, use_it: impl FnOnce(&mut [u8]) -> R) -> R {
    let len = len.min(CHUNK);
    let mut scratch = SCRATCH.take();
    if scratch.len() < len {
        scratch.resize(len, 0);
    }
    let result = use_it(&mut scratch[..len]);
    SCRATCH.set(scratch);
    result
}

impl TmpInode {
    /// One piece of the file, without a lock held on return.
    fn read_piece(&self, pos: u64, into: &mut [u8]) -> Result<usize> {
        let memfd = {
            let mut state = self.settled();
            let contents = state.contents()?;
            match contents.memfd() {
                None => return Ok(contents.read(pos, into)),
                Some(memfd) => memfd,
            }
        };
        read_memfd(&memfd, pos, into)
    }

    fn size(&self) -> Result<u64> {
        Ok(self.settled().contents()?.size())
    }

    fn write_piece(&self, cx: &VfsCx<'_>, file: &File, pos: u64, bytes: &[u8]) -> Result<usize> {
        let now = self.shared.now();
        let mut state = self.changing();
        let contents = state.contents()?;
        let is_append = file.flags().contains(abi::open::OpenFlags::APPEND);
        let at = if is_append { contents.size() } else { pos };
        if at.saturating_add(bytes.len() as u64) > i64::MAX as u64 {
            return Err(Errno::EFBIG);
        }
        let done = contents.write(at, bytes)?;
        if let Some(mode) = dropped_set_id_bits(cx.cred, state.mode) {
            state.mode = mode;
        }
        state.modified(now);
        Ok(done)
    }

    fn emit_entries(&self, mut pos: u64, emit: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<()> {
        loop {
            let batch: SmallVec<[(u64, Name, Arc<Self>); BATCH]> = {
                let mut state = self.state.lock();
                let entries = state.dir()?.entries.from(pos).take(BATCH);
                entries.map(|(at, name, inode)| (at, Arc::clone(name), Arc::clone(inode))).collect()
            };
            if batch.is_empty() {
                return Ok(());
            }
            for (at, name, inode) in batch {
                let entry =
                    DirEntry { ino: inode.ino, next: at + 1, kind: inode.kind, name: &name };
                if !emit(entry) {
                    return Ok(());
                }
                pos = at + 1;
            }
        }
    }
}

/// "." and "..", at positions 0 and 1; false when `emit` refused one.
pub(crate) fn emit_dots(
    file: &File,
    ino: u64,
    pos: u64,
    emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
) -> bool {
    let kind = FileType::Directory;
    if pos == 0 && !emit(DirEntry { ino, next: 1, kind, name: b"." }) {
        return false;
    }
    pos > 1 || emit(DirEntry { ino: file.parent_ino(), next: FIRST, kind, name: b".." })
}

impl FileOps for TmpInode {
    fn read(&self, _cx: &VfsCx<'_>, file: &File, sink: &mut dyn Sink, pos: u64) -> Result<usize> {
        let left = usize::try_from(self.size()?.saturating_sub(pos)).unwrap_or(usize::MAX);
        let want = sink.remaining().min(left);
        if file.wants_atime() {
            let now = self.shared.now();
            self.changing().accessed(now);
        }
        if want == 0 {
            return Ok(0);
        }
        with_scratch(want, |buffer| {
            let mut done = 0;
            while done < want {
                let piece = buffer.len().min(want - done);
                let got = self.read_piece(pos + done as u64, &mut buffer[..piece])?;
                match sink.put(&buffer[..got]) {
                    Ok(0) => break,
                    Ok(put) => {
                        done += put;
                        if put < piece {
                            break;
                        }
                    }
                    Err(errno) if done == 0 => return Err(errno),
                    Err(_) => break,
                }
            }
            Ok(done)
        })
    }

    fn write(
        &self,
        cx: &VfsCx<'_>,
        file: &File,
        source: &mut dyn Source,
        pos: u64,
    ) -> Result<usize> {
        let want = source.remaining();
        if want == 0 {
            return Ok(0);
        }
        with_scratch(want, |buffer| {
            let mut done = 0;
            while done < want {
                let piece = buffer.len().min(want - done);
                let step = source.take(&mut buffer[..piece]).and_then(|got| {
                    self.write_piece(cx, file, pos.saturating_add(done as u64), &buffer[..got])
                });
                match step {
                    Ok(put) => {
                        done += put;
                        if put < piece {
                            break;
                        }
                    }
                    Err(errno) if done == 0 => return Err(errno),
                    Err(_) => break,
                }
            }
            Ok(done)
        })
    }

    fn seek(&self, _file: &File, offset: i64, whence: Whence) -> Result<u64> {
        if self.kind == FileType::Directory {
            return Err(Errno::EINVAL);
        }
        let mut state = self.settled();
        let contents = state.contents()?;
        match whence {
            Whence::Set | Whence::Current => Err(Errno::EINVAL),
            Whence::End => contents.size().checked_add_signed(offset).ok_or(Errno::EINVAL),
            Whence::Data | Whence::Hole => {
                let pos = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
                contents.seek(pos, whence == Whence::Data)
            }
        }
    }

    fn readdir(
        &self,
        _cx: &VfsCx<'_>,
        file: &File,
        pos: u64,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()> {
        if file.wants_atime() {
            let now = self.shared.now();
            self.changing().accessed(now);
        }
        if pos < FIRST && !emit_dots(file, self.ino, pos, emit) {
            return Ok(());
        }
        self.emit_entries(pos.max(FIRST), emit)
    }

    fn sync(&self, _data_only: bool) -> Result<()> {
        Ok(())
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        let mode = FallocateMode::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
        let now = self.shared.now();
        let mut state = self.changing();
        let contents = state.contents()?;
        let punch = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
        if mode == punch {
            contents.punch(offset, len)?;
        } else if (mode - FallocateMode::KEEP_SIZE).is_empty() {
            contents.reserve(offset, len, mode.contains(FallocateMode::KEEP_SIZE))?;
        } else {
            return Err(Errno::EOPNOTSUPP);
        }
        state.modified(now);
        Ok(())
    }

    fn mappable(&self, _file: &File, _writable_shared: bool) -> Result<MapSource> {
        let mut state = self.untrusted();
        match &mut state.body {
            Body::Regular(contents) => Ok(MapSource::Host { fd: contents.share()?, base: 0 }),
            _ => Err(Errno::ENODEV),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
