//! Guests that attack their own shim and channel: they die, the platform lives.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use abi::Errno;
use platform::{Context, Event, NewContext, Platform, PlatformError};

use crate::harness::{block_on, load, next, platform, step};

/// Runs until it dies, answering calls meanwhile.
pub fn run_to_death(context: &mut dyn Context) -> String {
    for _ in 0..10_000 {
        context.resume();
        match next(context) {
            Ok(_) => {}
            Err(PlatformError::Died(reason)) => return reason,
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("it did not die");
}

fn still_works(platform: &Arc<dyn Platform>) {
    let mut context = load(platform, snippet!("mov eax, 39", "syscall"));
    assert_eq!(step(&mut *context), Event::Syscall);
}

/// A `syscall` instruction of the shim, as a guest would find it.
pub fn gadget(context: &dyn Context) -> u64 {
    let mut text = vec![0; 0x1_0000];
    let base = 0x7e00_0001_0000;
    for (page, bytes) in text.chunks_mut(0x1000).enumerate() {
        context.space().read(abi::UserAddr(base + page as u64 * 0x1000), bytes);
    }
    // The one in `raw_clone`: goes on with `pop; pop; ret`, or with `call r12` when the result is 0. The page before the text
    // has the same bytes of the file, not executable.
    let pattern = [0x0f, 0x05, 0x48, 0x85, 0xc0, 0x74, 0x05, 0x41, 0x5d, 0x41, 0x5c, 0xc3];
    let at = text.windows(pattern.len()).rposition(|bytes| bytes == pattern);
    base + at.expect("a syscall instruction") as u64
}

#[test]
fn guest_that_scribbles_over_its_slot_dies_or_is_refused() {
    let platform = platform();
    // Fills the head and the stack of slot 0 with a pattern, then makes a call.
    let code = snippet!(
        "mov rdi, 0x7e0040000000",
        "mov ecx, 0x2000",
        "mov rax, 0x4141414141414141",
        "rep stosq",
        "2:",
        "mov eax, 39",
        "syscall",
        "jmp 2b"
    );
    let mut context = load(&platform, code);
    context.resume();
    assert!(matches!(next(&mut *context), Ok(Event::Syscall) | Err(PlatformError::Died(_))));
    drop(context);
    still_works(&platform);
}

#[test]
fn guest_that_posts_nonsense_dies_of_it() {
    let platform = platform();
    for (kind, signal, frame) in
        [(9u64, 31, 0x8000), (1, 31, 0xfff0), (1, 77, 0x8000), (1, 31, 3), (2, 0, 0)]
    {
        let code = snippet!(
            "mov rbx, 0x7e0040000000",
            "mov [rbx + 8], r8d",
            "mov [rbx + 32], r9d",
            "mov [rbx + 36], r10d",
            "mov dword ptr [rbx], 1",
            "2:",
            "mov eax, 110",
            "mov edi, 3",
            "lea r12, [rip + 3f]",
            "push r12",
            "push r12",
            "push r12",
            "jmp r14",
            "3:",
            "jmp 2b"
        );
        let mut context = load(&platform, code);
        let at = gadget(&*context);
        let regs = context.regs_mut();
        (regs.r8, regs.r9, regs.r10, regs.r14) = (kind, signal, frame, at);
        context.resume();
        match next(&mut *context) {
            Err(PlatformError::Died(reason)) => {
                assert!(reason.starts_with("broke its channel"), "{reason}");
            }
            other => panic!("kind {kind} signal {signal} frame {frame:#x}: {other:?}"),
        }
    }
    still_works(&platform);
}

#[test]
fn guest_that_unmaps_its_channel_dies() {
    let platform = platform();
    let code = snippet!(
        "mov eax, 11",
        "mov rdi, 0x7e0040000000",
        "mov esi, 0x10000000",
        "lea r12, [rip + 2f]",
        "push r12",
        "push r12",
        "push r12",
        "jmp r14",
        "2:",
        "mov eax, 39",
        "syscall",
        "jmp 2b"
    );
    let mut context = load(&platform, code);
    context.regs_mut().r14 = gadget(&*context);
    let reason = run_to_death(&mut *context);
    assert!(reason.contains("signal 11") || reason.contains("status"), "{reason}");
    still_works(&platform);
}

#[test]
fn calls_beyond_the_list_kill_even_from_the_shim() {
    let platform = platform();
    // getuid, open, socket, kill, process_vm_readv, clone with another flag.
    for (nr, arg) in [(102u64, 0), (2, 0), (41, 1), (62, 1), (310, 1), (56, 17)] {
        let mut context = load(&platform, snippet!("mov rax, r12", "mov rdi, r13", "jmp r14"));
        let at = gadget(&*context);
        let regs = context.regs_mut();
        (regs.r12, regs.r13, regs.r14) = (nr, arg, at);
        assert_eq!(run_to_death(&mut *context), "killed by signal 31", "call {nr}");
    }
    still_works(&platform);
}

#[test]
fn guests_cannot_copy_themselves() {
    let platform = platform();
    // Through the shim's own instruction, then all there are say hello.
    let code = snippet!(
        "mov eax, 56",
        "mov edi, 0x8011",
        "xor esi, esi",
        "xor edx, edx",
        "xor r10d, r10d",
        "xor r8d, r8d",
        "lea r12, [rip + 3f]",
        "push r12",
        "push r12",
        "push r12",
        "jmp r14",
        "3:",
        "mov eax, 110",
        "mov edi, 2",
        "mov esi, 12345",
        "jmp r14",
        "2:",
        "pause",
        "jmp 2b"
    );
    let mut context = load(&platform, code);
    context.regs_mut().r14 = gadget(&*context);
    let reason = run_to_death(&mut *context);
    assert_eq!(reason, "broke its channel: a clone that nobody ordered");
    still_works(&platform);
}

#[test]
fn hello_that_nobody_ordered_kills() {
    let platform = platform();
    let code = snippet!("mov eax, 110", "mov edi, 2", "mov esi, 12345", "jmp r14");
    let mut context = load(&platform, code);
    context.regs_mut().r14 = gadget(&*context);
    assert_eq!(run_to_death(&mut *context), "broke its channel: a hello that nobody ordered");
    still_works(&platform);
}

/// As the zygote would, in whose loop a guest could otherwise stand for ever, whoever kicks it.
#[test]
fn a_copy_that_dies_before_its_hello_is_an_error() {
    let platform = platform();
    // The stack on which copies begin, made unwritable; the parent does not need it.
    let code = snippet!(
        "mov eax, 10",
        "mov rdi, 0x7e0000c07000",
        "mov esi, 0x1000",
        "mov edx, r15d",
        "lea r12, [rip + 2f]",
        "push r12",
        "push r12",
        "push r12",
        "jmp r14",
        "2:",
        "pop r12",
        "mov eax, 57",
        "syscall",
    );
    let mut parent = load(&platform, code);
    let at = gadget(&*parent);
    (parent.regs_mut().r14, parent.regs_mut().r15) = (at, 1);
    for _ in 0..3 {
        assert_eq!(step(&mut *parent), Event::Syscall);
        assert_eq!(parent.regs().rax, 57, "the stack was protected");
        let new = NewContext { regs: *parent.regs(), fs_base: None };
        let made = block_on(parent.fork(new));
        assert!(matches!(made, Err(PlatformError::Exhausted(Errno::EAGAIN))));
        // Again, from the start.
        parent.regs_mut().rip = crate::harness::CODE;
    }
    parent.regs_mut().r15 = 3;
    assert_eq!(step(&mut *parent), Event::Syscall);
    let new = NewContext { regs: *parent.regs(), fs_base: None };
    let mut child = block_on(parent.fork(new)).expect("writable again");
    child.regs_mut().rip -= 2;
    assert_eq!(step(&mut *child), Event::Syscall);
    still_works(&platform);
}

#[test]
fn ring_of_no_kind_kills() {
    let platform = platform();
    for why in [1, 4] {
        let mut context = load(&platform, snippet!("mov eax, 110", "mov rdi, r12", "jmp r14"));
        let at = gadget(&*context);
        (context.regs_mut().r12, context.regs_mut().r14) = (why, at);
        assert_eq!(run_to_death(&mut *context), "broke its channel: a ring of no kind");
    }
    still_works(&platform);
}

/// The next thing that happens to either context; `None` when nothing does for a while.
fn next_of(contexts: [&mut Box<dyn Context>; 2]) -> Option<(usize, Result<Event, PlatformError>)> {
    let [first, second] = contexts;
    let deadline = Instant::now() + Duration::from_millis(30);
    let waker = std::thread::current();
    let alarm = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(35));
        waker.unpark();
    });
    let outcome = block_on(poll_fn(|cx| {
        if let Poll::Ready(event) = first.poll_event(cx) {
            return Poll::Ready(Some((0, event)));
        }
        if let Poll::Ready(event) = second.poll_event(cx) {
            return Poll::Ready(Some((1, event)));
        }
        if Instant::now() > deadline { Poll::Ready(None) } else { Poll::Pending }
    }));
    drop(alarm);
    outcome
}

#[test]
fn scribbling_over_channels_while_calls_are_made_harms_nobody_else() {
    let platform = platform();
    // One thread makes calls; the other writes pseudo-random words to pseudo-random places of the first two
    // slots (or, every other time, only to their heads), with calls in between.
    let caller = snippet!("2:", "mov eax, 39", "syscall", "jmp 2b");
    for seed in 1..=60u64 {
        let mut first = load(&platform, caller);
        let scribbler = snippet!(
            "mov rbx, 0x7e0040000000",
            "2:",
            "mov rax, r12",
            "shl rax, 13",
            "xor r12, rax",
            "mov rax, r12",
            "shr rax, 7",
            "xor r12, rax",
            "mov rax, r12",
            "shl rax, 17",
            "xor r12, rax",
            "mov rcx, r12",
            "and rcx, r13",
            "mov rdx, r12",
            "shr rdx, 32",
            "mov rax, rdx",
            "and rax, 7",
            "test edx, 0x100",
            "cmovz rdx, rax",
            "mov [rbx + rcx], edx",
            "dec r14",
            "jnz 2b",
            "mov r14, r15",
            "mov eax, 40",
            "syscall",
            "jmp 2b"
        );
        first.space().write(abi::UserAddr(crate::harness::CODE + 0x100), scribbler);
        assert_eq!(step(&mut *first), Event::Syscall);
        let mut regs = *first.regs();
        regs.rip = crate::harness::CODE + 0x100;
        regs.r12 = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        regs.r13 = if seed % 2 == 0 { 0x3_fffc } else { 0x2_00fc };
        (regs.r14, regs.r15) = (seed * 3, seed % 40 + 1);
        let new = NewContext { regs, fs_base: None };
        let mut second = block_on(first.clone_thread(new)).expect("a thread");
        first.resume();
        second.resume();
        for _ in 0..2_000 {
            match next_of([&mut first, &mut second]) {
                Some((0, Ok(_))) => first.resume(),
                Some((_, Ok(_))) => second.resume(),
                Some((_, Err(PlatformError::Died(_)))) => break,
                Some((_, Err(other))) => panic!("seed {seed}: {other:?}"),
                None => {
                    first.space().kill();
                    assert!(matches!(next(&mut *first), Err(PlatformError::Died(_))));
                    break;
                }
            }
        }
    }
    still_works(&platform);
}

#[test]
fn guests_have_no_descriptors_no_capabilities_and_a_filter() {
    let platform = platform();
    let mut context = load(&platform, snippet!("2:", "mov eax, 39", "syscall", "jmp 2b"));
    assert_eq!(step(&mut *context), Event::Syscall);
    // The one whose memory this is.
    let mark = 0x5ca1_ab1e_0000_0000 | u64::from(std::process::id());
    context.space().write(abi::UserAddr(crate::harness::DATA), &mark.to_le_bytes());
    let is_ours = |dir: &std::path::Path| {
        use std::os::unix::fs::FileExt;
        let Ok(memory) = std::fs::File::open(dir.join("mem")) else { return false };
        let mut word = [0; 8];
        memory.read_exact_at(&mut word, crate::harness::DATA).is_ok() && word == mark.to_le_bytes()
    };
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
    let is_shim = |dir: &std::path::Path| {
        std::fs::read_to_string(dir.join("comm")).is_ok_and(|comm| comm.contains("shim"))
    };
    let guest = entries.filter(|dir| is_shim(dir)).find(|dir| is_ours(dir)).expect("the guest");
    assert_eq!(std::fs::read_dir(guest.join("fd")).expect("readable").count(), 0);
    let status = std::fs::read_to_string(guest.join("status")).expect("readable");
    for line in
        ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
    {
        assert!(status.contains(line), "{line} is not in\n{status}");
    }
}
