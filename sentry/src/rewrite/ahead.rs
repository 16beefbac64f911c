//! A thread that plans all sites of a file: some milliseconds for a C library, which no guest should wait for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::lock::Mutex;

use super::Rewriter;
use super::file_text::{FileText, Place};
use crate::lock_order;

const STACK_BYTES: usize = 256 << 10;
/// The least of claims to a CPU, see nice(2).
const LOWEST_PRIORITY: i32 = 19;

/// Files that wait for it. The thread is there as long as there are any.
pub type Jobs = Mutex<Queue, lock_order::Leaf>;

#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<(Arc<FileText>, Place)>,
    is_running: bool,
}

impl Rewriter {
    /// Plans all sites of a file that is mapped at `place`, some time soon.
    pub(super) fn plan_ahead(self: &Arc<Self>, text: Arc<FileText>, place: Place) {
        let is_running = {
            let mut jobs = self.jobs.lock();
            jobs.waiting.push_back((text, place));
            std::mem::replace(&mut jobs.is_running, true)
        };
        if is_running {
            return;
        }
        let rewriter = Arc::clone(self);
        let thread =
            std::thread::Builder::new().name("rewriter".to_owned()).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(move || rewriter.run_jobs()) {
            tracing::warn!(%error, "no thread to plan call sites ahead");
            // Its sites are learned one by one, as on a machine that is too busy for the thread.
            while self.next_job().is_some() {}
        }
    }

    fn run_jobs(&self) {
        // Without effect it is only in the way.
        let _ = rustix::process::setpriority_process(None, LOWEST_PRIORITY);
        while let Some((text, place)) = self.next_job() {
            let learned = text.plan_ahead(&place, self.entry);
            self.stats.learned.fetch_add(learned, Ordering::Relaxed);
        }
    }

    fn next_job(&self) -> Option<(Arc<FileText>, Place)> {
        let mut jobs = self.jobs.lock();
        let job = jobs.waiting.pop_front();
        jobs.is_running = job.is_some();
        job
    }
}
