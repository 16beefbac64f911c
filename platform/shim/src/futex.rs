//! Private futexes: threads of an address space wake each other without the sentry.
//!
//! A wait that needs nothing of the sentry is the host's own FUTEX_WAIT on the same word. Others (with a relative timeout, from
//! a site that traps, futex_waitv(2), whoever was interrupted) are in the sentry; so waiters of one word may be in both places,
//! and whoever wakes must reach both:
//!
//! * Both sides count ([`Waits`]) before they look at the word. Who wakes has changed the word before (barrier), then looks at the
//!   counts: somebody waits in the sentry, it asks the sentry, which wakes its own first and then orders a wake-up on the host;
//!   nobody waits anywhere, there is nothing to do.
//! * What cannot be done in two places (requeue, FUTEX_WAKE_OP) the sentry does after it has ended all waits on the host: it
//!   clears `host_futexes` and kicks the sleepers. A sleeper counts itself before it looks at that word a last time.
//!
//! A kick ends a wait on the host: the call goes to the sentry as if it had only just been made, and stays counted as on the host
//! until it is in the sentry's queue. A kick that comes before the host call has begun makes it not begin ([`on_kick`]).

use core::arch::naked_asm;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicU32, fence};

use crate::abi::{Fast, Slot, TASK_SIZE, Waits, sleep};
use crate::calls::{self, syscall};
use crate::channel;

const WAIT: u32 = 0;
const WAKE: u32 = 1;
const WAIT_BITSET: u32 = 9;
const WAKE_BITSET: u32 = 10;
const PRIVATE: u32 = 0x80;
const REALTIME: u32 = 0x100;
const COMMAND: u32 = 0x7f;
const EINTR: i64 = -4;
/// Bytes of a `struct timespec`.
const TIMESPEC: u64 = 16;

/// The result of a futex(2) that needs no sentry.
pub fn answer(slot: &Slot, fast: &Fast) -> Option<u64> {
    let first = channel::slot(0);
    let (addr, op) = (slot.argument(0), slot.argument(1) as u32);
    let (timeout, bitset) = (slot.argument(3), slot.argument(5) as u32);
    let is_plain = first.host_futexes.load(Relaxed) != 0
        && op & PRIVATE != 0
        && addr % 4 == 0
        && addr < TASK_SIZE;
    if !is_plain {
        return None;
    }
    match (op & COMMAND, op & !(COMMAND | PRIVATE)) {
        (WAIT, 0) if timeout == 0 => wait(slot, fast, first),
        (WAIT_BITSET, 0 | REALTIME) if timeout <= TASK_SIZE - TIMESPEC && bitset != 0 => {
            wait(slot, fast, first)
        }
        (WAKE, 0) => wake(slot, first),
        (WAKE_BITSET, 0) if bitset != 0 => wake(slot, first),
        _ => None,
    }
}

fn wait(slot: &Slot, fast: &Fast, first: &Slot) -> Option<u64> {
    let addr = slot.argument(0);
    let count = first.waits.on_host.get(Waits::bucket(addr))?;
    slot.asleep.store(sleep::ASLEEP, Relaxed);
    count.fetch_add(1, SeqCst);
    let is_allowed = first.host_futexes.load(SeqCst) != 0;
    let ret = if is_allowed {
        let (op, val) = (slot.argument(1), slot.argument(2));
        // SAFETY: the kernel checks all it is given.
        unsafe { wait_on_host(addr, op, val, &fast.kicked, slot.argument(3), slot.argument(5)) }
    } else {
        EINTR
    };
    if ret == EINTR {
        slot.asleep.store(sleep::INTERRUPTED, Relaxed);
        return None;
    }
    count.fetch_sub(1, SeqCst);
    slot.asleep.store(sleep::AWAKE, Relaxed);
    Some(ret as u64)
}

fn wake(slot: &Slot, first: &Slot) -> Option<u64> {
    let addr = slot.argument(0);
    let bucket = Waits::bucket(addr);
    // The guest has changed the word before.
    fence(SeqCst);
    if first.waits.in_sentry.get(bucket)?.load(SeqCst) != 0 {
        return None;
    }
    if first.waits.on_host.get(bucket)?.load(SeqCst) == 0 {
        return Some(0);
    }
    let args = [addr, slot.argument(1), slot.argument(2), 0, 0, slot.argument(5)];
    Some(syscall(calls::FUTEX, args) as u64)
}

/// futex(2), unless a kick came: then EINTR, as when one comes during it.
#[unsafe(naked)]
unsafe extern "C" fn wait_on_host(
    addr: u64,
    op: u64,
    val: u64,
    kicked: &AtomicU32,
    timeout: u64,
    bitset: u64,
) -> i64 {
    naked_asm!(
        "mov r10, r8",
        "xor r8d, r8d",
        "mov eax, {futex}",
        ".globl shim_sleep",
        "shim_sleep:",
        "cmp dword ptr [rcx], 0",
        "jne shim_sleep_kicked",
        "syscall",
        ".globl shim_sleep_end",
        "shim_sleep_end:",
        "ret",
        ".globl shim_sleep_kicked",
        "shim_sleep_kicked:",
        "mov rax, {interrupted}",
        "ret",
        futex = const calls::FUTEX,
        interrupted = const EINTR,
    )
}

/// Where to go on after a kick at `rip`, if the wait that is about to begin must not.
pub fn on_kick(rip: u64) -> Option<u64> {
    (label!("shim_sleep")..label!("shim_sleep_end"))
        .contains(&rip)
        .then(|| label!("shim_sleep_kicked"))
}
