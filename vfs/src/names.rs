//! When absolute paths may lead elsewhere: for who remembers what one was.
//!
//! A number goes up with each name that goes or moves, each mount, and each change of a directory's mode or owner. A name that is new
//! is no such change: only who remembers absence would mind. Symbolic links are followed under the same names.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

static GENERATION: AtomicU64 = AtomicU64::new(0);
static LISTENER: OnceLock<Box<dyn Fn(u64) + Send + Sync>> = OnceLock::new();

/// Whom to tell the number whenever it is another, before the call that changed it returns. Once; further listeners are ignored.
pub fn on_change(listener: impl Fn(u64) + Send + Sync + 'static) {
    let _ = LISTENER.set(Box::new(listener));
}

/// What is found out from now on holds as long as this is the number.
#[must_use]
pub fn generation() -> u64 {
    GENERATION.load(Ordering::SeqCst)
}

/// Something has changed.
pub(crate) fn changed() {
    let next = GENERATION.fetch_add(1, Ordering::SeqCst) + 1;
    if let Some(listener) = LISTENER.get() {
        listener(next);
    }
}
