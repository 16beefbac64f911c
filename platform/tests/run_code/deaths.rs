//! Ends: killed processes, dropped contexts, no zombie.

use abi::UserAddr;
use platform::{Event, NewContext, PlatformError};

use crate::harness::{DATA, block_on, load, next, platform, step};

/// Child processes of this one, by state; the tests of this file run in a process with others, so only the
/// zombies are looked at.
fn zombies() -> usize {
    let me = std::process::id().to_string();
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let is_zombie = |stat: String| {
        let rest = stat.rsplit(')').next().unwrap_or_default();
        let mut fields = rest.split_whitespace();
        fields.next() == Some("Z") && fields.next() == Some(me.as_str())
    };
    entries
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| is_zombie(stat.clone()))
        .count()
}

fn no_zombie_after_a_while() {
    for _ in 0..100 {
        if zombies() == 0 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("{} zombies", zombies());
}

#[test]
fn killed_process_says_so() {
    let platform = platform();
    let mut context = load(&platform, snippet!("2:", "pause", "jmp 2b"));
    context.resume();
    context.space().kill();
    match next(&mut *context) {
        Err(PlatformError::Died(reason)) => assert_eq!(reason, "killed by signal 9"),
        other => panic!("{other:?}"),
    }
    let mut byte = [0];
    assert_eq!(context.space().read(UserAddr(DATA), &mut byte), 0);
    assert!(block_on(context.execute(vec![])).is_ok());
    drop(context);
    no_zombie_after_a_while();
}

#[test]
fn foreign_architecture_kills_the_process() {
    let platform = platform();
    let mut context = load(&platform, snippet!("mov eax, 20", "int 0x80"));
    context.resume();
    match next(&mut *context) {
        Err(PlatformError::Died(reason)) => assert_eq!(reason, "killed by signal 31"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn dropped_contexts_leave_nothing() {
    let platform = platform();
    for _ in 0..30 {
        let mut context = load(&platform, snippet!("mov eax, 39", "syscall", "2:", "jmp 2b"));
        assert_eq!(step(&mut *context), Event::Syscall);
        let new = NewContext { regs: *context.regs(), fs_base: None };
        let mut child = block_on(context.fork(new)).expect("forked");
        child.resume();
    }
    no_zombie_after_a_while();
}

#[test]
fn execution_cut_short_ends_cleanly() {
    let platform = platform();
    let mut context = load(&platform, snippet!("2:", "mov eax, 39", "syscall", "jmp 2b"));
    step(&mut *context);
    let new = NewContext { regs: *context.regs(), fs_base: None };
    {
        // Polled once, then dropped: the child nobody waits for must go.
        let mut fork = context.fork(new);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = fork.as_mut().poll(&mut cx);
    }
    drop(context);
    no_zombie_after_a_while();
}
