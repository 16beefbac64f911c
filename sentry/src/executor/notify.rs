//! From a wait queue to a future.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use abi::poll::PollEvents;
use base::{Observer, WaitQueue};
use parking_lot::Mutex;

/// An observer that wakes one task. Register it with as many queues as are to be waited for; look at their state
/// after registering, then await [`Notified::wait`].
#[derive(Default)]
pub struct Notified {
    told: AtomicBool,
    // A leaf lock; the waker is called after it is released.
    waker: Mutex<Option<Waker>>,
}

impl Notified {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Ready when some queue has told since the last time this was ready.
    pub async fn wait(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    /// See [`Notified::wait`].
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Before a waker is left behind: a task that goes on is not to be woken by what it does itself, such as to tell others who
        // wait at the same queue.
        if self.told.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        {
            let mut waker = self.waker.lock();
            match &mut *waker {
                Some(known) if known.will_wake(cx.waker()) => {}
                slot => *slot = Some(cx.waker().clone()),
            }
        }
        if self.told.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Observer for Notified {
    fn notify(&self, _events: PollEvents) {
        self.told.store(true, Ordering::Release);
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Tries until `attempt` gives something, each time `queue` tells one of `mask`. Registers before it tries.
pub async fn wait_until<T>(
    queue: &WaitQueue,
    mask: PollEvents,
    mut attempt: impl FnMut() -> Option<T>,
) -> T {
    let notified = Notified::new();
    let observer: Arc<dyn Observer> = Arc::clone(&notified) as Arc<dyn Observer>;
    let _registration = queue.register(mask, observer);
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        notified.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_was_told_and_goes_on_is_not_woken_by_what_it_tells_itself() {
        let (count, notified) = (Arc::new(Count::default()), Notified::new());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let woken = || count.0.load(Ordering::Relaxed);
        assert_eq!(notified.poll(&mut cx), Poll::Pending);
        notified.notify(PollEvents::IN);
        assert_eq!((woken(), notified.poll(&mut cx)), (1, Poll::Ready(())));
        // It has it for the next time all the same.
        notified.notify(PollEvents::IN);
        assert_eq!((woken(), notified.poll(&mut cx)), (1, Poll::Ready(())));
        assert_eq!(notified.poll(&mut cx), Poll::Pending);
        notified.notify(PollEvents::IN);
        assert_eq!(woken(), 2);
    }
}
