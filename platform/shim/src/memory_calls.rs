//! Calls about memory that the shim carries out itself, of a thread that is alone in its address space: what takes something
//! away, so that the sentry need not agree. It hears of them with the next event (see [`notes`]), before it or anybody
//! else looks at the layout.

use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{Fast, MIN_ADDR, Slot, TASK_SIZE};
use crate::calls::{MUNMAP, failed, syscall};
use crate::guest_memory::PAGE;
use crate::{heap, notes};

pub const MPROTECT: u64 = 10;
const PROT_READ: u64 = 1;
/// Longer ranges are unmapped by the sentry's order: it should know soon that so much memory is free.
const MOST_UNMAPPED: u64 = 256 << 10;

/// The result of a call that is carried out here.
pub fn answer(slot: &Slot, fast: &Fast) -> Option<u64> {
    let [addr, len, prot] = [0, 1, 2].map(|index| slot.argument(index));
    let number = slot.number();
    let is_plain = match number {
        MPROTECT => prot == PROT_READ,
        MUNMAP => len <= MOST_UNMAPPED,
        _ => false,
    };
    if !is_plain || fast.is_alone.load(Relaxed) == 0 {
        return None;
    }
    let is_in_guest = addr >= MIN_ADDR && addr < TASK_SIZE && len <= TASK_SIZE - addr;
    if len == 0 || !addr.is_multiple_of(PAGE) || !is_in_guest || !notes::have_room(fast) {
        return None;
    }
    if number == MUNMAP && heap::is_part(fast, addr, len) {
        return None;
    }
    if failed(syscall(number, [addr, len, prot, 0, 0, 0])) {
        // As far as it went, it goes again; the sentry says what is wrong.
        return None;
    }
    notes::write(fast, [number, addr, len]);
    Some(0)
}
