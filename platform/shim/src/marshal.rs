//! Small inputs of a call go with it in the slot, small outputs come back in it: spares the sentry a host call for each.
//!
//! What the sentry then reads of guest memory is the call's *inputs* where it asks for these; what it writes within the
//! call's *outputs* is copied out before guest code runs. Both are offers: who finds nothing here uses
//! process_vm_readv(2) and process_vm_writev(2). An output is offered only when all of it was found writable; when that
//! is not so any more at the end, the call fails with EFAULT.
//!
//! Never offered: words that other threads change to be seen at once (futexes).

use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{Fast, Slot, argument_offset, given_offset, keeps_state, task};
use crate::calls::{ARCH_PRCTL, BRK, CLOSE, FUTEX, MMAP, MUNMAP, SIGALTSTACK};
use crate::descriptors::{DUP, FCNTL};
use crate::fast;
use crate::guest_memory::{self, PAGE};
use crate::loans::{IOCTL, LSEEK};
use crate::memory_calls::MPROTECT;
use crate::ready::{GETDENTS64, OPENAT};
use crate::pointers::{Kind, MOST, Places, Pointer, inline_place, pointers};
use crate::start_calls::{PRLIMIT64, SET_ROBUST_LIST, SET_TID_ADDRESS};

/// Calls beyond have no pointers that are known here.
pub const NUMBERS: usize = 440;
/// Which calls have something to bring along, or may be answered by compiled code.
pub static IS_WANTED: [bool; NUMBERS] = {
    let mut all = [false; NUMBERS];
    let mut number = 0;
    while number < NUMBERS {
        let has_pointers = !matches!(pointers(number as u64)[0], Pointer::None);
        all[number] = has_pointers || keeps_state(number as u64);
        number += 1;
    }
    let answered = [
        FUTEX, SIGALTSTACK, ARCH_PRCTL, BRK, SET_TID_ADDRESS, SET_ROBUST_LIST, PRLIMIT64, MPROTECT, MUNMAP,
        MMAP, CLOSE, DUP, FCNTL, LSEEK, IOCTL, OPENAT, GETDENTS64,
    ];
    let mut index = 0;
    while index < answered.len() {
        all[answered[index] as usize] = true;
        index += 1;
    }
    all
};

/// Offers what the call points to: a bit for each pointer that goes with it.
pub fn offer(slot: &Slot) -> u32 {
    let fast = fast::fast(slot);
    let mut places = Places::first();
    let mut offered = 0;
    let mut has_output = false;
    for (index, pointer) in pointers(slot.number()).into_iter().enumerate() {
        let Some((kind, addr, len)) = pointer.resolve(|index| slot.argument(index)) else { break };
        let Some(mut place) = places.place(addr, len) else { continue };
        let inline = inline_place(slot.number(), kind, len);
        // Arguments that the call does not have are lost by this: guest code gets its registers from elsewhere.
        place = inline.unwrap_or(place);
        // That is copied with the arguments when the call is posted.
        let to = slot as *const Slot as u64 + inline.map_or(place, |at| at - argument_offset(0) + given_offset(0));
        let is_there = match kind {
            Kind::String => guest_memory::copy_string(to, addr, len),
            Kind::Input => guest_memory::copy(to, addr, len) == 0,
            Kind::Output => is_writable(addr, len),
        };
        if !is_there {
            continue;
        }
        if kind == Kind::Output && !has_output {
            has_output = true;
            fast.output_addr.store(addr, Relaxed);
            fast.output_place.store(place, Relaxed);
        }
        if inline.is_none() {
            places.take(len);
        }
        offered |= 1 << index;
    }
    offered
}

fn is_writable(addr: u64, len: u64) -> bool {
    let last = addr + (len - 1);
    let mut page = addr;
    while page <= last {
        if !guest_memory::is_writable(page) {
            return false;
        }
        page = (page & !(PAGE - 1)) + PAGE;
    }
    true
}

const _: () = assert!(MOST <= task::MOST_OUTPUT);

/// Copies the front of the call's first output; false when guest memory is not there any more. `is_inline`: it is in the line of
/// the call.
pub fn copy_front(slot: &Slot, len: u64, is_inline: bool) -> bool {
    let fast = fast::fast(slot);
    let place = if is_inline { argument_offset(0) } else { fast.output_place.load(Relaxed) };
    let from = slot as *const Slot as u64 + place;
    guest_memory::copy(fast.output_addr.load(Relaxed), from, len) == 0
}

/// Copies out what the sentry wrote; false when guest memory is not there any more.
pub fn copy_out(slot: &Slot, fast: &Fast, count: u32) -> bool {
    for copy in fast.copies.iter().take(count as usize) {
        let (addr, len) = (copy.addr.load(Relaxed), u64::from(copy.len.load(Relaxed)));
        let from = slot as *const Slot as u64 + u64::from(copy.place.load(Relaxed));
        if guest_memory::copy(addr, from, len) != 0 {
            return false;
        }
    }
    true
}
