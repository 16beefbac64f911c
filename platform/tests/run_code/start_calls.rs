//! What threads say at their start, which the shim keeps for the sentry: alternate stack, robust futexes, the id's word; and
//! what it answers them.

use std::sync::Arc;

use abi::signal::{SS_AUTODISARM, SS_DISABLE, SigStack};
use abi::{Errno, UserAddr};
use platform::{Answers, Context, Event, NewContext, SharedSignals};

use crate::fast::load_fast;
use crate::harness::{DATA, STACK_TOP, block_on, platform, step};

/// Where the snippet has number and arguments of its call.
pub const CALL: u64 = DATA + 0x200;
const NEW: u64 = DATA + 0x240;
const OLD: u64 = DATA + 0x260;
const GETPID: u64 = 39;
const SIGALTSTACK: u64 = 131;
const ARCH_PRCTL: u64 = 158;
const SET_TID_ADDRESS: u64 = 218;
const SET_ROBUST_LIST: u64 = 273;
const PRLIMIT64: u64 = 302;
const RSEQ: u64 = 334;

/// Makes the call that [`CALL`] says, then asks for its id with the result in rbx, over and over.
pub fn caller() -> Option<(Box<dyn Context>, Arc<dyn SharedSignals>)> {
    let code = snippet!(
        "2:",
        "mov rax, [0x600200]",
        "mov rdi, [0x600208]",
        "mov rsi, [0x600210]",
        "mov rdx, [0x600218]",
        "mov r10, [0x600220]",
        "mov r8, [0x600228]",
        "mov r9, [0x600230]",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "mov rbx, rax",
        "mov eax, 39",
        "syscall",
        "jmp 2b",
    );
    let platform = platform();
    let context = load_fast(&platform, code)?;
    let shared = context.kicker().share_signals().expect("this platform can");
    Some((context, shared))
}

/// What the shim answers; `None`: the sentry is asked.
pub fn call(context: &mut dyn Context, number: u64, first: u64, second: u64) -> Option<u64> {
    for (at, word) in (CALL..).step_by(8).zip([number, first, second]) {
        context.space().write(UserAddr(at), &word.to_le_bytes());
    }
    assert_eq!(step(context), Event::Syscall);
    if context.regs().rax == GETPID {
        return Some(context.regs().rbx);
    }
    assert_eq!(context.regs().rax, number);
    context.set_return(0);
    assert_eq!(step(context), Event::Syscall);
    None
}

fn words(at: u64, context: &dyn Context) -> [u64; 3] {
    let mut bytes = [[0; 8]; 3];
    context.space().read(UserAddr(at), bytes.as_flattened_mut());
    bytes.map(u64::from_le_bytes)
}

#[test]
fn a_stack_is_set_and_told_without_an_event() {
    let Some((mut context, shared)) = caller() else { return };
    let context = &mut *context;
    let none = SigStack { flags: SS_DISABLE, ..SigStack::default() };
    shared.set_stack(&none);
    let mut set = |new: [u64; 3], old| {
        let bytes = new.map(u64::to_le_bytes);
        context.space().write(UserAddr(NEW), bytes.as_flattened());
        let result = call(context, SIGALTSTACK, NEW, old);
        (result, words(OLD, context))
    };
    let disable = u64::from(SS_DISABLE.cast_unsigned());
    let junk = 7 << 32;
    assert_eq!(set([0x70_0000, junk, 0x2000], OLD), (Some(0), [0, disable, 0]));
    let first = SigStack { sp: 0x70_0000, flags: 0, pad: 0, size: 0x2000 };
    assert_eq!(shared.stack(), first);
    // What it does not know is asked for, and nothing has changed.
    assert_eq!(set([0x71_0000, 0, 2047], OLD).0, None, "too small");
    assert_eq!(set([0x71_0000, 4, 0x2000], OLD).0, None, "unknown flags");
    let autodisarm = u64::from(SS_AUTODISARM.cast_unsigned());
    assert_eq!(set([0x71_0000, autodisarm, 0x2000], OLD).0, None);
    assert_eq!(set([0x71_0000, 0, 0x2000], 0x10_0000).0, None, "nowhere to tell the old one");
    assert_eq!(shared.stack(), first);
    assert_eq!(set([5, disable, 5], OLD), (Some(0), [0x70_0000, 0, 0x2000]));
    assert_eq!(shared.stack(), none);
}

#[test]
fn a_stack_in_use_is_the_sentrys() {
    let Some((mut context, shared)) = caller() else { return };
    // The pointer stands at its end, which is on it, and at its start, which is not.
    let stack = |sp| SigStack { sp, flags: 0, pad: 0, size: 0x2000 };
    shared.set_stack(&stack(STACK_TOP - 0x2000));
    assert_eq!(call(&mut *context, SIGALTSTACK, 0, OLD), None);
    shared.set_stack(&stack(STACK_TOP));
    assert_eq!(call(&mut *context, SIGALTSTACK, 0, OLD), Some(0));
    shared.set_stack(&stack(STACK_TOP - 0x2001));
    assert_eq!(call(&mut *context, SIGALTSTACK, 0, OLD), Some(0));
    shared.set_stack(&SigStack { flags: SS_AUTODISARM, ..stack(0x70_0000) });
    assert_eq!(call(&mut *context, SIGALTSTACK, 0, OLD), None);
}

#[test]
fn a_robust_list_is_kept_for_the_end() {
    let Some((mut context, shared)) = caller() else { return };
    shared.set_robust_list(1);
    assert_eq!(call(&mut *context, SET_ROBUST_LIST, DATA, 23), None, "no such length");
    assert_eq!(shared.robust_list(), 1);
    assert_eq!(call(&mut *context, SET_ROBUST_LIST, DATA, 24), Some(0));
    assert_eq!(shared.robust_list(), DATA);
}

#[test]
fn rseq_is_answered_as_the_sentry_says() {
    let Some((mut context, _)) = caller() else { return };
    assert_eq!(call(&mut *context, RSEQ, DATA, 32), None, "nothing was said yet");
    let answers = answers();
    context.kicker().set_answers(&answers);
    for (at, word) in [(CALL, RSEQ), (CALL + 8, DATA), (CALL + 16, 32)] {
        context.space().write(UserAddr(at), &word.to_le_bytes());
    }
    assert_eq!(step(&mut *context), Event::Syscall, "its site traps");
    assert_eq!((context.regs().rax, context.regs().rbx), (GETPID, answers.rseq.to_return()));
}

fn answers() -> Answers {
    let rseq = Errno::ENOSYS;
    let (uid, effective_uid, gid, effective_gid) = (0, 0, 0, 0);
    let questions = 0..0;
    Answers { pid: 2, tid: 3, parent: 4, uid, effective_uid, gid, effective_gid, rseq, questions }
}

#[test]
fn the_word_of_the_id_is_kept_for_the_end() {
    let Some((mut context, shared)) = caller() else { return };
    shared.set_tid_address(1);
    assert_eq!(call(&mut *context, SET_TID_ADDRESS, DATA, 0), None, "its id is not known");
    assert_eq!(shared.tid_address(), 1);
    context.kicker().set_answers(&answers());
    for (at, word) in [(CALL, SET_TID_ADDRESS), (CALL + 8, DATA)] {
        context.space().write(UserAddr(at), &word.to_le_bytes());
    }
    assert_eq!(step(&mut *context), Event::Syscall, "getpid's site traps");
    assert_eq!((context.regs().rax, context.regs().rbx), (GETPID, 3));
    assert_eq!(shared.tid_address(), DATA);
}

#[test]
fn the_stacks_limit_is_told() {
    const RLIMIT_STACK: u64 = 3;
    let Some((mut context, _)) = caller() else { return };
    context.space().write(UserAddr(CALL + 32), &OLD.to_le_bytes());
    assert_eq!(call(&mut *context, PRLIMIT64, 0, RLIMIT_STACK), None, "nothing was said yet");
    context.kicker().tell_stack_limit(5, 9);
    assert_eq!(call(&mut *context, PRLIMIT64, 0, RLIMIT_STACK), Some(0));
    assert_eq!(words(OLD, &*context)[..2], [5, 9]);
    assert_eq!(call(&mut *context, PRLIMIT64, 1, RLIMIT_STACK), None, "somebody else's");
    assert_eq!(call(&mut *context, PRLIMIT64, 0, RLIMIT_STACK + 1), None, "another limit");
    context.space().write(UserAddr(CALL + 24), &NEW.to_le_bytes());
    assert_eq!(call(&mut *context, PRLIMIT64, 0, RLIMIT_STACK), None, "a new limit");
}

#[test]
fn a_thread_pointer_is_set_and_inherited() {
    const ARCH_SET_FS: u64 = 0x1002;
    let Some((mut context, _)) = caller() else { return };
    assert_eq!(call(&mut *context, ARCH_PRCTL, ARCH_SET_FS, 0x7e00_0000_0000), None);
    assert_eq!(call(&mut *context, ARCH_PRCTL, ARCH_SET_FS, DATA), Some(0));
    let new = NewContext { regs: *context.regs(), fs_base: None };
    let mut thread = block_on(context.clone_thread(new)).unwrap();
    for context in [&mut context, &mut thread] {
        assert_eq!(step(&mut **context), Event::Syscall);
        block_on(context.settle()).unwrap();
        assert_eq!(context.fs_base(), DATA);
    }
}
