//! How deep events and polls go through epolls that watch epolls.
//!
//! `add` refuses long chains below the epoll that is added; one that is built from the top down can still become long.
//! There events end, so that no guest can exhaust our stack.

use std::cell::Cell;

use super::MAX_NESTING;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Counts one level as long as it lives.
pub struct Level(());

/// One level deeper; `None` beyond the limit.
pub fn enter() -> Option<Level> {
    let depth = DEPTH.get();
    if depth > MAX_NESTING {
        return None;
    }
    DEPTH.set(depth + 1);
    Some(Level(()))
}

impl Drop for Level {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}
