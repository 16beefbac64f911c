//! Work for guests that nobody waits for, on a thread of its own beside the workers: see [`Aside`].

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use platform::Platform;

/// What is to be done.
pub type Work = Box<dyn FnOnce() + Send>;

/// Work, and the CPU where it came up: it runs on another one, if it can.
struct Job {
    work: Work,
    cpu: usize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    is_started: bool,
}

/// One thread for what guests will want soon, made for the first job. It may block in the host or at the gofer; it runs no tasks, and
/// wakes none.
#[derive(Default)]
pub struct Aside {
    // A leaf lock: held for a push or a pop.
    queue: Mutex<Queue>,
    bell: Condvar,
}

impl Aside {
    /// Has the work done, on another CPU than the caller's where there is one.
    ///
    /// # Errors
    /// Gives it back when there is no thread for it, and none can be made.
    pub fn run(self: &Arc<Self>, platform: &Arc<dyn Platform>, work: Work) -> Result<(), Work> {
        let mut queue = self.queue.lock();
        if !queue.is_started {
            let (aside, platform) = (Arc::clone(self), Arc::clone(platform));
            let thread = std::thread::Builder::new()
                .name("aside".to_owned())
                .stack_size(super::WORKER_STACK_BYTES)
                .spawn(move || aside.serve(&*platform));
            if let Err(error) = thread {
                tracing::warn!(%error, "no thread to work ahead");
                return Err(work);
            }
            queue.is_started = true;
        }
        queue.jobs.push_back(Job { work, cpu: rustix::thread::sched_getcpu() });
        drop(queue);
        self.bell.notify_one();
        Ok(())
    }

    /// Body of the thread.
    fn serve(&self, platform: &dyn Platform) {
        loop {
            let job = self.next();
            platform.step_aside(job.cpu);
            (job.work)();
        }
    }

    fn next(&self) -> Job {
        let mut queue = self.queue.lock();
        loop {
            match queue.jobs.pop_front() {
                Some(job) => return job,
                None => self.bell.wait(&mut queue),
            }
        }
    }
}
