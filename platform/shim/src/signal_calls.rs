//! Calls about signals that need no sentry.
//!
//! What the guest blocks is its own affair: the mask is in the slot, and the sentry reads it there when it sends or
//! delivers. Only a change that concerns a pending signal is the sentry's. Neither side waits for the other:
//!
//! * The sentry queues a signal, adds it to `pending` (barrier), then reads `mask`: not blocked, it kicks.
//! * The shim writes `mask` (barrier), then reads `pending`: if a signal is in it that the thread does not block both before and
//!   after, the old mask comes back and the sentry carries out the call.
//!
//! So either the shim sees the signal or its sender sees the mask. Whoever reads the new mask although the old one comes
//! back once more has seen what the call, which then goes to the sentry, makes true.
//!
//! Dispositions are the process's, and kept by the sentry: when a thread asks for one, it tells that thread all of them, and
//! from then on every change before whoever made it goes on. What a thread that is alone in its process changes without effect
//! (a default stays the default) the sentry takes from the slot before it matters: when others can ask.
//!
//! The alternate stack lies in the slot, too: only its own thread sets it, and only while that runs somewhere else.
//!
//! Whatever is not plain (a bad argument, a pointer to nowhere) is left to the sentry, before anything was changed.

use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use core::sync::atomic::fence;

use crate::abi::{Fast, Slot};
use crate::calls::SIGALTSTACK;
use crate::words::{read, write};

const RT_SIGACTION: u64 = 13;
const RT_SIGPROCMASK: u64 = 14;
/// `sizeof(sigset_t)` of the kernel.
const SIGSET_BYTES: u64 = 8;
const SIG_DFL: u64 = 0;
/// What the kernel keeps of `sa_flags` (`UAPI_SA_FLAGS`).
const KNOWN_FLAGS: u64 = 0xdc00_0807;
/// SIGKILL and SIGSTOP.
const UNBLOCKABLE: u64 = 1 << 8 | 1 << 18;
/// SIGCHLD, SIGCONT, SIGURG, SIGWINCH: by default they are ignored, and what is pending is discarded when that is set.
const IGNORED_BY_DEFAULT: u64 = 1 << 16 | 1 << 17 | 1 << 22 | 1 << 27;
const SIGCHLD: i32 = 17;
/// `SA_NOCLDSTOP` and `SA_NOCLDWAIT`, which others look at.
const CHILD_FLAGS: u64 = 3;
const EINVAL: u64 = -22_i64 as u64;

/// The result of a call that is answered here.
pub fn answer(slot: &Slot, fast: &Fast) -> Option<u64> {
    match slot.number() {
        RT_SIGACTION => rt_sigaction(slot, fast),
        RT_SIGPROCMASK => rt_sigprocmask(slot, fast),
        SIGALTSTACK => sigaltstack(slot, fast),
        _ => None,
    }
}

/// What a disposition is, where the sentry has told all of them. Setting one is its business, but for what changes nothing:
/// glibc's posix_spawn sets nearly all signals to the default that they have.
fn rt_sigaction(slot: &Slot, fast: &Fast) -> Option<u64> {
    let (signal, new, old) = (slot.argument(0) as i32, slot.argument(1), slot.argument(2));
    let place = usize::try_from(signal).ok()?.checked_sub(1)?;
    let version = fast.actions_version.load(Acquire);
    if slot.argument(3) != SIGSET_BYTES || version == 0 || version % 2 != 0 {
        return None;
    }
    let words = fast.actions.get(place)?;
    let mut action = [0; 4];
    for (to, from) in action.iter_mut().zip(words) {
        *to = from.load(Relaxed);
    }
    fence(Acquire);
    if fast.actions_version.load(Relaxed) != version {
        return None;
    }
    let bit = 1 << place;
    let mut next = None;
    if new != 0 {
        let [handler, flags, restorer, mask] = read(fast, new)?;
        if bit & UNBLOCKABLE != 0 {
            return Some(EINVAL);
        }
        let may_change = fast.may_change.load(Relaxed) & bit != 0;
        let discards = fast.pending.load(SeqCst) & bit & IGNORED_BY_DEFAULT != 0;
        let concerns_others = signal == SIGCHLD && (flags ^ action[1]) & CHILD_FLAGS != 0;
        let is_default = handler == SIG_DFL && action[0] == SIG_DFL;
        if !may_change || discards || concerns_others || !is_default {
            return None;
        }
        next = Some([handler, flags & KNOWN_FLAGS, restorer, mask & !UNBLOCKABLE]);
    }
    if old != 0 {
        write(fast, old, action)?;
    }
    if let Some(next) = next {
        for (to, from) in words.iter().zip(next) {
            to.store(from, Relaxed);
        }
        fast.changed.fetch_or(bit, Relaxed);
    }
    Some(0)
}

fn sigaltstack(slot: &Slot, fast: &Fast) -> Option<u64> {
    const SS_ONSTACK: u64 = 1;
    const SS_DISABLE: u64 = 2;
    const MINSIGSTKSZ: u64 = 2048;
    if fast.has_mask.load(Relaxed) == 0 {
        return None;
    }
    let (new, old) = (slot.argument(0), slot.argument(1));
    let [start, flags, size] = fast.stack.each_ref().map(|word| word.load(Relaxed));
    // A stack may begin with what is under the pointer, but not end with it.
    let is_on_stack = fast.register(Fast::RSP).wrapping_sub(start).wrapping_sub(1) < size;
    if is_on_stack || !matches!(flags, 0 | SS_ONSTACK | SS_DISABLE) {
        return None;
    }
    let mut next = [start, flags, size];
    if new != 0 {
        let [start, flags, size] = read(fast, new)?;
        // Behind the flags are four bytes of no meaning.
        next = match flags & u64::from(u32::MAX) {
            SS_DISABLE => [0, SS_DISABLE, 0],
            flags @ (0 | SS_ONSTACK) if size >= MINSIGSTKSZ => [start, flags, size],
            _ => return None,
        };
    }
    if old != 0 {
        write(fast, old, [start, if size == 0 { SS_DISABLE } else { 0 }, size])?;
    }
    for (to, from) in fast.stack.iter().zip(next) {
        to.store(from, Relaxed);
    }
    Some(0)
}

fn rt_sigprocmask(slot: &Slot, fast: &Fast) -> Option<u64> {
    const SIG_BLOCK: i32 = 0;
    const SIG_UNBLOCK: i32 = 1;
    const SIG_SETMASK: i32 = 2;
    let (how, new, old) = (slot.argument(0) as i32, slot.argument(1), slot.argument(2));
    if fast.has_mask.load(Relaxed) == 0 || slot.argument(3) != SIGSET_BYTES {
        return None;
    }
    let before = fast.mask.load(Relaxed);
    let mut after = before;
    if new != 0 {
        let [set] = read(fast, new)?;
        after = match how {
            SIG_BLOCK => before | set,
            SIG_UNBLOCK => before & !set,
            SIG_SETMASK => set,
            _ => return None,
        };
        after &= !UNBLOCKABLE;
    }
    let is_concerned = || fast.pending.load(SeqCst) & !(before & after) != 0;
    if new != 0 && is_concerned() {
        return None;
    }
    if old != 0 {
        write(fast, old, [before])?;
    }
    if new != 0 {
        fast.mask.swap(after, SeqCst);
        if is_concerned() {
            fast.mask.store(before, SeqCst);
            return None;
        }
    }
    Some(0)
}
