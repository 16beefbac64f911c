//! Pipes whose bytes lie where the guests of both ends have them: where, and how far.

use core::mem::size_of;
use core::sync::atomic::AtomicU64;

use super::layout::{CHANNEL_ADDR, MORE_NOTES, MORE_NOTES_OFFSET, Note, SLOT_SIZE, STREAMS_OFFSET};

/// In every guest: where the rings of its [`Streams`] are mapped, one after the other. Behind the bytes of each a page with the writer's
/// word, see [`Streams::words`].
pub const STREAMS_ADDR: u64 = 0x7e00_0100_0000;
pub const STREAM_STRIDE: u64 = 2 << 20;
/// Bytes of the largest ring.
pub const MOST_STREAM: u64 = 1 << 20;
pub const STREAM_HEAD: u64 = 0x1000;

/// The ends of pipes that are lent to a process, by place. Positions count all bytes that ever went through a ring.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Streams {
    /// What is there, see [`Streams::end`]. Written by the sentry in a call of the process's only thread, as is `sizes`.
    pub ends: [AtomicU64; Streams::COUNT],
    /// Bytes of the ring, a power of two.
    pub sizes: [AtomicU64; Streams::COUNT],
    /// Of ends that read; that of one that writes lies behind the bytes, for the reader to see.
    /// 0: nothing is lent, or the sentry looks at it just now. Else [`Streams::LENT`], how far this end has come, and in between what
    /// the sentry changes with every change of its own, so that the shim's compare-and-exchange fails then.
    pub words: [AtomicU64; Streams::COUNT],
    /// How far this end may go without a call. Written by the sentry at any time; lowered only with a change of the word after it.
    pub limits: [AtomicU64; Streams::COUNT],
}

impl Streams {
    /// Ends that a process has at most.
    pub const COUNT: usize = 4;
    pub const LENT: u64 = 1 << 63;
    const POSITION_BITS: u32 = 40;
    /// Largest position.
    pub const MOST_POSITION: u64 = (1 << Self::POSITION_BITS) - 1;
    const MOST_CHANGES: u64 = (1 << (63 - Self::POSITION_BITS)) - 1;

    /// A word of `words`, with the number of changes so far.
    pub const fn word(changes: u64, position: u64) -> u64 {
        Self::LENT
            | (changes & Self::MOST_CHANGES) << Self::POSITION_BITS
            | position & Self::MOST_POSITION
    }

    pub const fn position(word: u64) -> u64 {
        word & Self::MOST_POSITION
    }

    /// A word of `ends`: the descriptor, and which end of the pipe it is. Not 0.
    pub const fn end(descriptor: u32, writes: bool) -> u64 {
        Self::LENT | (writes as u64) << 32 | descriptor as u64
    }
}

const _: () = assert!(STREAMS_ADDR + Streams::COUNT as u64 * STREAM_STRIDE <= CHANNEL_ADDR);
const _: () = assert!(MOST_STREAM + STREAM_HEAD <= STREAM_STRIDE);
const _: () =
    assert!(MORE_NOTES_OFFSET + (MORE_NOTES * size_of::<Note>()) as u64 <= STREAMS_OFFSET);
const _: () = assert!(STREAMS_OFFSET + size_of::<Streams>() as u64 <= SLOT_SIZE);
