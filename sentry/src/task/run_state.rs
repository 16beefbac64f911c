//! How a thread is interrupted, wherever it is: waiting in a call or running guest code.
//!
//! `attention` is Linux's `TIF_SIGPENDING`: there is something to look at before guest code may run and because of
//! which waiting ends. Who sets it: `attention = true`, then look at `in_guest`, then kick or wake. The thread: `in_guest
//! = true`, resume, then look at `attention` and kick itself. Both in sequentially consistent order, so one of them
//! sees the other; a spurious kick is harmless.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use parking_lot::Mutex;
use platform::Kicker;

/// See the module's documentation.
#[derive(Default)]
pub struct RunState {
    attention: AtomicBool,
    in_guest: AtomicBool,
    // Leaf locks; waker and kicker are called after they are released.
    waker: Mutex<Option<Waker>>,
    kicker: Mutex<Option<Arc<dyn Kicker>>>,
}

impl RunState {
    /// True when the thread must look at its signals (or end) before it goes on.
    pub fn has_attention(&self) -> bool {
        self.attention.load(Ordering::SeqCst)
    }

    /// Makes the thread look: ends a wait, interrupts guest code. Not under a lock.
    pub fn interrupt(&self) {
        self.attention.store(true, Ordering::SeqCst);
        self.kick();
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Makes a thread that runs guest code come back once, without more (membarrier).
    pub fn kick(&self) {
        if self.in_guest.load(Ordering::SeqCst) {
            let kicker = self.kicker.lock().clone();
            if let Some(kicker) = kicker {
                kicker.kick();
            }
        }
    }

    /// The thread is about to look; what comes later sets it again.
    pub fn clear_attention(&self) {
        self.attention.store(false, Ordering::SeqCst);
    }

    /// Who is woken by [`RunState::interrupt`]; then look at [`RunState::has_attention`].
    pub fn watch(&self, cx: &Context<'_>) {
        let mut waker = self.waker.lock();
        match &mut *waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            slot => *slot = Some(cx.waker().clone()),
        }
    }

    /// A new execution context (start, execve).
    pub fn set_kicker(&self, kicker: Arc<dyn Kicker>) {
        let old = self.kicker.lock().replace(kicker);
        drop(old);
    }

    /// Marks guest code as running or not.
    pub fn set_in_guest(&self, is: bool) {
        self.in_guest.store(is, Ordering::SeqCst);
    }

    /// True while guest code runs, for /proc's state letter.
    pub fn is_in_guest(&self) -> bool {
        self.in_guest.load(Ordering::Relaxed)
    }
}
