//! Every way out of guest code is a signal; this is its handler.

use core::arch::naked_asm;
use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{GLOBAL_ADDR, KICK_SIGNAL, SHIM_BASE, SLOT_SIZE, kind};
use crate::calls::{self, die, failed, syscall};
use crate::{channel, fast, guest_memory, questions, traps};

const SIGILL: i32 = 4;
const SIGTRAP: i32 = 5;
const SIGBUS: i32 = 7;
const SIGFPE: i32 = 8;
const SIGSEGV: i32 = 11;
const SIGSYS: i32 = 31;

/// `struct kernel_sigaction`.
#[repr(C)]
struct Action {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

/// Installs the handler. Everything is blocked while it runs, but for the faults that `guest_memory` expects:
/// a kick that arrives meanwhile is delivered by the rt_sigreturn that leads back to guest code (rule 6).
pub fn install() {
    const SA_SIGINFO: u64 = 4;
    const SA_NODEFER: u64 = 0x4000_0000;
    const SA_ONSTACK: u64 = 0x0800_0000;
    const SA_RESTORER: u64 = 0x0400_0000;
    let faults = 1 << (SIGSEGV - 1) | 1 << (SIGBUS - 1);
    for signal in [SIGSYS, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, KICK_SIGNAL] {
        let action = Action {
            handler: on_signal as *const () as u64,
            flags: SA_SIGINFO | SA_ONSTACK | SA_RESTORER | SA_NODEFER,
            restorer: restorer as *const () as u64,
            mask: !faults,
        };
        let pointer = &raw const action as u64;
        if failed(syscall(calls::RT_SIGACTION, [signal as u64, pointer, 0, 8, 0, 0])) {
            die(106);
        }
    }
}

#[unsafe(naked)]
unsafe extern "C" fn restorer() {
    naked_asm!("mov eax, 15", "syscall", "ud2")
}

/// Index of rip in `uc_mcontext.gregs`, and the offset of the latter in `ucontext`.
const GREGS: u64 = 40;
const RIP: u64 = 16;

/// Posts the signal and obeys; returning resumes what the (by then perhaps rewritten) frame says.
extern "C" fn on_signal(signal: i32, _info: u64, context: u64) {
    let rip = (context + GREGS + RIP * 8) as *mut u64;
    // SAFETY: the kernel's own frame, on our stack.
    let at = unsafe { rip.read() };
    let slot = channel::slot_of(context);
    // A state to be settled is an event as any, and so is an undefined instruction: who jumps there has come for it.
    let is_settled = signal == SIGTRAP && at == label!("shim_settled");
    if (SHIM_BASE..GLOBAL_ADDR).contains(&at) && signal != SIGILL && !is_settled {
        let resume = match signal {
            SIGSEGV | SIGBUS => guest_memory::fixup(at).unwrap_or_else(|| die(107)),
            KICK_SIGNAL => fast::on_kick(slot, at),
            // A guest that steps itself steps through here unnoticed.
            SIGTRAP => at,
            _ => die(107),
        };
        // SAFETY: as above.
        unsafe { rip.write(resume) };
        return;
    }
    // SAFETY: as above.
    if signal == SIGSYS && unsafe { traps::redirect(slot, context + GREGS) } {
        return;
    }
    // SAFETY: as above.
    if signal == SIGTRAP && unsafe { questions::answer(slot, context + GREGS) } {
        return;
    }
    channel::publish_bases(slot);
    slot.signal.store(signal as u32, Relaxed);
    slot.frame.store((context & (SLOT_SIZE - 1)) as u32, Relaxed);
    channel::post(slot, kind::SIGNAL);
    channel::serve(slot, 0);
}
