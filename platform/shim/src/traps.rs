//! Calls that came by a signal and go on as if their site were rewritten.
//!
//! What the shim can answer then needs no sentry, and what it cannot brings its inputs along: it has cost a signal, but no more.
//! The handler leads the way back from the signal into the entry of rewritten sites, with the registers as their trampolines leave
//! them, and writes down which site it was: it is the sentry's to rewrite it when it traps often.

use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{Slot, global_flag, kind};
use crate::{channel, fast, notes};

const RAX: u64 = 13;
const RCX: u64 = 14;
const RIP: u64 = 16;
const EFLAGS: u64 = 17;
const TRAP_FLAG: u64 = 1 << 8;

/// Changes the registers at `gregs` so that the way back from the signal leads into the entry; false: the call is an event of its own.
///
/// # Safety
/// `gregs` is that of a frame on the slot's stack, for a call that trapped.
pub unsafe fn redirect(slot: &Slot, gregs: u64) -> bool {
    // SAFETY: by the contract.
    let read = |index: u64| unsafe { ((gregs + 8 * index) as *const u64).read() };
    let [number, behind, rip, flags] = [RAX, RCX, RIP, EFLAGS].map(read);
    let has_entry = channel::global().flags.load(Relaxed) & global_flag::SLOT_IN_GS != 0;
    // Guest code may use gs itself, step itself, or call by the kernel's own page, which no instruction is behind.
    if !has_entry
        || channel::gs_base() != slot as *const Slot as u64
        || behind != rip
        || flags & TRAP_FLAG != 0
    {
        return false;
    }
    let fast = fast::fast(slot);
    let count = fast.trap_count.load(Relaxed);
    let Some([to_site, to_number]) = fast.traps.get(count as usize) else { return false };
    to_site.store(rip, Relaxed);
    to_number.store(number, Relaxed);
    fast.trap_count.store(count + 1, Relaxed);
    notes::mark(fast, kind::TRAPPED);
    // SAFETY: by the contract.
    unsafe { ((gregs + 8 * RIP) as *mut u64).write(fast::enter as *const () as u64) };
    true
}
