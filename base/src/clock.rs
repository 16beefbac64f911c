//! Instants of the guest's clocks. Time is an argument below the sentry: only a `Clock` that was handed in tells it.

/// Nanoseconds since the epoch of a clock: 1970 for realtime, boot for monotonic.
pub type Nanos = u64;

/// Tells the time to subsystems that may not ask the host.
pub trait Clock: Send + Sync {
    /// `CLOCK_REALTIME`, in nanoseconds since 1970.
    fn realtime(&self) -> Nanos;
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    fn monotonic(&self) -> Nanos;
}
