//! What rt_sigreturn(2) makes of a frame that a handler spoiled: the thread gets SIGSEGV, or the bits do not count.

use std::mem::zeroed;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::support::{in_child, ok, signal_of, sys, tests, wait_for};

tests! {
    wild_instruction_pointers, wild_stack_pointer_of_a_handler, single_step_traps, odd_flags_do_not_count,
    bad_floating_point_pointer, garbage_in_vector_state, no_floating_point_state, null_code_segment,
    sigreturn_without_a_frame, handler_without_room,
}

/// What the handler does to its context.
static SPOIL: AtomicUsize = AtomicUsize::new(0);

type Spoiler = fn(&mut libc::ucontext_t);

extern "C" fn spoil(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: `run` stored a function of this type.
    let spoiler: Spoiler = unsafe { std::mem::transmute(SPOIL.load(SeqCst)) };
    // SAFETY: the third argument of an SA_SIGINFO handler points to its context.
    spoiler(unsafe { &mut *context.cast::<libc::ucontext_t>() });
}

/// Rust's own looks for stack overflows and would swallow the first SIGSEGV.
fn no_handler_of_the_runtime() {
    sys!(signal(libc::SIGSEGV, libc::SIG_DFL));
}

/// Wait status of a child whose handler does this and returns.
fn run(spoiler: Spoiler) -> i32 {
    SPOIL.store(spoiler as *const () as usize, SeqCst);
    let child = in_child(|| {
        no_handler_of_the_runtime();
        // SAFETY: all zeros is a valid sigaction.
        let mut action: libc::sigaction = unsafe { zeroed() };
        action.sa_sigaction = spoil as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        ok!(sigaction(libc::SIGUSR1, &action, ptr::null_mut()));
        sys!(raise(libc::SIGUSR1));
        0
    });
    wait_for(child)
}

fn register(context: &mut libc::ucontext_t, which: i32) -> &mut i64 {
    &mut context.uc_mcontext.gregs[which as usize]
}

/// Address of the floating point state, as a slot of the context.
fn floating_point(context: &mut libc::ucontext_t) -> *mut u8 {
    context.uc_mcontext.fpregs.cast()
}

fn wild_instruction_pointers() {
    for spoiler in [
        (|context| *register(context, libc::REG_RIP) = 0xdead_u64.cast_signed() << 48) as Spoiler,
        |context| *register(context, libc::REG_RIP) = -0x7f00_0000,
        |context| *register(context, libc::REG_RIP) = 8,
    ] {
        assert_eq!(signal_of(run(spoiler)), libc::SIGSEGV);
    }
}

fn wild_stack_pointer_of_a_handler() {
    for spoiler in [
        (|context| *register(context, libc::REG_RSP) = 0xdead_u64.cast_signed() << 48) as Spoiler,
        |context| *register(context, libc::REG_RSP) = 8,
        |context| *register(context, libc::REG_RSP) = 0,
    ] {
        assert_ne!(signal_of(run(spoiler)), 0);
    }
}

fn single_step_traps() {
    let status = run(|context| *register(context, libc::REG_EFL) |= 0x100);
    assert_eq!(signal_of(status), libc::SIGTRAP);
}

fn odd_flags_do_not_count() {
    // All but the trap, direction and alignment-check flags.
    assert_eq!(run(|context| *register(context, libc::REG_EFL) |= 0x7fff_0000_0000 | 0x3000), 0);
}

fn bad_floating_point_pointer() {
    let status = run(|context| context.uc_mcontext.fpregs = ptr::without_provenance_mut(8));
    assert_eq!(signal_of(status), libc::SIGSEGV);
}

fn garbage_in_vector_state() {
    // SAFETY: the xsave header follows the 512 bytes of the legacy area.
    let header = run(|context| unsafe { floating_point(context).add(512).write_bytes(0xff, 64) });
    assert_eq!(signal_of(header), libc::SIGSEGV);
    // SAFETY: mxcsr stands at byte 24.
    let mxcsr = run(|context| unsafe { floating_point(context).add(24).write_bytes(0xff, 4) });
    assert_eq!(signal_of(mxcsr), libc::SIGSEGV);
}

fn no_floating_point_state() {
    assert_eq!(run(|context| context.uc_mcontext.fpregs = ptr::null_mut()), 0);
}

fn null_code_segment() {
    let status = run(|context| *register(context, libc::REG_CSGSFS) = 0);
    assert_eq!(signal_of(status), libc::SIGSEGV);
}

fn sigreturn_without_a_frame() {
    let child = in_child(|| {
        no_handler_of_the_runtime();
        // SAFETY: never comes back: there is no frame where the stack pointer is.
        unsafe {
            std::arch::asm!("xor esp, esp", "syscall", in("rax") libc::SYS_rt_sigreturn,
                options(noreturn));
        }
    });
    assert_eq!(signal_of(wait_for(child)), libc::SIGSEGV);
}

fn handler_without_room() {
    let child = in_child(|| {
        let stack =
            libc::stack_t { ss_sp: ptr::without_provenance_mut(0x10), ss_flags: 0, ss_size: 8192 };
        ok!(sigaltstack(&stack, ptr::null_mut()));
        // SAFETY: all zeros is a valid sigaction.
        let mut action: libc::sigaction = unsafe { zeroed() };
        action.sa_sigaction = spoil as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        ok!(sigaction(libc::SIGUSR1, &action, ptr::null_mut()));
        sys!(raise(libc::SIGUSR1));
        0
    });
    assert_eq!(signal_of(wait_for(child)), libc::SIGSEGV);
}
