//! Prints what the seccomp platform's primitives cost here. Run it in release mode on an idle machine.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Instant;

use abi::UserAddr;
use platform::seccomp::{Config, SeccompPlatform};
use platform::{Backing, Context, Event, HostOp, NewContext, Platform, Prot};

const CODE: u64 = 0x40_0000;
const STACK: u64 = 0x60_0000;

/// This thread is the worker: it looks, else it parks.
fn block_on<T>(platform: &Arc<dyn Platform>, future: impl Future<Output = T>) -> T {
    let mut cx = TaskContext::from_waker(Waker::noop());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
        platform.park(&|| false).expect("the platform works");
    }
}

fn step(platform: &Arc<dyn Platform>, context: &mut dyn Context) -> Event {
    context.resume();
    block_on(platform, poll_fn(|cx| context.poll_event(cx))).expect("alive")
}

fn map(addr: u64, len: u64, backing: Backing) -> HostOp {
    let prot = Prot::READ | Prot::WRITE | Prot::EXEC;
    HostOp::Map { addr: UserAddr(addr), len, prot, shared: false, noreserve: false, backing }
}

/// The same with calls as a rewritten site makes them.
fn load_fast(platform: &Arc<dyn Platform>, entry: u64) -> Box<dyn Context> {
    let context = load(platform, 0);
    // mov eax, 39; lea rcx, [rip + 9]; jmp [STACK]; syscall; jmp to the start
    let mut code = vec![0xb8, 39, 0, 0, 0, 0x48, 0x8d, 0x0d, 9, 0, 0, 0, 0xff, 0x24, 0x25];
    code.extend_from_slice(&(STACK as u32).to_le_bytes());
    code.extend_from_slice(&[0x0f, 0x05, 0xeb, 0xe9]);
    context.space().write(UserAddr(CODE), &code);
    context.space().write(UserAddr(STACK), &entry.to_le_bytes());
    context
}

/// An endless loop of calls, with `pause` instructions in between.
fn load(platform: &Arc<dyn Platform>, pauses: u32) -> Box<dyn Context> {
    let mut context = block_on(platform, platform.spawn()).expect("a stub");
    let ops = vec![map(CODE, 4096, Backing::Anonymous), map(STACK, 0x1_0000, Backing::Anonymous)];
    block_on(platform, context.execute(ops)).expect("alive").expect("mapped");
    // mov ecx, pauses + 1; 1: pause; dec ecx; jnz 1b; mov eax, 39; syscall; jmp to the start
    let mut code = vec![0xb9];
    code.extend_from_slice(&(pauses + 1).to_le_bytes());
    code.extend_from_slice(&[
        0xf3, 0x90, 0xff, 0xc9, 0x75, 0xfa, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xec,
    ]);
    context.space().write(UserAddr(CODE), &code);
    let regs = context.regs_mut();
    (regs.rip, regs.rsp) = (CODE, STACK + 0x1_0000);
    context
}

/// Median of several runs, in nanoseconds per round. Short ones with rests in between: on a busy machine the
/// scheduler then gives us the CPU when we want it.
fn measure(name: &str, rounds: u32, mut round: impl FnMut()) {
    let mut runs: Vec<u64> = (0..11)
        .map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(60));
            let start = Instant::now();
            (0..rounds).for_each(|_| round());
            start.elapsed().as_nanos() as u64 / u64::from(rounds)
        })
        .collect();
    runs.sort_unstable();
    println!("{name:32} {:>9} ns   (best {}, worst {})", runs[5], runs[0], runs[10]);
}

fn main() {
    let start = Instant::now();
    let platform = SeccompPlatform::new(Config::default()).expect("the platform starts");
    println!("start-up {:?}", start.elapsed());

    let mut context = load(&platform, 0);
    measure("null call", 200, || {
        step(&platform, &mut *context);
    });
    if let Some(entry) = platform.layout().call_entry {
        let mut fast = load_fast(&platform, entry);
        measure("null call, no signal", 20_000, || {
            step(&platform, &mut *fast);
            fast.set_return(7);
        });
        measure("settle", 200, || {
            step(&platform, &mut *fast);
            block_on(&platform, fast.settle()).expect("alive");
        });
    }
    measure("mmap+munmap (executed)", 50, || {
        let (addr, len) = (UserAddr(0x70_0000), 4096);
        for op in [map(0x70_0000, 4096, Backing::Anonymous), HostOp::Unmap { addr, len }] {
            step(&platform, &mut *context);
            block_on(&platform, context.execute(vec![op])).expect("alive").expect("done");
        }
    });
    measure("mmap+munmap (deferred)", 50, || {
        let (addr, len) = (UserAddr(0x70_0000), 4096);
        for op in [map(0x70_0000, 4096, Backing::Anonymous), HostOp::Unmap { addr, len }] {
            context.defer(op);
            step(&platform, &mut *context);
        }
    });
    let file = rustix::fs::memfd_create("file", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
    rustix::fs::ftruncate(&file, 4096).expect("sized");
    let file = Arc::new(file);
    measure("file mmap (deferred)", 50, || {
        context.defer(map(0x70_0000, 4096, Backing::File { fd: Arc::clone(&file), offset: 0 }));
        step(&platform, &mut *context);
    });
    measure("kick of a running guest", 100, || {
        context.resume();
        context.kicker().kick();
        block_on(&platform, poll_fn(|cx| context.poll_event(cx))).expect("alive");
    });
    measure("fork+first call+kill+reap", 20, || {
        let new = NewContext { regs: *context.regs(), fs_base: None };
        let mut child = block_on(&platform, context.fork(new)).expect("forked");
        step(&platform, &mut *child);
        child.space().kill();
        child.resume();
        while block_on(&platform, wait_for_death(&platform, &mut *child)) {}
    });
    measure("thread create+first call+end", 100, || {
        let new = NewContext { regs: *context.regs(), fs_base: None };
        let mut thread = block_on(&platform, context.clone_thread(new)).expect("cloned");
        step(&platform, &mut *thread);
    });
    measure("spawn+map+first call+kill", 20, || {
        let mut other = load(&platform, 0);
        step(&platform, &mut *other);
    });
    let mut slow = load(&platform, 2_000);
    measure("call after about 50 us", 100, || {
        step(&platform, &mut *slow);
    });
}

/// Reaps in place of the reactor; true while the child still lives.
async fn wait_for_death(platform: &Arc<dyn Platform>, child: &mut dyn Context) -> bool {
    let fd = platform.death_fd().expect("a descriptor");
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN)];
    let _ = rustix::event::poll(&mut fds, None);
    platform.reap();
    let mut cx = TaskContext::from_waker(Waker::noop());
    !matches!(child.poll_event(&mut cx), Poll::Ready(Err(_)))
}
