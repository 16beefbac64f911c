//! Whose turn it is to refill: a worker's, or the thread's aside.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// How long somebody waits at a time: a refill's gofer may wait for a disk.
const MOST_WAIT: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    /// Aside, but that thread has not come to it yet.
    Queued,
    Running,
}

/// There is one refill at a time, of one thread's files. One that is queued can be taken over, or called off; one that runs can be waited
/// for.
#[derive(Debug, Default)]
pub struct Turn {
    /// The phase, and the number of the last refill.
    now: Mutex<(Phase, u64)>,
    ended: Condvar,
    must_stop: AtomicBool,
}

impl Turn {
    /// Another refill is to begin: its number. `None`: there is one, and it runs or is not to be taken over.
    pub fn queue(&self, takes_over: bool) -> Option<u64> {
        let mut now = self.now.lock();
        let may_begin = match now.0 {
            Phase::Idle => true,
            Phase::Queued => takes_over,
            Phase::Running => false,
        };
        may_begin.then(|| {
            *now = (Phase::Queued, now.1 + 1);
            now.1
        })
    }

    /// That refill begins; false: it was taken over, or called off.
    pub fn start(&self, number: u64) -> bool {
        let mut now = self.now.lock();
        let is_it = *now == (Phase::Queued, number);
        if is_it {
            now.0 = Phase::Running;
            self.must_stop.store(false, Ordering::Relaxed);
        }
        is_it
    }

    /// It is through.
    pub fn end(&self) {
        self.now.lock().0 = Phase::Idle;
        self.ended.notify_all();
    }

    /// Whether one runs.
    pub fn is_running(&self) -> bool {
        self.now.lock().0 == Phase::Running
    }

    /// Waits for one that runs, but not for long.
    pub fn wait(&self) {
        let mut now = self.now.lock();
        if now.0 == Phase::Running {
            self.ended.wait_for(&mut now, MOST_WAIT);
        }
    }

    /// None is underway any more. What one does at the moment it does to the end.
    pub fn settle(&self) {
        let mut now = self.now.lock();
        if now.0 == Phase::Queued {
            now.0 = Phase::Idle;
        }
        while now.0 == Phase::Running {
            self.must_stop.store(true, Ordering::Relaxed);
            self.ended.wait_for(&mut now, MOST_WAIT);
        }
    }

    /// Whether the running one is to end soon.
    pub fn must_stop(&self) -> bool {
        self.must_stop.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queued_one_is_taken_over_and_called_off() {
        let turn = Turn::default();
        let first = turn.queue(false).expect("nothing is underway");
        assert_eq!(turn.queue(false), None);
        let second = turn.queue(true).expect("the first has not begun");
        assert!(!turn.start(first) && turn.start(second));
        assert!(turn.is_running() && turn.queue(true).is_none());
        turn.end();
        let third = turn.queue(false).expect("the second has ended");
        turn.settle();
        assert!(!turn.start(third) && !turn.is_running());
    }

    #[test]
    fn a_running_one_is_waited_for() {
        let turn = Turn::default();
        let number = turn.queue(false).expect("nothing is underway");
        assert!(turn.start(number));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !turn.must_stop() {
                    std::thread::yield_now();
                }
                turn.end();
            });
            turn.settle();
            assert!(!turn.is_running());
        });
    }
}
