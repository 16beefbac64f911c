//! What the threads of a process share.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use abi::ids::Tid;
use abi::rlimit::{Resource, Rlimit};
use base::WaitQueue;
use base::clock::Nanos;
use base::lock::Mutex;

use crate::mm::Mm;
use crate::signal::{Actions, ExitStatus, GroupSignals};
use crate::task::rlimits::Rlimits;
use crate::task::{Links, Thread};
use crate::time::GroupTimers;
use crate::{heap, lock_order};

/// A process as its parent sees it.
pub struct ThreadGroup {
    pub tgid: Tid,
    // These four are written under the pid table's lock only; each is read alone, so no order is needed.
    parent: AtomicI32,
    pgid: AtomicI32,
    sid: AtomicI32,
    /// PR_SET_CHILD_SUBREAPER.
    is_subreaper: AtomicBool,
    /// Signal to the parent at the end; 0 is none.
    exit_signal: AtomicI32,
    /// The thread that made it, for PR_SET_PDEATHSIG.
    creator: Tid,
    /// Has called execve since it was forked: setpgid(2) by the parent then fails.
    has_execed: AtomicBool,
    /// Set once, under the pid table's lock, when the last thread has ended: the process is a zombie.
    exit_status: OnceLock<ExitStatus>,
    pub start_ns: Nanos,
    /// Threads, shared signal queue, stop and exit state.
    pub signals: Mutex<GroupSignals, lock_order::Signals>,
    /// Shared by CLONE_SIGHAND.
    pub actions: Arc<Mutex<Actions, lock_order::SignalActions>>,
    /// The soft one of `limits`.
    file_size_limit: AtomicU64,
    limits: Mutex<Rlimits, lock_order::Leaf>,
    pub image: Mutex<Image, lock_order::Leaf>,
    pub usage: Mutex<Accounts, lock_order::Leaf>,
    /// Interval timers and POSIX timers.
    pub timers: GroupTimers,
    /// Kinds of membarrier(2) that were registered for; nothing else depends on it.
    pub membarrier: AtomicU32,
    /// Told (`IN`) when a child changed its state: waited for by wait4(2).
    pub child_events: WaitQueue,
    /// Told when one of its threads has ended: waited for by the one that runs execve(2).
    pub thread_exits: WaitQueue,
    /// Told (`IN`) when a signal was queued: what signalfds poll.
    pub signal_events: WaitQueue,
    /// Told (`IN`) when this process has become a zombie: what pidfds poll.
    pub exit_events: WaitQueue,
}

/// What execve(2) set.
#[derive(Clone, Default)]
pub struct Image {
    /// The program's file, for /proc/PID/exe.
    pub exe: Option<vfs::Path>,
    /// PR_SET_DUMPABLE: 0, 1 or 2.
    pub dumpable: u32,
    pub oom_score_adj: i32,
}

/// CPU time and the like; see getrusage(2).
#[derive(Debug, Clone, Copy, Default)]
pub struct Rusage {
    pub user_ns: u64,
    pub system_ns: u64,
    pub max_rss_bytes: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
}

/// Accounting of a process beyond its live address space.
#[derive(Debug, Clone, Copy, Default)]
pub struct Accounts {
    /// Of threads and address spaces that are gone (exec, exit).
    pub own: Rusage,
    /// Of children that were waited for, with theirs.
    pub children: Rusage,
}

impl Rusage {
    /// Of a live address space, as the host accounts it.
    pub fn of_memory(mm: &Mm) -> Self {
        let usage = mm.space().usage();
        Self {
            user_ns: usage.user_ns,
            system_ns: usage.system_ns,
            max_rss_bytes: mm.resident_by(&usage),
            ..Self::default()
        }
    }

    /// Adds times, takes the larger resident set.
    pub fn add(&mut self, other: &Self) {
        self.user_ns = self.user_ns.saturating_add(other.user_ns);
        self.system_ns = self.system_ns.saturating_add(other.system_ns);
        self.max_rss_bytes = self.max_rss_bytes.max(other.max_rss_bytes);
        self.minor_faults = self.minor_faults.saturating_add(other.minor_faults);
        self.major_faults = self.major_faults.saturating_add(other.major_faults);
        self.voluntary_switches = self.voluntary_switches.saturating_add(other.voluntary_switches);
        self.involuntary_switches =
            self.involuntary_switches.saturating_add(other.involuntary_switches);
    }
}

/// What a new thread group starts with.
pub struct NewGroup {
    pub tgid: Tid,
    pub links: Links,
    pub exit_signal: i32,
    pub creator: Tid,
    pub limits: Rlimits,
    pub image: Image,
    pub actions: Arc<Mutex<Actions, lock_order::SignalActions>>,
}

impl ThreadGroup {
    #[must_use]
    pub fn new(new: NewGroup) -> Arc<Self> {
        Arc::new(Self {
            tgid: new.tgid,
            parent: AtomicI32::new(new.links.parent.0),
            pgid: AtomicI32::new(new.links.pgid.0),
            sid: AtomicI32::new(new.links.sid.0),
            is_subreaper: AtomicBool::new(false),
            exit_signal: AtomicI32::new(new.exit_signal),
            creator: new.creator,
            has_execed: AtomicBool::new(false),
            exit_status: OnceLock::new(),
            start_ns: crate::executor::timer::monotonic(),
            signals: Mutex::default(),
            actions: new.actions,
            file_size_limit: AtomicU64::new(new.limits.get(Resource::Fsize).cur),
            limits: Mutex::new(new.limits),
            image: Mutex::new(new.image),
            usage: Mutex::default(),
            timers: GroupTimers::default(),
            membarrier: AtomicU32::new(0),
            child_events: WaitQueue::new(),
            thread_exits: WaitQueue::new(),
            signal_events: WaitQueue::new(),
            exit_events: WaitQueue::new(),
        })
    }

    /// Id of the parent; 0 for the first process.
    pub fn parent(&self) -> Tid {
        Tid(self.parent.load(Ordering::Relaxed))
    }

    /// As the tree is now: it may have changed since the group was made. Under the pid table's lock.
    pub(super) fn set_links(&self, caller: &Self, is_sibling: bool) {
        self.set_parent(if is_sibling { caller.parent() } else { caller.tgid });
        self.set_pgid(caller.pgid());
        self.set_sid(caller.sid());
    }

    pub(super) fn set_parent(&self, parent: Tid) {
        self.parent.store(parent.0, Ordering::Relaxed);
    }

    pub fn pgid(&self) -> Tid {
        Tid(self.pgid.load(Ordering::Relaxed))
    }

    pub(super) fn set_pgid(&self, pgid: Tid) {
        self.pgid.store(pgid.0, Ordering::Relaxed);
    }

    pub fn sid(&self) -> Tid {
        Tid(self.sid.load(Ordering::Relaxed))
    }

    pub(super) fn set_sid(&self, sid: Tid) {
        self.sid.store(sid.0, Ordering::Relaxed);
    }

    pub fn is_subreaper(&self) -> bool {
        self.is_subreaper.load(Ordering::Relaxed)
    }

    pub fn set_subreaper(&self, is: bool) {
        self.is_subreaper.store(is, Ordering::Relaxed);
    }

    pub fn exit_signal(&self) -> i32 {
        self.exit_signal.load(Ordering::Relaxed)
    }

    pub(super) fn set_exit_signal(&self, signal: i32) {
        self.exit_signal.store(signal, Ordering::Relaxed);
    }

    /// The thread that made it.
    pub fn creator(&self) -> Tid {
        self.creator
    }

    pub fn has_execed(&self) -> bool {
        self.has_execed.load(Ordering::Relaxed)
    }

    pub(super) fn set_has_execed(&self) {
        self.has_execed.store(true, Ordering::Relaxed);
    }

    /// How the process ended, once it is a zombie.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.exit_status.get().copied()
    }

    pub(super) fn set_exit_status(&self, status: ExitStatus) {
        // Set by the last thread only, so never twice.
        let _ = self.exit_status.set(status);
    }

    /// True once all threads are to end.
    pub fn is_ending(&self) -> bool {
        self.signals.lock().exit.is_some()
    }

    /// Time used by the process so far, without children: what is gone and what runs.
    pub fn rusage(&self) -> Rusage {
        let mut usage = self.usage.lock().own;
        let thread = self.any_thread();
        if let Some(mm) = thread.and_then(|thread| thread.mm_if_alive()) {
            usage.add(&Rusage::of_memory(&mm));
        }
        usage
    }

    /// Soft limit of a resource.
    pub fn limit(&self, resource: Resource) -> u64 {
        self.rlimit(resource).cur
    }

    /// RLIMIT_FSIZE, which every write asks for.
    pub fn file_size_limit(&self) -> u64 {
        self.file_size_limit.load(Ordering::Relaxed)
    }

    pub fn rlimit(&self, resource: Resource) -> Rlimit {
        self.limits.lock().get(resource)
    }

    /// Unchecked; see prlimit64(2).
    pub fn set_rlimit(&self, resource: Resource, limit: Rlimit) {
        // Keeps the order of what threads are told.
        let signals = self.signals.lock();
        self.limits.lock().set(resource, limit);
        if resource == Resource::Fsize {
            self.file_size_limit.store(limit.cur, Ordering::Relaxed);
        }
        if resource == Resource::Stack {
            for thread in &signals.threads {
                thread.run.tell_stack_limit(limit);
            }
        }
        drop(signals);
        if matches!(resource, Resource::Data | Resource::As) {
            heap::limits_changed(&self.threads());
        }
    }

    pub fn limits(&self) -> Rlimits {
        self.limits.lock().clone()
    }

    /// The threads that have not ended, oldest first.
    pub fn threads(&self) -> Vec<Arc<Thread>> {
        self.signals.lock().threads.clone()
    }

    /// The leader, or when it has ended the oldest thread; `None` for a zombie.
    pub fn any_thread(&self) -> Option<Arc<Thread>> {
        self.signals.lock().threads.first().cloned()
    }
}

impl std::fmt::Debug for ThreadGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ThreadGroup({})", self.tgid)
    }
}
