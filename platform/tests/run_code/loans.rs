//! Files lent to guest code: read by the shim, taken back, closed; and guests that make what they like of it.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use abi::UserAddr;
use platform::{Context, Event, HostOp, Loan, NewContext, Platform, Prot};

use crate::fast::load_fast;
use crate::harness::{DATA, block_on, map, next, platform, step};
use crate::hostile::{gadget, run_to_death};

/// Descriptor that the snippets read, and where to.
const NUMBER: u32 = 5;
const BUFFER: UserAddr = UserAddr(DATA + 0x1000);
/// Its word in the guest.
const WORD: UserAddr = UserAddr(0x7e00_5ffe_0000 + 8 * NUMBER as u64);

/// A file whose byte n is n, to be read only.
fn file() -> Arc<OwnedFd> {
    let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
    let mut file = std::fs::File::from(fd);
    file.write_all(&(0..=255).collect::<Vec<u8>>()).expect("written");
    reopened(&file.into(), rustix::fs::OFlags::RDONLY)
}

fn reopened(fd: &OwnedFd, flags: rustix::fs::OFlags) -> Arc<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Arc::new(rustix::fs::open(path, flags, rustix::fs::Mode::empty()).expect("it is ours"))
}

/// Reads 16 bytes again and again; after each read a call 39 with the result in rbx.
fn reader(platform: &Arc<dyn Platform>) -> Option<Box<dyn Context>> {
    let code = snippet!(
        "2:",
        "xor eax, eax",
        "mov edi, 5",
        "mov esi, 0x601000",
        "mov edx, 16",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "mov rbx, rax",
        "mov eax, 39",
        "lea rcx, [rip + 4f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "4:",
        "jmp 2b",
    );
    load_fast(platform, code)
}

/// Lends the file from a position on, with the next resume.
fn lend(context: &mut dyn Context, fd: &Arc<OwnedFd>, at: u64) -> Arc<dyn Loan> {
    let loan = context.space().lend(NUMBER, fd.as_fd()).expect("a plain file");
    assert!(loan.give(at));
    context.defer(HostOp::Lend { fd: Arc::clone(fd), loan: Arc::clone(&loan) });
    context.kicker().set_lends(true);
    loan
}

/// The next call: its number, and what the last read returned.
fn call(context: &mut dyn Context) -> (u64, i64) {
    assert_eq!(step(context), Event::Syscall);
    (context.call().number, context.regs().rbx.cast_signed())
}

fn bytes(context: &dyn Context) -> [u8; 16] {
    let mut bytes = [0; 16];
    assert_eq!(context.space().read(BUFFER, &mut bytes), 16);
    bytes
}

/// The descriptors of the guest whose memory has our mark, as /proc names them.
fn descriptors(context: &dyn Context) -> Vec<String> {
    let mark = 0x10a4_5000_0000_0000 | std::ptr::from_ref(context).addr() as u64;
    context.space().write(UserAddr(DATA), &mark.to_le_bytes());
    let is_ours = |dir: &PathBuf| {
        use std::os::unix::fs::FileExt;
        let Ok(memory) = std::fs::File::open(dir.join("mem")) else { return false };
        let mut word = [0; 8];
        memory.read_exact_at(&mut word, DATA).is_ok() && word == mark.to_le_bytes()
    };
    let is_shim = |dir: &PathBuf| {
        std::fs::read_to_string(dir.join("comm")).is_ok_and(|comm| comm.contains("shim"))
    };
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
    let guest = entries.filter(is_shim).find(is_ours).expect("the guest");
    let entries = std::fs::read_dir(guest.join("fd")).expect("readable").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn lent_files_are_read_without_a_call_until_the_loan_ends() {
    let platform = platform();
    let Some(mut context) = reader(&platform) else { return };
    assert_eq!(call(&mut *context).0, 0, "nothing is lent");
    context.set_return(7);
    assert_eq!(call(&mut *context), (39, 7));
    let fd = file();
    let loan = lend(&mut *context, &fd, 32);
    for round in 0..5 {
        assert_eq!(call(&mut *context), (39, 16));
        assert_eq!(bytes(&*context)[..2], [32 + 16 * round, 33 + 16 * round]);
    }
    let taken = loan.take();
    assert_eq!((taken.at, taken.is_over), (112, false));
    // Nobody reads while it is taken.
    assert_eq!(call(&mut *context).0, 0);
    assert!(loan.give(250));
    context.set_return(1);
    assert_eq!(call(&mut *context), (39, 1));
    assert_eq!(call(&mut *context), (39, 6), "up to the end");
    assert_eq!(call(&mut *context), (39, 0));
    assert_eq!(descriptors(&*context), ["32"]);
    loan.end();
    assert_eq!(call(&mut *context).0, 0);
    assert_eq!((loan.take().at, loan.is_over(), loan.give(3)), (256, true, false));
    assert!(descriptors(&*context).is_empty());
}

#[test]
fn what_is_taken_when_it_ends_is_not_given_back() {
    let platform = platform();
    let Some(mut context) = reader(&platform) else { return };
    assert_eq!(call(&mut *context).0, 0);
    let fd = file();
    // Ended before it was begun.
    let loan = lend(&mut *context, &fd, 8);
    loan.end();
    assert_eq!(call(&mut *context).0, 39);
    assert_eq!(call(&mut *context).0, 0);
    assert_eq!(loan.take().at, 8);
    // And while somebody has the position, from before it was begun on.
    let loan = context.space().lend(NUMBER, fd.as_fd()).expect("a plain file");
    context.defer(HostOp::Lend { fd: Arc::clone(&fd), loan: Arc::clone(&loan) });
    context.set_return(2);
    assert_eq!(call(&mut *context), (39, 2));
    assert_eq!(call(&mut *context).0, 0, "the position is taken");
    loan.end();
    assert!(!loan.give(9));
    assert_eq!(call(&mut *context).0, 39);
    assert!(descriptors(&*context).is_empty());
    // A position that has no room.
    let loan = lend(&mut *context, &fd, 0);
    assert!(!loan.give(1 << 41) && loan.is_over());
}

#[test]
fn copies_have_nothing_on_loan_and_no_descriptors_of_it() {
    let platform = platform();
    let Some(mut context) = reader(&platform) else { return };
    assert_eq!(call(&mut *context).0, 0);
    let fd = file();
    let loan = lend(&mut *context, &fd, 0);
    // One more thread of the parent's, which has no loans until it is said to.
    assert_eq!(call(&mut *context).0, 39);
    let new = || NewContext { regs: Default::default(), fs_base: None };
    let mut regs = *context.regs();
    regs.rax = 0;
    let mut child =
        block_on(context.fork(NewContext { regs, ..new() })).expect("a copy of the process");
    let mut thread =
        block_on(context.clone_thread(NewContext { regs, ..new() })).expect("a thread");
    assert_eq!(call(&mut *child).0, 0);
    assert!(descriptors(&*child).is_empty());
    assert_eq!(call(&mut *thread).0, 0);
    thread.kicker().set_lends(true);
    assert_eq!(call(&mut *thread).0, 39);
    assert_eq!(call(&mut *thread), (39, 16));
    assert_eq!(call(&mut *context), (39, 16));
    assert_eq!(loan.take().at, 32);
}

#[test]
fn only_plain_files_that_everybody_may_read_are_lent() {
    let platform = platform();
    let Some(context) = reader(&platform) else { return };
    let space = context.space();
    let fd = file();
    assert!(space.lend(255, fd.as_fd()).is_some());
    assert!(space.lend(256, fd.as_fd()).is_none());
    assert!(space.lend(u32::MAX, fd.as_fd()).is_none());
    let writable = reopened(&fd, rustix::fs::OFlags::RDWR);
    assert!(space.lend(1, writable.as_fd()).is_none());
    let (pipe, _end) = rustix::pipe::pipe().expect("a pipe");
    let directory = std::fs::File::open("/").expect("a directory");
    let null = std::fs::File::open("/dev/null").expect("a device");
    for odd in [pipe.as_fd(), directory.as_fd(), null.as_fd()] {
        assert!(space.lend(1, odd).is_none());
    }
    // All places at once.
    let places = 0..shim_abi::Loans::FIRST_BROUGHT;
    let all: Vec<_> = places.map(|n| space.lend(n, fd.as_fd()).expect("a place")).collect();
    assert!(space.lend(40, fd.as_fd()).is_none());
    drop(all);
    assert!(space.lend(40, fd.as_fd()).is_some());
    rustix::fs::fchmod(&*fd, rustix::fs::Mode::from_raw_mode(0o440)).expect("it is ours");
    assert!(space.lend(1, fd.as_fd()).is_none());
}

#[test]
fn what_a_guest_writes_as_its_position_is_one() {
    let platform = platform();
    let Some(mut context) = reader(&platform) else { return };
    assert_eq!(call(&mut *context).0, 0);
    let fd = file();
    for (round, word) in [0, 1, u64::MAX, 1 << 40, (1 << 40) - 1, 1 << 63].into_iter().enumerate() {
        let loan = lend(&mut *context, &fd, 0);
        assert_eq!(call(&mut *context).0, 39);
        assert_eq!(context.space().write(WORD, &word.to_le_bytes()), 8);
        // It comes with a call, or with what it has read of whatever.
        let number = call(&mut *context).0;
        assert!(matches!(number, 0 | 39), "{number}");
        assert!(loan.take().at < 1 << 40);
        assert!(loan.give(17));
        loan.end();
        assert_eq!(loan.take().at, 17);
        while call(&mut *context).0 != 0 {}
        assert_eq!(round / 6, 0);
    }
}

/// pread64(2) through the shim's own instruction, of the descriptor in rdi; then a call that traps.
fn attacker(platform: &Arc<dyn Platform>, descriptor: u64) -> Option<Box<dyn Context>> {
    let code = snippet!(
        "mov eax, 39",
        "lea rcx, [rip + 2f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "2:",
        "mov eax, 17",
        "mov rdi, r15",
        "mov esi, 0x601000",
        "mov edx, 16",
        "xor r10d, r10d",
        "lea r12, [rip + 3f]",
        "push r12",
        "push r12",
        "push r12",
        "jmp r14",
        "3:",
        "mov rbx, rax",
        "mov eax, 40",
        "syscall",
        "jmp 2b",
    );
    let mut context = load_fast(platform, code)?;
    let at = gadget(&*context);
    (context.regs_mut().r14, context.regs_mut().r15) = (at, descriptor);
    Some(context)
}

#[test]
fn guests_get_nothing_from_the_instruction_but_what_is_lent() {
    const EBADF: i64 = -9;
    let platform = platform();
    let Some(mut context) = attacker(&platform, 32) else { return };
    assert_eq!(call(&mut *context).0, 39);
    let fd = file();
    let loan = lend(&mut *context, &fd, 0);
    assert_eq!(call(&mut *context), (40, 16));
    assert_eq!(bytes(&*context)[..3], [0, 1, 2]);
    // A descriptor of another loan is not there, and of an ended one not any more.
    context.regs_mut().r15 = 33;
    assert_eq!(call(&mut *context), (40, EBADF));
    loan.end();
    context.regs_mut().r15 = 32;
    assert_eq!(call(&mut *context), (40, EBADF));
    for descriptor in [0, 3, 31, 64, 32 | 1 << 32, u64::MAX] {
        let Some(mut context) = attacker(&platform, descriptor) else { return };
        assert_eq!(call(&mut *context).0, 39);
        assert_eq!(run_to_death(&mut *context), "killed by signal 31", "{descriptor}");
    }
}

#[test]
fn a_guest_that_closes_what_is_lent_makes_calls_again() {
    let platform = platform();
    let code = snippet!(
        "mov eax, 39",
        "lea rcx, [rip + 2f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "2:",
        // close(32) through the shim's instruction.
        "mov eax, 3",
        "mov edi, 32",
        "lea r12, [rip + 3f]",
        "push r12",
        "push r12",
        "push r12",
        "jmp r14",
        "3:",
        "mov eax, 17",
        "mov edi, 5",
        "mov esi, 0x601000",
        "mov edx, 16",
        "xor r10d, r10d",
        "lea rcx, [rip + 4f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "4:",
        "mov eax, 39",
        "syscall",
    );
    let Some(mut context) = load_fast(&platform, code) else { return };
    context.regs_mut().r14 = gadget(&*context);
    assert_eq!(call(&mut *context).0, 39);
    let fd = file();
    let loan = lend(&mut *context, &fd, 0);
    assert_eq!(call(&mut *context).0, 17, "the host said EBADF");
    loan.end();
    // What is to be closed is not there: nobody minds.
    assert_eq!(call(&mut *context).0, 39);
    assert!(descriptors(&*context).is_empty());
}

/// A read that has begun before the loan's end, and ends after it, is made again by a call: its number may be another file's.
#[test]
fn a_read_that_outlasts_its_loan_does_not_count() {
    const LEN: u64 = 0x200_0000;
    let platform = platform();
    // pread64(5, 0x10000000, LEN, 0) again and again; r12 and the word at 0x600300 count those that were good.
    let code = snippet!(
        "2:",
        "mov eax, 17",
        "mov edi, 5",
        "mov esi, 0x10000000",
        "mov edx, 0x2000000",
        "xor r10d, r10d",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "inc r12",
        "mov [0x600300], r12",
        "jmp 2b",
    );
    let Some(mut context) = load_fast(&platform, code) else { return };
    let memory = map(0x1000_0000, LEN, Prot::READ | Prot::WRITE);
    block_on(context.execute(vec![memory])).expect("alive").expect("mapped");
    let space = Arc::clone(context.space());
    let count = || {
        let mut word = [0; 8];
        assert_eq!(space.read(UserAddr(DATA + 0x300), &mut word), 8);
        u64::from_le_bytes(word)
    };
    let fd = file();
    let large = std::fs::File::from(fd.try_clone().expect("a descriptor"));
    let large =
        std::fs::File::options().write(true).open(format!("/proc/self/fd/{}", large.as_raw_fd()));
    large.expect("it is ours").set_len(LEN).expect("memory");
    assert_eq!(step(&mut *context), Event::Syscall);
    let mut is_seen = false;
    for _ in 0..30 {
        let loan = lend(&mut *context, &fd, 0);
        context.set_return(0);
        let before = count();
        context.resume();
        while count() < before + 2 {
            std::thread::sleep(Duration::from_micros(300));
        }
        let before = count();
        loan.end();
        assert_eq!(next(&mut *context).expect("an event"), Event::Syscall);
        assert_eq!(context.call().number, 17);
        // Unless it had just ended, or we were held up.
        is_seen |= context.regs().r12 == before;
    }
    assert!(is_seen);
}
