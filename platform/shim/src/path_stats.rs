//! stat(2) and lstat(2) of absolute paths that were asked for before, of a thread that is alone: what the sentry has said holds as long
//! as no name has changed anywhere, and it has not ended the answer (because the file did).

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, Relaxed};

use crate::abi::{self, Fast, KnownPath, PathStat, Slot, TASK_SIZE};
use crate::known_paths::{ENOENT, Known};
use crate::loans::{NEWFSTATAT, STAT_BYTES};
use crate::{channel, guest_memory, ready};

pub const STAT: u64 = 4;
pub const LSTAT: u64 = 6;
const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
const MOST: u64 = 8 * PathStat::WORDS as u64;

/// The result of a call that is answered here.
pub fn answer(slot: &Slot, fast: &Fast) -> Option<u64> {
    if fast.knows.load(Relaxed) == 0 {
        return None;
    }
    let (path, addr, follows) = match slot.number() {
        STAT => (slot.argument(0), slot.argument(1), true),
        LSTAT => (slot.argument(0), slot.argument(1), false),
        _ => match slot.argument(3) & 0xffff_ffff {
            0 => (slot.argument(1), slot.argument(2), true),
            AT_SYMLINK_NOFOLLOW => (slot.argument(1), slot.argument(2), false),
            _ => return None,
        },
    };
    if addr > TASK_SIZE - STAT_BYTES {
        return None;
    }
    let mut words = [0; PathStat::WORDS];
    let len = read_path(slot, path, &mut words)?;
    if words[0] & 0xff != u64::from(b'/') {
        let is_at = slot.number() == NEWFSTATAT;
        return if is_at { ready::stat(slot, fast, &words, len, addr) } else { None };
    }
    if let Some(known) = Known::find(fast, &words, len).filter(Known::holds) {
        if known.is(KnownPath::ABSENT) {
            return Some(ENOENT);
        }
        let has_stat = known.is(KnownPath::HAS_STAT)
            && (follows || known.is(KnownPath::PLAIN))
            && guest_memory::copy(addr, known.stat(), STAT_BYTES) == 0;
        // Now, for it may have ended meanwhile.
        if has_stat && known.holds() {
            return Some(0);
        }
    }
    let what = len | if follows { PathStat::FOLLOWS } else { 0 };
    let known = &table()[PathStat::place(what, &words)];
    let is_it = known.is_valid.load(Acquire) != 0
        && known.what.load(Relaxed) == what
        && known.path.iter().zip(&words).all(|(known, word)| known.load(Relaxed) == *word);
    let holds = || {
        known.names.load(Relaxed) == channel::global().names.load(Acquire)
            && known.is_valid.load(Acquire) != 0
    };
    if !is_it || !holds() || guest_memory::copy(addr, &raw const known.stat as u64, STAT_BYTES) != 0 {
        return None;
    }
    // Now, for it may have ended meanwhile.
    holds().then_some(0)
}

/// The length of a path, and its words into `words`, which is full of zeros.
pub fn read_path(slot: &Slot, path: u64, words: &mut [u64; PathStat::WORDS]) -> Option<u64> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let place = slot as *const Slot as u64 + abi::BOUNCE_OFFSET;
    if path >= TASK_SIZE || !guest_memory::copy_string(place, path, MOST) {
        return None;
    }
    // SAFETY: a part of the slot that is nobody else's now, and of that size.
    let bytes = unsafe { &*(place as *const [AtomicU64; PathStat::WORDS]) };
    for (index, (to, from)) in words.iter_mut().zip(bytes).enumerate() {
        let word = from.load(Relaxed);
        let ends = word.wrapping_sub(ONES) & !word & HIGHS;
        if ends != 0 {
            let count = ends.trailing_zeros() / 8;
            *to = word & ((1 << (8 * count)) - 1);
            return Some(8 * index as u64 + u64::from(count));
        }
        *to = word;
    }
    None
}

fn table() -> &'static [PathStat; PathStat::COUNT] {
    // SAFETY: a part of the channel, all fields atomic.
    unsafe { &*((abi::LOANS_ADDR + abi::PATH_STATS_OFFSET) as *const [PathStat; PathStat::COUNT]) }
}
