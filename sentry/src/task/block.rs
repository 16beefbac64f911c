//! The one place where a call waits.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use base::clock::Nanos;

use crate::executor::timer::Timers;
use crate::task::Thread;

/// Why a wait ended without what was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    TimedOut,
    /// A signal is to be handled, or the thread is to stop or end.
    Interrupted,
}

impl Thread {
    /// Waits for `future`, at most until `deadline` (`CLOCK_MONOTONIC`, nanoseconds), unless a signal, a stop or the end
    /// of the process comes first. What is ready at once wins over all of these.
    ///
    /// # Errors
    /// See [`Blocked`].
    pub async fn block_on<T>(
        &self,
        timers: &std::sync::Arc<Timers>,
        future: impl Future<Output = T>,
        deadline: Option<Nanos>,
    ) -> Result<T, Blocked> {
        let mut future = pin!(future);
        let mut sleep = pin!(deadline.map(|deadline| timers.sleep_until(deadline)));
        poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            self.run.watch(cx);
            if self.run.has_attention() {
                return Poll::Ready(Err(Blocked::Interrupted));
            }
            // Perhaps it waits for what they will do.
            base::later::tell_all();
            if let Some(sleep) = sleep.as_mut().as_pin_mut()
                && sleep.poll(cx).is_ready()
            {
                return Poll::Ready(Err(Blocked::TimedOut));
            }
            Poll::Pending
        })
        .await
    }

    /// Waits for `future` unless the thread is to end first: signals wait (vfork(2), execve(2)).
    ///
    /// # Errors
    /// [`Blocked::Interrupted`] when the thread is to end.
    pub async fn block_killable<T>(&self, future: impl Future<Output = T>) -> Result<T, Blocked> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            self.run.watch(cx);
            if self.is_to_end() {
                return Poll::Ready(Err(Blocked::Interrupted));
            }
            Poll::Pending
        })
        .await
    }

    /// True when the process ends or another thread's execve(2) ends this one.
    pub fn is_to_end(&self) -> bool {
        let state = self.group.signals.lock();
        state.exit.is_some() || state.exec.is_some_and(|survivor| survivor != self.tid())
    }
}
