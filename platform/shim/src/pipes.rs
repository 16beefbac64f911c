//! Pipes whose ring this process has mapped: written and read without a call, as long as there is room, or something to be read.
//!
//! The bytes come first, then the position moves by compare-and-exchange: when the sentry has changed anything meanwhile, it fails, nothing
//! was written or read, and the call is the sentry's. So is every transfer that is not done as a whole: only the sentry knows how far the
//! other end is by now.

use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use crate::abi::{self, Fast, MOST_STREAM, STREAMS_ADDR, Slot, Streams, TASK_SIZE};
use crate::calls::{self, failed, syscall};
use crate::guest_memory;

/// The result of a read(2) or write(2) that needs no sentry.
pub fn answer(slot: &Slot, fast: &Fast) -> Option<u64> {
    let writes = slot.number() == calls::WRITE;
    let end = Streams::end(slot.argument(0) as u32, writes);
    let streams = streams();
    let place = streams.ends.iter().position(|known| known.load(Relaxed) == end)?;
    // Another thread could be at the same bytes.
    if fast.is_alone.load(Relaxed) == 0 {
        return None;
    }
    let word = streams.words.get(place)?;
    let (before, size) = (word.load(Acquire), streams.sizes.get(place)?.load(Relaxed));
    let (at, limit) = (Streams::position(before), streams.limits.get(place)?.load(Acquire));
    let (addr, len) = (slot.argument(1), slot.argument(2));
    if before == 0 || len == 0 || len > size || at + len > limit || addr > TASK_SIZE - len {
        return None;
    }
    let ring = STREAMS_ADDR + place as u64 * MOST_STREAM;
    let offset = at & size.wrapping_sub(1);
    let first = len.min(size.wrapping_sub(offset));
    let is_moved = transfer(writes, ring + offset, addr, first)
        && transfer(writes, ring, addr + first, len - first)
        && word.compare_exchange(before, before + len, SeqCst, Relaxed).is_ok();
    is_moved.then_some(len)
}

/// Copies bytes into the ring or out of it; false when the guest's are not there.
fn transfer(writes: bool, ring: u64, guest: u64, len: u64) -> bool {
    let (to, from) = if writes { (ring, guest) } else { (guest, ring) };
    guest_memory::copy(to, from, len) == 0
}

/// Maps a ring, or sees to it that no former one is there.
pub fn map(args: [u64; 6]) -> i64 {
    if failed(syscall(calls::MMAP, args)) {
        syscall(calls::MUNMAP, [args[0], args[1], 0, 0, 0, 0]);
    }
    0
}

fn streams() -> &'static Streams {
    // SAFETY: a part of the channel, all fields atomic.
    unsafe { &*((abi::LOANS_ADDR + abi::STREAMS_OFFSET) as *const Streams) }
}
