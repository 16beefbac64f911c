//! What procfs asks about tasks and the system. The sentry implements these and passes a [`SystemView`] at mount.
//!
//! Answers are snapshots; a task that has ended meanwhile answers with what it last was, `None` or `ESRCH`.

use std::sync::Arc;

use abi::Result;
use abi::ids::{Fd, Tid};
use base::clock::Nanos;
use base::cred::Credentials;

use crate::context::VfsCx;
use crate::dentry::Path;
use crate::file::File;
use crate::mount_namespace::MountNamespace;

/// The whole sandbox.
pub trait SystemView: Send + Sync {
    /// Thread groups (zombies too), ascending.
    fn processes(&self) -> Vec<Tid>;
    /// A thread, or the leader of a thread group even when it has ended.
    fn task(&self, tid: Tid) -> Option<Arc<dyn TaskView>>;

    /// Text of /proc/cpuinfo.
    fn cpuinfo(&self) -> String;
    /// CPUs that guests see.
    fn cpus(&self) -> u32;
    fn memory(&self) -> SystemMemory;
    /// CPU time that guests used since boot, per CPU as far as known.
    fn cpu_times(&self) -> CpuTimes;
    fn counters(&self) -> Counters;
    fn load(&self) -> Load;
    /// Since the sandbox started.
    fn uptime_ns(&self) -> Nanos;
    /// Seconds since 1970 when the sandbox started.
    fn boot_time(&self) -> u64;

    fn uts(&self) -> Uts;
    /// # Errors
    /// `EPERM` when the caller may not.
    fn set_hostname(&self, cx: &VfsCx<'_>, name: &[u8]) -> Result<()>;
    /// # Errors
    /// `EPERM` when the caller may not.
    fn set_domainname(&self, cx: &VfsCx<'_>, name: &[u8]) -> Result<()>;
}

/// See uname(2).
#[derive(Debug, Clone, Default)]
pub struct Uts {
    pub hostname: Vec<u8>,
    pub domainname: Vec<u8>,
    pub release: String,
    /// As `uname -v`.
    pub version: String,
}

/// Bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemMemory {
    pub total: u64,
    pub free: u64,
    pub available: u64,
    pub cached: u64,
    pub anonymous: u64,
    pub shared: u64,
    pub swap_total: u64,
    pub swap_free: u64,
    pub committed: u64,
}

/// Nanoseconds of all CPUs together.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuTimes {
    pub user: u64,
    pub system: u64,
    pub idle: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    pub context_switches: u64,
    /// Threads ever made.
    pub forks: u64,
    pub running: u64,
    pub blocked: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Load {
    /// Of one, five and fifteen minutes, in hundredths.
    pub hundredths: [u64; 3],
    pub runnable: u64,
    pub threads: u64,
    pub last_pid: i32,
}

/// One thread, with its process.
pub trait TaskView: Send + Sync {
    fn ids(&self) -> TaskIds;
    fn cred(&self) -> Arc<Credentials>;
    /// At most 15 bytes.
    fn comm(&self) -> Vec<u8>;
    fn set_comm(&self, name: &[u8]);
    fn state(&self) -> TaskState;
    /// Live threads of the process, ascending.
    fn threads(&self) -> Vec<Tid>;
    fn times(&self, scope: Scope) -> TaskTimes;
    fn scheduling(&self) -> Scheduling;
    fn signals(&self) -> SignalState;
    /// Soft and hard limits by `RLIMIT_*` number.
    fn limits(&self) -> Vec<(u64, u64)>;

    /// `None` of these: the task has no memory or files any more (zombie).
    fn exe(&self) -> Option<Path>;
    fn cwd(&self) -> Option<Path>;
    fn root(&self) -> Option<Path>;
    fn umask(&self) -> Option<u32>;
    fn mounts(&self) -> Option<Arc<MountNamespace>>;
    /// Open descriptors, ascending.
    fn fds(&self) -> Vec<Fd>;
    /// An open file and its close-on-exec flag.
    fn file(&self, fd: Fd) -> Option<(Arc<File>, bool)>;
    /// Slots of the descriptor table.
    fn fd_slots(&self) -> usize;

    fn memory(&self) -> Option<TaskMemory>;
    /// Mappings in rising order; empty without memory.
    fn maps(&self) -> Vec<MapView>;
    /// Raw bytes of the argument area, possibly empty.
    fn cmdline(&self) -> Result<Vec<u8>>;
    fn environ(&self) -> Result<Vec<u8>>;
    fn auxv(&self) -> Result<Vec<u8>>;
    /// Reads of /proc/PID/mem: how many bytes were readable from `addr` on.
    fn read_memory(&self, addr: u64, into: &mut [u8]) -> usize;
    fn write_memory(&self, addr: u64, bytes: &[u8]) -> usize;

    fn personality(&self) -> u32;
    fn no_new_privs(&self) -> bool;
    fn is_dumpable(&self) -> bool;
    fn timer_slack_ns(&self) -> u64;
    fn oom_score_adj(&self) -> i32;
    fn set_oom_score_adj(&self, value: i32);
    fn io(&self) -> IoCounts;
}

/// Ids as the guest sees them.
#[derive(Debug, Clone, Copy, Default)]
pub struct TaskIds {
    pub tid: Tid,
    pub tgid: Tid,
    pub ppid: Tid,
    pub pgid: Tid,
    pub sid: Tid,
    /// Device number of the controlling terminal, 0 without.
    pub tty: u64,
    /// Foreground process group of that terminal, -1 without.
    pub tty_pgid: i32,
}

/// The letter of /proc/PID/stat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    Running,
    Sleeping,
    Stopped,
    Traced,
    Zombie,
    Dead,
}

impl TaskState {
    /// As /proc/PID/status spells it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Running => "R (running)",
            Self::Sleeping => "S (sleeping)",
            Self::Stopped => "T (stopped)",
            Self::Traced => "t (tracing stop)",
            Self::Zombie => "Z (zombie)",
            Self::Dead => "X (dead)",
        }
    }

    #[must_use]
    pub fn letter(self) -> char {
        self.text().chars().next().unwrap_or('R')
    }
}

/// Whose figures are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// /proc/PID
    Process,
    /// /proc/PID/task/TID
    Thread,
}

/// Of a thread, or of all of a process.
#[derive(Debug, Clone, Copy, Default)]
pub struct TaskTimes {
    pub user_ns: Nanos,
    pub system_ns: Nanos,
    pub children_user_ns: Nanos,
    pub children_system_ns: Nanos,
    /// Since the sandbox started.
    pub start_ns: Nanos,
    pub minor_faults: u64,
    pub major_faults: u64,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
}

#[derive(Debug, Clone, Default)]
pub struct Scheduling {
    pub nice: i32,
    pub policy: u32,
    pub rt_priority: u32,
    /// Bit n of word n / 64: may run on CPU n.
    pub affinity: Vec<u64>,
    pub last_cpu: u32,
}

/// Sets of signals, bit n - 1 for signal n.
#[derive(Debug, Clone, Copy, Default)]
pub struct SignalState {
    pub queued: u64,
    pub pending: u64,
    pub shared_pending: u64,
    pub blocked: u64,
    pub ignored: u64,
    pub caught: u64,
    /// To the parent at the end.
    pub exit_signal: i32,
    /// As wait4(2) reports it, for a zombie.
    pub exit_code: i32,
}

/// Bytes, and addresses of the image.
#[derive(Debug, Clone, Copy, Default)]
pub struct TaskMemory {
    pub size: u64,
    pub peak_size: u64,
    pub resident: u64,
    pub peak_resident: u64,
    /// Of `resident`: not anonymous.
    pub resident_file: u64,
    pub locked: u64,
    pub data: u64,
    pub stack: u64,
    pub text: u64,
    /// Executable bytes beyond `text`.
    pub library: u64,
    pub swap: u64,
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
}

/// One mapping of /proc/PID/maps.
#[derive(Clone)]
pub struct MapView {
    pub start: u64,
    pub end: u64,
    pub is_readable: bool,
    pub is_writable: bool,
    pub is_executable: bool,
    pub is_shared: bool,
    /// Offset in the file.
    pub offset: u64,
    pub name: MapName,
    /// Bytes, as far as known.
    pub resident: u64,
    pub anonymous: u64,
    pub is_locked: bool,
}

/// Last column of /proc/PID/maps.
#[derive(Clone)]
pub enum MapName {
    None,
    File(Path),
    /// `[heap]`, `[stack]`, `[vdso]`, `[anon:...]`.
    Special(String),
}

/// See /proc/PID/io in proc_pid_io(5).
#[derive(Debug, Clone, Copy, Default)]
pub struct IoCounts {
    pub read_chars: u64,
    pub write_chars: u64,
    pub read_calls: u64,
    pub write_calls: u64,
}
