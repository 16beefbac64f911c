//! The gofer's system calls. Anything else kills the process: it can only be foreign code.

use host::seccomp::{Filter, Rule, Test, Verdict};

/// A call and why it is needed.
type Row = (u32, &'static str);

/// Fixed by Linux, newer than some libc's tables.
const SYS_FCHMODAT2: u32 = 452;
const SYS_OPENAT2: u32 = 437;

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
    (202, "futex: start-up gate, allocator, joining"),
    (12, "brk: allocator"),
    (11, "munmap: allocator, stacks of ended threads"),
    (25, "mremap: allocator"),
    (28, "madvise: allocator, stacks of ended threads"),
    (10, "mprotect: allocator's arenas"),
    (203, "sched_setaffinity: answering on the asker's processor"),
    (204, "sched_getaffinity: start of a thread"),
    (24, "sched_yield: contended locks"),
    (14, "rt_sigprocmask: start and end of a thread, abort"),
    (13, "rt_sigaction: abort"),
    (15, "rt_sigreturn: return from the stack-overflow handler"),
    (131, "sigaltstack: start and end of a thread"),
    (273, "set_robust_list: start of a thread"),
    (334, "rseq: start of a thread"),
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

/// Calls that are allowed for one value of an argument.
const CONDITIONAL: &[(u32, &[&[Test]], &str)] = &[
    (157, &[&[Test::Is(0, 15)]], "prctl PR_SET_NAME: start of a thread"),
    (1, &[&[Test::Is(0, 2)]], "write: diagnostics on standard error"),
    (9, &[&[Test::Lacks(2, 4)]], "mmap: the allocator and thread stacks; never code"),
    (234, &[&[Test::Is(2, 6)]], "tgkill: abort(3) after a panic"),
    (
        72,
        &[&[Test::Is(1, 1)]],
        "fcntl F_GETFD: debug builds check a descriptor before they close it",
    ),
];

const EACCES: u16 = 13;

/// Calls that fail instead of killing.
const REFUSED: &[Row] = &[(
    257,
    "openat: glibc's malloc looks at /proc/sys/vm/overcommit_memory before it gives a thread's arena back, and takes \
     no for an answer",
)];

/// The allow-list; `None` when the tables contradict each other.
pub fn filter(can_write: bool) -> Option<Filter> {
    let rule = |number: &u32, when, verdict| Rule { number: *number, when, verdict };
    let writing = if can_write { WRITING } else { &[] };
    let allowed = READING.iter().chain(writing);
    let allowed = allowed.map(|(number, _)| rule(number, &[], Verdict::Allow));
    let tested = CONDITIONAL.iter().map(|(number, when, _)| rule(number, when, Verdict::Allow));
    let refused = REFUSED.iter().map(|(number, _)| rule(number, &[], Verdict::Refuse(EACCES)));
    Filter::new(allowed.chain(tested).chain(refused))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_needs_a_writable_tree() {
        let (reading, writing) = (filter(false), filter(true));
        let (reading, writing) = (reading.expect("a valid table"), writing.expect("a valid table"));
        for (number, what) in WRITING {
            assert_eq!(reading.verdict(*number, [0; 6]), None, "{what}");
            assert_eq!(writing.verdict(*number, [0; 6]), Some(Verdict::Allow), "{what}");
        }
        for number in 0..1024 {
            let listed = READING.iter().any(|row| row.0 == number);
            let args = [1; 6];
            let verdict = reading.verdict(number, args);
            match number {
                72 => assert_eq!(verdict, Some(Verdict::Allow), "fcntl F_GETFD"),
                9 => assert_eq!(verdict, Some(Verdict::Allow), "mmap PROT_READ"),
                257 => assert_eq!(verdict, Some(Verdict::Refuse(EACCES))),
                _ => assert_eq!(verdict.is_some(), listed, "{number}"),
            }
        }
        assert_eq!(reading.verdict(9, [0, 0, 5, 0, 0, 0]), None, "executable memory");
        assert_eq!(reading.verdict(1, [2, 0, 0, 0, 0, 0]), Some(Verdict::Allow), "last words");
    }
}
