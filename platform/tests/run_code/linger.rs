//! A thread that polls, looks and waits by turns, as the sentry's worker does, and says when it has time.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Wake, Waker};
use std::time::{Duration, Instant};

use abi::UserAddr;
use platform::seccomp::{Config, SeccompPlatform};
use platform::{Context, Event, Platform, Prot, linger};

use crate::harness::{CODE, DATA, DATA_LEN, map};

/// A task's turn to run, which other threads may give it as well.
struct Turn(AtomicBool);

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
        linger::set_has_time(false);
    }
}

/// Runs futures on this thread alone until all are done.
fn drive(platform: &Arc<dyn Platform>, futures: Vec<Pin<Box<dyn Future<Output = ()> + '_>>>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut tasks: Vec<_> =
        futures.into_iter().map(|future| (future, Arc::new(Turn(AtomicBool::new(true))))).collect();
    while !tasks.is_empty() {
        assert!(Instant::now() < deadline, "nothing happened for too long");
        let mut at = 0;
        let mut has_run = false;
        while at < tasks.len() {
            let has_turn = tasks[at].1.0.swap(false, Ordering::SeqCst);
            let others_wait = tasks.iter().any(|(_, turn)| turn.0.load(Ordering::SeqCst));
            let (future, turn) = &mut tasks[at];
            at += 1;
            if !has_turn {
                continue;
            }
            has_run = true;
            linger::set_has_time(!others_wait);
            let waker = Waker::from(Arc::clone(turn));
            if future.as_mut().poll(&mut TaskContext::from_waker(&waker)).is_ready() {
                at -= 1;
                drop(tasks.remove(at));
            }
        }
        if !has_run && !platform.poll() {
            platform.park(&|| false).expect("the platform works");
        }
    }
}

async fn spawn(platform: &Arc<dyn Platform>, code: &[u8]) -> Box<dyn Context> {
    let mut context = platform.spawn().await.expect("a stub");
    let all = Prot::READ | Prot::WRITE | Prot::EXEC;
    let ops = vec![map(CODE, 0x1_0000, all), map(DATA, DATA_LEN, Prot::READ | Prot::WRITE)];
    context.execute(ops).await.expect("alive").expect("mapped");
    context.space().write(UserAddr(CODE), code);
    context
}

/// `loop { answer = call(answer) }`
fn caller() -> &'static [u8] {
    snippet!(
        "2:",
        "lea rcx, [rip + 3f]",
        "jmp qword ptr [0x600100]",
        "syscall",
        "3:",
        "mov rdi, rax",
        "mov eax, 39",
        "inc r12",
        "jmp 2b",
    )
}

const ROUNDS: u64 = 20_000;

/// Answers calls, each once.
async fn serve(platform: &Arc<dyn Platform>, entry: u64, order: &RefCell<Vec<usize>>, me: usize) {
    let mut context = spawn(platform, caller()).await;
    context.space().write(UserAddr(DATA + 0x100), &entry.to_le_bytes());
    context.regs_mut().rip = CODE;
    for round in 0..ROUNDS {
        context.resume();
        let event = poll_fn(|cx| context.poll_event(cx)).await.expect("an event");
        assert_eq!(event, Event::Syscall);
        if round > 0 {
            assert_eq!(context.call().args[0], round - 1, "what the last call was answered");
        }
        context.set_return(round);
        order.borrow_mut().push(me);
    }
    // The guest itself goes on: others are not to wait for it.
    drop(context);
}

fn platform() -> Arc<dyn Platform> {
    SeccompPlatform::new(Config::default()).expect("the platform starts")
}

#[test]
fn one_guest_is_served_call_by_call() {
    let platform = platform();
    let Some(entry) = platform.layout().call_entry else { return };
    let order = RefCell::default();
    drive(&platform, vec![Box::pin(serve(&platform, entry, &order, 0))]);
    assert_eq!(order.borrow().len(), ROUNDS as usize);
}

#[test]
fn nobody_waits_for_a_guest_that_calls_and_calls() {
    let platform = platform();
    let Some(entry) = platform.layout().call_entry else { return };
    let order = RefCell::default();
    let serve =
        |me| Box::pin(serve(&platform, entry, &order, me)) as Pin<Box<dyn Future<Output = ()>>>;
    drive(&platform, vec![serve(0), serve(1), serve(2)]);
    // Whoever began first has not been served to its end before the last one began.
    let order = order.borrow();
    let last_begins = (0..3).filter_map(|me| order.iter().position(|who| *who == me)).max();
    let first_ends = (0..3).filter_map(|me| order.iter().rposition(|who| *who == me)).min();
    assert!(last_begins < first_ends, "{last_begins:?} {first_ends:?}");
}
