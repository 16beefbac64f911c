//! Whether the thread that polls a task has time: then a context may wait for its guest right there for a moment, instead of
//! leaving and being woken, queued and polled again.
//!
//! The executor says so before it polls a task, and takes it back when it gets another one to run meanwhile. Threads that never
//! say anything have none.

use std::cell::Cell;

thread_local! {
    static HAS_TIME: Cell<bool> = const { Cell::new(false) };
}

/// Says whether the calling thread has nothing to run but what it polls next.
pub fn set_has_time(has_time: bool) {
    HAS_TIME.set(has_time);
}

/// Whether the calling thread has nothing else to run.
#[must_use]
pub fn has_time() -> bool {
    HAS_TIME.get() && !base::later::is_any()
}
