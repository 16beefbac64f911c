//! Pending signals, each with its siginfo. A standard signal is pending once however often it was sent; real-time
//! signals queue up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::siginfo::{SI_QUEUE, SI_TIMER, SI_USER, SigInfo};
use abi::signal::{SigSet, Signal};
use abi::{Errno, Result};

/// Queued real-time signals of the whole sandbox. As Linux counts per user, so that many threads are no way around the
/// limit; only the sum matters, so no order is needed.
static QUEUED: AtomicU64 = AtomicU64::new(0);

/// Pending signals of a thread or a process.
#[derive(Debug, Default)]
pub struct Queue {
    set: SigSet,
    infos: VecDeque<SigInfo>,
}

impl Queue {
    /// The signals in it.
    #[must_use]
    pub const fn set(&self) -> SigSet {
        self.set
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.infos.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Adds a signal; `limit` is RLIMIT_SIGPENDING: how many real-time signals may be queued in the sandbox.
    ///
    /// # Errors
    /// `EAGAIN` for a queued real-time signal beyond the limit; one sent by kill(2) is then pending without siginfo.
    pub fn push(&mut self, signal: Signal, info: SigInfo, limit: u64) -> Result<()> {
        if !signal.is_realtime() && self.set.contains(signal) {
            return Ok(());
        }
        let is_full = signal.is_realtime() && QUEUED.load(Ordering::Relaxed) >= limit;
        if is_full && info.code != SI_USER && matches!(info.code, SI_QUEUE | SI_TIMER | ..=-1) {
            return Err(Errno::EAGAIN);
        }
        self.set.insert(signal);
        if !is_full {
            if signal.is_realtime() {
                QUEUED.fetch_add(1, Ordering::Relaxed);
            }
            self.infos.push_back(info);
        }
        Ok(())
    }

    /// Takes the signal that Linux would deliver next among those in `wanted`: synchronous ones first, then the lowest
    /// number; among equals the oldest.
    pub fn take(&mut self, wanted: SigSet) -> Option<SigInfo> {
        let ready = SigSet(self.set.0 & wanted.0);
        let synchronous = SigSet(ready.0 & SYNCHRONOUS.0);
        let signal = synchronous.lowest().or(ready.lowest())?;
        Some(self.take_signal(signal))
    }

    fn take_signal(&mut self, signal: Signal) -> SigInfo {
        let is_it = |info: &SigInfo| info.signal() == Some(signal);
        let first = self.infos.iter().position(is_it);
        let info = first.and_then(|at| self.infos.remove(at));
        if info.is_some() && signal.is_realtime() {
            QUEUED.fetch_sub(1, Ordering::Relaxed);
        }
        if !self.infos.iter().any(is_it) {
            self.set.remove(signal);
        }
        // A signal that found no room for its siginfo looks like one of kill(2) by nobody.
        info.unwrap_or_else(|| SigInfo::new(signal, SI_USER))
    }

    /// Forgets these signals.
    pub fn discard(&mut self, signals: SigSet) {
        if self.set.0 & signals.0 == 0 {
            return;
        }
        self.set = self.set.without(signals);
        let before = self.realtime_count();
        self.infos.retain(|info| info.signal().is_some_and(|signal| !signals.contains(signal)));
        QUEUED.fetch_sub(before - self.realtime_count(), Ordering::Relaxed);
    }

    fn realtime_count(&self) -> u64 {
        let is_realtime = |info: &&SigInfo| info.signal().is_some_and(Signal::is_realtime);
        self.infos.iter().filter(is_realtime).count() as u64
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        QUEUED.fetch_sub(self.realtime_count(), Ordering::Relaxed);
    }
}

/// Signals that a thread brings upon itself; delivered before others.
const SYNCHRONOUS: SigSet = SigSet(
    SigSet::single(Signal::SIGSEGV).0
        | SigSet::single(Signal::SIGBUS).0
        | SigSet::single(Signal::SIGILL).0
        | SigSet::single(Signal::SIGTRAP).0
        | SigSet::single(Signal::SIGFPE).0
        | SigSet::single(Signal::SIGSYS).0,
);

#[cfg(test)]
mod tests {
    use super::*;

    fn rt(value: u32) -> SigInfo {
        let mut info = SigInfo::new(Signal::new(40).unwrap(), SI_QUEUE);
        info.fields[2] = value;
        info
    }

    #[test]
    fn standard_signals_coalesce_and_real_time_signals_queue() {
        let mut queue = Queue::default();
        for _ in 0..3 {
            queue.push(Signal::SIGUSR1, SigInfo::kernel(Signal::SIGUSR1), 100).unwrap();
        }
        let rt_signal = Signal::new(40).unwrap();
        queue.push(rt_signal, rt(1), 100).unwrap();
        queue.push(rt_signal, rt(2), 100).unwrap();
        assert_eq!(queue.len(), 3);
        assert_eq!(queue.take(SigSet::ALL).unwrap().signal(), Some(Signal::SIGUSR1));
        assert_eq!(queue.take(SigSet::ALL).unwrap().value() as u32, 1);
        assert_eq!(queue.set(), SigSet::single(rt_signal));
        assert_eq!(queue.take(SigSet::ALL).unwrap().value() as u32, 2);
        assert!(queue.take(SigSet::ALL).is_none());
    }

    #[test]
    fn full_queue_refuses_sigqueue_but_not_kill() {
        let mut queue = Queue::default();
        let signal = Signal::new(40).unwrap();
        assert_eq!(queue.push(signal, rt(1), 0), Err(Errno::EAGAIN));
        assert_eq!(queue.push(signal, SigInfo::new(signal, SI_USER), 0), Ok(()));
        assert_eq!(queue.take(SigSet::ALL).unwrap().signo, 40);
    }

    #[test]
    fn synchronous_signals_come_first() {
        let mut queue = Queue::default();
        queue.push(Signal::SIGHUP, SigInfo::kernel(Signal::SIGHUP), 9).unwrap();
        queue.push(Signal::SIGSEGV, SigInfo::kernel(Signal::SIGSEGV), 9).unwrap();
        assert_eq!(queue.take(SigSet::ALL).unwrap().signal(), Some(Signal::SIGSEGV));
    }
}
