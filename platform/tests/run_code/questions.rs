//! Questions to the processor, and traps in their place.

use std::arch::x86_64::__cpuid_count;
use std::sync::Arc;

use platform::processor::Answer;
use platform::{Event, Platform};

use crate::harness::{load, platform, step};

/// What comes back in rax, rbx and rdx.
fn asked(platform: &Arc<dyn Platform>, leaf: u32, ecx: u32) -> Option<[u64; 3]> {
    // The trap, then a call: mov $39,%eax would hide rax.
    let mut context =
        load(platform, snippet!(".byte 0xcd, 0x03", "mov r15, rax", "mov eax, 39", "syscall"));
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
    if !platform.layout().has_slow_questions {
        // Then it is the program's own.
        assert_eq!(asked(&platform, 0, 0), None);
        return;
    }
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
