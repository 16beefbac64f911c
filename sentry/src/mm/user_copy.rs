//! Guest pointers are claims: only this module turns one into bytes.

use std::marker::PhantomData;
use std::mem::size_of;
use std::os::fd::BorrowedFd;

use abi::{Errno, Result, UserAddr};
use base::io_buf::Filled;
use base::{Sink, Source};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::mm::Mm;

/// Claim: a `T` lies at this guest address.
#[derive(Debug)]
pub struct UserRef<T> {
    pub addr: UserAddr,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for UserRef<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for UserRef<T> {}

/// Claim: `len` bytes lie at this guest address.
#[derive(Debug, Clone, Copy)]
pub struct UserSlice {
    pub addr: UserAddr,
    pub len: usize,
}

/// Claim: a NUL-terminated string lies at this guest address.
#[derive(Debug, Clone, Copy)]
pub struct UserCStr {
    pub addr: UserAddr,
}

impl<T> UserRef<T> {
    #[must_use]
    pub const fn new(addr: UserAddr) -> Self {
        Self { addr, kind: PhantomData }
    }

    #[must_use]
    pub const fn is_null(self) -> bool {
        self.addr.is_null()
    }

    /// `None` for a null pointer, which many calls take as "absent".
    #[must_use]
    pub const fn optional(self) -> Option<Self> {
        if self.is_null() { None } else { Some(self) }
    }

    /// The `index`-th element of an array that starts here; `EFAULT` on wrap-around.
    pub fn at(self, index: usize) -> Result<Self> {
        let bytes = (index as u64).checked_mul(size_of::<T>() as u64).ok_or(Errno::EFAULT)?;
        self.addr.checked_add(bytes).map(Self::new).ok_or(Errno::EFAULT)
    }
}

impl<T: FromBytes + IntoBytes + Immutable> UserRef<T> {
    /// Copies the value out; `EFAULT` unless all of it is readable.
    pub fn read(self, mm: &Mm) -> Result<T> {
        let mut value = T::new_zeroed();
        mm.read(self.addr, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies the value in; `EFAULT` unless all of it is writable.
    pub fn write(self, mm: &Mm, value: &T) -> Result<()> {
        mm.write(self.addr, value.as_bytes())
    }

    /// An array of `count` elements; the caller bounded `count`.
    pub fn read_array(self, mm: &Mm, count: usize) -> Result<Vec<T>>
    where
        T: Clone,
    {
        let mut values = vec![T::new_zeroed(); count];
        mm.read(self.addr, values.as_mut_slice().as_mut_bytes())?;
        Ok(values)
    }

    pub fn write_array(self, mm: &Mm, values: &[T]) -> Result<()> {
        mm.write(self.addr, values.as_bytes())
    }
}

impl UserCStr {
    /// Reads up to `max` bytes before the NUL.
    ///
    /// # Errors
    /// `EFAULT`; `too_long` when there is no NUL within `max` + 1 bytes.
    pub fn read(self, mm: &Mm, max: usize, too_long: Errno) -> Result<Vec<u8>> {
        let mut bytes: Vec<u8> = Vec::new();
        let mut chunk = [0u8; 256];
        let brought = mm.space().peek(self.addr, &mut chunk);
        if let Some(end) = chunk[..brought].iter().position(|byte| *byte == 0)
            && end <= max
        {
            return Ok(chunk[..end].to_vec());
        }
        loop {
            let at = self.addr.checked_add(bytes.len() as u64).ok_or(Errno::EFAULT)?;
            // Never past the page in one go: the next one may be unreadable though the string ends before it.
            let to_page_end = (abi::addr::PAGE_SIZE - (at.0 % abi::addr::PAGE_SIZE)) as usize;
            let want = to_page_end.min(chunk.len());
            let got = mm.space().read(at, &mut chunk[..want]);
            if got == 0 {
                return Err(Errno::EFAULT);
            }
            if let Some(end) = chunk[..got].iter().position(|byte| *byte == 0) {
                bytes.extend_from_slice(&chunk[..end]);
                return if bytes.len() > max { Err(too_long) } else { Ok(bytes) };
            }
            bytes.extend_from_slice(&chunk[..got]);
            if bytes.len() > max {
                return Err(too_long);
            }
        }
    }

    /// A path argument: at most 4095 bytes, else `ENAMETOOLONG`.
    pub fn read_path(self, mm: &Mm) -> Result<Vec<u8>> {
        self.read(mm, 4095, Errno::ENAMETOOLONG)
    }
}

impl Mm {
    /// `EFAULT` unless all of it is readable.
    pub fn read(&self, addr: UserAddr, into: &mut [u8]) -> Result<()> {
        if self.space().read(addr, into) == into.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// `EFAULT` unless all of it is writable; a head may have been written.
    pub fn write(&self, addr: UserAddr, bytes: &[u8]) -> Result<()> {
        if self.space().write(addr, bytes) == bytes.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }
}

/// A list of guest ranges as the destination of a read.
pub struct UserSink<'a> {
    mm: &'a Mm,
    ranges: &'a [UserSlice],
    skip: usize,
    left: usize,
}

impl<'a> UserSink<'a> {
    #[must_use]
    pub fn new(mm: &'a Mm, ranges: &'a [UserSlice]) -> Self {
        let left = ranges.iter().fold(0usize, |sum, range| sum.saturating_add(range.len));
        Self { mm, ranges, skip: 0, left }
    }
}

impl UserSink<'_> {
    /// The next range with room, from its first free byte on.
    fn place(&mut self) -> Option<(UserAddr, usize)> {
        while let Some(range) = self.ranges.first() {
            let room = range.len - self.skip;
            if room > 0 {
                return Some((range.addr.checked_add(self.skip as u64)?, room));
            }
            self.ranges = &self.ranges[1..];
            self.skip = 0;
        }
        None
    }
}

impl Sink for UserSink<'_> {
    fn remaining(&self) -> usize {
        self.left
    }

    fn put_from(&mut self, file: BorrowedFd<'_>, pos: u64) -> Option<Result<Filled>> {
        let (at, room) = self.place()?;
        let filled = self.mm.space().write_from(at, room, file, pos)?;
        Some(filled.map(|(bytes, asked)| {
            self.skip += bytes;
            self.left -= bytes;
            Filled { bytes, is_full: bytes == asked }
        }))
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<usize> {
        let mut done = 0;
        while !bytes.is_empty() {
            let Some((at, room)) = self.place() else { break };
            let want = room.min(bytes.len());
            let got = self.mm.space().write(at, &bytes[..want]);
            done += got;
            self.skip += got;
            self.left -= got;
            bytes = &bytes[got..];
            if got < want {
                break;
            }
        }
        if done == 0 && !bytes.is_empty() && self.left > 0 { Err(Errno::EFAULT) } else { Ok(done) }
    }
}

/// A list of guest ranges as the origin of a write.
pub struct UserSource<'a> {
    mm: &'a Mm,
    ranges: &'a [UserSlice],
    skip: usize,
    left: usize,
}

impl<'a> UserSource<'a> {
    #[must_use]
    pub fn new(mm: &'a Mm, ranges: &'a [UserSlice]) -> Self {
        let left = ranges.iter().fold(0usize, |sum, range| sum.saturating_add(range.len));
        Self { mm, ranges, skip: 0, left }
    }
}

impl Source for UserSource<'_> {
    fn remaining(&self) -> usize {
        self.left
    }

    fn take(&mut self, into: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < into.len() {
            let Some(range) = self.ranges.first() else { break };
            let room = range.len - self.skip;
            if room == 0 {
                self.ranges = &self.ranges[1..];
                self.skip = 0;
                continue;
            }
            let want = room.min(into.len() - done);
            let at = range.addr.checked_add(self.skip as u64).ok_or(Errno::EFAULT)?;
            let got = self.mm.space().read(at, &mut into[done..done + want]);
            done += got;
            self.skip += got;
            self.left -= got;
            if got < want {
                break;
            }
        }
        if done == 0 && !into.is_empty() && self.left > 0 { Err(Errno::EFAULT) } else { Ok(done) }
    }
}
