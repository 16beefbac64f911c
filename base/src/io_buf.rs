//! Bytes in and out, wherever they live: a guest's memory, a buffer of ours.
//!
//! A `Sink` is where a read puts its bytes, a `Source` is where a write takes them from. Both may stop early
//! with `EFAULT`; what went through before counts (partial reads and writes, as in Linux).

use std::os::fd::BorrowedFd;

use abi::{Errno, Result};

/// Destination of a read.
pub trait Sink {
    /// Bytes that still fit.
    fn remaining(&self) -> usize;

    /// Puts as many of `bytes` as fit and returns how many that were.
    ///
    /// # Errors
    /// `EFAULT` when not one byte could be put.
    fn put(&mut self, bytes: &[u8]) -> Result<usize>;

    /// Puts what a host file has from `pos` on, without a buffer in between, as far as this place reaches; `None` where
    /// that is not possible, or not worth it.
    ///
    /// # Errors
    /// Those of the host's read; then nothing was put.
    fn put_from(&mut self, _file: BorrowedFd<'_>, _pos: u64) -> Option<Result<Filled>> {
        None
    }
}

/// What [`Sink::put_from`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    pub bytes: usize,
    /// The place was filled: the file may have more. Else it has not.
    pub is_full: bool,
}

/// Origin of a write.
pub trait Source {
    /// Bytes still to be taken.
    fn remaining(&self) -> usize;

    /// Fills `into` as far as bytes are left and returns how many were taken.
    ///
    /// # Errors
    /// `EFAULT` when bytes are left but not one could be taken.
    fn take(&mut self, into: &mut [u8]) -> Result<usize>;
}

impl Sink for &mut [u8] {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize> {
        let count = bytes.len().min(self.len());
        let (head, tail) = std::mem::take(self).split_at_mut(count);
        head.copy_from_slice(&bytes[..count]);
        *self = tail;
        Ok(count)
    }
}

impl Source for &[u8] {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn take(&mut self, into: &mut [u8]) -> Result<usize> {
        let count = into.len().min(self.len());
        let (head, tail) = self.split_at(count);
        into[..count].copy_from_slice(head);
        *self = tail;
        Ok(count)
    }
}

/// Puts all of `bytes` or says how far it came.
///
/// # Errors
/// `EFAULT` when the sink refused the first byte.
pub fn put_all(sink: &mut dyn Sink, mut bytes: &[u8]) -> Result<usize> {
    let mut done = 0;
    while !bytes.is_empty() && sink.remaining() > 0 {
        match sink.put(bytes) {
            Ok(0) => break,
            Ok(count) => {
                done += count;
                bytes = &bytes[count..];
            }
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Takes everything that is left, at most `limit` bytes.
///
/// # Errors
/// `E2BIG` when more than `limit` bytes are left, `EFAULT` from the source.
pub fn take_all(source: &mut dyn Source, limit: usize) -> Result<Vec<u8>> {
    let left = source.remaining();
    if left > limit {
        return Err(Errno::E2BIG);
    }
    let mut bytes = vec![0; left];
    let mut done = 0;
    while done < left {
        let count = source.take(&mut bytes[done..])?;
        if count == 0 {
            break;
        }
        done += count;
    }
    bytes.truncate(done);
    Ok(bytes)
}
