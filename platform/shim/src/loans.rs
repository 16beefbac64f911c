//! Reads of lent files, by the host's own pread64(2).
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

use crate::abi::{self, Fast, Loans, Slot, TASK_SIZE};
use crate::calls::{self, syscall};

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
    let args = [Loans::descriptor(word), addr, len, at, 0, 0];
    let count = syscall(calls::PREAD64, args);
    // The host never gives more than was asked for; an error is the sentry's to tell.
    u64::try_from(count).ok().filter(|count| *count <= len)
}

fn loans() -> &'static Loans {
    // SAFETY: a part of the channel, all fields atomic.
    unsafe { &*(abi::LOANS_ADDR as *const Loans) }
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
