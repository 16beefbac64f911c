//! Small inputs and outputs that go with a call.

use std::sync::Arc;

use abi::UserAddr;
use platform::{Context, Event, HostOp, Platform, Prot};

use crate::harness::{CODE, DATA, block_on, load, map, next, platform, step};

/// Calls with the number and arguments that the sentry puts into the registers, again and again.
fn load_caller(platform: &Arc<dyn Platform>) -> Option<Box<dyn Context>> {
    let entry = platform.layout().call_entry?;
    let code = snippet!(
        "2:",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "jmp 2b",
    );
    let mut context = load(platform, code);
    context.space().write(UserAddr(DATA + 0x100), &entry.to_le_bytes());
    assert_eq!(step(&mut *context), Event::Syscall);
    Some(context)
}

/// Makes the guest call `number`.
fn call(context: &mut dyn Context, number: u64, args: [u64; 3]) {
    let regs = context.regs_mut();
    (regs.rax, regs.rdi, regs.rsi, regs.rdx) = (number, args[0], args[1], args[2]);
    assert_eq!(step(context), Event::Syscall);
    assert_eq!(context.regs().rax, number);
}

/// What a handler does: within the call's windows.
fn within<R>(context: &dyn Context, f: impl FnOnce() -> R) -> Option<R> {
    let memory = context.call_memory()?;
    Arc::clone(&memory).enter();
    let result = f();
    memory.leave();
    Some(result)
}

fn bytes_at(context: &dyn Context, addr: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    assert_eq!(context.space().read(UserAddr(addr), &mut bytes), len);
    bytes
}

const BUFFER: u64 = DATA + 0x2000;

#[test]
fn inputs_come_along() {
    let platform = platform();
    let Some(mut context) = load_caller(&platform) else { return };
    for len in [1, 7, 8, 9, 255, 256, 257, 4096, 5001] {
        let pattern: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        context.space().write(UserAddr(BUFFER + 3), &pattern);
        call(&mut *context, 1, [1, BUFFER + 3, len]);
        // A snapshot: what changes later does not show.
        context.space().write(UserAddr(BUFFER + 3), b"!");
        let seen = within(&*context, || bytes_at(&*context, BUFFER + 3, len as usize));
        assert_eq!(seen, Some(pattern), "{len}");
        // Beyond is memory as it is.
        let beyond = within(&*context, || bytes_at(&*context, BUFFER + 3, len as usize + 1));
        assert_eq!(beyond.map(|bytes| bytes[0]), Some(b'!'));
    }
}

#[test]
fn paths_come_along_as_a_whole_or_not_at_all() {
    let platform = platform();
    let Some(mut context) = load_caller(&platform) else { return };
    context.space().write(UserAddr(BUFFER), b"/etc/passwd\0rest");
    call(&mut *context, 2, [BUFFER, 0, 0]);
    let mut seen = [0; 32];
    let peeked = within(&*context, || context.space().peek(UserAddr(BUFFER), &mut seen));
    assert_eq!(peeked, Some(12));
    assert_eq!(&seen[..12], b"/etc/passwd\0");
    // What an earlier path left in the slot belongs to nobody.
    context.space().write(UserAddr(BUFFER), b"/etc\0");
    call(&mut *context, 2, [BUFFER, 0, 0]);
    let peeked = within(&*context, || context.space().peek(UserAddr(BUFFER), &mut seen));
    assert_eq!((peeked, &seen[..5]), (Some(5), &b"/etc\0"[..]));
    // Without an end in sight it stays where it is.
    let last = DATA + 0x2_0000 - 3;
    context.space().write(UserAddr(last), b"abc");
    call(&mut *context, 2, [last, 0, 0]);
    let peeked = within(&*context, || context.space().peek(UserAddr(last), &mut seen));
    assert_eq!(peeked.unwrap_or(0), 0);
    context.space().write(UserAddr(BUFFER), &[b'x'; 300]);
    call(&mut *context, 2, [BUFFER, 0, 0]);
    let peeked = within(&*context, || context.space().peek(UserAddr(BUFFER), &mut seen));
    assert_eq!(peeked.unwrap_or(0), 0);
    for bad in [0, 16, DATA + 0x2_0000, u64::MAX - 2, 0x7e00_0001_0000_u64 << 3] {
        call(&mut *context, 2, [bad, 0, 0]);
        let peeked = within(&*context, || context.space().peek(UserAddr(bad), &mut seen));
        assert_eq!(peeked.unwrap_or(0), 0, "{bad:#x}");
    }
}

#[test]
fn outputs_arrive_before_the_guest_goes_on() {
    let platform = platform();
    let Some(mut context) = load_caller(&platform) else { return };
    for len in [1u64, 8, 100, 4096, 9000] {
        context.space().write(UserAddr(BUFFER), &vec![0; len as usize + 1]);
        call(&mut *context, 0, [0, BUFFER, len]);
        let pattern: Vec<u8> = (0..len).map(|i| (i % 249 + 1) as u8).collect();
        let (head, tail) = pattern.split_at(len as usize / 2);
        within(&*context, || {
            assert_eq!(context.space().write(UserAddr(BUFFER), head), head.len());
            let at = UserAddr(BUFFER + head.len() as u64);
            assert_eq!(context.space().write(at, tail), tail.len());
        });
        assert_eq!(bytes_at(&*context, BUFFER, 1), [0], "not yet");
        context.set_return(len);
        assert_eq!(step(&mut *context), Event::Syscall);
        assert_eq!(bytes_at(&*context, BUFFER, len as usize), pattern);
        assert_eq!(bytes_at(&*context, BUFFER + len, 1), [0]);
    }
}

#[test]
fn what_was_written_is_read_back_at_once() {
    let platform = platform();
    let Some(mut context) = load_caller(&platform) else { return };
    call(&mut *context, 0, [0, BUFFER, 64]);
    within(&*context, || {
        context.space().write(UserAddr(BUFFER), b"0123456789");
        assert_eq!(bytes_at(&*context, BUFFER + 2, 4), b"2345");
        // And is in memory now, for others as well.
        context.space().write(UserAddr(BUFFER + 4), b"ab");
        assert_eq!(bytes_at(&*context, BUFFER, 10), b"0123ab6789");
    });
}

#[test]
fn settling_writes_what_waits() {
    let platform = platform();
    let Some(mut context) = load_caller(&platform) else { return };
    call(&mut *context, 0, [0, BUFFER, 64]);
    within(&*context, || context.space().write(UserAddr(BUFFER), b"waits"));
    block_on(context.settle()).expect("alive");
    assert_eq!(bytes_at(&*context, BUFFER, 5), b"waits");
    assert_eq!(step(&mut *context), Event::Syscall);
    assert_eq!(bytes_at(&*context, BUFFER, 5), b"waits");
}

#[test]
fn outputs_that_cannot_be_written_are_not_offered() {
    let platform = platform();
    let Some(mut context) = load_caller(&platform) else { return };
    for (at, len) in [(0, 8), (CODE + 0x1_0000, 8), (DATA + 0x2_0000 - 4, 8), (u64::MAX - 3, 8)] {
        call(&mut *context, 0, [0, at, len]);
        assert!(context.call_memory().is_none(), "{at:#x}");
    }
    let read_only = map(DATA + 0x10_0000, 4096, Prot::READ);
    block_on(context.execute(vec![read_only])).expect("alive").expect("mapped");
    call(&mut *context, 0, [0, DATA + 0x10_0000, 8]);
    assert!(context.call_memory().is_none());
}

#[test]
fn output_that_vanishes_meanwhile_is_efault() {
    let platform = platform();
    let Some(mut context) = load_caller(&platform) else { return };
    let at = DATA + 0x10_0000;
    let room = map(at, 4096, Prot::READ | Prot::WRITE);
    block_on(context.execute(vec![room])).expect("alive").expect("mapped");
    call(&mut *context, 0, [0, at, 8]);
    within(&*context, || context.space().write(UserAddr(at), b"nowhere"));
    let gone = HostOp::Unmap { addr: UserAddr(at), len: 4096 };
    block_on(context.execute(vec![gone])).expect("alive").expect("unmapped");
    context.set_return(7);
    assert_eq!(step(&mut *context), Event::Syscall);
    assert_eq!(context.regs().rax, abi::Errno::EFAULT.to_return());
}

/// All registers that a call has beside its number, as they are before and after.
fn registers(context: &mut dyn Context) -> [u64; 12] {
    let regs = context.regs();
    [
        regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9, regs.rbx, regs.rbp, regs.r12,
        regs.r13, regs.r14, regs.r15,
    ]
}

/// Makes the guest call `number` with values in all registers that the call does not have.
fn call_with_all(context: &mut dyn Context, number: u64, args: [u64; 3]) -> [u64; 12] {
    let regs = context.regs_mut();
    (regs.r10, regs.r8, regs.r9) = (0xa0a0_a0a0_1010, 0x0808_0808_8888, 0x9999_0909_0909);
    (regs.rbx, regs.rbp, regs.r12) = (0xb, 0xbb, 0xc12);
    (regs.r13, regs.r14, regs.r15) = (0xc13, 0xc14, 0xc15);
    call(context, number, args);
    registers(context)
}

const OTHERS: [u64; 9] =
    [0xa0a0_a0a0_1010, 0x0808_0808_8888, 0x9999_0909_0909, 0xb, 0xbb, 0xc12, 0xc13, 0xc14, 0xc15];

#[test]
fn small_inputs_leave_registers_alone() {
    let platform = platform();
    let Some(mut context) = load_caller(&platform) else { return };
    // write and pwrite64, below, at and above what fits beside their arguments.
    for (number, len) in
        [(1, 1), (1, 8), (1, 23), (1, 24), (1, 25), (18, 4), (18, 16), (18, 17), (1, 24)]
    {
        let pattern: Vec<u8> = (0..len).map(|i| (i % 251 + 1) as u8).collect();
        context.space().write(UserAddr(BUFFER + 1), &pattern);
        let before = call_with_all(&mut *context, number, [1, BUFFER + 1, len]);
        assert_eq!(before[..3], [1, BUFFER + 1, len]);
        assert_eq!(before[3..], OTHERS, "{number} {len}");
        context.space().write(UserAddr(BUFFER + 1), b"!");
        let seen = within(&*context, || bytes_at(&*context, BUFFER + 1, len as usize));
        assert_eq!(seen, Some(pattern), "{number} {len}");
        // Answered with the result alone, and with all registers.
        for _ in 0..2 {
            context.set_return(number);
            assert_eq!(step(&mut *context), Event::Syscall);
            assert_eq!(registers(&mut *context), before, "{number} {len}");
            context.regs_mut();
        }
    }
    // Of epoll_ctl the fourth argument, which is not there: nothing of it may be left behind.
    let regs = context.regs_mut();
    (regs.rdi, regs.rsi, regs.rdx) = (3, 1, 4);
    (regs.rax, regs.r10, regs.r8, regs.r9) = (233, CODE + 0x1_0000 - 4, 0x88, 0x99);
    assert_eq!(step(&mut *context), Event::Syscall);
    assert!(context.call_memory().is_none());
    assert_eq!(registers(&mut *context)[..6], [3, 1, 4, CODE + 0x1_0000 - 4, 0x88, 0x99]);
}

#[test]
fn small_outputs_leave_registers_alone() {
    let platform = platform();
    let Some(mut context) = load_caller(&platform) else { return };
    // Parts of one output: alone or together below, at and above what goes with the reply.
    for parts in [&[1][..], &[8, 8], &[48], &[47, 1], &[49], &[48, 1], &[40, 10, 3], &[4, 100]] {
        let len: u64 = parts.iter().sum();
        context.space().write(UserAddr(BUFFER), &[0; 256]);
        let before = call_with_all(&mut *context, 0, [0, BUFFER, 200]);
        let pattern: Vec<u8> = (0..len).map(|i| (i + 1) as u8).collect();
        within(&*context, || {
            let mut at = 0;
            for part in parts.iter().map(|part| *part as usize) {
                let bytes = &pattern[at..at + part];
                assert_eq!(context.space().write(UserAddr(BUFFER + at as u64), bytes), part);
                at += part;
            }
        });
        context.set_return(len);
        assert_eq!(step(&mut *context), Event::Syscall);
        assert_eq!((registers(&mut *context), context.regs().rax), (before, len), "{parts:?}");
        assert_eq!(bytes_at(&*context, BUFFER, len as usize), pattern, "{parts:?}");
        assert_eq!(bytes_at(&*context, BUFFER + len, 1), [0]);
    }
    // Not from its front, and the front twice.
    call_with_all(&mut *context, 0, [0, BUFFER, 200]);
    within(&*context, || {
        context.space().write(UserAddr(BUFFER + 3), b"defg");
        context.space().write(UserAddr(BUFFER), b"xyz");
        context.space().write(UserAddr(BUFFER), b"abc");
    });
    context.set_return(7);
    assert_eq!(step(&mut *context), Event::Syscall);
    assert_eq!(bytes_at(&*context, BUFFER, 7), b"abcdefg");
}

#[test]
fn kicks_find_the_registers_of_calls_with_small_outputs() {
    let platform = platform();
    let Some(mut context) = load_caller(&platform) else { return };
    let kicker = context.kicker();
    let mut interrupted = 0;
    for round in 0..2000_u64 {
        let before = call_with_all(&mut *context, 0, [0, BUFFER, 64]);
        within(&*context, || context.space().write(UserAddr(BUFFER), &round.to_le_bytes()));
        // The number of the next call, which is a call again.
        context.set_return(0);
        context.resume();
        kicker.kick();
        let mut event = next(&mut *context).expect("an event");
        while event == Event::Interrupted {
            interrupted += 1;
            assert_eq!(registers(&mut *context), before);
            event = step(&mut *context);
        }
        assert_eq!(event, Event::Syscall);
        assert_eq!(registers(&mut *context), before);
        assert_eq!(bytes_at(&*context, BUFFER, 8), round.to_le_bytes());
        // A kick that came too late has an event of its own.
        context.set_return(0);
        while step(&mut *context) == Event::Interrupted {}
    }
    assert!(interrupted > 0);
}

#[test]
fn a_lock_comes_along_with_the_commands_that_have_one() {
    let platform = platform();
    let Some(mut context) = load_caller(&platform) else { return };
    context.space().write(UserAddr(BUFFER), &[7; 32]);
    for (command, comes) in [(6, true), (7, true), (37, true), (5, true), (2, false), (1030, false)]
    {
        call(&mut *context, 72, [3, command, BUFFER]);
        assert_eq!(context.call_memory().is_some(), comes, "{command}");
    }
    // F_GETLK gives it back.
    call(&mut *context, 72, [3, 5, BUFFER]);
    within(&*context, || {
        assert_eq!(bytes_at(&*context, BUFFER, 32), [7; 32]);
        context.space().write(UserAddr(BUFFER), &[9; 32]);
    });
    context.set_return(0);
    assert_eq!(step(&mut *context), Event::Syscall);
    assert_eq!(bytes_at(&*context, BUFFER, 32), [9; 32]);
}
