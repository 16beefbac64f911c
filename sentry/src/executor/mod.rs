//! Runs the futures of guest threads: one shared run queue, workers, one reactor.
//!
//! | module | what |
//! | --- | --- |
//! | `reactor` | epoll over host descriptors; tells wait queues |
//! | `timer` | deadlines: futures and callbacks |
//! | `notify` | from a wait queue to a future |
//! | `aside` | what nobody waits for, on a thread of its own |
//!
//! Two kinds of threads run tasks. A *worker* drains the run queue, looks at the platform's channels, then blocks in
//! [`Platform::park`]; a guest's doorbell ends that, and the waker it calls puts the task into the queue. The *reactor*
//! (the thread that called [`Executor::run`]) drains the queue too, then blocks in epoll. So:
//!
//! 1. Whoever makes a task runnable while running tasks drains the queue before it blocks again: no cross-CPU wake is
//!    needed for correctness.
//! 2. A thread that runs no tasks rings the reactor after it queued something, if the reactor is asleep.
//! 3. A runner that queued a second task rings it as well, so that the two run in parallel.
//! 4. The reactor says that it is asleep *before* it looks at the queue for the last time: a ring is never lost.
//! 5. What a worker has put off telling ([`base::later`]) is told when it is due, by the worker or, while that sleeps, by the reactor; and
//!    whenever a task blocks.
//!
//! Idle means that every thread is blocked in the host: no ticks.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use async_task::Runnable;
use base::later;
use parking_lot::Mutex;
use platform::{Platform, linger};
use rustix::event::{EventfdFlags, eventfd};

use crate::config::Outcome;
use crate::executor::aside::Aside;
use crate::executor::reactor::Reactor;
use crate::executor::timer::Timers;

pub mod aside;
pub mod notify;
pub mod reactor;
pub mod timer;

/// Stack of a worker: handlers keep their buffers on the heap.
const WORKER_STACK_BYTES: usize = 512 << 10;

thread_local! {
    /// True on workers and on the reactor thread.
    static RUNS_TASKS: Cell<bool> = const { Cell::new(false) };
}

/// Spawns tasks and runs them.
pub struct Executor {
    shared: Arc<Shared>,
    reactor: Arc<Reactor>,
    timers: Arc<Timers>,
    aside: Arc<Aside>,
}

/// Which kind of thread runs tasks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Runner {
    Worker,
    Reactor,
}

/// What the schedule function of every task needs.
struct Shared {
    // A leaf lock: held for a push or a pop.
    queue: Mutex<VecDeque<Runnable>>,
    /// Rule 4 of the module doc.
    reactor_sleeps: AtomicBool,
    bell: OwnedFd,
    /// How the sandbox ended, once it has.
    outcome: Mutex<Option<Outcome>>,
    /// Set with `outcome`, for a look without the lock.
    ended: AtomicBool,
}

impl Executor {
    /// # Errors
    /// Of the host calls that make the eventfd, the timerfd and the epoll descriptor.
    pub fn new() -> io::Result<Arc<Self>> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let timers = Timers::new()?;
        let reactor = Reactor::new(bell.as_fd(), timers.fd())?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            reactor_sleeps: AtomicBool::new(false),
            bell,
            outcome: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        Ok(Arc::new(Self { shared, reactor, timers, aside: Arc::default() }))
    }

    /// Queues a task; it runs on any worker.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        let (runnable, task) = async_task::spawn(future, move |runnable| shared.schedule(runnable));
        task.detach();
        runnable.schedule();
    }

    #[must_use]
    pub fn reactor(&self) -> &Arc<Reactor> {
        &self.reactor
    }

    #[must_use]
    pub fn timers(&self) -> &Arc<Timers> {
        &self.timers
    }

    /// For what guests will want soon.
    #[must_use]
    pub fn aside(&self) -> &Arc<Aside> {
        &self.aside
    }

    /// Ends the sandbox: [`Executor::run`] returns. The first call's outcome counts.
    pub fn end(&self, outcome: Outcome) {
        self.shared.end(outcome);
    }

    /// Starts `workers` threads, which serve the platform from now on.
    ///
    /// # Errors
    /// Those of thread creation.
    pub fn start(&self, platform: &Arc<dyn Platform>, workers: usize) -> io::Result<()> {
        for index in 0..workers.max(1) {
            let (shared, platform) = (Arc::clone(&self.shared), Arc::clone(platform));
            let timers = Arc::clone(&self.timers);
            std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .stack_size(WORKER_STACK_BYTES)
                .spawn(move || worker(&shared, &*platform, &timers))?;
        }
        Ok(())
    }

    /// Is the reactor on the calling thread until [`Executor::end`]. Workers stay blocked afterwards; the process is
    /// expected to exit.
    pub fn run(&self, platform: &Arc<dyn Platform>) -> Outcome {
        RUNS_TASKS.set(true);
        loop {
            self.shared.drain(Runner::Reactor);
            if let Some(outcome) = self.shared.outcome() {
                return outcome;
            }
            self.shared.reactor_sleeps.store(true, Ordering::SeqCst);
            let may_block = self.shared.is_idle();
            let waited = self.reactor.wait(may_block, &**platform);
            self.shared.reactor_sleeps.store(false, Ordering::SeqCst);
            if let Err(error) = waited {
                let message = format!("the reactor cannot wait for events: {error}");
                return Outcome::Failed { code: 125, message };
            }
            self.timers.fire();
            tell_later(&self.timers);
        }
    }
}

/// Body of a worker thread.
fn worker(shared: &Shared, platform: &dyn Platform, timers: &Arc<Timers>) {
    RUNS_TASKS.set(true);
    later::serve();
    loop {
        shared.drain(Runner::Worker);
        // Nothing more for guests: the host ends them with us, and whoever tells the outcome needs the CPU.
        if shared.ended.load(Ordering::Relaxed) {
            break;
        }
        if later::tell_due() || platform.poll() {
            continue;
        }
        if let Err(error) = platform.park(&|| tell_later(timers)) {
            shared.end(Outcome::Failed { code: 125, message: error.to_string() });
        }
    }
    loop {
        std::thread::park();
    }
}

/// To be called before a worker sleeps: whether it has told somebody who waits. Whom it may still tell later the reactor will tell.
fn tell_later(timers: &Arc<Timers>) -> bool {
    if later::tell_due() {
        return true;
    }
    if let Some(due) = later::next_due() {
        let left = due.saturating_duration_since(Instant::now()).as_nanos();
        timers.wake_at(timer::monotonic().saturating_add(u64::try_from(left).unwrap_or(0)));
    }
    false
}

impl Shared {
    fn schedule(&self, runnable: Runnable) {
        let queued = {
            let mut queue = self.queue.lock();
            queue.push_back(runnable);
            queue.len()
        };
        // If this thread is in the midst of a task, it is to come back from it.
        linger::set_has_time(false);
        if !RUNS_TASKS.get() || queued > 1 {
            self.ring();
        }
    }

    /// Wakes the reactor if it sleeps (or is about to).
    fn ring(&self) {
        if self.reactor_sleeps.swap(false, Ordering::SeqCst) {
            // The counter cannot overflow: it is read after each wake-up.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    fn drain(&self, runner: Runner) {
        loop {
            let (next, is_last) = {
                let mut queue = self.queue.lock();
                (queue.pop_front(), queue.is_empty())
            };
            let Some(runnable) = next else { return };
            // Who looks at the platform's channels may as well do so in the midst of the last task.
            linger::set_has_time(is_last && runner == Runner::Worker);
            runnable.run();
        }
    }

    fn is_idle(&self) -> bool {
        !self.ended.load(Ordering::SeqCst) && self.queue.lock().is_empty()
    }

    fn end(&self, outcome: Outcome) {
        self.outcome.lock().get_or_insert(outcome);
        self.ended.store(true, Ordering::SeqCst);
        self.ring();
    }

    fn outcome(&self) -> Option<Outcome> {
        self.outcome.lock().clone()
    }
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Executor({} queued)", self.shared.queue.lock().len())
    }
}
