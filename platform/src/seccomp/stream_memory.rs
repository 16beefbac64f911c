//! Memory of a pipe's ring, which guests have mapped as well.
//!
//! # Safety
//! 1. The mapping lives as long as its owner, is never moved, and nobody can shrink what is mapped.
//! 2. Guests write it at any time: no reference to it is made but to one atomic, bytes are copied only.
//! 3. What is copied is within its `len` bytes, for positions count modulo that; the atomic lies behind them.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use abi::Errno;
use rustix::fs::SealFlags;
use shim_abi::STREAM_HEAD;

use super::region::{copy, errno, map, memory};

#[derive(Debug)]
pub struct StreamMemory {
    base: *mut u8,
    /// Of the bytes, without what lies behind them.
    len: usize,
    fd: Arc<OwnedFd>,
}

// SAFETY: rule 2: whoever copies at the same time gets some bytes.
unsafe impl Send for StreamMemory {}
// SAFETY: as above.
unsafe impl Sync for StreamMemory {}

impl StreamMemory {
    /// `len` is a power of two, and of whole pages.
    pub fn new(len: usize) -> Result<Self, Errno> {
        let fd = memory("pipe", len as u64 + STREAM_HEAD)?;
        let base = map(&fd, len + STREAM_HEAD as usize, None)?;
        Ok(Self { base, len, fd: Arc::new(fd) })
    }

    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Of the mapping.
    pub fn len_with_head(&self) -> u64 {
        self.len as u64 + STREAM_HEAD
    }

    /// The word behind the bytes.
    pub fn head(&self) -> &AtomicU64 {
        // SAFETY: rules 1 and 3; all its bit patterns are valid, and it is aligned as the length is.
        unsafe { &*self.base.add(self.len).cast::<AtomicU64>() }
    }

    /// From now on it can be mapped anew to be read only.
    pub fn seal(&self) -> Result<(), Errno> {
        rustix::fs::fcntl_add_seals(&*self.fd, SealFlags::FUTURE_WRITE).map_err(errno)
    }

    /// Copies bytes in; what is more than all of it is left out.
    pub fn copy_in(&self, position: u64, bytes: &[u8]) {
        let (offset, first) = self.split(position, bytes.len());
        let (front, back) = bytes.split_at(first.min(bytes.len()));
        let back = back.get(..back.len().min(offset)).unwrap_or(back);
        // SAFETY: rule 3: `offset + first` is the length at most, and the rest ends before `offset`.
        unsafe { copy(self.base.add(offset), front.as_ptr(), front.len()) };
        // SAFETY: as above.
        unsafe { copy(self.base, back.as_ptr(), back.len()) };
    }

    /// Copies bytes out, at most all of it.
    pub fn copy_out(&self, position: u64, into: &mut [u8]) {
        let (offset, first) = self.split(position, into.len());
        let first = first.min(into.len());
        let (front, back) = into.split_at_mut(first);
        let rest = back.len().min(offset);
        // SAFETY: as for `copy_in`.
        unsafe { copy(front.as_mut_ptr(), self.base.add(offset), front.len()) };
        // SAFETY: as above.
        unsafe { copy(back.as_mut_ptr(), self.base, rest) };
    }

    /// Where a position is, and how many of `len` bytes lie there before the end.
    fn split(&self, position: u64, len: usize) -> (usize, usize) {
        let offset = (position % self.len as u64) as usize;
        (offset, len.min(self.len - offset))
    }
}

impl Drop for StreamMemory {
    fn drop(&mut self) {
        // SAFETY: rule 1: nobody else has a pointer into it.
        let _ = unsafe { rustix::mm::munmap(self.base.cast(), self.len + STREAM_HEAD as usize) };
    }
}
