//! The sentry's host calls.

use host::seccomp::Test;

use super::Row;

const fn any(number: i64, reason: &'static str) -> Row {
    Row { number, when: &[], reason }
}

const fn only(number: i64, when: &'static [&'static [Test]], reason: &'static str) -> Row {
    Row { number, when, reason }
}

/// Executable memory is never made after boot.
const NOT_EXECUTABLE: &[&[Test]] = &[&[Test::Lacks(2, libc::PROT_EXEC as u64)]];

const IOCTLS: &[&[Test]] = &[
    // SECCOMP_IOCTL_NOTIF_RECV, _SEND, _ID_VALID, _ADDFD, _SET_FLAGS: the doorbell.
    &[Test::Is(1, 0xc050_2100)],
    &[Test::Is(1, 0xc018_2101)],
    &[Test::Is(1, 0x4008_2102)],
    &[Test::Is(1, 0x4018_2103)],
    &[Test::Is(1, 0x4008_2104)],
    // FIONREAD, FIONBIO on the program's own streams; TIOCGWINSZ and TCGETS on the terminal.
    &[Test::Is(1, 0x541b)],
    &[Test::Is(1, 0x5421)],
    &[Test::Is(1, 0x5413)],
    &[Test::Is(1, 0x5401)],
];

/// Calls of libraries that go on without an answer; they get EACCES. Nothing of ours makes them.
pub const REFUSED: &[Row] = &[
    any(libc::SYS_openat, "glibc's allocator looks for the host's overcommit policy"),
    any(libc::SYS_readlink, "a panic's backtrace looks for the program's file"),
    any(libc::SYS_getcwd, "a panic's backtrace shortens paths"),
];

pub const ROWS: &[Row] = &[
    // Files: descriptors that were donated or inherited.
    any(libc::SYS_read, "event descriptors, the program's streams"),
    any(libc::SYS_write, "event descriptors, the program's streams, last words"),
    any(libc::SYS_readv, "scattered reads of donated files"),
    any(libc::SYS_writev, "scattered writes to streams"),
    any(libc::SYS_pread64, "donated files"),
    any(libc::SYS_pwrite64, "donated files of writable trees"),
    any(libc::SYS_preadv, "donated files"),
    any(libc::SYS_pwritev, "donated files of writable trees"),
    any(libc::SYS_preadv2, "donated files, without sleeping"),
    any(libc::SYS_pwritev2, "donated files of writable trees"),
    any(libc::SYS_lseek, "sizes and holes of donated files, offsets of inherited streams"),
    any(libc::SYS_fstat, "what kind a donated descriptor is"),
    any(libc::SYS_statx, "attributes of a donated descriptor"),
    any(libc::SYS_ftruncate, "sizes of memory files and of donated files"),
    any(libc::SYS_fallocate, "memory files: punching holes"),
    any(libc::SYS_fsync, "donated files of writable trees"),
    any(libc::SYS_fdatasync, "donated files of writable trees"),
    any(libc::SYS_fcntl, "copies of descriptors, flags, seals of memory files"),
    any(libc::SYS_close, "descriptors no longer used"),
    any(libc::SYS_dup, "copies of descriptors"),
    any(libc::SYS_dup3, "copies of descriptors"),
    any(libc::SYS_memfd_create, "channel regions, shared and file-like guest memory"),
    any(libc::SYS_pipe2, "waking of workers"),
    only(libc::SYS_ioctl, IOCTLS, "doorbell, readiness of streams, terminal's size"),
    // Events.
    any(libc::SYS_eventfd2, "waking of workers"),
    any(libc::SYS_epoll_create1, "the reactor"),
    any(libc::SYS_epoll_ctl, "the reactor"),
    any(libc::SYS_epoll_wait, "the reactor"),
    any(libc::SYS_epoll_pwait, "the reactor"),
    any(libc::SYS_epoll_pwait2, "the reactor"),
    any(libc::SYS_poll, "readiness of streams"),
    any(libc::SYS_ppoll, "readiness of streams"),
    any(libc::SYS_timerfd_create, "the reactor's deadlines"),
    any(libc::SYS_timerfd_settime, "the reactor's deadlines"),
    any(libc::SYS_clock_gettime, "where the vDSO cannot answer"),
    any(libc::SYS_clock_getres, "resolution of clocks"),
    any(libc::SYS_gettimeofday, "where the vDSO cannot answer"),
    any(libc::SYS_clock_nanosleep, "back-off of workers"),
    any(libc::SYS_nanosleep, "back-off of workers"),
    // The gofer, the supervisor and channel descriptors between guest processes.
    any(libc::SYS_sendmsg, "requests to the gofer"),
    any(libc::SYS_recvmsg, "replies and donated descriptors"),
    any(libc::SYS_sendto, "the outcome, to the supervisor"),
    any(libc::SYS_recvfrom, "orders of the supervisor"),
    any(libc::SYS_shutdown, "end of a connection to the gofer"),
    // Guests.
    any(libc::SYS_process_vm_readv, "guest memory"),
    any(libc::SYS_process_vm_writev, "guest memory"),
    any(libc::SYS_tgkill, "kicks; abort of ourselves"),
    any(libc::SYS_kill, "end of a guest process"),
    any(libc::SYS_pidfd_open, "deaths of guest processes"),
    any(libc::SYS_pidfd_send_signal, "end of a guest process"),
    any(libc::SYS_pidfd_getfd, "descriptors of our own guest processes"),
    any(libc::SYS_wait4, "collecting dead guest processes"),
    any(libc::SYS_waitid, "collecting dead guest processes"),
    any(libc::SYS_prlimit64, "limits of guest processes, stack size of threads"),
    // Our own memory and threads.
    any(libc::SYS_brk, "allocator"),
    only(libc::SYS_mmap, NOT_EXECUTABLE, "allocator, thread stacks, channel regions"),
    only(libc::SYS_mprotect, NOT_EXECUTABLE, "allocator, thread stacks"),
    any(libc::SYS_munmap, "allocator, channel regions"),
    any(libc::SYS_mremap, "allocator"),
    any(libc::SYS_madvise, "allocator, thread stacks, memory files"),
    any(libc::SYS_futex, "locks, parked workers, guests that sleep in their channel"),
    any(libc::SYS_sched_yield, "spinning workers"),
    any(libc::SYS_sched_getaffinity, "number of CPUs"),
    any(libc::SYS_sched_setaffinity, "workers that stay with their guest's CPU"),
    any(libc::SYS_getcpu, "which CPU a worker is on"),
    any(libc::SYS_clone, "workers and the blocking pool"),
    any(libc::SYS_clone3, "workers and the blocking pool"),
    any(libc::SYS_set_robust_list, "start of a thread"),
    any(libc::SYS_rseq, "start of a thread"),
    any(libc::SYS_set_tid_address, "start of a thread"),
    any(libc::SYS_prctl, "names of threads"),
    any(libc::SYS_gettid, "identity of threads"),
    any(libc::SYS_getpid, "abort"),
    any(libc::SYS_getrandom, "seeds of hash maps, AT_RANDOM, address layout"),
    any(libc::SYS_rt_sigprocmask, "start and end of threads"),
    any(libc::SYS_rt_sigaction, "abort"),
    any(libc::SYS_rt_sigreturn, "return from the stack-overflow handler"),
    any(libc::SYS_sigaltstack, "start and end of threads"),
    any(libc::SYS_restart_syscall, "a call interrupted by SIGSTOP"),
    any(libc::SYS_getrusage, "figures for the guest's times"),
    any(libc::SYS_sysinfo, "memory figures"),
    any(libc::SYS_exit, "end of a thread"),
    any(libc::SYS_exit_group, "end of the sandbox"),
];
