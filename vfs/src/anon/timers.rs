//! How time reaches files: a trait that the sentry implements.

use std::sync::Arc;

use base::clock::Nanos;

/// Clocks a timer may run on. Guests cannot set them; boot time never includes suspension of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerClock {
    Realtime,
    Monotonic,
    Boottime,
}

/// Someone whose deadline has come.
pub trait Expiry: Send + Sync {
    /// Called with no lock held; may set a timer again.
    fn expired(self: Arc<Self>);
}

/// A running timer; dropping it cancels it.
pub trait TimerHandle: Send + Sync {}

/// The sentry's timers.
pub trait Timers: Send + Sync {
    /// Reads a clock.
    fn now(&self, clock: TimerClock) -> Nanos;

    /// Calls `expiry` once, at `deadline` or soon after (at once when it has passed). A handle that is dropped before
    /// cancels; a call that is already under way may still come.
    fn set(
        &self,
        clock: TimerClock,
        deadline: Nanos,
        expiry: Arc<dyn Expiry>,
    ) -> Box<dyn TimerHandle>;
}
