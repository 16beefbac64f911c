//! Pipes whose ring this process has mapped: written and read without a call, as long as there is room, or something to be read.
//!
//! The bytes come first, then the position moves by compare-and-exchange: when the sentry has changed anything meanwhile, it fails, nothing
//! was written or read, and the call is the sentry's. So is a write that is not done as a whole, for the writer does not see how far the
//! reader is, and what goes beyond a limit, for somebody waits for that.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use crate::abi::{self, Fast, STREAM_STRIDE, STREAMS_ADDR, Slot, Streams, TASK_SIZE};
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
    let size = streams.sizes.get(place)?.load(Relaxed);
    let ring = STREAMS_ADDR + place as u64 * STREAM_STRIDE;
    // SAFETY: mapped with the ring, which is there as long as `ends` says so; atomic.
    let head = unsafe { &*((ring + size) as *const AtomicU64) };
    let word = if writes { head } else { streams.words.get(place)? };
    let before = word.load(Acquire);
    let (at, limit) = (Streams::position(before), streams.limits.get(place)?.load(Acquire));
    let (addr, mut len) = (slot.argument(1), slot.argument(2));
    if !writes {
        let head = head.load(Acquire);
        let there = if head == 0 { 0 } else { Streams::position(head).wrapping_sub(at) };
        len = len.min(there);
    }
    if before == 0 || len == 0 || len > size || at + len > limit || addr > TASK_SIZE - len {
        return None;
    }
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
        let place = args[0].wrapping_sub(STREAMS_ADDR) / STREAM_STRIDE;
        if let Some(end) = streams().ends.get(place as usize) {
            end.store(0, Relaxed);
        }
    }
    0
}

fn streams() -> &'static Streams {
    // SAFETY: a part of the channel, all fields atomic.
    unsafe { &*((abi::LOANS_ADDR + abi::STREAMS_OFFSET) as *const Streams) }
}
