//! The roots of one sandbox.

use std::io;
use std::sync::{Arc, OnceLock, Weak};

use base::clock::{Clock, Nanos};
use base::lock::Mutex;
use platform::Platform;
use rustix::time::{ClockId, clock_gettime};
use vfs::MountNamespace;
use vfs::fs::devpts::DevPts;
use vfs::fs::tmpfs::Nameless;
use vfs::tty::Terminals;

use crate::config::HostFacts;
use crate::executor::Executor;
use crate::executor::reactor::Reactor;
use crate::executor::timer::{Timers, nanos};
use crate::files::async_io::AsyncOwners;
use crate::files::lock_waits::LockWaits;
use crate::futex::FutexTable;
use crate::known_paths::KnownPaths;
use crate::loader::{Headers, Profiles};
use crate::lock_order;
use crate::mm::MemoryAccount;
use crate::rewrite::Rewriter;
use crate::stats::CallCounts;
use crate::syscalls::strace::Tracer;
use crate::task::PidTable;
use crate::task::job_control::Jobs;
use crate::time::FileTimers;

/// One guest kernel.
pub struct Kernel {
    pub platform: Arc<dyn Platform>,
    pub executor: Arc<Executor>,
    pub timers: Arc<Timers>,
    pub reactor: Arc<Reactor>,
    pub clock: Arc<dyn Clock>,
    pub tasks: PidTable,
    pub futexes: FutexTable,
    /// Whom files tell by SIGIO.
    pub async_owners: AsyncOwners,
    pub lock_waits: LockWaits,
    /// The one mount namespace; set by boot.
    pub mounts: OnceLock<Arc<MountNamespace>>,
    /// Where memfd_create(2) makes its files.
    pub memfds: Nameless,
    /// Names of bound unix sockets; with `ports`, the network namespace so far.
    pub unix_names: Arc<netstack::unix::Names>,
    /// Ports of the loopback interface.
    pub ports: Arc<netstack::inet::Ports>,
    /// Which session has which terminal.
    pub terminals: Arc<Terminals>,
    /// /dev/pts, wherever it is mounted.
    pub devpts: Arc<DevPts>,
    pub host: HostFacts,
    /// What programs map when they start.
    pub profiles: Profiles,
    /// Headers of executables.
    pub headers: Headers,
    /// What guests ask of paths.
    pub known_paths: KnownPaths,
    /// Call sites that need no signal any more; `None`: they are left alone.
    pub rewriter: Option<Arc<Rewriter>>,
    /// Where --strace lines go.
    pub strace: Option<Arc<Tracer>>,
    /// There when `--stats` is to tell.
    pub call_counts: Option<CallCounts>,
    /// What uname(2) says.
    pub uts: Mutex<Uts, lock_order::Leaf>,
    /// `CLOCK_REALTIME` and `CLOCK_MONOTONIC` when the sandbox started, in nanoseconds.
    pub boot_realtime_ns: Nanos,
    pub boot_monotonic_ns: Nanos,
    /// Bytes of guest memory allowed in all.
    pub memory_limit: Option<u64>,
    /// Keeps to it.
    pub memory: Option<Arc<MemoryAccount>>,
}

/// Names that a guest may change.
#[derive(Debug, Clone, Default)]
pub struct Uts {
    pub hostname: Vec<u8>,
    pub domainname: Vec<u8>,
}

/// What [`Kernel::new`] needs.
pub struct KernelParts {
    pub platform: Arc<dyn Platform>,
    pub host: HostFacts,
    pub hostname: Vec<u8>,
    pub memory_limit: Option<u64>,
    /// Threads allowed at once.
    pub pids_limit: Option<u32>,
    pub strace: Option<Arc<Tracer>>,
    /// Whether call sites may be rewritten, where the platform can.
    pub may_rewrite: bool,
    /// Whether calls are to be counted by number.
    pub counts_calls: bool,
}

impl Kernel {
    /// A kernel without tasks.
    ///
    /// # Errors
    /// Of the host calls that make the executor's descriptors.
    pub fn new(parts: KernelParts) -> io::Result<Arc<Self>> {
        let executor = Executor::new()?;
        let (boot_realtime_ns, boot_monotonic_ns) = (HostClock.realtime(), HostClock.monotonic());
        let clock: Arc<dyn Clock> = Arc::new(HostClock);
        let entry = parts.platform.layout().call_entry.filter(|_| parts.may_rewrite);
        let answers_questions = parts.platform.layout().has_slow_questions;
        let rewriter = Rewriter::new(entry, answers_questions).map(Arc::new);
        let file_timers = FileTimers::on(executor.timers(), &clock);
        Ok(Arc::new_cyclic(|myself| {
            let terminals = Terminals::new(Jobs::new(Weak::clone(myself)), file_timers);
            Self {
                platform: parts.platform,
                timers: Arc::clone(executor.timers()),
                reactor: Arc::clone(executor.reactor()),
                executor,
                tasks: PidTable::new(parts.pids_limit),
                futexes: FutexTable::new(),
                async_owners: AsyncOwners::default(),
                lock_waits: LockWaits::default(),
                mounts: OnceLock::new(),
                memfds: Nameless::new(Arc::new(HostClock), None, 1),
                unix_names: netstack::unix::Names::new(),
                ports: netstack::inet::Ports::new(),
                devpts: DevPts::new(Arc::clone(&terminals)),
                terminals,
                host: parts.host,
                uts: Mutex::new(Uts { hostname: parts.hostname, domainname: b"(none)".to_vec() }),
                boot_realtime_ns,
                boot_monotonic_ns,
                clock,
                memory: parts.memory_limit.map(MemoryAccount::new),
                memory_limit: parts.memory_limit,
                profiles: Profiles::default(),
                headers: Headers::default(),
                known_paths: KnownPaths::default(),
                rewriter,
                call_counts: parts.counts_calls.then(CallCounts::default),
                strace: parts.strace,
            }
        }))
    }

    /// `CLOCK_MONOTONIC` in nanoseconds, the clock of every deadline.
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.clock.monotonic()
    }
}

/// The host's clocks as they are: the guest reads the same ones through the host's vDSO.
#[derive(Debug)]
pub struct HostClock;

impl Clock for HostClock {
    fn realtime(&self) -> Nanos {
        nanos(clock_gettime(ClockId::Realtime))
    }

    fn monotonic(&self) -> Nanos {
        nanos(clock_gettime(ClockId::Monotonic))
    }
}
