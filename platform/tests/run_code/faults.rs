//! Processor exceptions and kicks.

use std::time::{Duration, Instant};

use platform::{Event, Prot};

use crate::harness::{CODE, load, map, next, platform, step};

#[test]
fn bad_access_is_a_fault_with_its_address() {
    let platform = platform();
    let code = snippet!("mov rax, [0x123456]", "nop", "mov eax, 39", "syscall");
    let mut context = load(&platform, code);
    let Event::Fault(fault) = step(&mut *context) else { panic!("no fault") };
    assert_eq!((fault.signal, fault.code, fault.addr), (11, 1, 0x12_3456));
    assert_eq!((fault.trapno, fault.cr2), (14, 0x12_3456));
    assert_eq!(context.regs().rip, CODE);
    // Skipping the instruction is what a handler might do.
    context.regs_mut().rip += 8;
    assert_eq!(step(&mut *context), Event::Syscall);
}

#[test]
fn each_exception_has_its_signal() {
    let platform = platform();
    let cases: [(&[u8], u8); 4] = [
        (snippet!("ud2"), 4),
        (snippet!("int3"), 5),
        (snippet!("xor ecx, ecx", "xor edx, edx", "mov eax, 1", "div ecx"), 8),
        (snippet!("mov rax, 0x800000000000", "mov rax, [rax]"), 11),
    ];
    for (code, signal) in cases {
        let mut context = load(&platform, code);
        match step(&mut *context) {
            Event::Fault(fault) => assert_eq!(fault.signal, signal),
            other => panic!("{other:?} instead of signal {signal}"),
        }
    }
}

#[test]
fn stack_pointer_may_be_garbage() {
    let platform = platform();
    let code = snippet!("mov rsp, 0x1234567812345678", "mov eax, 39", "syscall", "mov [rsp], eax");
    let mut context = load(&platform, code);
    assert_eq!(step(&mut *context), Event::Syscall);
    assert_eq!(context.regs().rsp, 0x1234_5678_1234_5678);
    assert!(
        matches!(step(&mut *context), Event::Fault(fault) if fault.signal == 11 || fault.signal == 7)
    );
}

#[test]
fn kick_interrupts_an_endless_loop() {
    let platform = platform();
    let mut context = load(&platform, snippet!("2:", "inc r12", "jmp 2b"));
    for _ in 0..50 {
        let kicker = context.kicker();
        context.resume();
        let kick = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(1));
            kicker.kick();
        });
        assert_eq!(next(&mut *context).expect("alive"), Event::Interrupted);
        kick.join().expect("kicked");
    }
}

#[test]
fn kick_right_after_resume_is_never_lost() {
    let platform = platform();
    let mut context = load(&platform, snippet!("2:", "pause", "jmp 2b"));
    let kicker = context.kicker();
    let start = Instant::now();
    for _ in 0..2000 {
        context.resume();
        kicker.kick();
        assert_eq!(next(&mut *context).expect("alive"), Event::Interrupted);
        if start.elapsed() > Duration::from_secs(10) {
            break;
        }
    }
}

#[test]
fn kicks_among_calls_cost_only_spurious_interrupts() {
    let platform = platform();
    let mut context =
        load(&platform, snippet!("2:", "mov eax, 39", "syscall", "inc r12", "jmp 2b"));
    let kicker = context.kicker();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let kicking = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            kicker.kick();
            std::thread::sleep(Duration::from_micros(20));
        }
    });
    let mut calls = 0;
    while calls < 5000 {
        match step(&mut *context) {
            Event::Syscall => {
                assert_eq!((context.regs().rax, context.regs().r12), (39, calls));
                calls += 1;
            }
            Event::Interrupted => {}
            other => panic!("{other:?}"),
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    kicking.join().expect("done");
}

#[test]
fn kick_while_operations_are_executed_first_is_not_lost() {
    let platform = platform();
    let mut context = load(&platform, snippet!("2:", "pause", "jmp 2b"));
    let kicker = context.kicker();
    for round in 0..50u64 {
        // More than one reply holds.
        for page in 0..120 {
            context.defer(map(0x100_0000 + (round * 120 + page) * 0x1000, 0x1000, Prot::READ));
        }
        context.resume();
        let kicker = std::sync::Arc::clone(&kicker);
        let kick = std::thread::spawn(move || kicker.kick());
        assert_eq!(next(&mut *context).expect("alive"), Event::Interrupted);
        kick.join().expect("kicked");
    }
}
