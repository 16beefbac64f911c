//! Calls about lent files: reads by the host's own pread64(2), or out of what came along when the file was opened, and what can be
//! told of a file so.
//!
//! For each of the guest's descriptors there is a word ([`Loans`]), which the sentry changes at any time: it takes a position back
//! by an exchange, and ends a loan in the same way. Nobody waits for anybody, and no lock is held here:
//!
//! * The word is read before the host call and looked at after it. Of the same loan both times, the host descriptor has been
//!   that loan's all the time, for it is closed or replaced only after the loan has ended, and generations do not come back.
//! * A position is moved by compare-and-exchange. When another thread has moved it meanwhile, the read is done again at the new
//!   place: each byte is given once.
//! * Whatever is not plain (a bad argument or buffer, an error of the host) is the sentry's, before anything was changed.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use crate::abi::{self, Brought, Fast, Loans, Slot, TASK_SIZE};
use crate::calls::{self, syscall};
use crate::{guest_memory, ready};

pub const FSTAT: u64 = 5;
pub const LSEEK: u64 = 8;
pub const IOCTL: u64 = 16;
pub const NEWFSTATAT: u64 = 262;
const AT_EMPTY_PATH: u64 = 0x1000;
const TCGETS: u64 = 0x5401;
const ENOTTY: i64 = -25;
const SEEK_SET: u64 = 0;
const SEEK_CUR: u64 = 1;
/// `sizeof(struct stat)`.
pub const STAT_BYTES: u64 = 144;

/// What one call moves at most (`MAX_RW_COUNT`); who asks for more has the sentry cut it.
const MOST: u64 = 0x7fff_f000;
/// So often a read is begun again; then the sentry, which holds the others off.
const TRIES: u32 = 4;

/// The result of a read(2) or pread64(2) that needs no sentry.
pub fn answer(slot: &Slot, fast: &Fast) -> Option<u64> {
    if fast.lends.load(Relaxed) == 0 {
        return None;
    }
    let (addr, len) = (slot.argument(1), slot.argument(2));
    let word = loans().words.get(slot.argument(0) as u32 as usize)?;
    if len == 0 || len > MOST || addr > TASK_SIZE - len {
        return None;
    }
    if slot.number() == calls::READ {
        read(word, addr, len)
    } else {
        pread(word, addr, len, slot.argument(3))
    }
}

fn pread(word: &AtomicU64, addr: u64, len: u64, at: u64) -> Option<u64> {
    let before = word.load(Acquire);
    if before == 0 || at > i64::MAX as u64 {
        return None;
    }
    let count = read_at(before, addr, len, at)?;
    Loans::are_one(before, word.load(Acquire)).then_some(count)
}

fn read(word: &AtomicU64, addr: u64, len: u64) -> Option<u64> {
    for _ in 0..TRIES {
        let before = word.load(Acquire);
        let at = Loans::position(before);
        if before == 0 || at + len > Loans::MOST_POSITION {
            return None;
        }
        let count = read_at(before, addr, len, at)?;
        // The position is in the lowest bits, and was found to have room.
        if word.compare_exchange(before, before + count, SeqCst, Relaxed).is_ok() {
            return Some(count);
        }
    }
    None
}

fn read_at(word: u64, addr: u64, len: u64, at: u64) -> Option<u64> {
    if let Some(Front { file, bytes, most }) = Front::find(word) {
        if file.is_dir.load(Relaxed) != 0 {
            return None;
        }
        let there = file.len.load(Relaxed).min(most);
        let left = there.saturating_sub(at);
        if left < len && file.is_whole.load(Relaxed) == 0 {
            return None;
        }
        let count = left.min(len);
        if count == 0 {
            // Told once: who asks again waits for more, which somebody on the host may have added.
            file.is_whole.store(0, Relaxed);
        }
        let is_copied = guest_memory::copy(addr, bytes + at.min(there), count) == 0;
        return (is_copied && file.is_over.load(Acquire) == 0).then_some(count);
    }
    let args = [Loans::descriptor(word), addr, len, at, 0, 0];
    let count = syscall(calls::PREAD64, args);
    // The host never gives more than was asked for; an error is the sentry's to tell.
    u64::try_from(count).ok().filter(|count| *count <= len)
}

fn loans() -> &'static Loans {
    // SAFETY: a part of the channel, all fields atomic.
    unsafe { &*(abi::LOANS_ADDR as *const Loans) }
}

/// fstat(2), lseek(2), and the ioctl(2) by which isatty(3) asks: what lent files answer without a call.
pub fn answer_about(slot: &Slot, fast: &Fast) -> Option<u64> {
    if fast.lends.load(Relaxed) == 0 {
        return None;
    }
    let word = loans().words.get(slot.argument(0) as u32 as usize)?;
    if word.load(Relaxed) == 0 {
        return None;
    }
    match slot.number() {
        FSTAT => fstat(word, slot.argument(1)),
        NEWFSTATAT if is_bare(slot) => fstat(word, slot.argument(2)),
        LSEEK => seek(word, slot.argument(1), slot.argument(2)),
        // Only regular files and directories are lent.
        IOCTL if slot.argument(1) & 0xffff_ffff == TCGETS => Some(ENOTTY as u64),
        _ => None,
    }
}

/// Whether newfstatat(2) names its descriptor itself.
pub fn is_bare(slot: &Slot) -> bool {
    let path = slot.argument(1);
    let place = slot as *const Slot as u64 + abi::BOUNCE_OFFSET;
    slot.argument(3) & 0xffff_ffff == AT_EMPTY_PATH
        && path < TASK_SIZE
        && guest_memory::copy_string(place, path, 1)
}

fn fstat(word: &AtomicU64, addr: u64) -> Option<u64> {
    let before = word.load(Acquire);
    let Front { file, .. } = Front::find(before)?;
    if addr > TASK_SIZE - STAT_BYTES {
        return None;
    }
    let is_copied = guest_memory::copy(addr, &raw const file.stat as u64, STAT_BYTES) == 0;
    let holds = Loans::are_one(before, word.load(Acquire)) && file.is_over.load(Acquire) == 0;
    (is_copied && holds).then_some(0)
}

/// To a place that needs no look at the file.
fn seek(word: &AtomicU64, offset: u64, whence: u64) -> Option<u64> {
    for _ in 0..TRIES {
        let before = word.load(Acquire);
        let at = Loans::position(before);
        let next = match whence & 0xffff_ffff {
            SEEK_SET => offset,
            SEEK_CUR => at.checked_add_signed(offset.cast_signed())?,
            _ => return None,
        };
        if before == 0 || next > Loans::MOST_POSITION {
            return None;
        }
        // A directory's positions are known to the sentry, but for its start.
        let is_dir = Front::find(before).is_some_and(|front| front.file.is_dir.load(Relaxed) != 0);
        if is_dir && (next != 0 || whence & 0xffff_ffff != SEEK_SET) {
            return None;
        }
        if word.compare_exchange(before, before - at + next, SeqCst, Relaxed).is_ok() {
            return Some(next);
        }
    }
    None
}

/// The next records of a directory whose listing is there: getdents64(2).
pub fn list(slot: &Slot, fast: &Fast) -> Option<u64> {
    if fast.lends.load(Relaxed) == 0 {
        return None;
    }
    let word = loans().words.get(slot.argument(0) as u32 as usize)?;
    let (addr, room) = (slot.argument(1), slot.argument(2) & 0xffff_ffff);
    let before = word.load(Acquire);
    let Front { file, bytes, most } = Front::find(before)?;
    let (len, at) = (file.len.load(Relaxed).min(most), Loans::position(before));
    if file.is_dir.load(Relaxed) == 0 || addr > TASK_SIZE - room || at > len {
        return None;
    }
    let mut end = at;
    while end < len {
        let record = record_len(bytes + end)?;
        if end + record - at > room {
            break;
        }
        end += record;
    }
    let count = end - at;
    // Not one fits; or somebody wrote nonsense.
    if (count == 0 && at < len) || end > len {
        return None;
    }
    let is_given = (count == 0 || guest_memory::copy(addr, bytes + at, count) == 0)
        && file.is_over.load(Acquire) == 0
        && word.compare_exchange(before, before + count, SeqCst, Relaxed).is_ok();
    is_given.then_some(count)
}

/// `d_reclen` of a `struct linux_dirent64`.
fn record_len(record: u64) -> Option<u64> {
    const PLACE: u64 = 16;
    const LEAST: u64 = 24;
    // SAFETY: a part of the channel, and aligned, for records are of whole words.
    let word = unsafe { &*((record + PLACE) as *const AtomicU64) };
    let len = word.load(Relaxed) & 0xffff;
    (len >= LEAST && len.is_multiple_of(8)).then_some(len)
}

/// What came along when a file was opened, or before.
struct Front {
    file: &'static Brought,
    /// Where its bytes are, and how many there can be.
    bytes: u64,
    most: u64,
}

impl Front {
    fn find(word: u64) -> Option<Self> {
        if word == 0 {
            return None;
        }
        if let Some(index) = Loans::ready(word) {
            return Some(ready::front(index as usize)).map(|(file, bytes, most)| Self { file, bytes, most });
        }
        let index = Loans::brought(word)?;
        let head = abi::LOANS_ADDR + abi::BROUGHT_OFFSET + index * size_of::<Brought>() as u64;
        let bytes = abi::LOANS_ADDR + abi::BROUGHT_BYTES_OFFSET + index * abi::BROUGHT_BYTES;
        // SAFETY: a part of the channel, all fields atomic.
        let file = unsafe { &*(head as *const Brought) };
        Some(Self { file, bytes, most: abi::BROUGHT_BYTES })
    }
}

/// A descriptor of a file that lay ready has its position now.
pub fn begin(number: u64, word: u64) {
    if let Some(place) = loans().words.get(number as usize) {
        place.store(word, SeqCst);
    }
}

/// Whether what guest code has of a descriptor lay ready: then that is of its number, whoever else means the file.
pub fn was_ready(number: u64) -> bool {
    loans().words.get(number as usize).is_some_and(|word| Loans::ready(word.load(Relaxed)).is_some())
}

/// Whether guest code has the position of a descriptor's file.
pub fn is_lent(number: u64) -> bool {
    loans().words.get(number as usize).is_none_or(|word| word.load(Relaxed) != 0)
}

/// The descriptor is closed; where its position was.
pub fn leave(number: u64) -> u64 {
    let Some(word) = loans().words.get(number as usize) else { return 0 };
    if word.load(Relaxed) == 0 { 0 } else { Loans::position(word.swap(0, SeqCst)) }
}

/// Closes the lent descriptors of these places.
pub fn close(places: u64) -> i64 {
    for place in 0..Loans::PLACES {
        if places & 1 << place != 0 {
            // Perhaps it is not there: a copy of the process closes all that its parent ever had.
            syscall(calls::CLOSE, [u64::from(Loans::FIRST_FD + place), 0, 0, 0, 0, 0]);
        }
    }
    0
}
