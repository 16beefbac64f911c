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
const R_OK: u64 = 4;
const W_OK: u64 = 2;
const X_OK: u64 = 1;

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

/// readlink(2) of what is no link, access(2) of what everybody may, and both and open(2) for reading of what is not there: what the call
/// is.
pub fn answer(slot: &Slot, fast: &Fast) -> Option<u64> {
    if fast.knows.load(Relaxed) & knows::PATHS == 0 {
        return None;
    }
    let at = |index: u8| slot.argument(index);
    let (path, found) = match slot.number() {
        READLINK => (at(0), for_readlink(at(2))?),
        READLINKAT => (at(1), for_readlink(at(3))?),
        OPEN => (at(0), for_open(fast, at(1))?),
        OPENAT => (at(1), for_open(fast, at(2))?),
        ACCESS => (at(0), for_access(at(1), 0)?),
        FACCESSAT => (at(1), for_access(at(2), 0)?),
        _ => (at(1), for_access(at(2), at(3))?),
    };
    let mut words = [0; KnownPath::WORDS];
    let len = path_stats::read_path(slot, path, &mut words)?;
    if words[0] & 0xff != u64::from(b'/') {
        return None;
    }
    let known = Known::find(fast, &words, len)?;
    let result = match found {
        _ if known.is(KnownPath::ABSENT) => ENOENT,
        Some((bits, result)) if known.is(bits) => result,
        _ => return None,
    };
    known.holds().then_some(result)
}

/// What a call says of a path of which these bits are known.
type Found = Option<(u64, u64)>;

/// A buffer without room is refused before the path is looked at.
fn for_readlink(room: u64) -> Option<Found> {
    (room as i32 > 0).then_some(Some((KnownPath::PLAIN, EINVAL)))
}

/// `None` unless the open fails when there is no such file, and for no other reason. What is there is the sentry's to open.
fn for_open(fast: &Fast, flags: u64) -> Option<Found> {
    // Without a number for it, it would fail with another error.
    let can_be = ready::is_plain(flags & 0xffff_ffff) && descriptors::find_free(fast, 0).is_some();
    can_be.then_some(None)
}

fn for_access(mode: u64, flags: u64) -> Option<Found> {
    let (mode, flags) = (mode & 0xffff_ffff, flags & 0xffff_ffff);
    if mode & !(R_OK | W_OK | X_OK) != 0 || flags & !(AT_SYMLINK_NOFOLLOW | AT_EACCESS) != 0 {
        return None;
    }
    let is_it = match mode {
        0 => KnownPath::PLAIN,
        _ => KnownPath::HAS_STAT | mode << KnownPath::RIGHTS_SHIFT,
    };
    let itself = if flags & AT_SYMLINK_NOFOLLOW == 0 { 0 } else { KnownPath::PLAIN };
    Some((mode & W_OK == 0).then_some((is_it | itself, 0)))
}

fn table() -> &'static [KnownPath; KnownPath::COUNT] {
    // SAFETY: mapped for reading, all fields atomic.
    unsafe { &*((abi::GLOBAL_ADDR + abi::KNOWN_PATHS_OFFSET) as *const [KnownPath; KnownPath::COUNT]) }
}
