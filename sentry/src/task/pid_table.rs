//! Who has which id.

/// Threads by tid, process groups and sessions.
#[derive(Default)]
pub struct PidTable {}
