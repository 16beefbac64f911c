//! The filter of zygote and stubs.
//!
//! Outside the shim's text every call is SIGSYS. Inside, what remains must be harmless *by itself*, under any
//! arguments and at any time: guest code can jump to the shim's own syscall instruction with registers of its
//! choosing, and can map its own code where the shim was. The check of the instruction pointer is therefore only
//! for semantics; the security argument is the list.

use std::ops::Range;

use host::bpf::{Assembler, Instruction, Label, Test, Word};
use shim_abi::Loans;

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_TRAP: u32 = 0x0003_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// A condition on one argument.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Exactly this value.
    Is(u32, u64),
    /// One of two small values, after masking.
    MaskedOneOf(u32, u32, [u32; 2]),
    /// No bits but these.
    Within(u32, u32),
    /// Less than this.
    Below(u32, u32),
    /// At least the first, less than the second.
    Between(u32, u32, u32),
}

/// What the shim may call. Each row with its reason.
const ALLOWED: &[(i64, &[Rule])] = &[
    // First, for it is on every way back to guest code.
    (libc::SYS_rt_sigreturn, &[]),
    // Of lent descriptors, which are of files that everybody may read: what the guest may ask of the sentry as well. A guest
    // that keeps what it was to close could move other descriptors there: those it can map to read them, too.
    (libc::SYS_pread64, &[Rule::Between(0, LENT.start, LENT.end)]),
    // The sentry's orders on memory. Descriptors in a stub are only there to be mapped (or read, above). No locked, huge or
    // prefaulted memory: that would spend the host's without the sentry's knowledge.
    (libc::SYS_mmap, &[Rule::Within(2, 7), Rule::Within(3, MMAP_FLAGS)]),
    (libc::SYS_munmap, &[]),
    (libc::SYS_mprotect, &[Rule::Within(2, 7)]),
    (libc::SYS_mremap, &[]),
    // Above are only memory-failure injections.
    (libc::SYS_madvise, &[Rule::Below(2, 100)]),
    (libc::SYS_msync, &[]),
    // A stub dies with its sentry.
    (libc::SYS_prctl, &[Rule::Is(0, libc::PR_SET_PDEATHSIG as u64), Rule::Is(1, 9)]),
    (libc::SYS_exit, &[]),
    (libc::SYS_exit_group, &[]),
    // Wait and wake, private or shared; no priority inheritance, no requeue. The same with bitsets, by either clock.
    (libc::SYS_futex, &[Rule::MaskedOneOf(1, !0x80, [0, 1])]),
    (libc::SYS_futex, &[Rule::MaskedOneOf(1, !0x180, [9, 10])]),
    (libc::SYS_close, &[]),
    (libc::SYS_sched_yield, &[]),
    // A new thread's place for its signals.
    (libc::SYS_sigaltstack, &[]),
    (libc::SYS_arch_prctl, &[Rule::MaskedOneOf(0, !0, [0x1001, 0x1002])]),
];

/// What the shim may call when the sentry says so each time: threads and copies, in exactly the shim's two forms.
/// Left to itself a guest could fill the host with processes.
const ASKED: &[(i64, &[Rule])] = &[
    (libc::SYS_clone, &[Rule::Is(0, shim_abi::THREAD_CLONE_FLAGS)]),
    (libc::SYS_clone, &[Rule::Is(0, shim_abi::PROCESS_CLONE_FLAGS)]),
];

/// Numbers of lent descriptors.
const LENT: Range<u32> = Loans::FIRST_FD..Loans::FIRST_FD + Loans::PLACES;

/// SHARED, PRIVATE, FIXED, ANONYMOUS, NORESERVE.
const MMAP_FLAGS: u32 = 0x01 | 0x02 | 0x10 | 0x20 | 0x4000;

/// The program for a shim whose text is at `text`; `None` when the range spans a 4 GiB boundary.
pub fn program(text: &Range<u64>) -> Option<Vec<Instruction>> {
    let (low, high) = (text.start as u32, (text.start >> 32) as u32);
    let end = u32::try_from(text.end.checked_sub(u64::from(high) << 32)?).ok()?;
    let mut asm = Assembler::default();
    let (kill, trap) = (asm.label(), asm.label());
    let (allow, ask) = (asm.label(), asm.label());

    asm.load(Word::Arch);
    asm.jump_unless(Test::Equal(AUDIT_ARCH_X86_64), kill);
    // The pointer stands behind the instruction, hence `low < pointer <= end`.
    asm.load(Word::PointerHigh);
    asm.jump_unless(Test::Equal(high), trap);
    asm.load(Word::PointerLow);
    asm.jump_unless(Test::AtLeast(low.checked_add(1)?), trap);
    asm.jump_if(Test::AtLeast(end.checked_add(1)?), trap);

    asm.load(Word::Number);
    asm.jump_if(Test::Equal(shim_abi::DOORBELL), ask);
    for (number, rules) in ALLOWED {
        row(&mut asm, u32::try_from(*number).ok()?, rules, allow);
    }
    for (number, rules) in ASKED {
        row(&mut asm, u32::try_from(*number).ok()?, rules, ask);
    }
    // The x32 numbers end here, too.
    asm.place(kill);
    asm.ret(RET_KILL_PROCESS);
    asm.place(trap);
    asm.ret(RET_TRAP);
    asm.place(allow);
    asm.ret(RET_ALLOW);
    asm.place(ask);
    asm.ret(RET_USER_NOTIF);
    asm.finish()
}

/// Goes to `verdict` for a call whose arguments obey the rules; else the number is in the accumulator again.
fn row(asm: &mut Assembler, number: u32, rules: &[Rule], verdict: Label) {
    let (next, mismatch) = (asm.label(), asm.label());
    asm.jump_unless(Test::Equal(number), next);
    for rule in rules {
        assemble(asm, *rule, mismatch);
    }
    asm.jump(verdict);
    asm.place(mismatch);
    asm.load(Word::Number);
    asm.place(next);
}

fn assemble(asm: &mut Assembler, rule: Rule, mismatch: Label) {
    match rule {
        Rule::Is(arg, value) => {
            asm.load(Word::ArgHigh(arg));
            asm.jump_unless(Test::Equal((value >> 32) as u32), mismatch);
            asm.load(Word::ArgLow(arg));
            asm.jump_unless(Test::Equal(value as u32), mismatch);
        }
        // The kernel takes these as int: the upper half is ignored there, hence here.
        Rule::MaskedOneOf(arg, mask, [a, b]) => {
            let ok = asm.label();
            asm.load(Word::ArgLow(arg));
            asm.and(mask);
            asm.jump_if(Test::Equal(a), ok);
            asm.jump_unless(Test::Equal(b), mismatch);
            asm.place(ok);
        }
        Rule::Within(arg, bits) => {
            asm.load(Word::ArgHigh(arg));
            asm.jump_unless(Test::Equal(0), mismatch);
            asm.load(Word::ArgLow(arg));
            asm.and(!bits);
            asm.jump_unless(Test::Equal(0), mismatch);
        }
        Rule::Between(arg, from, to) => {
            asm.load(Word::ArgHigh(arg));
            asm.jump_unless(Test::Equal(0), mismatch);
            asm.load(Word::ArgLow(arg));
            asm.jump_unless(Test::AtLeast(from), mismatch);
            asm.jump_if(Test::AtLeast(to), mismatch);
        }
        Rule::Below(arg, limit) => {
            asm.load(Word::ArgLow(arg));
            asm.jump_if(Test::AtLeast(limit), mismatch);
        }
    }
}

#[cfg(test)]
mod tests {
    use host::bpf::Call;

    use super::*;

    const TEXT: Range<u64> = 0x7e00_0001_1000..0x7e00_0001_2000;

    fn run(call: &Call) -> u32 {
        host::bpf::run(&program(&TEXT).expect("assembles"), call).expect("a valid program")
    }

    fn verdict(nr: i64, at: u64, args: [u64; 6]) -> u32 {
        run(&Call { number: nr as u32, arch: AUDIT_ARCH_X86_64, pointer: at, args })
    }

    const IN: u64 = TEXT.start + 2;

    #[test]
    fn fits_into_the_page() {
        assert!(program(&TEXT).expect("assembles").len() <= shim_abi::MAX_FILTER);
    }

    #[test]
    fn everything_outside_the_shim_traps() {
        for at in [0, 0x40_0000, TEXT.start, TEXT.end + 1, TEXT.start + (1 << 32)] {
            for nr in [libc::SYS_mmap, libc::SYS_read, i64::from(shim_abi::DOORBELL), -1] {
                assert_eq!(verdict(nr, at, [0; 6]), RET_TRAP, "{nr} at {at:#x}");
            }
        }
    }

    #[test]
    fn foreign_architectures_are_killed_anywhere() {
        for at in [0x40_0000, IN] {
            let call = Call { number: 1, arch: 0x4000_0003, pointer: at, args: [0; 6] };
            assert_eq!(run(&call), RET_KILL_PROCESS);
        }
    }

    #[test]
    fn inside_only_the_list_passes() {
        assert_eq!(verdict(i64::from(shim_abi::DOORBELL), IN, [0; 6]), RET_USER_NOTIF);
        assert_eq!(verdict(libc::SYS_munmap, TEXT.end, [0; 6]), RET_ALLOW);
        let mut allowed: Vec<i64> = ALLOWED.iter().chain(ASKED).map(|row| row.0).collect();
        allowed.push(i64::from(shim_abi::DOORBELL));
        for nr in (0..1024).filter(|nr| !allowed.contains(nr)) {
            assert_eq!(verdict(nr, IN, [0; 6]), RET_KILL_PROCESS, "{nr}");
            assert_eq!(verdict(nr | 0x4000_0000, IN, [0; 6]), RET_KILL_PROCESS, "x32 {nr}");
        }
    }

    #[test]
    fn arguments_are_checked() {
        let clone = |flags| verdict(libc::SYS_clone, IN, [flags, 0, 0, 0, 0, 0]);
        assert_eq!(clone(shim_abi::THREAD_CLONE_FLAGS), RET_USER_NOTIF);
        assert_eq!(clone(shim_abi::PROCESS_CLONE_FLAGS), RET_USER_NOTIF);
        assert_eq!(clone(17), RET_KILL_PROCESS);
        assert_eq!(clone(shim_abi::THREAD_CLONE_FLAGS | 1 << 32), RET_KILL_PROCESS);
        let futex = |op| verdict(libc::SYS_futex, IN, [0, op, 0, 0, 0, 0]);
        assert_eq!(futex(0x81), RET_ALLOW);
        assert_eq!([9, 0x8a, 0x189].map(futex), [RET_ALLOW; 3]);
        assert_eq!([6, 3, 0x84, 0x8b, 0x101, 0x209].map(futex), [RET_KILL_PROCESS; 6]);
        let mmap = |prot, flags| verdict(libc::SYS_mmap, IN, [0, 0, prot, flags, 0, 0]);
        assert_eq!(mmap(7, 0x32), RET_ALLOW);
        assert_eq!(mmap(7, 0x4_0032), RET_KILL_PROCESS);
        let pread = |fd| verdict(libc::SYS_pread64, IN, [fd, 0, 1, 0, 0, 0]);
        assert_eq!([32, 63].map(pread), [RET_ALLOW; 2]);
        assert_eq!([0, 31, 64, 32 | 1 << 32, u64::MAX].map(pread), [RET_KILL_PROCESS; 5]);
        let prctl = |option, arg| verdict(libc::SYS_prctl, IN, [option, arg, 0, 0, 0, 0]);
        assert_eq!(prctl(1, 9), RET_ALLOW);
        assert_eq!(prctl(1, 0), RET_KILL_PROCESS);
        assert_eq!(prctl(4, 9), RET_KILL_PROCESS);
    }
}
