//! Drives contexts from a test: one thread stands for the executor's worker, one for its reactor.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use abi::UserAddr;
use platform::seccomp::{Config, SeccompPlatform};
use platform::{Backing, Context, Event, HostOp, Platform, PlatformError, Prot};

/// Machine code between two labels of a `global_asm!` block.
macro_rules! snippet {
    ($($line:literal),+ $(,)?) => {{
        mod code {
            core::arch::global_asm!(
                ".pushsection .text.snippets, \"ax\"",
                concat!("snippet_", line!(), ":"),
                $($line,)+
                concat!("snippet_end_", line!(), ":"),
                ".popsection",
            );
            unsafe extern "C" {
                #[link_name = concat!("snippet_", line!())]
                static START: u8;
                #[link_name = concat!("snippet_end_", line!())]
                static END: u8;
            }
            pub fn bytes() -> &'static [u8] {
                let (start, end) = (&raw const START, &raw const END);
                // SAFETY: both labels are in one section, the first before the second.
                unsafe { std::slice::from_raw_parts(start, end.offset_from(start) as usize) }
            }
        }
        code::bytes()
    }};
}

pub const CODE: u64 = 0x40_0000;
pub const DATA: u64 = 0x60_0000;
pub const DATA_LEN: u64 = 0x2_0000;
pub const STACK_TOP: u64 = DATA + DATA_LEN;

/// A platform of the test's own; lives as long as the test's thread.
pub fn platform() -> Arc<dyn Platform> {
    platform_with(1)
}

/// The same with several workers.
pub fn platform_with(workers: usize) -> Arc<dyn Platform> {
    let platform = SeccompPlatform::new(Config::default()).expect("the platform starts");
    for _ in 0..workers {
        let worker = Arc::clone(&platform);
        std::thread::spawn(move || while worker.park(&|| false).is_ok() {});
    }
    let reactor = Arc::clone(&platform);
    std::thread::spawn(move || {
        loop {
            let fd = reactor.death_fd().expect("a descriptor");
            let mut fds =
                [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN)];
            if rustix::event::poll(&mut fds, None).is_ok() {
                reactor.reap();
            }
        }
    });
    platform
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to its end, but not for ever.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = TaskContext::from_waker(&waker);
    let mut future = pin!(future);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
        std::thread::park_timeout(Duration::from_secs(1));
        assert!(Instant::now() < deadline, "nothing happened for too long");
    }
}

pub fn next(context: &mut dyn Context) -> Result<Event, PlatformError> {
    block_on(poll_fn(|cx| context.poll_event(cx)))
}

/// Resumes and expects an event.
pub fn step(context: &mut dyn Context) -> Event {
    context.resume();
    next(context).expect("an event")
}

pub fn map(addr: u64, len: u64, prot: Prot) -> HostOp {
    HostOp::Map {
        addr: UserAddr(addr),
        len,
        prot,
        shared: false,
        noreserve: false,
        backing: Backing::Anonymous,
    }
}

/// A context with `code` at [`CODE`], data and a stack; not yet running.
pub fn load(platform: &Arc<dyn Platform>, code: &[u8]) -> Box<dyn Context> {
    let mut context = block_on(platform.spawn()).expect("a stub");
    let all = Prot::READ | Prot::WRITE | Prot::EXEC;
    let ops = vec![map(CODE, 0x1_0000, all), map(DATA, DATA_LEN, Prot::READ | Prot::WRITE)];
    block_on(context.execute(ops)).expect("alive").expect("mapped");
    assert_eq!(context.space().write(UserAddr(CODE), code), code.len());
    let regs = context.regs_mut();
    regs.rip = CODE;
    regs.rsp = STACK_TOP;
    context
}
