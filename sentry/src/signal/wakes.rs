//! Whom to wake once the locks are released: nothing is woken under a lock.

use std::sync::Arc;

use abi::poll::PollEvents;
use base::WaitQueue;
use smallvec::SmallVec;

use crate::task::Thread;

/// Threads to interrupt and queues to tell, collected under locks.
#[derive(Default)]
#[must_use = "call `fire` after the locks are released"]
pub struct Wakes {
    threads: SmallVec<[Arc<Thread>; 4]>,
    queues: SmallVec<[WaitQueue; 4]>,
}

impl Wakes {
    pub fn interrupt(&mut self, thread: &Arc<Thread>) {
        self.threads.push(Arc::clone(thread));
    }

    pub fn tell(&mut self, queue: &WaitQueue) {
        self.queues.push(queue.clone());
    }

    /// Wakes them all. No lock of this crate may be held.
    pub fn fire(self) {
        for thread in self.threads {
            thread.run.interrupt();
        }
        for queue in self.queues {
            queue.notify(PollEvents::IN | PollEvents::RDNORM);
        }
    }
}
