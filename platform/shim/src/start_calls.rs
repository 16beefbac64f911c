//! Calls that every program makes at its start, to say what matters at the end only or to ask what the sentry has told
//! already. As with signals, whatever is not plain is left to the sentry.

use core::sync::atomic::Ordering::{Acquire, Relaxed};
use core::sync::atomic::fence;

use crate::abi::{Fast, Slot, TASK_SIZE, answer};
use crate::calls::ARCH_PRCTL;
use crate::channel;
use crate::words::write;

pub const SET_TID_ADDRESS: u64 = 218;
pub const SET_ROBUST_LIST: u64 = 273;
pub const PRLIMIT64: u64 = 302;
/// `sizeof(struct robust_list_head)`.
const HEAD_BYTES: u64 = 24;
const ARCH_SET_FS: u64 = 0x1002;
const RLIMIT_STACK: u64 = 3;

/// The result of a call that is answered here.
pub fn answer(slot: &Slot, fast: &Fast) -> Option<u64> {
    if fast.has_mask.load(Relaxed) == 0 {
        return None;
    }
    match slot.number() {
        ARCH_PRCTL => arch_prctl(slot),
        SET_TID_ADDRESS => set_tid_address(slot, fast),
        SET_ROBUST_LIST => set_robust_list(slot, fast),
        PRLIMIT64 => prlimit64(slot, fast),
        _ => None,
    }
}

/// The thread pointer is the thread's own affair. Rewritten sites are there only where guest code can set it itself.
fn arch_prctl(slot: &Slot) -> Option<u64> {
    let (code, base) = (slot.argument(0), slot.argument(1));
    if code & 0xffff_ffff != ARCH_SET_FS || base >= TASK_SIZE {
        return None;
    }
    (channel::set_base(true, base) == 0).then_some(0)
}

/// The sentry looks at it when the thread ends, or somebody asks.
fn set_tid_address(slot: &Slot, fast: &Fast) -> Option<u64> {
    if fast.answered.load(Relaxed) & 1 << answer::TID == 0 {
        return None;
    }
    fast.tid_address.store(slot.argument(0), Relaxed);
    Some(fast.answers[answer::TID as usize].load(Relaxed))
}

/// The same.
fn set_robust_list(slot: &Slot, fast: &Fast) -> Option<u64> {
    if slot.argument(1) != HEAD_BYTES {
        return None;
    }
    fast.robust_list.store(slot.argument(0), Relaxed);
    Some(0)
}

/// What the own stack's limit is: every C library asks at the start.
fn prlimit64(slot: &Slot, fast: &Fast) -> Option<u64> {
    let [pid, resource, new, old] = [0, 1, 2, 3].map(|index| slot.argument(index));
    if pid as u32 != 0 || resource & 0xffff_ffff != RLIMIT_STACK || new != 0 || old == 0 {
        return None;
    }
    let [soft, hard] = &fast.stack_limit;
    let max = hard.load(Acquire);
    let cur = soft.load(Relaxed);
    fence(Acquire);
    // While it changes the hard limit is 0.
    if max == 0 || hard.load(Relaxed) != max {
        return None;
    }
    write(fast, old, [cur, max])?;
    Some(0)
}
