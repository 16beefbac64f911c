//! Copies and threads.

use abi::UserAddr;
use platform::{Context, Event, HostOp, NewContext, Prot};

use crate::harness::{CODE, DATA, block_on, load, map, platform, step};

fn same_place(context: &mut dyn Context) -> NewContext {
    NewContext { regs: *context.regs(), fs_base: None }
}

#[test]
fn fork_copies_memory_registers_and_vector_state() {
    let platform = platform();
    let code = snippet!(
        "mov rbx, 0x600000",
        "movups xmm5, [rbx]",
        "mov r13d, 77",
        "mov eax, 57",
        "syscall",
        "mov [rbx + 64], rax",
        "movups [rbx + 80], xmm5",
        "mov eax, 60",
        "syscall"
    );
    let mut parent = load(&platform, code);
    parent.space().write(UserAddr(DATA), &[9; 16]);
    step(&mut *parent);
    for round in 0..20u64 {
        let mut new = same_place(&mut *parent);
        new.regs.rax = 1000 + round;
        let mut child = block_on(parent.fork(new)).expect("forked");
        assert_ne!(child.space().id(), parent.space().id());
        assert_eq!(step(&mut *child), Event::Syscall);
        assert_eq!((child.regs().rax, child.regs().r13), (60, 77));
        let mut bytes = [0; 32];
        child.space().read(UserAddr(DATA + 64), &mut bytes);
        assert_eq!(bytes[..8], (1000 + round).to_le_bytes());
        assert_eq!(bytes[16..], [9; 16]);
        parent.space().read(UserAddr(DATA + 64), &mut bytes);
        assert_eq!(bytes, [0; 32]);
    }
    assert_eq!(step(&mut *parent), Event::Syscall);
}

#[test]
fn fork_of_a_fork_of_a_fork() {
    let platform = platform();
    let code = snippet!("2:", "mov eax, 57", "syscall", "jmp 2b");
    let mut generations = vec![load(&platform, code)];
    for _ in 0..10 {
        let parent = generations.last_mut().expect("one");
        step(&mut **parent);
        let new = same_place(&mut **parent);
        let child = block_on(parent.fork(new)).expect("forked");
        generations.push(child);
    }
    for context in &mut generations {
        assert_eq!(step(&mut **context), Event::Syscall);
    }
}

#[test]
fn child_can_be_prepared_before_it_runs() {
    let platform = platform();
    let code =
        snippet!("mov eax, 57", "syscall", "mov rax, fs:[0]", "mov rdi, [0x800000]", "syscall");
    let mut parent = load(&platform, code);
    parent.space().write(UserAddr(DATA + 8), &5u64.to_le_bytes());
    step(&mut *parent);
    let new = NewContext { regs: *parent.regs(), fs_base: Some(DATA + 8) };
    let mut child = block_on(parent.fork(new)).expect("forked");
    block_on(child.execute(vec![map(0x80_0000, 0x1000, Prot::READ | Prot::WRITE)]))
        .expect("alive")
        .expect("mapped");
    child.space().write(UserAddr(0x80_0000), &6u64.to_le_bytes());
    assert_eq!(step(&mut *child), Event::Syscall);
    assert_eq!((child.regs().rax, child.regs().rdi), (5, 6));
}

#[test]
fn threads_share_memory_and_have_their_own_registers() {
    let platform = platform();
    let code = snippet!(
        "mov eax, 56",
        "syscall",
        "lock inc qword ptr [0x600000]",
        "mov rdi, fs:[0]",
        "2:",
        "mov eax, 186",
        "syscall",
        "jmp 2b"
    );
    let mut first = load(&platform, code);
    step(&mut *first);
    let mut threads = Vec::new();
    for index in 0..16u64 {
        let slot = DATA + 0x1000 + index * 8;
        first.space().write(UserAddr(slot), &index.to_le_bytes());
        let mut new = NewContext { regs: *first.regs(), fs_base: Some(slot) };
        new.regs.rsp = DATA + 0x2000 + index * 0x100;
        threads.push(block_on(first.clone_thread(new)).expect("a thread"));
    }
    for (index, thread) in threads.iter_mut().enumerate() {
        assert_eq!(thread.space().id(), first.space().id());
        assert_eq!(step(&mut **thread), Event::Syscall);
        assert_eq!((thread.regs().rax, thread.regs().rdi), (186, index as u64));
        assert_eq!(thread.fs_base(), DATA + 0x1000 + index as u64 * 8);
    }
    let mut count = [0; 8];
    first.space().read(UserAddr(DATA), &mut count);
    assert_eq!(u64::from_le_bytes(count), 16);
}

#[test]
fn slots_of_ended_threads_are_used_again() {
    let platform = platform();
    let code = snippet!("2:", "mov eax, 56", "syscall", "jmp 2b");
    let mut first = load(&platform, code);
    step(&mut *first);
    for _ in 0..300 {
        let new = same_place(&mut *first);
        let mut thread = block_on(first.clone_thread(new)).expect("a thread");
        assert_eq!(step(&mut *thread), Event::Syscall);
    }
    assert_eq!(step(&mut *first), Event::Syscall);
}

#[test]
fn memory_stays_reachable_when_the_first_thread_is_gone() {
    let platform = platform();
    let code = snippet!("2:", "mov eax, 56", "syscall", "jmp 2b");
    let mut first = load(&platform, code);
    step(&mut *first);
    let new = same_place(&mut *first);
    let mut second = block_on(first.clone_thread(new)).expect("a thread");
    assert_eq!(step(&mut *second), Event::Syscall);
    drop(first);
    std::thread::sleep(std::time::Duration::from_millis(20));
    let mut byte = [0; 2];
    assert_eq!(second.space().read(UserAddr(CODE), &mut byte), 2);
    block_on(second.execute(vec![HostOp::Unmap { addr: UserAddr(DATA), len: 0x1000 }]))
        .expect("alive")
        .expect("unmapped");
    assert_eq!(step(&mut *second), Event::Syscall);
}

#[test]
fn running_thread_ends_with_its_context() {
    let platform = platform();
    let code = snippet!("mov eax, 56", "syscall", "2:", "inc r12", "jmp 2b");
    let mut first = load(&platform, code);
    step(&mut *first);
    for _ in 0..20 {
        let new = same_place(&mut *first);
        let mut thread = block_on(first.clone_thread(new)).expect("a thread");
        thread.resume();
        std::thread::sleep(std::time::Duration::from_millis(1));
        drop(thread);
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    // Spinning threads would show as CPU time.
    let before = first.space().usage().user_ns;
    std::thread::sleep(std::time::Duration::from_millis(50));
    let spent = first.space().usage().user_ns - before;
    assert!(spent < 5_000_000, "{spent} ns of user time with no thread resumed");
}
