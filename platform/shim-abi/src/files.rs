//! What a process may know of its descriptors, files and paths without a call. The sentry writes it; what a shim changes is a claim.

use core::sync::atomic::AtomicU64;

use super::layout::{
    BROUGHT_BYTES, BROUGHT_BYTES_OFFSET, BROUGHT_OFFSET, PATH_STATS_OFFSET, SLOT_SIZE,
};

/// Host descriptors that are lent to a process, so that its shim reads by itself: a word for each descriptor number of the
/// guest. 0: not lent, or the sentry has the position now. Else the position, the place of the host descriptor, and the
/// loan's generation, which says whether it is still the same one.
#[repr(C)]
#[derive(Debug)]
pub struct Loans {
    pub words: [AtomicU64; Loans::DESCRIPTORS],
}

impl Loans {
    pub const DESCRIPTORS: usize = 256;
    /// Host descriptors from this number on are lent ones: above all others of a guest process, and below 64, beyond which the
    /// host would have to make its table larger (with several threads it waits for some milliseconds then).
    pub const FIRST_FD: u32 = 32;
    /// So many.
    pub const PLACES: u32 = 32;
    /// Places from this one on have no descriptor: their files were [brought along](Brought).
    pub const FIRST_BROUGHT: u32 = 28;
    const POSITION_BITS: u32 = 40;
    const PLACE_SHIFT: u32 = Self::POSITION_BITS;
    const GENERATION_SHIFT: u32 = Self::PLACE_SHIFT + 5;
    /// Largest position that can be lent.
    pub const MOST_POSITION: u64 = (1 << Self::POSITION_BITS) - 1;
    /// Generations are from 1 to this.
    pub const MOST_GENERATION: u64 = (1 << (64 - Self::GENERATION_SHIFT)) - 1;

    pub const fn word(generation: u64, place: u32, position: u64) -> u64 {
        generation << Self::GENERATION_SHIFT
            | (place as u64) << Self::PLACE_SHIFT
            | position & Self::MOST_POSITION
    }

    pub const fn position(word: u64) -> u64 {
        word & Self::MOST_POSITION
    }

    /// The host descriptor.
    pub const fn descriptor(word: u64) -> u64 {
        Self::FIRST_FD as u64 + (word >> Self::PLACE_SHIFT & (Self::PLACES as u64 - 1))
    }

    /// Which file was brought along, from 0 on; `None`: it has a descriptor.
    pub const fn brought(word: u64) -> Option<u64> {
        (Self::descriptor(word)).checked_sub((Self::FIRST_FD + Self::FIRST_BROUGHT) as u64)
    }

    /// Whether both are of one loan.
    pub const fn are_one(a: u64, b: u64) -> bool {
        a >> Self::PLACE_SHIFT == b >> Self::PLACE_SHIFT
    }
}

/// What the only thread of a process may know of its lowest descriptors: a word each. 0: nothing. Written by the sentry while guest
/// code stands still, by the shim with each [`Note`].
#[repr(C)]
#[derive(Debug)]
pub struct Descriptors {
    pub words: [AtomicU64; Descriptors::COUNT],
}

impl Descriptors {
    pub const COUNT: usize = 64;
    /// It is not in use.
    pub const FREE: u64 = 1 << 32;
    pub const OPEN: u64 = 1 << 33;
    /// FD_CLOEXEC.
    pub const CLOEXEC: u64 = 1 << 34;
    /// Nobody but this process refers to the file description, and nobody notices when that is closed. The low half has its
    /// status flags.
    pub const OWN: u64 = 1 << 35;
    /// /dev/null and /dev/zero.
    pub const NULL: u64 = 1 << 36;
    pub const ZERO: u64 = 1 << 37;
    /// An epoll that nobody but this process refers to, and that nothing else watches.
    pub const EPOLL: u64 = 1 << 38;
    /// Which of those watches it, in these bits. 0: not known, or what epoll_ctl(2) says of it is not that simple.
    pub const WATCH: u64 = 0x7f << 40;
    /// None does.
    pub const UNWATCHED: u64 = 1 << 40;
    pub const FLAGS: u64 = 0xffff_ffff;

    /// Bits of [`Descriptors::WATCH`]: the epoll of this number does, and no other one.
    pub const fn watched_by(epoll: u64) -> u64 {
        (2 + epoll % Self::COUNT as u64) << 40
    }
}

/// The head of a file whose front came along when it was opened, for the shim to read from. Written by the sentry while the word in
/// [`Loans`] does not lead to it.
#[repr(C)]
#[derive(Debug)]
pub struct Brought {
    /// `struct stat`.
    pub stat: [AtomicU64; 18],
    /// So many bytes are there.
    pub len: AtomicU64,
    /// Not zero: these are all.
    pub is_whole: AtomicU64,
    _room: [u64; 12],
}

impl Brought {
    pub const COUNT: u64 = (Loans::PLACES - Loans::FIRST_BROUGHT) as u64;
}

/// What stat(2) or lstat(2) of an absolute path has said, for a thread that [knows](Fast::knows) its descriptors. Written by the
/// sentry while guest code stands still; it also ends it, at any time, by setting `is_valid` to zero.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct PathStat {
    pub is_valid: AtomicU64,
    /// [`Global::names`] as of then.
    pub names: AtomicU64,
    /// Bytes of the path, and [`PathStat::FOLLOWS`].
    pub what: AtomicU64,
    /// Filled up with zeros.
    pub path: [AtomicU64; PathStat::WORDS],
    pub stat: [AtomicU64; 18],
}

impl PathStat {
    /// In an address space, by [`PathStat::place`].
    pub const COUNT: usize = 16;
    /// Words of the longest path.
    pub const WORDS: usize = 19;
    pub const FOLLOWS: u64 = 1 << 32;

    /// Where the answer about a path is.
    pub fn place(what: u64, path: &[u64; Self::WORDS]) -> usize {
        let mut hash = what;
        for word in path {
            hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        hash as usize % Self::COUNT
    }
}

const _: () = assert!(Loans::PLACES == 32 && Loans::FIRST_FD + Loans::PLACES <= 64);
const _: () = assert!(size_of::<Loans>() as u64 <= BROUGHT_OFFSET);
const _: () = assert!(BROUGHT_BYTES_OFFSET + Brought::COUNT * BROUGHT_BYTES <= PATH_STATS_OFFSET);
const _: () = assert!(size_of::<PathStat>() == 320);
const _: () =
    assert!(BROUGHT_OFFSET + Brought::COUNT * size_of::<Brought>() as u64 <= BROUGHT_BYTES_OFFSET);
const _: () =
    assert!(PATH_STATS_OFFSET + (PathStat::COUNT * size_of::<PathStat>()) as u64 <= SLOT_SIZE);
