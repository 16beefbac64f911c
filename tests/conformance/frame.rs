//! What rt_sigreturn(2) makes of a frame that a handler spoiled: the thread gets SIGSEGV, or the bits do not count.

use std::mem::zeroed;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::support::{in_child, ok, signal_of, sys, tests, wait_for};

tests! {
    wild_instruction_pointers, wild_stack_pointer_of_a_handler, single_step_traps, odd_flags_do_not_count,
    bad_floating_point_pointer, garbage_in_vector_state, no_floating_point_state, null_code_segment,
    sigreturn_without_a_frame, handler_without_room, steps_count_from_the_first_instruction,
    vector_state_comes_back_through_nested_returns,
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

/// Wait status of a child whose handler does this and returns: the first time, and after so many returns that a kernel may
/// have taken a short way for them.
fn run(spoiler: Spoiler) -> i32 {
    let status = run_after(0, spoiler);
    assert_eq!(run_after(OFTEN, spoiler), status);
    status
}

const OFTEN: usize = 60;

fn run_after(returns: usize, spoiler: Spoiler) -> i32 {
    let nothing: Spoiler = |_| ();
    SPOIL.store(nothing as *const () as usize, SeqCst);
    let child = in_child(|| {
        no_handler_of_the_runtime();
        // SAFETY: all zeros is a valid sigaction.
        let mut action: libc::sigaction = unsafe { zeroed() };
        action.sa_sigaction = spoil as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        ok!(sigaction(libc::SIGUSR1, &action, ptr::null_mut()));
        for _ in 0..returns {
            sys!(raise(libc::SIGUSR1));
        }
        SPOIL.store(spoiler as *const () as usize, SeqCst);
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

/// Where the stepping began, and where the step's trap came from.
static STEPS: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

fn steps_count_from_the_first_instruction() {
    extern "C" fn note(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the third argument of an SA_SIGINFO handler points to its context.
        let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
        *register(context, libc::REG_EFL) ^= 0x100;
        let place = &STEPS[usize::from(signal == libc::SIGTRAP)];
        place.store(*register(context, libc::REG_RIP) as usize, SeqCst);
    }
    handle(libc::SIGUSR1, note as *const () as usize, 0);
    handle(libc::SIGTRAP, note as *const () as usize, 0);
    for _ in 0..OFTEN {
        sys!(raise(libc::SIGUSR1));
        let [from, to] = STEPS.each_ref().map(|place| place.load(SeqCst));
        // One instruction was executed, and none is longer.
        assert!(from < to && to <= from + 15, "{from:x} {to:x}");
    }
}

fn handle(signal: i32, handler: usize, blocked: i32) {
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_SIGINFO;
    if blocked != 0 {
        sys!(sigaddset(&mut action.sa_mask, blocked));
    }
    ok!(sigaction(signal, &action, ptr::null_mut()));
}

/// What the second handler found in xmm7 and xmm15 of the code that the first one had interrupted.
static FOUND: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

/// The first handler's return lets the second signal come in before any other instruction.
fn vector_state_comes_back_through_nested_returns() {
    const PATTERNS: [u64; 2] = [0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff01];
    extern "C" fn first(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        sys!(raise(libc::SIGUSR2));
        spoil_vectors();
    }
    extern "C" fn second(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the third argument of an SA_SIGINFO handler points to its context, that to an fxsave area.
        let xmm = unsafe { (*(*context.cast::<libc::ucontext_t>()).uc_mcontext.fpregs)._xmm };
        for (place, index) in FOUND.iter().zip([7, 15]) {
            let [low, high, ..] = xmm[index].element;
            place.store((u64::from(high) << 32 | u64::from(low)) as usize, SeqCst);
        }
        spoil_vectors();
    }
    handle(libc::SIGUSR1, first as *const () as usize, libc::SIGUSR2);
    handle(libc::SIGUSR2, second as *const () as usize, 0);
    let (process, thread) = (sys!(getpid()), sys!(gettid()));
    for round in 0..OFTEN as u64 {
        let [a, b] = PATTERNS.map(|pattern| pattern ^ round);
        let (after_a, after_b): (u64, u64);
        // SAFETY: tgkill(2) clobbers rax, rcx and r11; the handlers' changes are undone.
        unsafe {
            std::arch::asm!(
                "movq xmm7, {a}", "movq xmm15, {b}", "syscall", "movq {a}, xmm7", "movq {b}, xmm15",
                a = inout(reg) a => after_a, b = inout(reg) b => after_b,
                inout("rax") libc::SYS_tgkill => _, in("rdi") process, in("rsi") thread, in("rdx") libc::SIGUSR1,
                out("rcx") _, out("r11") _, out("xmm7") _, out("xmm15") _,
            );
        }
        assert_eq!([after_a, after_b], [a, b], "round {round}");
        assert_eq!(
            FOUND.each_ref().map(|place| place.load(SeqCst) as u64),
            [a, b],
            "round {round}"
        );
    }
}

fn spoil_vectors() {
    // SAFETY: what is changed is said.
    unsafe {
        std::arch::asm!("pxor xmm7, xmm7", "pcmpeqd xmm15, xmm15", out("xmm7") _, out("xmm15") _);
    }
}
