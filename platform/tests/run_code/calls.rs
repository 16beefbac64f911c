//! System calls, and the state that must survive them.

use abi::UserAddr;
use platform::{Event, NewContext};

use crate::harness::{DATA, block_on, load, platform, platform_with, step};

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
fn twenty_thousand_calls_come_in_order() {
    let platform = platform();
    let code = snippet!("2:", "mov eax, 39", "syscall", "inc r12", "jmp 2b");
    let mut context = load(&platform, code);
    for round in 0..20_000 {
        assert_eq!(step(&mut *context), Event::Syscall);
        assert_eq!(context.regs().r12, round);
    }
}

#[test]
fn unknown_x32_and_doorbell_numbers_reach_the_sentry() {
    let platform = platform();
    let code = snippet!(
        "mov rax, -1",
        "syscall",
        "mov eax, 0x40000001",
        "syscall",
        "mov eax, 110",
        "syscall"
    );
    let mut context = load(&platform, code);
    for number in [u64::MAX, 0x4000_0001, 110] {
        assert_eq!(step(&mut *context), Event::Syscall);
        assert_eq!(context.regs().rax, number);
    }
}

#[test]
fn vector_registers_survive_calls() {
    let platform = platform();
    if !std::arch::is_x86_feature_detected!("avx") {
        return;
    }
    // Fills ymm0 and ymm15 and x87, makes a call, stores them.
    let code = snippet!(
        "mov rbx, 0x600000",
        "vmovups ymm0, [rbx]",
        "vmovups ymm15, [rbx + 32]",
        "fldpi",
        "2:",
        "mov eax, 39",
        "syscall",
        "inc r12",
        "cmp r12, 1000",
        "jne 2b",
        "vmovups [rbx + 64], ymm0",
        "vmovups [rbx + 96], ymm15",
        "fstp qword ptr [rbx + 128]",
        "mov eax, 60",
        "syscall"
    );
    let mut context = load(&platform, code);
    let pattern: Vec<u8> = (1..=64).collect();
    context.space().write(UserAddr(DATA), &pattern);
    loop {
        assert_eq!(step(&mut *context), Event::Syscall);
        if context.regs().rax == 60 {
            break;
        }
    }
    let mut stored = vec![0; 72];
    context.space().read(UserAddr(DATA + 64), &mut stored);
    assert_eq!(&stored[..64], &pattern);
    assert_eq!(stored[64..72], std::f64::consts::PI.to_le_bytes());
}

#[test]
fn vector_state_can_be_read_replaced_and_reset() {
    let platform = platform();
    let code = snippet!(
        "mov rbx, 0x600000",
        "movups xmm3, [rbx]",
        "mov eax, 1",
        "syscall",
        "movups [rbx + 16], xmm3",
        "mov eax, 2",
        "syscall",
        "movups [rbx + 32], xmm3",
        "mov eax, 3",
        "syscall"
    );
    let mut context = load(&platform, code);
    context.space().write(UserAddr(DATA), &[7; 16]);
    step(&mut *context);
    block_on(context.settle()).expect("settled");
    let mut state = context.xstate();
    assert_eq!(state.len(), platform.layout().xstate_size);
    const XMM3: usize = 160 + 3 * 16;
    assert_eq!(state[XMM3..XMM3 + 16], [7; 16]);
    state[XMM3] = 99;
    context.set_xstate(&state).expect("well formed");
    step(&mut *context);
    let mut out = [0; 16];
    context.space().read(UserAddr(DATA + 16), &mut out);
    assert_eq!((out[0], out[1]), (99, 7));
    context.reset_xstate();
    step(&mut *context);
    context.space().read(UserAddr(DATA + 32), &mut out);
    assert_eq!(out, [0; 16]);

    block_on(context.settle()).expect("settled");
    let mut bad = context.xstate();
    bad[464] ^= 1;
    assert!(context.set_xstate(&bad).is_err());
    bad.truncate(100);
    assert!(context.set_xstate(&bad).is_err());
}

#[test]
fn thread_pointer_is_set_and_read() {
    let platform = platform();
    let code = snippet!("mov eax, 1", "syscall", "mov rax, fs:[0]", "syscall");
    let mut context = load(&platform, code);
    context.space().write(UserAddr(DATA + 64), &77u64.to_le_bytes());
    step(&mut *context);
    context.defer(platform::HostOp::SetFsBase(DATA + 64));
    assert_eq!(step(&mut *context), Event::Syscall);
    assert_eq!(context.regs().rax, 77);
    assert_eq!(context.fs_base(), DATA + 64);
}

#[test]
fn vdso_is_where_the_layout_says() {
    let platform = platform();
    let layout = platform.layout();
    let context = load(&platform, &[0xf4]);
    let vdso = layout.vdso.clone().expect("a vDSO");
    let mut magic = [0; 4];
    assert_eq!(context.space().read(UserAddr(vdso.start), &mut magic), 4);
    assert_eq!(&magic, b"\x7fELF");
    let maps =
        maps_of_children().into_iter().find(|maps| maps.contains(&format!("{:x}-", vdso.start)));
    let maps = maps.expect("a child with this vDSO");
    assert!(maps.contains(&format!("{:x}-{:x} r-xp", vdso.start, vdso.end)), "{maps}");
    let vvar = layout.vvar.clone().expect("vvar");
    assert_eq!(vvar.end, vdso.start);
    assert!(maps.contains(&format!("{:x}-", vvar.start)), "{maps}");
    // Nothing else is there: blob, scratch stack, page, channel, vvar and vDSO, and what the test mapped.
    assert!(!maps.contains("[stack]") && !maps.contains("[heap]"), "{maps}");
}

/// Memory maps of the children of this process.
fn maps_of_children() -> Vec<String> {
    let me = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let is_child = |stat: &str| {
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)) == Some(me.as_str())
    };
    entries
        .filter(|entry| {
            std::fs::read_to_string(entry.path().join("stat")).is_ok_and(|stat| is_child(&stat))
        })
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("maps")).ok())
        .collect()
}

#[test]
fn calls_through_the_vsyscall_page_reach_the_sentry() {
    let platform = platform();
    // time(2); vsyscall=none makes it a fault.
    let code = snippet!("mov rax, -10482688", "xor edi, edi", "call rax", "mov eax, 39", "syscall");
    let mut context = load(&platform, code);
    context.regs_mut().rax = 0;
    match step(&mut *context) {
        Event::Syscall if context.regs().rax == 201 => {
            assert_eq!(step(&mut *context), Event::Syscall);
            assert_eq!(context.regs().rax, 39);
        }
        Event::Fault(fault) => assert_eq!(fault.signal, 11),
        other => panic!("{other:?}: {:?}", context.regs()),
    }
}

#[test]
fn several_workers_serve_many_threads() {
    let platform = platform_with(3);
    let code = snippet!("2:", "mov eax, 39", "syscall", "inc r12", "jmp 2b");
    let mut first = load(&platform, code);
    step(&mut *first);
    std::thread::scope(|scope| {
        for _ in 0..12 {
            let new = NewContext { regs: *first.regs(), fs_base: None };
            let mut context = block_on(first.clone_thread(new)).expect("a thread");
            scope.spawn(move || {
                for round in 1..=2_000 {
                    assert_eq!(step(&mut *context), Event::Syscall);
                    assert_eq!(context.regs().r12, round);
                }
            });
        }
    });
}
