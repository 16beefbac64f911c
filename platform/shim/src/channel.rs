//! The guest's side of a slot: post, wait for the reply, obey.

use core::arch::asm;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use crate::abi::{self, Global, Slot, global_flag, kind, op, ring, state, task};
use crate::calls::{self, die, failed, syscall};
use crate::{clone, fast, guest_memory, library, loans, pipes, vectors};

const FUTEX_WAIT: u64 = 0;

/// The sentry's page.
pub fn global() -> &'static Global {
    // SAFETY: mapped by the zygote before anything else, read-only, all fields atomic.
    unsafe { &*(abi::GLOBAL_ADDR as *const Global) }
}

/// The slot whose stack `address` lies in.
pub fn slot_of(address: u64) -> &'static Slot {
    // SAFETY: a guest that has moved its alternate stack elsewhere faults here and dies.
    unsafe { &*((address & !(abi::SLOT_SIZE - 1)) as *const Slot) }
}

/// Slot number `index` of this process.
pub fn slot(index: u64) -> &'static Slot {
    slot_of(abi::CHANNEL_ADDR + index * abi::SLOT_SIZE)
}

/// Hands the slot to the sentry.
pub fn post(slot: &Slot, what: u32) {
    let marks = fast::fast(slot).noted.load(Relaxed) & kind::MARKS;
    slot.word.store(what | marks, Relaxed);
    // A full barrier: `looking` must be read after this is visible (rule 4).
    slot.state.swap(state::POSTED, SeqCst);
}

/// Why the sentry is not to be waited for any longer.
pub enum Outcome {
    /// Guest code may run.
    Resume,
    /// The state is to be put into a signal's frame first.
    Settle,
}

/// Obeys the sentry until it says that guest code may run. `rang`: what an earlier ring returned, 0 without one.
pub fn serve(slot: &Slot, rang: u64) {
    if matches!(obey(slot, rang), Outcome::Settle) {
        // In a signal it is settled.
        die(109);
    }
}

/// Obeys the sentry until it has no more orders. `rang` as in [`serve`].
pub fn obey(slot: &Slot, mut rang: u64) -> Outcome {
    loop {
        let fd = wait(slot, core::mem::take(&mut rang));
        let order = slot.state.load(Acquire);
        match order {
            state::RESUME | state::EXECUTE => {
                let word = slot.word.load(Relaxed);
                // Nothing is written to that line now: the sentry looks at it, and would take it away from the next post.
                if word & task::OPS == 0 && order == state::RESUME {
                    if fast::copy_out(slot, word) {
                        return Outcome::Resume;
                    }
                    post(slot, kind::COPY_FAILED);
                    continue;
                }
                slot.state.store(state::RUNNING, Relaxed);
                let ok = execute(slot, word, fd);
                if order == state::EXECUTE {
                    let has_made = ok && is_birth(slot);
                    post(slot, kind::OPS_DONE);
                    if has_made {
                        await_birth(slot);
                    }
                } else if ok && fast::copy_out(slot, word) {
                    return Outcome::Resume;
                } else if ok {
                    post(slot, kind::COPY_FAILED);
                } else {
                    post(slot, kind::DEFER_FAILED);
                }
            }
            state::SETTLE => {
                slot.state.store(state::RUNNING, Relaxed);
                return Outcome::Settle;
            }
            state::EXIT => loop {
                syscall(calls::EXIT, [0; 6]);
            },
            _ => die(103),
        }
    }
}

/// Whether the order was to make a thread or process.
fn is_birth(slot: &Slot) -> bool {
    matches!(slot.ops[0].nr.load(Relaxed), op::CLONE_THREAD | op::FORK)
}

/// Waits for the reply without a ring: the sentry finds what is posted when it hears the newborn's (rule 8). Not when it
/// has heard that before, and not for long: a newborn may die.
fn await_birth(slot: &Slot) {
    const NANOSECONDS: u64 = 5_000_000;
    const ETIMEDOUT: i64 = -110;
    sleep_while(slot, |state| {
        if slot.born.load(SeqCst) != 0 {
            return false;
        }
        let time = [0, NANOSECONDS];
        let word = &raw const slot.state as u64;
        let args = [word, FUTEX_WAIT, u64::from(state), time.as_ptr() as u64, 0, 0];
        syscall(calls::FUTEX, args) != ETIMEDOUT
    });
}

/// Waits until the slot is ours again; returns what the doorbell returned, if it rang.
fn wait(slot: &Slot, mut rang: u64) -> u64 {
    loop {
        match slot.state.load(Acquire) {
            state::POSTED => {
                if global().looking.load(SeqCst) == 0 {
                    rang = calls::ring(ring::EVENT, 0);
                } else if !spin(slot) {
                    sleep(slot);
                }
            }
            state::LONG | state::POSTED_ASLEEP | state::LONG_ASLEEP => sleep(slot),
            state::RING => rang = calls::ring(ring::EVENT, 0),
            _ => return rang,
        }
    }
}

/// Looks for the reply for a while.
fn spin(slot: &Slot) -> bool {
    for _ in 0..global().spins.load(Relaxed) {
        if slot.state.load(Relaxed) != state::POSTED {
            return true;
        }
        core::hint::spin_loop();
    }
    false
}

/// Sleeps until the reply is there. Who replies sees by the word that it must wake us.
fn sleep(slot: &Slot) {
    sleep_while(slot, |state| {
        let word = &raw const slot.state as u64;
        syscall(calls::FUTEX, [word, FUTEX_WAIT, u64::from(state), 0, 0, 0]);
        true
    });
}

/// Calls what sleeps on a state until that has changed or it says not to go on (rule 7).
fn sleep_while(slot: &Slot, mut rest: impl FnMut(u32) -> bool) {
    loop {
        let now = slot.state.load(Acquire);
        let (awake, asleep) = match now {
            state::POSTED | state::POSTED_ASLEEP => (state::POSTED, state::POSTED_ASLEEP),
            state::LONG | state::LONG_ASLEEP => (state::LONG, state::LONG_ASLEEP),
            _ => return,
        };
        if asleep != now && slot.state.compare_exchange(now, asleep, SeqCst, Relaxed).is_err() {
            continue;
        }
        if !rest(asleep) {
            // When it was changed meanwhile there is nothing to take back.
            let _ = slot.state.compare_exchange(asleep, awake, SeqCst, Relaxed);
            return;
        }
    }
}

/// Carries out the operations, in order, up to the first that fails; true when none did.
fn execute(slot: &Slot, word: u32, fd: u64) -> bool {
    let mut done = 0;
    let mut errno = 0;
    for order in slot.ops.iter().take((word & task::OPS) as usize) {
        let nr = order.nr.load(Relaxed);
        let mut args = [0; 6];
        for (to, from) in args.iter_mut().zip(&order.args) {
            *to = from.load(Relaxed);
        }
        let ret = match nr {
            op::SET_FS => set_base(true, args[0]),
            op::SET_GS => set_base(false, args[0]),
            op::COMPARE_EXCHANGE => {
                guest_memory::compare_exchange(args[0], args[1] as u32, args[2] as u32)
            }
            op::CLONE_THREAD => clone::thread(slot, args[0], args[1], args[2]),
            op::FORK => clone::process(Some(slot), args[0], fd),
            op::NOTHING => 0,
            op::RESET_VECTORS => vectors::reset_vectors(slot),
            op::LOAD_STATE => vectors::load(slot),
            op::CLOSE_LOANS => loans::close(args[0]),
            calls::MMAP | op::MAP_STREAM => {
                if args[4] == abi::FD_OF_RING {
                    args[4] = fd;
                    if nr == calls::MMAP {
                        library::note_descriptor(fast::fast(slot), fd);
                    }
                }
                if nr == op::MAP_STREAM { pipes::map(args) } else { syscall(nr, args) }
            }
            _ => syscall(nr, args),
        };
        if failed(ret) {
            errno = -ret as u32;
            break;
        }
        slot.result.store(ret as u64, Relaxed);
        done += 1;
    }
    if word & task::HAS_FD != 0 {
        syscall(calls::CLOSE, [fd, 0, 0, 0, 0, 0]);
    }
    slot.errno.store(errno, Relaxed);
    // Whoever sees that all is done may go on with what comes after.
    slot.ops_done.store(done, Release);
    errno == 0
}

/// Whether the base registers can be read and written without a host call.
fn has_fsgsbase() -> bool {
    global().flags.load(Relaxed) & global_flag::FSGSBASE != 0
}

/// Loads the base of fs (or gs).
pub fn set_base(fs: bool, base: u64) -> i64 {
    const ARCH_SET_GS: u64 = 0x1001;
    const ARCH_SET_FS: u64 = 0x1002;
    const CANONICAL: u64 = 1 << 47;
    const EPERM: i64 = -1;
    if base >= CANONICAL {
        return EPERM;
    }
    if !has_fsgsbase() {
        let which = if fs { ARCH_SET_FS } else { ARCH_SET_GS };
        return syscall(calls::ARCH_PRCTL, [which, base, 0, 0, 0, 0]);
    }
    // SAFETY: the sentry said that the instructions work; this blob uses neither register.
    unsafe {
        if fs {
            asm!("wrfsbase {}", in(reg) base, options(nostack, nomem));
        } else {
            asm!("wrgsbase {}", in(reg) base, options(nostack, nomem));
        }
    }
    0
}

/// The base of fs, where it can be told without a host call.
pub fn fs_base() -> Option<u64> {
    if !has_fsgsbase() {
        return None;
    }
    let fs;
    // SAFETY: the sentry said that the instruction works.
    unsafe { asm!("rdfsbase {}", out(reg) fs, options(nostack, nomem)) };
    Some(fs)
}

/// The base of gs; 0 where it cannot be told without a host call.
pub fn gs_base() -> u64 {
    if !has_fsgsbase() {
        return 0;
    }
    let gs;
    // SAFETY: the sentry said that the instruction works.
    unsafe { asm!("rdgsbase {}", out(reg) gs, options(nostack, nomem)) };
    gs
}

/// Tells the sentry the bases of fs and gs, where that is cheap.
pub fn publish_bases(slot: &Slot) {
    if let Some(fs) = fs_base() {
        slot.fs_base.store(fs, Relaxed);
        slot.gs_base.store(gs_base(), Relaxed);
    }
}
