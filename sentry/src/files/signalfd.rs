//! Pending signals as a file. See signalfd(2).
//!
//! A read takes signals from whoever reads; the wait queue is that of the process that made the file (as in Linux,
//! where epoll(7) keeps watching the maker's signals after a fork).

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::ids::Tid;
use abi::poll::PollEvents;
use abi::siginfo::SigInfo;
use abi::signal::SigSet;
use abi::{Errno, Result};
use base::{Sink, WaitQueue};
use vfs::{File, FileOps, VfsCx};

use crate::kernel::Kernel;
use crate::task::Thread;

/// `sizeof(struct signalfd_siginfo)`.
const RECORD_BYTES: usize = 128;

/// See the module's documentation.
pub struct SignalFd {
    kernel: Weak<Kernel>,
    /// Signals that it reads; replaced as a whole, alone.
    mask: AtomicU64,
    queue: WaitQueue,
}

impl SignalFd {
    #[must_use]
    pub fn new(kernel: &Arc<Kernel>, thread: &Thread, mask: SigSet) -> Arc<Self> {
        Arc::new(Self {
            kernel: Arc::downgrade(kernel),
            mask: AtomicU64::new(mask.0),
            queue: thread.group.signal_events.clone(),
        })
    }

    /// signalfd(2) on an existing one.
    pub fn set_mask(&self, mask: SigSet) {
        self.mask.store(mask.0, Ordering::Relaxed);
        self.queue.notify(PollEvents::IN);
    }

    fn mask(&self) -> SigSet {
        SigSet(self.mask.load(Ordering::Relaxed))
    }

    fn caller(&self, tid: Tid) -> Option<Arc<Thread>> {
        self.kernel.upgrade()?.tasks.thread(tid)
    }
}

impl FileOps for SignalFd {
    fn read(&self, cx: &VfsCx<'_>, _: &File, sink: &mut dyn Sink, _pos: u64) -> Result<usize> {
        if sink.remaining() < RECORD_BYTES {
            return Err(Errno::EINVAL);
        }
        let thread = self.caller(cx.caller.tid).ok_or(Errno::EAGAIN)?;
        let mut done = 0;
        while sink.remaining() >= RECORD_BYTES {
            let Some(info) = thread.take_signal(self.mask()) else { break };
            match sink.put(&record(&info)) {
                Ok(count) => done += count,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        if done == 0 { Err(Errno::EAGAIN) } else { Ok(done) }
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, cx: &VfsCx<'_>, _: &File) -> PollEvents {
        let pending = self.caller(cx.caller.tid).map(|thread| thread.pending_signals());
        if pending.is_some_and(|pending| pending.0 & self.mask().0 != 0) {
            PollEvents::IN | PollEvents::RDNORM
        } else {
            PollEvents::empty()
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn fdinfo(&self) -> String {
        format!("sigmask:\t{:016x}\n", self.mask().0)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// `struct signalfd_siginfo`: which members mean something depends on the signal; those that do not are what the
/// siginfo's union happens to hold there, so each kind is spelled out.
fn record(info: &SigInfo) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    let mut put32 = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    put32(0, info.signo.cast_unsigned());
    put32(4, info.errno.cast_unsigned());
    put32(8, info.code.cast_unsigned());
    put32(12, info.fields[0]);
    put32(16, info.fields[1]);
    let is_child = info.signo == 17;
    let is_fault = matches!(info.signo, 4 | 5 | 7 | 8 | 11) && info.code > 0;
    if is_child {
        put32(40, info.status().cast_unsigned());
        let (user, system) = info.child_ticks();
        bytes[56..64].copy_from_slice(&user.to_ne_bytes());
        bytes[64..72].copy_from_slice(&system.to_ne_bytes());
    } else if is_fault {
        put32(12, 0);
        put32(16, 0);
        bytes[72..80].copy_from_slice(&info.addr().to_ne_bytes());
    } else if info.code == abi::siginfo::SI_TIMER {
        put32(12, 0);
        put32(16, 0);
        put32(24, info.fields[0]);
        put32(32, info.fields[1]);
        put_value(&mut bytes, info.value());
    } else if info.code < 0 {
        put_value(&mut bytes, info.value());
    }
    bytes
}

/// `ssi_int` and `ssi_ptr`.
fn put_value(bytes: &mut [u8; RECORD_BYTES], value: u64) {
    bytes[44..48].copy_from_slice(&(value as u32).to_ne_bytes());
    bytes[48..56].copy_from_slice(&value.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use abi::ids::Uid;
    use abi::siginfo::CLD_EXITED;

    use super::*;

    #[test]
    fn records_of_children_carry_pid_and_status() {
        let record = record(&SigInfo::child(CLD_EXITED, Tid(7), Uid(1000), 3, 0, 0));
        assert_eq!(record[0], 17);
        assert_eq!(record[12], 7);
        assert_eq!(record[40], 3);
    }
}
