//! The one listener of all stubs, and the workers that wait at it.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use abi::Errno;
use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;
use rustix::thread::CpuSet;

use super::chain::ROAMS;
use super::spin::worker_key;
use super::sys::{self, AfterAddFd, Notification};

/// The listener's descriptor. At most one worker waits in NOTIF_RECV, because a ring wakes all who do: the others
/// stand behind a gate and are let in when there is more than one worker's work.
pub struct Listener {
    fd: OwnedFd,
    can_sync: bool,
    gate: Mutex<Gate>,
    opened: Condvar,
    /// What was asked for by [`Listener::set_sync`].
    is_sync: AtomicBool,
    /// Others than the one who is about to be answered run.
    has_others: AtomicBool,
    /// Worker that was the last in NOTIF_RECV.
    last: AtomicUsize,
    /// CPUs that the sandbox may use.
    allowed: CpuSet,
    /// Where the worker and the guests that take turns are held: see `chain`.
    pub home: AtomicU32,
}

#[derive(Default)]
struct Gate {
    is_receiving: bool,
    idle: usize,
    /// Workers at the gate that are to return to their caller.
    unparks: usize,
}

/// The set of one CPU.
pub fn one_cpu(cpu: u32) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(cpu as usize);
    set
}

/// What came of waiting.
pub enum Wait {
    Rang(Notification),
    Unparked,
}

impl Listener {
    pub fn new(fd: OwnedFd) -> Self {
        // Before 6.6 the flag does not exist: slower, not wrong.
        let can_sync = sys::notif_set_sync(fd.as_fd(), true).is_ok();
        Self {
            fd,
            can_sync,
            is_sync: AtomicBool::new(true),
            has_others: AtomicBool::new(false),
            gate: Mutex::default(),
            opened: Condvar::new(),
            last: AtomicUsize::new(0),
            allowed: rustix::thread::sched_getaffinity(None).unwrap_or_default(),
            home: AtomicU32::new(ROAMS),
        }
    }

    /// Whether an answer wakes the one who rang on this CPU.
    pub fn set_sync(&self, is_sync: bool) {
        self.is_sync.store(is_sync, Ordering::Relaxed);
        self.apply_sync(is_sync);
    }

    fn apply_sync(&self, is_sync: bool) {
        if self.can_sync {
            let _ = sys::notif_set_sync(self.fd.as_fd(), is_sync);
        }
    }

    /// Blocks until a doorbell rings and nobody else took it.
    pub fn wait(&self) -> Result<Wait, Errno> {
        let mut gate = self.gate.lock();
        while gate.is_receiving {
            gate.idle += 1;
            self.opened.wait(&mut gate);
            gate.idle -= 1;
            if gate.unparks > 0 {
                gate.unparks -= 1;
                return Ok(Wait::Unparked);
            }
        }
        gate.is_receiving = true;
        drop(gate);
        let received = sys::notif_recv(self.fd.as_fd());
        self.last.store(worker_key(), Ordering::Relaxed);
        self.gate.lock().is_receiving = false;
        match received {
            Ok(notification) => Ok(Wait::Rang(notification)),
            // The one who rang died, or a signal of our own came.
            Err(Errno::ENOENT | Errno::EINTR) => Ok(Wait::Unparked),
            Err(errno) => Err(errno),
        }
    }

    /// Takes a doorbell's notification if one has rung; does not block. (Who rang may have died meanwhile: the host counts rings,
    /// and says that there is nothing behind this one.) `None` also when somebody else waits for rings.
    pub fn take_ring(&self) -> Option<Notification> {
        {
            let mut gate = self.gate.lock();
            if gate.is_receiving || !self.has_rung() {
                return None;
            }
            gate.is_receiving = true;
        }
        let received = sys::notif_recv(self.fd.as_fd());
        self.last.store(worker_key(), Ordering::Relaxed);
        self.gate.lock().is_receiving = false;
        received.ok()
    }

    /// Whether a doorbell has rung that nobody took yet.
    pub fn has_rung(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&now)) == Ok(1)
    }

    /// Blocks for one notification regardless of the gate; for start-up.
    pub fn receive(&self) -> Result<Notification, Errno> {
        loop {
            match sys::notif_recv(self.fd.as_fd()) {
                Err(Errno::ENOENT | Errno::EINTR) => {}
                other => return other,
            }
        }
    }

    /// The calling thread is about to answer one of `guests`: if it is not the one that will come back to listen,
    /// or has more to do before, another worker is let in.
    pub fn before_reply(&self, guests: usize, has_others: bool) {
        self.has_others.store(has_others, Ordering::Relaxed);
        if guests > 1 || !self.is_listener() {
            self.hand_over();
        }
    }

    /// Whether the one who is about to be answered is not the only guest that runs.
    pub fn has_others(&self) -> bool {
        self.has_others.load(Ordering::Relaxed)
    }

    /// Whether the calling thread was the last in NOTIF_RECV.
    pub fn is_listener(&self) -> bool {
        self.last.load(Ordering::Relaxed) == worker_key()
    }

    /// Whether who is held at `place` is where the calling thread is, too.
    pub fn is_at_home(&self, place: u32) -> bool {
        place != ROAMS
            && place == self.home.load(Ordering::Relaxed)
            && u32::try_from(rustix::thread::sched_getcpu()).is_ok_and(|cpu| cpu + 1 == place)
    }

    /// Lets another worker in, if nobody is there.
    pub fn hand_over(&self) {
        let gate = self.gate.lock();
        if !gate.is_receiving && gate.idle > 0 {
            drop(gate);
            self.opened.notify_one();
        }
    }

    /// Sends one worker at the gate back to its caller.
    pub fn unpark(&self) {
        let mut gate = self.gate.lock();
        if gate.idle > gate.unparks {
            gate.unparks += 1;
            drop(gate);
            self.opened.notify_one();
        }
    }

    /// Answers; that the one who rang is dead meanwhile is the reaper's affair.
    pub fn send(&self, notification: u64, value: u64) {
        if let Err(errno) = sys::notif_send(self.fd.as_fd(), notification, value)
            && errno != Errno::ENOENT
        {
            tracing::warn!(errno = errno.text(), "doorbell not answered");
        }
    }

    /// Answers somebody whose work is not waited for: not on this CPU, if another is idle.
    pub fn send_elsewhere(&self, notification: u64, value: u64) {
        let was_sync = self.is_sync.load(Ordering::Relaxed);
        if was_sync {
            self.apply_sync(false);
        }
        self.send(notification, value);
        if was_sync {
            self.apply_sync(true);
        }
    }

    /// Lets the call that was asked for happen.
    pub fn permit(&self, notification: u64) {
        if let Err(errno) = sys::notif_continue(self.fd.as_fd(), notification)
            && errno != Errno::ENOENT
        {
            tracing::warn!(errno = errno.text(), "call not permitted");
        }
    }

    /// Whether the one who rang still waits.
    pub fn is_valid(&self, notification: u64) -> bool {
        sys::notif_id_valid(self.fd.as_fd(), notification)
    }

    /// Sees to it that the thread that rang takes its descriptors on this CPU: the host has us wait until it did, and on
    /// another one it would have to be woken first, and we after it. True when it must be let go again.
    pub fn pull_here(&self, tid: i32) -> bool {
        let mut here = CpuSet::new();
        here.set(rustix::thread::sched_getcpu());
        // We as well: we sleep until it did, and shall not be woken elsewhere.
        rustix::thread::sched_setaffinity(Pid::from_raw(tid), &here).is_ok()
            && rustix::thread::sched_setaffinity(None, &here).is_ok()
    }

    /// See [`Listener::pull_here`].
    pub fn let_go(&self, tid: i32) {
        // Fails when it is dead.
        let _ = rustix::thread::sched_setaffinity(Pid::from_raw(tid), &self.allowed);
        let own = match self.home.load(Ordering::Relaxed) {
            home if home != ROAMS && self.is_listener() => one_cpu(home - 1),
            _ => self.allowed,
        };
        let _ = rustix::thread::sched_setaffinity(None, &own);
    }

    /// Installs a descriptor under this number, in the stead of what is there.
    pub fn add_fd_as(&self, notification: u64, fd: RawFd, number: u32) -> Result<(), Errno> {
        self.add_fd(notification, fd, AfterAddFd::KeepAs(number)).map(drop)
    }

    pub fn add_fd(&self, notification: u64, fd: RawFd, after: AfterAddFd) -> Result<u32, Errno> {
        loop {
            match sys::notif_addfd(self.fd.as_fd(), notification, fd, after) {
                Err(Errno::EINTR) => {}
                other => return other,
            }
        }
    }
}
