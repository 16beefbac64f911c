//! What guest code does on its own to files that it was entrusted with: locks them, writes to them. It enters each act in a ledger of
//! which both sides know how long it is; the sentry carries them out later, but before anybody looks at such a file.

use core::mem::size_of;
use core::sync::atomic::AtomicU64;

use super::files::Descriptors;
use super::layout::{CHANNEL_ADDR, READY_SLOT, SLOT_SIZE};

/// No thread's slot: it has the [`Ledger`].
pub const LEDGER_SLOT: u32 = READY_SLOT - 1;
pub const LEDGER_ADDR: u64 = CHANNEL_ADDR + SLOT_SIZE * LEDGER_SLOT as u64;

/// See the module.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Ledger {
    /// 0: shut. Else a generation and, below [`Ledger::GENERATION_SHIFT`], how many entries there are. The shim enters what it does by an
    /// exchange of this: nothing was done if that fails. The sentry shuts it to take them, and ends a generation
    /// with each right that it takes back.
    pub state: AtomicU64,
    /// How much of the room for bytes the entries take; the shim's own.
    pub bytes: AtomicU64,
    _line: [u64; 6],
    /// What may be done with each descriptor; see [`trust`]. Written by the sentry.
    pub trust: [AtomicU64; Descriptors::COUNT],
    pub entries: [Entry; Ledger::ENTRIES],
    /// Of each descriptor. It does not count what is entered and not carried out.
    pub told: [Told; Descriptors::COUNT],
}

/// What fstat(2) says of a file.
#[repr(C)]
#[derive(Debug)]
pub struct Told {
    /// 0: nothing is told. Else never the same again; written by the sentry at any time.
    pub version: AtomicU64,
    /// `struct stat`.
    pub stat: [AtomicU64; 18],
    _room: u64,
}

/// What was done: [`entry`] and descriptor, then as that says.
#[repr(C)]
#[derive(Debug)]
pub struct Entry(pub [AtomicU64; Entry::WORDS]);

impl Ledger {
    pub const ENTRIES: usize = 64;
    pub const GENERATION_SHIFT: u32 = 16;
    /// Bytes that were written lie from here on in the slot,
    pub const BYTES_OFFSET: u64 = 0x4000;
    /// so many at most,
    pub const BYTES: u64 = SLOT_SIZE - Self::BYTES_OFFSET;
    /// of one entry so many.
    pub const MOST: u64 = 0x4000;
    pub const COUNT: u64 = (1 << Self::GENERATION_SHIFT) - 1;

    pub const fn state(generation: u64, count: u64) -> u64 {
        generation << Self::GENERATION_SHIFT | count & Self::COUNT
    }
}

impl Entry {
    pub const WORDS: usize = 4;
    /// The descriptor is in these bits of the first word,
    pub const DESCRIPTOR_SHIFT: u32 = 8;
    pub const DESCRIPTOR: u64 = 0xff;
    /// and from this bit on how many bytes were written.
    pub const LEN_SHIFT: u32 = 16;
}

/// Bits of [`Ledger::trust`].
pub mod trust {
    /// fcntl(2) with `F_SETLK`: nobody else has locks of the file, or waits for one.
    pub const LOCKS: u64 = 1;
    /// It is open for reading,
    pub const READS: u64 = 2;
    /// for writing.
    pub const WRITES: u64 = 4;
    /// pwrite64(2).
    pub const STORES: u64 = 8;
}

/// Values of the low byte of an entry's first word.
pub mod entry {
    /// `F_RDLCK`, `F_WRLCK` and `F_UNLCK`: first byte, and how many (0: all from there on).
    pub const SHARED_LOCK: u64 = 1;
    pub const EXCLUSIVE_LOCK: u64 = 2;
    pub const UNLOCK: u64 = 3;
    /// pwrite64(2): place in the file; where the bytes are behind [`Ledger::BYTES_OFFSET`](super::Ledger::BYTES_OFFSET); the
    /// processor's time stamp.
    pub const STORE: u64 = 4;
    pub const KIND: u64 = 0xff;
}

const _: () = assert!(size_of::<Ledger>() as u64 <= Ledger::BYTES_OFFSET);
