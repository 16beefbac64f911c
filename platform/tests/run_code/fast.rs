//! Calls that reach the shim without a signal, as rewritten sites make them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use abi::{Errno, UserAddr};
use platform::{Answers, Context, Event, HostOp, NewContext, Platform};

use crate::harness::{DATA, block_on, load, next, platform, step};

/// Where the snippets look for the shim's entry.
const ENTRY: u64 = DATA + 0x100;

/// A context whose snippet calls with `lea rcx, [rip + 7]; jmp [ENTRY]; syscall`; `None` where the processor
/// lacks what the entry needs.
pub fn load_fast(platform: &Arc<dyn Platform>, code: &[u8]) -> Option<Box<dyn Context>> {
    let entry = platform.layout().call_entry?;
    let context = load(platform, code);
    context.space().write(UserAddr(ENTRY), &entry.to_le_bytes());
    Some(context)
}

#[test]
fn registers_and_flags_come_and_go() {
    let platform = platform();
    let code = snippet!(
        "mov eax, 39",
        "mov rbp, 0x1122334455667788",
        "mov r15d, 15",
        "stc",
        "lea rcx, [rip + 2f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "2:",
        "setc bl",
        "mov rsi, rsp",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
    );
    let Some(mut context) = load_fast(&platform, code) else { return };
    let rsp = context.regs().rsp;
    assert_eq!(step(&mut *context), Event::Syscall);
    let regs = *context.regs();
    assert_eq!((regs.rax, regs.rbp, regs.r15, regs.rsp), (39, 0x1122_3344_5566_7788, 15, rsp));
    assert_eq!((regs.rflags & 1, regs.rcx, regs.r11), (1, regs.rip, regs.rflags));
    let mut instruction = [0; 2];
    context.space().read(UserAddr(regs.rip - 2), &mut instruction);
    assert_eq!(instruction, [0x0f, 0x05], "so that a restart traps");
    context.set_return(1234);
    assert_eq!(step(&mut *context), Event::Syscall);
    let regs = *context.regs();
    assert_eq!((regs.rax, regs.rbx & 0xff, regs.rsi), (1234, 1, rsp));
}

#[test]
fn all_registers_can_be_replaced() {
    let platform = platform();
    let code = snippet!(
        "lea rcx, [rip + 2f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "2:",
        "syscall",
        "ud2",
        "syscall",
    );
    let Some(mut context) = load_fast(&platform, code) else { return };
    assert_eq!(step(&mut *context), Event::Syscall);
    let mut wanted = *context.regs();
    wanted.rcx = 0x1234;
    wanted.r11 = 0x5678;
    wanted.rdx = 0x9abc;
    wanted.rip += 4;
    *context.regs_mut() = wanted;
    assert_eq!(step(&mut *context), Event::Syscall);
    let regs = context.regs();
    assert_eq!((regs.rdx, regs.rip), (0x9abc, wanted.rip + 2));
}

#[test]
fn a_hundred_thousand_calls_come_in_order() {
    let platform = platform();
    let code = snippet!(
        "2:",
        "mov eax, 39",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "inc r12",
        "cmp rax, r13",
        "jne 4f",
        "inc r13",
        "jmp 2b",
        "4:",
        "ud2",
    );
    let Some(mut context) = load_fast(&platform, code) else { return };
    for round in 0..100_000 {
        assert_eq!(step(&mut *context), Event::Syscall);
        assert_eq!(context.regs().r12, round);
        context.set_return(round);
    }
}

#[test]
fn vector_state_stays_and_settles() {
    let platform = platform();
    if !std::arch::is_x86_feature_detected!("avx") {
        return;
    }
    let code = snippet!(
        "mov rbx, 0x600000",
        "vmovups ymm0, [rbx]",
        "vmovups ymm15, [rbx + 32]",
        "2:",
        "mov eax, 39",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "vmovups [rbx + 64], ymm0",
        "vmovups [rbx + 96], ymm15",
        "inc r12",
        "jmp 2b",
    );
    let Some(mut context) = load_fast(&platform, code) else { return };
    let pattern: Vec<u8> = (1..=64).collect();
    context.space().write(UserAddr(DATA), &pattern);
    const XMM15: usize = 160 + 15 * 16;
    for round in 0..3_000 {
        assert_eq!(step(&mut *context), Event::Syscall);
        assert_eq!(context.regs().r12, round);
        if round > 0 {
            let mut stored = [0; 64];
            context.space().read(UserAddr(DATA + 64), &mut stored);
            assert_eq!(stored[..], pattern, "round {round}");
        }
        if round % 7 == 0 {
            let regs = *context.regs();
            block_on(context.settle()).expect("settled");
            block_on(context.settle()).expect("again");
            assert_eq!(*context.regs(), regs);
            assert_eq!(context.xstate()[XMM15..XMM15 + 16], pattern[32..48]);
        }
        if round % 5 == 0 {
            // An operation in between makes the shim run compiled code.
            block_on(context.execute(vec![HostOp::Advise {
                addr: UserAddr(DATA),
                len: 4096,
                advice: libc::MADV_NORMAL,
            }]))
            .expect("alive")
            .expect("advised");
        }
    }
}

#[test]
fn who_uses_gs_traps_and_is_told_what_it_set() {
    let platform = platform();
    let code = snippet!(
        "2:",
        "mov rax, gs:[0]",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "jmp 2b",
    );
    let Some(mut context) = load_fast(&platform, code) else { return };
    context.space().write(UserAddr(DATA), &77u64.to_le_bytes());
    context.defer(HostOp::SetGsBase(DATA));
    for _ in 0..10 {
        assert_eq!(step(&mut *context), Event::Syscall);
        assert_eq!((context.regs().rax, context.gs_base()), (77, DATA));
    }
}

#[test]
fn the_slots_address_in_gs_is_not_told() {
    let platform = platform();
    let code = snippet!("2:", "syscall", "jmp 2b");
    let mut context = load(&platform, code);
    for base in [0, DATA, 0] {
        context.defer(HostOp::SetGsBase(base));
        assert_eq!(step(&mut *context), Event::Syscall);
        block_on(context.settle()).expect("settled");
        assert_eq!(context.gs_base(), base);
    }
}

/// Calls of a context that came by a signal, as they were told: where each was and its number.
fn traps(context: &mut dyn Context) -> Vec<(u64, u64)> {
    context.take_traps().into_iter().map(|trap| (trap.behind, trap.number)).collect()
}

#[test]
fn calls_that_trap_go_on_as_rewritten_ones_and_are_told() {
    let platform = platform();
    // Ten times what the shim knows, then what it does not.
    let code = snippet!(
        "mov r12d, 10",
        "2:",
        "mov eax, 39",
        "syscall",
        "mov r13, rax",
        "dec r12d",
        "jnz 2b",
        "stc",
        "mov eax, 1000",
        "syscall",
        "setc bl",
        "syscall",
    );
    let Some(mut context) = load_fast(&platform, code) else { return };
    let start = context.regs().rip;
    context.kicker().set_answers(&Answers {
        questions: 0..0,
        pid: 77,
        tid: 77,
        parent: 1,
        uid: 0,
        effective_uid: 0,
        gid: 0,
        effective_gid: 0,
        rseq: Errno::ENOSYS,
    });
    assert_eq!(step(&mut *context), Event::Syscall);
    let regs = *context.regs();
    assert!(context.has_trapped(), "there was no room to write another one down");
    assert_eq!((regs.rax, regs.r12, regs.r13), (39, 2, 77));
    let asked = start + 6 + 5 + 2;
    assert_eq!(traps(&mut *context), [(asked, 39); 8]);
    context.set_return(78);
    assert_eq!(step(&mut *context), Event::Syscall);
    let regs = *context.regs();
    assert!(!context.has_trapped());
    assert_eq!((regs.rax, regs.r12, regs.r13), (1000, 0, 77));
    assert_eq!((regs.rflags & 1, regs.rcx), (1, regs.rip));
    assert_eq!(traps(&mut *context), [(asked, 39), (regs.rip, 1000)]);
    context.set_return(0);
    assert_eq!(step(&mut *context), Event::Syscall);
    assert_eq!((context.regs().rax, context.regs().rbx & 0xff), (0, 1));
}

#[test]
fn who_steps_itself_or_uses_gs_traps() {
    let platform = platform();
    let code = snippet!(
        "mov eax, 39",
        "syscall",
        "pushfq",
        "or dword ptr [rsp], 0x100",
        "mov eax, 39",
        "popfq",
        "syscall",
    );
    let Some(mut context) = load_fast(&platform, code) else { return };
    context.defer(HostOp::SetGsBase(DATA));
    assert_eq!(step(&mut *context), Event::Syscall);
    assert!(context.has_trapped());
    context.defer(HostOp::SetGsBase(0));
    assert_eq!(step(&mut *context), Event::Syscall);
    assert!(context.has_trapped());
    assert!(traps(&mut *context).is_empty());
}

#[test]
fn kicks_are_never_lost_and_spoil_nothing() {
    let platform = platform();
    // Counts calls in r12 and rounds of a loop between them in r14; xmm6 must stay.
    let code = snippet!(
        "movups xmm6, [0x600000]",
        "2:",
        "mov eax, 39",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "inc r12",
        "cmp rax, 4711",
        "jne 9f",
        "movups [0x600010], xmm6",
        "mov rbx, [0x600010]",
        "cmp rbx, [0x600000]",
        "jne 9f",
        "jmp 2b",
        "9:",
        "ud2",
    );
    let Some(mut context) = load_fast(&platform, code) else { return };
    context.space().write(UserAddr(DATA), &[5; 16]);
    let (kicker, stop) = (context.kicker(), Arc::new(AtomicBool::new(false)));
    let kicks = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(Ordering::Relaxed) {
                kicker.kick();
                std::thread::sleep(Duration::from_micros(20));
            }
        }
    });
    let (mut calls, mut interruptions) = (0, 0);
    while calls < 30_000 {
        match step(&mut *context) {
            Event::Syscall => {
                assert_eq!(context.regs().r12, calls);
                calls += 1;
                context.set_return(4711);
            }
            Event::Interrupted => interruptions += 1,
            other => panic!("{other:?} after {calls} calls: {:?}", context.regs()),
        }
    }
    stop.store(true, Ordering::Relaxed);
    kicks.join().expect("the kicker ends");
    assert!(interruptions > 0);
}

#[test]
fn a_kick_during_the_answer_interrupts() {
    let platform = platform();
    let code =
        snippet!("lea rcx, [rip + 2f]", "jmp qword ptr [0x600100]", "syscall", "2:", "jmp 2b",);
    let Some(mut context) = load_fast(&platform, code) else { return };
    assert_eq!(step(&mut *context), Event::Syscall);
    for _ in 0..200 {
        context.resume();
        context.kicker().kick();
        assert_eq!(next(&mut *context).expect("an event"), Event::Interrupted);
    }
}

#[test]
fn copies_and_threads_begin_in_slots_of_their_own() {
    let platform = platform();
    let code = snippet!(
        "2:",
        "mov eax, 39",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "inc r12",
        "jmp 2b",
    );
    let Some(mut first) = load_fast(&platform, code) else { return };
    assert_eq!(step(&mut *first), Event::Syscall);
    let new = NewContext { regs: *first.regs(), fs_base: None };
    let mut thread = block_on(first.clone_thread(new.clone())).expect("a thread");
    let mut child = block_on(first.fork(new)).expect("a copy");
    for round in 1..1_000 {
        for context in [&mut first, &mut thread, &mut child] {
            assert_eq!(step(&mut **context), Event::Syscall);
            assert_eq!((context.regs().r12, context.gs_base()), (round, 0));
        }
    }
}

#[test]
fn the_shim_answers_what_it_was_told() {
    let platform = platform();
    // Asks for the parent until that is 5, with kicks in between, counting in r12; then makes a call of its own.
    let code = snippet!(
        "2:",
        "mov eax, 110",
        "stc",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "jnc 9f",
        "inc r12",
        "cmp eax, 5",
        "jne 2b",
        "mov eax, 24",
        "lea rcx, [rip + 4f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "4:",
        "mov edi, eax",
        "mov eax, 1000",
        "syscall",
        "9:",
        "ud2",
    );
    let Some(mut context) = load_fast(&platform, code) else { return };
    assert_eq!(step(&mut *context), Event::Syscall);
    assert_eq!((context.regs().rax, context.regs().r12), (110, 0), "nothing was said yet");
    context.set_return(1);
    let mut answers = Answers {
        questions: 0..0,
        pid: 2,
        tid: 3,
        parent: 4,
        uid: 0,
        effective_uid: 0,
        gid: 0,
        effective_gid: 0,
        rseq: Errno::ENOSYS,
    };
    context.kicker().set_answers(&answers);
    for _ in 0..500 {
        context.resume();
        std::thread::sleep(Duration::from_micros(50));
        context.kicker().kick();
        assert_eq!(next(&mut *context).expect("an event"), Event::Interrupted);
    }
    assert!(context.regs().r12 > 1);
    answers.parent = 5;
    context.kicker().set_answers(&answers);
    assert_eq!(step(&mut *context), Event::Syscall);
    assert_eq!((context.regs().rax, context.regs().rdi), (1000, 0), "sched_yield gives 0");
}

#[test]
fn copies_and_threads_inherit_vector_registers() {
    let platform = platform();
    if !std::arch::is_x86_feature_detected!("avx") {
        return;
    }
    let code = snippet!(
        "vmovups ymm7, [0x600000]",
        "mov eax, 39",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "vmovups [r13], ymm7",
        "mov eax, 60",
        "syscall",
    );
    let Some(mut first) = load_fast(&platform, code) else { return };
    let pattern: Vec<u8> = (1..=32).collect();
    first.space().write(UserAddr(DATA), &pattern);
    assert_eq!(step(&mut *first), Event::Syscall);
    for (round, at) in (0..40).map(|round| (round, DATA + 0x1000 + round * 64)) {
        let mut new = NewContext { regs: *first.regs(), fs_base: None };
        new.regs.r13 = at;
        let mut born = if round % 2 == 0 {
            block_on(first.clone_thread(new)).expect("a thread")
        } else {
            block_on(first.fork(new)).expect("a copy")
        };
        assert_eq!(step(&mut *born), Event::Syscall);
        assert_eq!(born.regs().rax, 60);
        let mut stored = [0; 32];
        born.space().read(UserAddr(at), &mut stored);
        assert_eq!(stored[..], pattern, "round {round}");
    }
}

#[test]
fn the_vector_state_is_reset_without_settling() {
    let platform = platform();
    if !std::arch::is_x86_feature_detected!("avx") {
        return;
    }
    let code = snippet!(
        "vmovups ymm9, [0x600000]",
        "fldpi",
        "mov dword ptr [0x600080], 0x1fff",
        "ldmxcsr [0x600080]",
        "mov eax, 39",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "stmxcsr [0x600084]",
        "vmovups [0x600040], ymm9",
        "fnstsw ax",
        "mov edi, eax",
        "mov eax, 60",
        "syscall",
    );
    let Some(mut context) = load_fast(&platform, code) else { return };
    context.space().write(UserAddr(DATA), &[7; 32]);
    context.space().write(UserAddr(DATA + 64), &[9; 32]);
    assert_eq!(step(&mut *context), Event::Syscall);
    context.reset_xstate();
    assert_eq!(step(&mut *context), Event::Syscall);
    assert_eq!((context.regs().rax, context.regs().rdi & 0x3800), (60, 0), "an empty x87 stack");
    let mut stored = [1; 32];
    context.space().read(UserAddr(DATA + 64), &mut stored);
    assert_eq!(stored, [0; 32]);
    let mut mxcsr = [0; 4];
    context.space().read(UserAddr(DATA + 0x84), &mut mxcsr);
    assert_eq!(u32::from_le_bytes(mxcsr), 0x1f80);
}
