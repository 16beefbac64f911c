//! What a process may know of its descriptors, files and paths without a call. The sentry writes it; what a shim changes is a claim.

use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicU32, AtomicU64};

use super::layout::{
    BROUGHT_BYTES, BROUGHT_BYTES_OFFSET, BROUGHT_OFFSET, GLOBAL_SIZE, KNOWN_PATHS_OFFSET,
    MORE_NOTES, MORE_NOTES_OFFSET, Note, PATH_STATS_OFFSET, READY_BYTES_OFFSET, READY_BYTES_STRIDE,
    READY_INDEX_OFFSET, READY_PER_SLOT, READY_SLOTS, READY_STRIDE, SLOT_SIZE,
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
    /// Places from this one on are those of files that lay [ready](Ready).
    pub const FIRST_READY: u32 = Self::PLACES;
    const POSITION_BITS: u32 = 38;
    const PLACE_SHIFT: u32 = Self::POSITION_BITS;
    const PLACE_BITS: u32 = 7;
    const GENERATION_SHIFT: u32 = Self::PLACE_SHIFT + Self::PLACE_BITS;
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
        Self::FIRST_FD as u64 + Self::place(word)
    }

    const fn place(word: u64) -> u64 {
        word >> Self::PLACE_SHIFT & ((1 << Self::PLACE_BITS) - 1)
    }

    /// Which file was brought along, from 0 on; `None`: it has a descriptor, or lay ready.
    pub const fn brought(word: u64) -> Option<u64> {
        match Self::place(word).checked_sub(Self::FIRST_BROUGHT as u64) {
            Some(index) if index < Brought::COUNT => Some(index),
            _ => None,
        }
    }

    /// Which file it is of those that lay ready, from 0 on.
    pub const fn ready(word: u64) -> Option<u64> {
        Self::place(word).checked_sub(Self::FIRST_READY as u64)
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
    /// In the bits from here on: which directory it is, when files of it lie [ready](Ready), else 0.
    pub const DIR_SHIFT: u32 = 47;
    pub const MOST_DIR: u64 = (1 << (64 - Self::DIR_SHIFT)) - 1;

    /// The directory, as [`Ready::dir`] names it.
    pub const fn dir(word: u64) -> u64 {
        word >> Self::DIR_SHIFT
    }

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
    /// Not zero: it is a directory, and the bytes are its listing as getdents64(2) gives it.
    pub is_dir: AtomicU64,
    /// Not zero: nothing of this holds any more. Set by the sentry, of files that lay ready.
    pub is_over: AtomicU64,
    _room: [u64; 10],
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
        hash(what, path) as usize % Self::COUNT
    }
}

fn hash(seed: u64, words: &[u64]) -> u64 {
    let mix =
        |hash: u64, word: &u64| (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    words.iter().fold(seed, mix)
}

/// What an absolute path is to everybody whose root is the first one, in the memory that all shims read. Written by the sentry at any
/// time: `version` is odd then, and another one after it.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct KnownPath {
    pub version: AtomicU64,
    /// [`Global::names`](super::layout::Global::names) as of then.
    pub names: AtomicU64,
    /// Bytes of the path, and what it is. 0: there is none.
    pub what: AtomicU64,
    /// Filled up with zeros.
    pub path: [AtomicU64; KnownPath::WORDS],
    pub stat: [AtomicU64; 18],
}

impl KnownPath {
    /// Words of the longest path and its end.
    pub const WORDS: usize = PathStat::WORDS;
    /// Each path has its set, of so many places.
    pub const WAYS: usize = 4;
    pub const SETS: usize = 128;
    pub const COUNT: usize = Self::WAYS * Self::SETS;
    /// Bits of `what`.
    pub const LEN: u64 = 0xffff_ffff;
    /// There is no such file.
    pub const ABSENT: u64 = 1 << 32;
    /// There is one, and it is no symbolic link.
    pub const PLAIN: u64 = 1 << 33;
    /// There is one, and `stat` is what it is, or what it leads to.
    pub const HAS_STAT: u64 = 1 << 34;
    /// access(2) gives everybody these, `R_OK` and `X_OK`, from this bit on.
    pub const RIGHTS_SHIFT: u32 = 35;
    pub const RIGHTS: u64 = 5 << Self::RIGHTS_SHIFT;
    /// What the attributes of the file say, not its name.
    pub const OF_FILE: u64 = Self::HAS_STAT | Self::RIGHTS;

    /// The first place of a path's set.
    pub fn first_place(path: &[u64; Self::WORDS]) -> usize {
        (hash(0, path) >> 32) as usize % Self::SETS * Self::WAYS
    }
}

/// A file or directory that guest code may open without a call, by its name and a descriptor of its directory, and ask about. Written
/// by the sentry while `state` is 0. It ends it at any time, by an exchange of `state`: then it knows whether it was opened.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Ready {
    /// As if it had been brought along.
    pub file: Brought,
    /// 0, or the loan's generation and below it [`Ready::CLOSED`] or [`Ready::OPENED`]; the shim changes it from the former to the latter.
    pub state: AtomicU64,
    /// [`Global::names`](super::layout::Global::names) as of then.
    pub names: AtomicU64,
    /// The directory, as [`Descriptors::dir`] names it.
    pub dir: AtomicU64,
    /// Its name there, filled up with zeros.
    pub name: [AtomicU64; Ready::WORDS],
    /// What [`Loans`] is to say of its descriptor,
    pub loan: AtomicU64,
    /// and [`Descriptors`], together with the status flags of the open.
    pub descriptor: AtomicU64,
}

impl Ready {
    pub const COUNT: usize = 64;
    /// Words of the longest name and its end.
    pub const WORDS: usize = 8;
    pub const CLOSED: u64 = 1;
    pub const OPENED: u64 = 2;
    pub const GENERATION_SHIFT: u32 = 2;
    /// Bytes of one file at most, as a rule,
    pub const BYTES: u64 = READY_BYTES_STRIDE;
    /// and of one that has those of the place after its own, too.
    pub const MOST_BYTES: u64 = SLOT_SIZE - READY_BYTES_OFFSET;

    /// Where the head of a place is in all slots, and where its bytes begin.
    pub const fn offsets(place: usize) -> (u64, u64) {
        let (slot, at) = (place as u64 / READY_PER_SLOT, place as u64 % READY_PER_SLOT);
        let slot = slot * SLOT_SIZE;
        (slot + at * READY_STRIDE, slot + READY_BYTES_OFFSET + at * READY_BYTES_STRIDE)
    }

    /// How many bytes there are from there on.
    pub const fn most_bytes(place: usize) -> u64 {
        Self::MOST_BYTES - place as u64 % READY_PER_SLOT * READY_BYTES_STRIDE
    }

    /// By what it is found in [`ReadyIndex`]; not 0.
    pub fn tag(dir: u64, name: &[u64]) -> u32 {
        (hash(dir, name) >> 32) as u32 | 1
    }
}

/// Where to find what lies ready.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct ReadyIndex {
    /// How many may still be opened: counted down by the shim, written by the sentry when it has brought more.
    pub left: AtomicU32,
    /// With so many left the shim says so, for the sentry to bring more.
    pub low: AtomicU32,
    _line: [u32; 14],
    /// Of each [`Ready::tag`], or 0.
    pub tags: [AtomicU32; Ready::COUNT],
}

const _: () = assert!(size_of::<Ready>() as u64 <= READY_STRIDE);
const _: () = assert!(READY_BYTES_STRIDE.is_multiple_of(64) && READY_PER_SLOT == 2);
const _: () = assert!(offset_of!(Ready, file) == 0 && size_of::<Brought>() == 256);
const _: () = assert!(Ready::COUNT as u64 == READY_SLOTS as u64 * READY_PER_SLOT);
const _: () = assert!(READY_INDEX_OFFSET + size_of::<ReadyIndex>() as u64 <= MORE_NOTES_OFFSET);
const _: () = assert!(MORE_NOTES_OFFSET + (MORE_NOTES * size_of::<Note>()) as u64 <= SLOT_SIZE);
const _: () = assert!(Loans::FIRST_READY as usize + Ready::COUNT <= 1 << Loans::PLACE_BITS);
const _: () = assert!(Loans::PLACES == 32 && Loans::FIRST_FD + Loans::PLACES <= 64);
const _: () = assert!(size_of::<Loans>() as u64 <= BROUGHT_OFFSET);
const _: () = assert!(BROUGHT_BYTES_OFFSET + Brought::COUNT * BROUGHT_BYTES <= PATH_STATS_OFFSET);
const _: () = assert!(size_of::<PathStat>() == 320);
const _: () = assert!(size_of::<KnownPath>() == 320);
const _: () =
    assert!(KNOWN_PATHS_OFFSET + (KnownPath::COUNT * size_of::<KnownPath>()) as u64 <= GLOBAL_SIZE);
const _: () =
    assert!(BROUGHT_OFFSET + Brought::COUNT * size_of::<Brought>() as u64 <= BROUGHT_BYTES_OFFSET);
const _: () = assert!(
    PATH_STATS_OFFSET + (PathStat::COUNT * size_of::<PathStat>()) as u64 <= READY_INDEX_OFFSET
);
