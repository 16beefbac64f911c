//! The bytes of a pipe while guest code writes and reads them by itself.

use std::any::Any;
use std::fmt::Debug;

use crate::lent::Lent;

/// A ring of bytes that the guests of both ends of a pipe have mapped. Positions count all bytes that ever went through it. What guests
/// say of them is looked at each time; who says what cannot be ends the ring, and its bytes are lost then.
///
/// Each end goes on by itself up to a limit, and makes a call for what is beyond. [`SharedRing::put`] and [`SharedRing::advance`] have both
/// go as far as they can. Never waits; callers take turns, but for [`Lent::end`], after which all methods say so (`None`, false).
/// Its place in a file is of no meaning: pipes have none.
pub trait SharedRing: Any + Lent + Debug {
    /// Bytes that it can hold.
    fn capacity(&self) -> usize;

    /// Both ends are joined and guest code may begin, with these bytes.
    fn begin(&self, bytes: &[u8]) -> bool;

    /// No further guest can map it to write.
    fn seal(&self) -> bool;

    /// What was read and what was written so far.
    fn progress(&self) -> Option<Progress>;

    /// Writes bytes for which there is room.
    fn put(&self, bytes: &[u8]) -> bool;

    /// The oldest bytes, at most `most`.
    fn peek(&self, most: usize) -> Option<Vec<u8>>;

    /// The oldest `count` bytes are read. False: the ring is over, and they are still in it.
    fn advance(&self, count: usize) -> bool;

    /// The writer is to make a call for what would leave more than `most` bytes here; what was read and written until then.
    fn hold_writer(&self, most: usize) -> Option<Progress>;

    /// The reader is to make a call for what goes beyond the next `most` bytes.
    fn hold_reader(&self, most: usize) -> Option<Progress>;

    /// The unread bytes of a ring that is over.
    fn rest(&self) -> Vec<u8>;
}

/// How far the ends of a ring are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub read: u64,
    /// At least `read`, and at most the capacity more.
    pub written: u64,
}

impl Progress {
    /// Unread bytes.
    #[must_use]
    pub fn len(self) -> usize {
        usize::try_from(self.written.saturating_sub(self.read)).unwrap_or(0)
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}
