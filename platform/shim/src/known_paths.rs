//! What absolute paths are to everybody: whether there is such a file, a symbolic link or not, and its attributes. Told by the sentry in
//! memory that all processes read, and good for those that have the first root for themselves, as long as no name has changed that
//! anybody remembers.

use core::sync::atomic::Ordering::{Acquire, Relaxed};
use core::sync::atomic::fence;

use crate::abi::{self, Fast, KnownPath, Slot, knows};
use crate::ready::OPENAT;
use crate::{channel, descriptors, path_stats, ready};

pub const OPEN: u64 = 2;
pub const ACCESS: u64 = 21;
pub const READLINK: u64 = 89;
pub const READLINKAT: u64 = 267;
pub const FACCESSAT: u64 = 269;
pub const FACCESSAT2: u64 = 439;
pub const ENOENT: u64 = -2_i64 as u64;
const EINVAL: u64 = -22_i64 as u64;
const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
const AT_EACCESS: u64 = 0x200;
const ALL_RIGHTS: u64 = 7;

/// One of them, as it was when it was found.
pub struct Known {
    at: &'static KnownPath,
    version: u64,
    names: u64,
    what: u64,
}

impl Known {
    /// What is said of the path of this length, which begins with a slash.
    pub fn find(fast: &Fast, words: &[u64; KnownPath::WORDS], len: u64) -> Option<Self> {
        if fast.knows.load(Relaxed) & knows::PATHS == 0 {
            return None;
        }
        let first = KnownPath::first_place(words);
        for at in table().iter().skip(first).take(KnownPath::WAYS) {
            let version = at.version.load(Acquire);
            let what = at.what.load(Relaxed);
            let is_it = what & KnownPath::LEN == len
                && at.path.iter().zip(words).all(|(known, word)| known.load(Relaxed) == *word);
            if is_it && version & 1 == 0 {
                return Some(Self { at, version, names: at.names.load(Relaxed), what });
            }
        }
        None
    }

    pub fn is(&self, bits: u64) -> bool {
        self.what & bits == bits
    }

    /// Where its `struct stat` is.
    pub fn stat(&self) -> u64 {
        &raw const self.at.stat as u64
    }

    /// Whether that is so now, and what was read of it until now is of one time.
    pub fn holds(&self) -> bool {
        fence(Acquire);
        self.at.version.load(Relaxed) == self.version && self.names == channel::global().names.load(Acquire)
    }
}

/// readlink(2) of what is no link, access(2) of what is there, and open(2) for reading and these of what is not: what the call is.
pub fn answer(slot: &Slot, fast: &Fast) -> Option<u64> {
    if fast.knows.load(Relaxed) & knows::PATHS == 0 {
        return None;
    }
    let number = slot.number();
    let (path, found) = match number {
        // A buffer without room is refused before the path is looked at.
        READLINK => (slot.argument(0), (slot.argument(2) as i32 > 0).then_some(EINVAL)?),
        READLINKAT => (slot.argument(1), (slot.argument(3) as i32 > 0).then_some(EINVAL)?),
        OPEN => (slot.argument(0), may_open(fast, slot.argument(1))?),
        OPENAT => (slot.argument(1), may_open(fast, slot.argument(2))?),
        ACCESS => (slot.argument(0), may_ask(slot.argument(1), 0)?),
        FACCESSAT => (slot.argument(1), may_ask(slot.argument(2), 0)?),
        _ => (slot.argument(1), may_ask(slot.argument(2), slot.argument(3))?),
    };
    let mut words = [0; KnownPath::WORDS];
    let len = path_stats::read_path(slot, path, &mut words)?;
    if words[0] & 0xff != u64::from(b'/') {
        return None;
    }
    let known = Known::find(fast, &words, len)?;
    let result = if known.is(KnownPath::ABSENT) {
        ENOENT
    } else if known.is(KnownPath::PLAIN) && found != ASK {
        found
    } else {
        return None;
    };
    known.holds().then_some(result)
}

/// As a result: what is there is the sentry's to tell.
const ASK: u64 = 1;

/// Whether an open fails when there is no such file, and for no other reason; it is the sentry's when there is.
fn may_open(fast: &Fast, flags: u64) -> Option<u64> {
    let is_plain = ready::is_plain(flags & 0xffff_ffff);
    // Without a number for it, it would fail with another error.
    (is_plain && descriptors::find_free(fast, 0).is_some()).then_some(ASK)
}

/// What access(2) says of a file that is there.
fn may_ask(mode: u64, flags: u64) -> Option<u64> {
    let (mode, flags) = (mode & 0xffff_ffff, flags & 0xffff_ffff);
    if mode & !ALL_RIGHTS != 0 || flags & !(AT_SYMLINK_NOFOLLOW | AT_EACCESS) != 0 {
        return None;
    }
    Some(if mode == 0 { 0 } else { ASK })
}

fn table() -> &'static [KnownPath; KnownPath::COUNT] {
    // SAFETY: mapped for reading, all fields atomic.
    unsafe { &*((abi::GLOBAL_ADDR + abi::KNOWN_PATHS_OFFSET) as *const [KnownPath; KnownPath::COUNT]) }
}
