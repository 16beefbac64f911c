//! brk(2) within what the sentry lends: addresses that are free, or the heap's, of a thread that is alone with them. The sentry
//! hears of it with the next event (see [`notes`]).

use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{Fast, Slot};
use crate::calls::{BRK, MMAP, MUNMAP, syscall};
use crate::guest_memory::PAGE;
use crate::notes;

const PROT_READ_WRITE: u64 = 3;
/// MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS.
const FLAGS: u64 = 0x32;

/// The result of a call that is carried out here.
pub fn answer(slot: &Slot, fast: &Fast) -> Option<u64> {
    let end = fast.heap.end.load(Relaxed);
    let new = slot.argument(0);
    if end == 0 {
        return None;
    }
    if new == 0 || new == end {
        return Some(end);
    }
    let (start, limit) = (fast.heap.start.load(Relaxed), fast.heap.limit.load(Relaxed));
    if !(start..=limit).contains(&new) || !notes::have_room(fast) || !resize(end, new) {
        return None;
    }
    fast.heap.end.store(new, Relaxed);
    note(fast, end, new);
    Some(new)
}

/// Whether a range has memory of the heap.
pub fn is_part(fast: &Fast, addr: u64, len: u64) -> bool {
    let (start, end) = (fast.heap.start.load(Relaxed), fast.heap.end.load(Relaxed));
    fast.heap.limit.load(Relaxed) != 0 && addr < page_up(end) && start < addr + page_up(len)
}

/// Whether the host has mapped, or unmapped, what is between two ends.
fn resize(old: u64, new: u64) -> bool {
    let (old, new) = (page_up(old), page_up(new));
    if new > old {
        let args = [old, new - old, PROT_READ_WRITE, FLAGS, u64::MAX, 0];
        return syscall(MMAP, args) == old.cast_signed();
    }
    new == old || syscall(MUNMAP, [new, old - new, 0, 0, 0, 0]) == 0
}

/// Two moves in one direction are one.
fn note(fast: &Fast, old: u64, new: u64) {
    if let Some(last) = notes::last(fast) {
        let [number, from, to] = last.0.each_ref().map(|word| word.load(Relaxed));
        if number == BRK && (from < to) == (old < new) {
            last.0[2].store(new, Relaxed);
            return;
        }
    }
    notes::write(fast, [BRK, old, new]);
}

fn page_up(addr: u64) -> u64 {
    addr.wrapping_add(PAGE - 1) & !(PAGE - 1)
}
