//! Questions to the processor, and traps in their place.

use std::arch::x86_64::__cpuid_count;
use std::ops::Range;
use std::sync::Arc;

use abi::Errno;
use platform::processor::Answer;
use platform::{Answers, Event, Platform};

use crate::harness::{load, platform, step};

/// What comes back in rax, rbx and rdx; `None`: the trap is the program's own.
fn asked(platform: &Arc<dyn Platform>, leaf: u32, ecx: u32) -> Option<[u64; 3]> {
    asked_in(platform, leaf, ecx, |at| at..at + 2)
}

/// As [`asked`], where `questions` says of the trap's address where questions are.
fn asked_in(
    platform: &Arc<dyn Platform>,
    leaf: u32,
    ecx: u32,
    questions: fn(u64) -> Range<u64>,
) -> Option<[u64; 3]> {
    // The trap, then a call: which would hide rax.
    let mut context =
        load(platform, snippet!(".byte 0xcd, 0x03", "mov r15, rax", "mov eax, 999", "syscall"));
    let (pid, uid, rseq) = (1, 0, Errno::ENOSYS);
    let questions = questions(context.regs().rip);
    context.kicker().set_answers(&Answers {
        pid,
        tid: pid,
        parent: pid,
        uid,
        effective_uid: uid,
        gid: uid,
        effective_gid: uid,
        rseq,
        questions,
    });
    let regs = context.regs_mut();
    // The upper halves are not part of the question, and become zero.
    regs.rax = 0xffff_ffff_0000_0000 | u64::from(leaf);
    regs.rcx = 0xffff_ffff_0000_0000 | u64::from(ecx);
    (regs.rbx, regs.rdx) = (u64::MAX, u64::MAX);
    match step(&mut *context) {
        Event::Syscall => {
            let regs = context.regs();
            // The call has left its own address in rcx.
            Some([regs.r15, regs.rbx, regs.rdx])
        }
        Event::Fault(fault) if fault.signal == 5 => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_trap_in_place_of_a_question_is_answered() {
    let platform = platform();
    // Nothing was told yet: the shim asks.
    let real = __cpuid_count(7, 0);
    let [eax, ebx, edx] = [real.eax, real.ebx, real.edx].map(u64::from);
    assert_eq!(asked(&platform, 7, 0), Some([eax, ebx, edx]));
    let told = |leaf, part| Answer { leaf, part, registers: [leaf, part, 7, 0xffff_fff0] };
    platform.tell_processor(&[told(7, 0), told(4, 2), told(2, 0)]);
    assert_eq!(asked(&platform, 7, 0), Some([7, 0, 0xffff_fff0]));
    assert_eq!(asked(&platform, 4, 2), Some([4, 2, 0xffff_fff0]));
    // This leaf has no parts, whatever ecx is.
    assert_eq!(asked(&platform, 2, 99), Some([2, 0, 0xffff_fff0]));
    // What was not told is asked; it is told once.
    let real = __cpuid_count(4, 1);
    platform.tell_processor(&[told(4, 1)]);
    assert_eq!(asked(&platform, 4, 1).map(|answer| answer[1]), Some(real.ebx.into()));
}

#[test]
fn other_traps_are_the_programs() {
    let platform = platform();
    let breakpoint = snippet!("int3");
    let overflow = snippet!("nop", ".byte 0xcd", ".byte 0x04");
    for code in [breakpoint, overflow] {
        let mut context = load(&platform, code);
        assert!(matches!(step(&mut *context), Event::Fault(_)));
    }
}

#[test]
fn a_trap_that_is_no_question_is_the_programs_own() {
    let platform = platform();
    for elsewhere in [|_| 0..0, |at| at + 1..at + 2, |at| 0..at] as [fn(u64) -> Range<u64>; 3] {
        assert_eq!(asked_in(&platform, 7, 0, elsewhere), None);
    }
}
