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
    _line: [u64; 7],
    /// What may be done with each descriptor; see [`trust`]. Written by the sentry.
    pub trust: [AtomicU64; Descriptors::COUNT],
    pub entries: [Entry; Ledger::ENTRIES],
}

/// What was done: [`entry`] and descriptor, then as that says.
#[repr(C)]
#[derive(Debug)]
pub struct Entry(pub [AtomicU64; Entry::WORDS]);

impl Ledger {
    pub const ENTRIES: usize = 64;
    pub const GENERATION_SHIFT: u32 = 16;
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
}

/// Bits of [`Ledger::trust`].
pub mod trust {
    /// fcntl(2) with `F_SETLK`: nobody else has locks of the file, or waits for one.
    pub const LOCKS: u64 = 1;
    /// It is open for reading,
    pub const READS: u64 = 2;
    /// for writing.
    pub const WRITES: u64 = 4;
}

/// Values of the low byte of an entry's first word.
pub mod entry {
    /// `F_RDLCK`, `F_WRLCK` and `F_UNLCK`: first byte, and how many (0: all from there on).
    pub const SHARED_LOCK: u64 = 1;
    pub const EXCLUSIVE_LOCK: u64 = 2;
    pub const UNLOCK: u64 = 3;
    pub const KIND: u64 = 0xff;
}

const _: () = assert!(size_of::<Ledger>() as u64 <= SLOT_SIZE);
