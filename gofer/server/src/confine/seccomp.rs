//! The gofer's system calls. Anything else kills the process: it can only be foreign code.

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// A call and why it is needed.
type Row = (i64, &'static str);

/// Fixed by Linux, newer than some libc's tables.
const SYS_FCHMODAT2: i64 = 452;
const SYS_OPENAT2: i64 = 437;

/// For every gofer.
pub const READING: &[Row] = &[
    (47, "recvmsg: requests"),
    (46, "sendmsg: replies and donated descriptors"),
    (SYS_OPENAT2, "openat2: the one way to open, below a tree's root"),
    (3, "close"),
    (332, "statx: attributes"),
    (267, "readlinkat: link texts"),
    (217, "getdents64: listings"),
    (8, "lseek: going on in a listing"),
    (138, "fstatfs: df"),
    (439, "faccessat2: access checks with the gofer's rights"),
    (193, "fgetxattr"),
    (196, "flistxattr"),
    (74, "fsync of a donated file"),
    (75, "fdatasync of a donated file"),
    (306, "syncfs"),
    (202, "futex: start-up barrier, allocator, joining"),
    (12, "brk: allocator"),
    (11, "munmap: allocator, stacks of ended threads"),
    (25, "mremap: allocator"),
    (28, "madvise: allocator, stacks of ended threads"),
    (10, "mprotect: allocator's arenas"),
    (203, "sched_setaffinity: answering on the asker's processor"),
    (24, "sched_yield: contended locks"),
    (SYS_OPENAT, "openat: refused, see `refusals`"),
    (14, "rt_sigprocmask: end of a thread, abort"),
    (13, "rt_sigaction: abort"),
    (15, "rt_sigreturn: return from the stack-overflow handler"),
    (131, "sigaltstack: end of a thread"),
    (219, "restart_syscall: a call interrupted by SIGSTOP"),
    (228, "clock_gettime: where the vDSO cannot answer"),
    (39, "getpid: abort"),
    (186, "gettid: abort"),
    (60, "exit: end of a thread"),
    (231, "exit_group: end"),
];

/// In addition, for a gofer with a writable tree.
pub const WRITING: &[Row] = &[
    (258, "mkdirat"),
    (266, "symlinkat"),
    (265, "linkat"),
    (263, "unlinkat: unlink, rmdir"),
    (316, "renameat2"),
    (259, "mknodat: fifos and sockets; the filter's other walls keep devices out"),
    (91, "fchmod: modes, before Linux 6.6"),
    (SYS_FCHMODAT2, "fchmodat2: modes of what cannot be opened"),
    (260, "fchownat: owners of new files"),
    (280, "utimensat: times"),
    (77, "ftruncate: sizes"),
    (190, "fsetxattr"),
    (199, "fremovexattr"),
];

const SYS_OPENAT: i64 = 257;
const EACCES: u32 = 13;
const SYS_WRITE: i64 = 1;
const SYS_MMAP: i64 = 9;
const SYS_TGKILL: i64 = 234;
const SYS_FCNTL: i64 = 72;
const STDERR: u64 = 2;
const PROT_EXEC: u64 = 4;
const SIGABRT: u64 = 6;
const F_GETFD: u64 = 1;

/// Calls that are allowed for one value of an argument: (call, argument, comparison, value).
fn conditional() -> Vec<(i64, u8, SeccompCmpOp, u64)> {
    vec![
        // Diagnostics.
        (SYS_WRITE, 0, SeccompCmpOp::Eq, STDERR),
        // The allocator and thread stacks; never code.
        (SYS_MMAP, 2, SeccompCmpOp::MaskedEq(PROT_EXEC), 0),
        // abort(3) after a panic.
        (SYS_TGKILL, 2, SeccompCmpOp::Eq, SIGABRT),
        // Debug builds of the standard library check a descriptor before they close it.
        (SYS_FCNTL, 1, SeccompCmpOp::Eq, F_GETFD),
    ]
}

/// A second filter, for calls that fail instead of killing: glibc's malloc looks at
/// `/proc/sys/vm/overcommit_memory` before it gives a thread's arena back, and takes no for an answer.
pub fn refusals() -> Result<BpfProgram, BackendError> {
    let rules = [(SYS_OPENAT, Vec::new())].into_iter().collect();
    SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(EACCES),
        TargetArch::x86_64,
    )?
    .try_into()
}

/// The allow-list.
pub fn filter(can_write: bool) -> Result<BpfProgram, BackendError> {
    let writing = if can_write { WRITING } else { &[] };
    let mut rules: std::collections::BTreeMap<i64, Vec<SeccompRule>> =
        READING.iter().chain(writing).map(|(call, _)| (*call, Vec::new())).collect();
    for (call, argument, comparison, value) in conditional() {
        let condition =
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, comparison, value)?;
        rules.entry(call).or_default().push(SeccompRule::new(vec![condition])?);
    }
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?
        .try_into()
}
