//! Runs machine code in contexts of the seccomp platform: calls, faults, kicks, copies, threads, deaths.

mod harness;

use std::sync::Arc;

use abi::UserAddr;
use harness::{CODE, DATA, block_on, load, map, next, platform, step};
use platform::{Event, HostOp, NewContext, PlatformError, Prot};

#[test]
fn call_reports_number_and_arguments_and_returns_what_the_sentry_says() {
    let platform = platform();
    let code =
        snippet!("mov eax, 39", "mov edi, 7", "syscall", "mov rdi, rax", "mov eax, 60", "syscall");
    let mut context = load(&platform, code);
    assert_eq!(step(&mut *context), Event::Syscall);
    assert_eq!(context.regs().rax, 39);
    assert_eq!(context.regs().rdi, 7);
    context.regs_mut().rax = 1234;
    assert_eq!(step(&mut *context), Event::Syscall);
    assert_eq!((context.regs().rax, context.regs().rdi), (60, 1234));
}

#[test]
fn memory_is_read_and_written_up_to_the_first_bad_page() {
    let platform = platform();
    let context = load(&platform, &[0xf4]);
    let space = context.space();
    assert_eq!(space.write(UserAddr(DATA + 100), b"hello"), 5);
    let mut bytes = [0; 5];
    assert_eq!(space.read(UserAddr(DATA + 100), &mut bytes), 5);
    assert_eq!(&bytes, b"hello");
    let mut many = vec![0; 0x4_0000];
    assert_eq!(space.read(UserAddr(DATA + 0x1_0010), &mut many), 0xfff0);
    assert_eq!(space.read(UserAddr(0x10), &mut many), 0);
    let ranges = [(UserAddr(DATA), 2), (UserAddr(DATA + 100), 3), (UserAddr(0x10), 4)];
    assert_eq!(space.read_vectored(&ranges, &mut many[..9]), 5);
    assert_eq!(&many[..5], b"\0\0hel");
}

#[test]
fn ten_thousand_calls() {
    let platform = platform();
    let code = snippet!("2:", "mov eax, 39", "syscall", "inc r12", "jmp 2b");
    let mut context = load(&platform, code);
    for round in 0..10_000 {
        assert_eq!(step(&mut *context), Event::Syscall);
        assert_eq!(context.regs().r12, round);
    }
}
