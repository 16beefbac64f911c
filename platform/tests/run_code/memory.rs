//! Guest memory: access from outside, host operations, files, deferral.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::{Errno, UserAddr};
use platform::{Backing, Event, HostOp, Prot};

use crate::harness::{CODE, DATA, block_on, load, map, platform, step};

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

fn file(content: &[u8]) -> Arc<OwnedFd> {
    let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
    let mut file = std::fs::File::from(fd);
    file.write_all(content).expect("written");
    Arc::new(file.into())
}

fn map_file(addr: u64, fd: &Arc<OwnedFd>, offset: u64) -> HostOp {
    HostOp::Map {
        addr: UserAddr(addr),
        len: 4096,
        prot: Prot::READ,
        shared: false,
        noreserve: false,
        backing: Backing::File { fd: Arc::clone(fd), offset },
    }
}

#[test]
fn files_are_mapped_and_their_descriptors_gone() {
    let platform = platform();
    let code = snippet!("2:", "mov eax, 39", "syscall", "jmp 2b");
    let mut context = load(&platform, code);
    let two_pages = [vec![1; 4096], vec![2; 4096]].concat();
    let files = [file(&two_pages), file(&[3; 4096]), file(&[4; 4096])];
    let ops = vec![
        map_file(0x70_0000, &files[0], 0),
        map_file(0x71_0000, &files[1], 0),
        map_file(0x72_0000, &files[0], 4096),
        map_file(0x73_0000, &files[2], 0),
    ];
    block_on(context.execute(ops)).expect("alive").expect("mapped");
    // And in the deferred way, hot or cold.
    for round in 0..100 {
        assert_eq!(step(&mut *context), Event::Syscall);
        context.defer(map_file(0x74_0000 + round * 0x1000, &files[1], 0));
    }
    step(&mut *context);
    let at = |addr: u64| {
        let mut byte = [0];
        context.space().read(UserAddr(addr), &mut byte);
        byte[0]
    };
    let seen =
        [0x70_0000, 0x71_0000, 0x72_0000, 0x73_0000, 0x74_0000, 0x74_0000 + 99 * 0x1000].map(at);
    assert_eq!(seen, [1, 3, 2, 4, 3, 3]);
}

#[test]
fn operations_stop_at_the_first_failure() {
    let platform = platform();
    let mut context = load(&platform, &[0xf4]);
    let ops = vec![
        map(0x70_0000, 0x1000, Prot::READ),
        HostOp::Protect { addr: UserAddr(0x90_0000), len: 0x1000, prot: Prot::READ },
        map(0x71_0000, 0x1000, Prot::READ),
    ];
    let outcome = block_on(context.execute(ops)).expect("alive");
    assert_eq!(outcome, Err((1, Errno::ENOMEM)));
    let mut byte = [0];
    assert_eq!(context.space().read(UserAddr(0x70_0000), &mut byte), 1);
    assert_eq!(context.space().read(UserAddr(0x71_0000), &mut byte), 0);
}

#[test]
fn deferred_operations_run_before_the_guest_or_their_failure_is_an_event() {
    let platform = platform();
    let code = snippet!("2:", "mov eax, [r15]", "mov edi, eax", "mov eax, 39", "syscall", "jmp 2b");
    let mut context = load(&platform, code);
    context.regs_mut().r15 = 0x70_0000;
    context.defer(map(0x70_0000, 0x1000, Prot::READ));
    assert_eq!(step(&mut *context), Event::Syscall);
    // More than one reply holds.
    for page in 1..=200 {
        context.defer(map(0x70_0000 + page * 0x1000, 0x1000, Prot::READ));
    }
    context.defer(HostOp::Unmap { addr: UserAddr(0x70_0001), len: 0x1000 });
    context.defer(map(0x90_0000, 0x1000, Prot::READ));
    let event = step(&mut *context);
    assert_eq!(event, Event::DeferredFailed { index: 200, errno: Errno::EINVAL });
    let mut byte = [0];
    assert_eq!(context.space().read(UserAddr(0x70_0000 + 200 * 0x1000), &mut byte), 1);
    assert_eq!(context.space().read(UserAddr(0x90_0000), &mut byte), 0);
    assert_eq!(step(&mut *context), Event::Syscall);
}

#[test]
fn remap_and_advise() {
    let platform = platform();
    let mut context = load(&platform, &[0xf4]);
    context.space().write(UserAddr(DATA), b"moved");
    let ops = vec![
        HostOp::Remap {
            addr: UserAddr(DATA),
            len: 0x1000,
            new_addr: UserAddr(0xa0_0000),
            new_len: 0x3000,
            keep_old: false,
        },
        HostOp::Advise { addr: UserAddr(CODE), len: 0x1000, advice: 4 },
        HostOp::Sync { addr: UserAddr(0xa0_0000), len: 0x1000, flags: 4 },
    ];
    block_on(context.execute(ops)).expect("alive").expect("done");
    let mut bytes = [0; 5];
    assert_eq!(context.space().read(UserAddr(0xa0_0000), &mut bytes), 5);
    assert_eq!(&bytes, b"moved");
    assert_eq!(context.space().read(UserAddr(DATA), &mut bytes), 0);
    let mut byte = [9];
    assert_eq!(context.space().read(UserAddr(CODE), &mut byte), 1);
    assert_eq!(byte, [0], "MADV_DONTNEED forgot the code");
}

#[test]
fn compare_exchange_works_and_faults() {
    let platform = platform();
    let mut context = load(&platform, &[0xf4]);
    context.space().write(UserAddr(DATA), &5u32.to_le_bytes());
    let mut swap = |addr, expected, new| {
        block_on(context.compare_exchange(UserAddr(addr), expected, new)).expect("alive")
    };
    assert_eq!(swap(DATA, 4, 9), Ok(5));
    assert_eq!(swap(DATA, 5, 6), Ok(5));
    assert_eq!(swap(DATA, 6, 7), Ok(6));
    assert_eq!(swap(0x10_0000, 6, 7), Err(Errno::EFAULT));
    assert_eq!(swap(DATA + 1, 6, 7), Err(Errno::EFAULT));
    assert_eq!(swap(DATA, 7, 8), Ok(7));
}

#[test]
fn dropped_execution_is_finished_before_what_comes_next() {
    let platform = platform();
    let code = snippet!("2:", "mov eax, 39", "syscall", "jmp 2b");
    let mut context = load(&platform, code);
    for round in 0..50u64 {
        {
            let page = 0x100_0000 + round * 0x1000;
            let mut execution = context.execute(vec![map(page, 0x1000, Prot::READ)]);
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            let _ = execution.as_mut().poll(&mut cx);
        }
        if round % 2 == 0 {
            let page = 0x200_0000 + round * 0x1000;
            block_on(context.execute(vec![map(page, 0x1000, Prot::READ)]))
                .expect("alive")
                .expect("mapped");
        }
        assert_eq!(step(&mut *context), Event::Syscall);
    }
    let mut byte = [0];
    for round in 0..50u64 {
        let addr = UserAddr(0x100_0000 + round * 0x1000);
        assert_eq!(context.space().read(addr, &mut byte), 1, "{round}");
    }
}
