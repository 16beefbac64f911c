//! Wait queues that are told a little later: whoever wakes then finds more to do at once.
//!
//! A thread that [serves](serve) promises to call [`tell_due`] after each thing it does, and [`tell_all`] before it blocks. On
//! all other threads nothing is put off.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use abi::poll::PollEvents;

use crate::wait::WaitQueue;

/// Nothing is put off for longer than this, but for what the thread does at that time.
const LONGEST: Duration = Duration::from_micros(100);

struct Later {
    queue: WaitQueue,
    events: PollEvents,
    due: Instant,
}

thread_local! {
    /// `None`: the thread does not serve.
    static PUT_OFF: RefCell<Option<Vec<Later>>> = const { RefCell::new(None) };
}

/// From now on the calling thread keeps the module's promise.
pub fn serve() {
    PUT_OFF.with_borrow_mut(|list| *list = Some(Vec::new()));
}

/// Tells the observers of `queue` before long; see [`WaitQueue::notify`].
pub(crate) fn put_off(queue: &WaitQueue, events: PollEvents) {
    let is_put_off = PUT_OFF.with_borrow_mut(|list| {
        let Some(list) = list else { return false };
        match list.iter_mut().find(|later| later.queue.is_same(queue)) {
            Some(later) => later.events |= events,
            None => {
                list.push(Later { queue: queue.clone(), events, due: Instant::now() + LONGEST });
            }
        }
        true
    });
    if !is_put_off {
        queue.notify(events);
    }
}

/// Whether the calling thread has somebody to tell.
#[must_use]
pub fn is_any() -> bool {
    PUT_OFF.with_borrow(|list| list.as_ref().is_some_and(|list| !list.is_empty()))
}

/// Tells those whose time has come; whether there were any.
pub fn tell_due() -> bool {
    is_any() && {
        let now = Instant::now();
        tell(|later| later.due <= now)
    }
}

/// Tells all; whether there were any.
pub fn tell_all() -> bool {
    is_any() && tell(|_| true)
}

fn tell(is_due: impl Fn(&Later) -> bool) -> bool {
    let due: Vec<Later> = PUT_OFF.with_borrow_mut(|list| {
        list.as_mut()
            .map_or_else(Vec::new, |list| list.extract_if(.., |later| is_due(later)).collect())
    });
    // Observers may put off something themselves.
    for Later { queue, events, .. } in &due {
        queue.notify(*events);
    }
    !due.is_empty()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::wait::Observer;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Observer for Count {
        fn notify(&self, _: PollEvents) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn observed() -> (WaitQueue, Arc<Count>, crate::wait::Registration) {
        let (queue, count) = (WaitQueue::new(), Arc::new(Count::default()));
        let observer: Arc<dyn Observer> = Arc::clone(&count) as Arc<dyn Observer>;
        let registration = queue.register(PollEvents::IN, observer);
        (queue, count, registration)
    }

    #[test]
    fn who_does_not_serve_tells_at_once() {
        let (queue, count, _registration) = observed();
        queue.notify_later(PollEvents::IN);
        assert_eq!((count.0.load(Ordering::Relaxed), is_any()), (1, false));
    }

    #[test]
    fn who_serves_tells_each_queue_once_before_it_blocks() {
        serve();
        let (queue, count, _registration) = observed();
        let (other, others, _other_registration) = observed();
        queue.notify_later(PollEvents::OUT);
        queue.notify_later(PollEvents::IN);
        other.notify_later(PollEvents::IN);
        assert_eq!((count.0.load(Ordering::Relaxed), is_any()), (0, true));
        assert!(tell_all());
        let told = [&count, &others].map(|count| count.0.load(Ordering::Relaxed));
        assert_eq!((told, is_any(), tell_all()), ([1, 1], false, false));
    }

    #[test]
    fn nothing_is_put_off_for_long() {
        serve();
        let (queue, count, _registration) = observed();
        queue.notify_later(PollEvents::IN);
        let begun = Instant::now();
        while !tell_due() {
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
        assert!(begun.elapsed() >= LONGEST - Duration::from_micros(50));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn queues_nobody_observes_are_not_remembered() {
        serve();
        WaitQueue::new().notify_later(PollEvents::IN);
        assert!(!is_any());
    }
}
