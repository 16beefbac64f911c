//! Wait queues that are told a little later: whoever wakes then finds more to do at once.
//!
//! A thread that [serves](serve) promises to call [`tell_due`] after each thing it does, to call [`tell_all`] when what it serves has to
//! wait for something, and to see to it that somebody calls [`tell_due`] when the [first is due](next_due). On all other threads
//! nothing is put off.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use abi::poll::PollEvents;
use parking_lot::Mutex;

use crate::wait::WaitQueue;

struct Later {
    queue: WaitQueue,
    events: PollEvents,
    due: Instant,
    /// Put off by who is about to wait for it: that this blocks is no reason to tell it.
    is_own: bool,
}

// A leaf lock; nobody is told under it.
static PUT_OFF: Mutex<Vec<Later>> = Mutex::new(Vec::new());
/// How many there are, for a look without the lock.
static COUNT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SERVES: Cell<bool> = const { Cell::new(false) };
}

/// From now on the calling thread keeps the module's promise.
pub fn serve() {
    SERVES.set(true);
}

/// Tells the observers of `queue` after `patience` at most; see [`WaitQueue::notify`]. `is_own`: the caller waits for that itself.
pub(crate) fn put_off(queue: &WaitQueue, events: PollEvents, patience: Duration, is_own: bool) {
    if !SERVES.get() {
        queue.notify(events);
        return;
    }
    let mut list = PUT_OFF.lock();
    match list.iter_mut().find(|later| later.queue.is_same(queue)) {
        Some(later) => {
            later.events |= events;
            // Who looks itself has just done so.
            later.is_own |= is_own;
        }
        None => {
            let due = Instant::now() + patience;
            list.push(Later { queue: queue.clone(), events, due, is_own });
        }
    }
    COUNT.store(list.len(), Ordering::SeqCst);
}

/// They are told of these now, or need not be told.
pub(crate) fn forget(queue: &WaitQueue, events: PollEvents) {
    if !is_any() {
        return;
    }
    let mut list = PUT_OFF.lock();
    if let Some(later) = list.iter_mut().find(|later| later.queue.is_same(queue)) {
        later.events -= events;
    }
    list.retain(|later| !later.events.is_empty());
    COUNT.store(list.len(), Ordering::SeqCst);
}

/// Whether there is somebody to tell.
#[must_use]
pub fn is_any() -> bool {
    COUNT.load(Ordering::SeqCst) != 0
}

/// When the first is to be told.
#[must_use]
pub fn next_due() -> Option<Instant> {
    if is_any() { PUT_OFF.lock().iter().map(|later| later.due).min() } else { None }
}

/// Tells those whose time has come; whether there were any.
pub fn tell_due() -> bool {
    is_any() && {
        let now = Instant::now();
        tell_each(&take(|later| later.due <= now))
    }
}

/// Tells all, and notes that to put it off was no gain ([`WaitQueue::hurries`]); whether there were any. Who has just put it off for
/// itself, and blocks now, is left out once.
pub fn tell_all() -> bool {
    is_any() && {
        let all = take(|later| !std::mem::take(&mut later.is_own));
        all.iter().for_each(|later| later.queue.note_hurry());
        tell_each(&all)
    }
}

fn tell_each(list: &[Later]) -> bool {
    for Later { queue, events, .. } in list {
        queue.notify(*events);
    }
    !list.is_empty()
}

fn take(is_wanted: impl Fn(&mut Later) -> bool) -> Vec<Later> {
    let mut list = PUT_OFF.lock();
    let taken = list.extract_if(.., |later| is_wanted(later)).collect();
    COUNT.store(list.len(), Ordering::SeqCst);
    taken
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::wait::{Observer, Registration};

    const LONG: Duration = Duration::from_secs(3600);

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Observer for Count {
        fn notify(&self, _: PollEvents) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn get(&self) -> u32 {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn observed() -> (WaitQueue, Arc<Count>, Registration) {
        let (queue, count) = (WaitQueue::new(), Arc::new(Count::default()));
        let observer: Arc<dyn Observer> = Arc::clone(&count) as Arc<dyn Observer>;
        let registration = queue.register(PollEvents::IN, observer);
        (queue, count, registration)
    }

    // One test, for the list is everybody's.
    #[test]
    fn who_serves_tells_each_queue_once_and_in_time() {
        let (queue, count, _registration) = observed();
        let (other, others, _other_registration) = observed();
        queue.notify_later(PollEvents::IN, LONG);
        assert_eq!((count.get(), is_any()), (1, false), "does not serve");

        serve();
        WaitQueue::new().notify_later(PollEvents::IN, LONG);
        assert!(!is_any(), "nobody observes it");

        queue.notify_later(PollEvents::OUT, LONG);
        queue.notify_later(PollEvents::IN, LONG);
        other.notify_later(PollEvents::IN, Duration::ZERO);
        assert_eq!((count.get(), others.get(), is_any()), (1, 0, true));
        assert!(next_due().is_some_and(|due| due <= Instant::now()));
        assert!(tell_due());
        assert_eq!((count.get(), others.get(), is_any()), (1, 1, true), "only who is due");
        assert!(next_due().is_some_and(|due| due > Instant::now()) && !tell_due());
        assert!(tell_all());
        assert_eq!((count.get(), others.get()), (2, 1));
        assert_eq!((queue.hurries(), other.hurries()), (1, 0));
        assert_eq!((is_any(), next_due(), tell_all()), (false, None, false));

        queue.notify_later(PollEvents::IN, LONG);
        other.notify_later(PollEvents::IN, LONG);
        queue.notify(PollEvents::IN);
        assert_eq!(
            (count.get(), tell_all(), count.get(), others.get()),
            (3, true, 3, 2),
            "told at once"
        );
        queue.notify_later(PollEvents::IN, LONG);
        queue.notify(PollEvents::OUT);
        assert_eq!((count.get(), tell_all(), count.get()), (3, true, 4), "told of something else");
        queue.notify_later(PollEvents::IN, LONG);
        queue.take_back(PollEvents::IN);
        assert_eq!((tell_all(), count.get()), (false, 4), "taken back");
        queue.notify_later(PollEvents::OUT, LONG);
        assert!(!is_any(), "nobody waits for that");

        let hurries = queue.hurries();
        queue.look_later(PollEvents::IN, LONG);
        assert_eq!((tell_all(), count.get(), is_any()), (false, 4, true), "it blocks itself");
        assert_eq!((tell_all(), count.get(), is_any()), (true, 5, false));
        assert_eq!(queue.hurries(), hurries + 1);
    }
}
