//! One row per system call: number, handler with its argument names, state of support.
//!
//! Rows stand by family; a number without a row is absent and answers `ENOSYS`. Dispatch, `--strace` and
//! `docs/SYSCALLS.md` are derived from here.
//!
//! Kinds of handlers:
//! * plain: `fn(cx, args...) -> SysResult`, never blocks;
//! * `@wait`: `async fn(cx, args...) -> SysResult`, may block;
//! * `[module::first] @wait ...`: `first` is a plain function of the same arguments that answers
//!   [`Attempt::Done`] without allocating whenever the call need not block; how much it had moved when it turned out
//!   that it must is in `cx.begun` when the other one starts.

use std::future::Future;
use std::pin::Pin;

use crate::cx::Cx;
use crate::error::SysResult;
use crate::syscalls::args::FromArgs;
use crate::syscalls::{
    arch_prctl, capability, clone, dir, epoll, exec, exit, fcntl, fd, futex, identity, inotify,
    ioctl, kill, membarrier, memfd, message, mmap, mount, open, path, pipe, poll, prctl,
    process_vm, random, read_write, rlimit, robust, sched, session, signal, socket, sockopt,
    splice, stat, sync, sysinfo, task_files, time, timer, usage, wait, xattr,
};

/// Argument words of one call.
pub type Words = [u64; 6];

/// A running call that may block.
pub type CallFuture<'a> = Pin<Box<dyn Future<Output = SysResult> + Send + 'a>>;

/// What came of trying without blocking.
#[derive(Debug)]
pub enum Attempt {
    Done(SysResult),
    /// Enter the blocking handler; that many bytes were moved already.
    WouldBlock {
        begun: usize,
    },
}

/// How a call is entered.
#[derive(Clone, Copy)]
pub enum Call {
    /// Never blocks.
    Sync(fn(&mut Cx<'_>, Words) -> SysResult),
    /// May block.
    Async(for<'a, 'b> fn(&'a mut Cx<'b>, Words) -> CallFuture<'a>),
    /// Mostly does not block: tried first, then entered as one that may.
    Try(fn(&mut Cx<'_>, Words) -> Attempt, for<'a, 'b> fn(&'a mut Cx<'b>, Words) -> CallFuture<'a>),
}

/// How much of a call is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    Full,
    /// With what is missing.
    Partial(&'static str),
}

/// One row.
#[derive(Clone, Copy)]
pub struct Row {
    pub number: u32,
    pub name: &'static str,
    pub call: Call,
    pub support: Support,
}

macro_rules! rows {
    ($($number:literal => $([$tmodule:ident::$tname:ident])? $(@$kind:ident)?
        $module:ident::$name:ident($($arg:ident),*), $support:expr;)*) => {
        /// All calls, by family.
        pub static ROWS: &[Row] = &[$(Row {
            number: $number,
            name: stringify!($name),
            call: rows!(@call [$($tmodule::$tname)?] $($kind)? $module::$name($($arg),*)),
            support: $support,
        },)*];
    };
    (@call [] $module:ident::$name:ident($($arg:ident),*)) => {
        Call::Sync(|cx, words| {
            rows!(@args cx, words, $($arg),*);
            $module::$name(cx $(, $arg)*)
        })
    };
    (@call [] wait $module:ident::$name:ident($($arg:ident),*)) => {
        Call::Async(|cx, words| Box::pin(async move {
            rows!(@args cx, words, $($arg),*);
            $module::$name(cx $(, $arg)*).await
        }))
    };
    (@call [$tmodule:ident::$tname:ident] wait $module:ident::$name:ident($($arg:ident),*)) => {
        Call::Try(
            |cx, words| {
                let attempt = |cx: &mut Cx<'_>| {
                    rows!(@args cx, words, $($arg),*);
                    Ok($tmodule::$tname(cx $(, $arg)*))
                };
                attempt(cx).unwrap_or_else(|error: crate::error::SysError| Attempt::Done(Err(error)))
            },
            |cx, words| Box::pin(async move {
                let mut words = words.into_iter();
                $(let $arg = FromArgs::from_args(&mut words)?;)*
                $module::$name(cx $(, $arg)*).await
            }),
        )
    };
    (@args $cx:ident, $words:ident, $($arg:ident),*) => {
        let mut words = $words.into_iter();
        $(let $arg = FromArgs::from_args(&mut words)?;)*
        let _ = &mut words;
        if $cx.trace.is_some() {
            $($cx.trace_arg(&$arg);)*
        }
    };
}

/// Rows by number, plus one; 0 is none.
static INDEX: [u16; 512] = index();

const fn index() -> [u16; 512] {
    let mut index = [0; 512];
    let mut at = 0;
    while at < ROWS.len() {
        let slot = &mut index[ROWS[at].number as usize];
        assert!(*slot == 0, "two rows have one number");
        at += 1;
        *slot = at as u16;
    }
    index
}

/// The row of a call number.
#[must_use]
pub fn row(number: u64) -> Option<&'static Row> {
    let place = *INDEX.get(usize::try_from(number).ok()?)?;
    ROWS.get(usize::from(place).checked_sub(1)?)
}

use Support::{Full, Partial};

rows! {
    // Open files.
    0 => [read_write::try_read] @wait read_write::read(fd, buf), Full;
    1 => [read_write::try_write] @wait read_write::write(fd, buf), Full;
    2 => [open::try_open] @wait open::open(path, flags, mode), Full;
    3 => fd::close(fd), Full;
    8 => read_write::lseek(fd, offset, whence), Full;
    16 => ioctl::ioctl(fd, request, arg), Full;
    17 => read_write::pread64(fd, buf, offset), Full;
    18 => read_write::pwrite64(fd, buf, offset), Full;
    19 => @wait read_write::readv(fd, iov, count), Full;
    20 => @wait read_write::writev(fd, iov, count), Full;
    32 => fd::dup(fd), Full;
    33 => fd::dup2(old, new), Full;
    72 => [fcntl::try_fcntl] @wait fcntl::fcntl(fd, command, arg),
        Partial("no leases, no directory notifications");
    73 => @wait fcntl::flock(fd, operation), Full;
    85 => @wait open::creat(path, mode), Full;
    257 => [open::try_openat] @wait open::openat(dir, path, flags, mode), Full;
    292 => fd::dup3(old, new, flags), Full;
    295 => read_write::preadv(fd, iov, count, offset), Full;
    296 => read_write::pwritev(fd, iov, count, offset), Full;
    327 => @wait read_write::preadv2(fd, iov, count, offset, high, flags), Full;
    328 => @wait read_write::pwritev2(fd, iov, count, offset, high, flags),
        Partial("no RWF_APPEND, no RWF_NOAPPEND");
    436 => fd::close_range(first, last, flags), Full;
    40 => @wait splice::sendfile(out, input, offset, count), Full;
    275 => @wait splice::splice(input, input_offset, out, out_offset, len, flags), Full;
    276 => @wait splice::tee(input, out, len, flags), Full;
    278 => @wait splice::vmsplice(fd, iov, count, flags), Partial("copies; SPLICE_F_NONBLOCK is ignored");
    319 => memfd::memfd_create(name, flags), Partial("no MFD_HUGETLB");
    326 => @wait splice::copy_file_range(input, input_offset, out, out_offset, len, flags), Full;
    437 => @wait open::openat2(dir, path, how, size), Full;

    // Names and attributes.
    4 => stat::stat(path, out), Full;
    5 => stat::fstat(fd, out), Full;
    6 => stat::lstat(path, out), Full;
    21 => stat::access(path, mode), Full;
    74 => sync::fsync(fd), Full;
    75 => sync::fdatasync(fd), Full;
    76 => path::truncate(path, len), Full;
    77 => path::ftruncate(fd, len), Full;
    78 => dir::getdents(fd, buf), Full;
    79 => path::getcwd(buf), Full;
    80 => path::chdir(path), Full;
    81 => path::fchdir(fd), Full;
    82 => path::rename(old, new), Full;
    83 => path::mkdir(path, mode), Full;
    84 => path::rmdir(path), Full;
    86 => path::link(old, new), Full;
    87 => path::unlink(path), Full;
    88 => path::symlink(target, path), Full;
    89 => stat::readlink(path, buf), Full;
    90 => path::chmod(path, mode), Full;
    91 => path::fchmod(fd, mode), Full;
    92 => path::chown(path, uid, gid), Full;
    93 => path::fchown(fd, uid, gid), Full;
    94 => path::lchown(path, uid, gid), Full;
    95 => path::umask(mask), Full;
    132 => path::utime(path, times), Full;
    133 => path::mknod(path, mode, dev), Full;
    137 => stat::statfs(path, out), Full;
    138 => stat::fstatfs(fd, out), Full;
    161 => path::chroot(path), Full;
    162 => sync::sync(), Full;
    187 => sync::readahead(fd, offset, count), Full;
    188 => xattr::setxattr(path, name, value, flags), Full;
    189 => xattr::lsetxattr(path, name, value, flags), Full;
    190 => xattr::fsetxattr(fd, name, value, flags), Full;
    191 => xattr::getxattr(path, name, value), Full;
    192 => xattr::lgetxattr(path, name, value), Full;
    193 => xattr::fgetxattr(fd, name, value), Full;
    194 => xattr::listxattr(path, list), Full;
    195 => xattr::llistxattr(path, list), Full;
    196 => xattr::flistxattr(fd, list), Full;
    197 => xattr::removexattr(path, name), Full;
    198 => xattr::lremovexattr(path, name), Full;
    199 => xattr::fremovexattr(fd, name), Full;
    217 => dir::getdents64(fd, buf), Full;
    221 => sync::fadvise64(fd, offset, len, advice), Full;
    235 => path::utimes(path, times), Full;
    258 => path::mkdirat(dir, path, mode), Full;
    259 => path::mknodat(dir, path, mode, dev), Full;
    260 => path::fchownat(dir, path, uid, gid, flags), Full;
    261 => path::futimesat(dir, path, times), Full;
    262 => stat::newfstatat(dir, path, out, flags), Full;
    263 => path::unlinkat(dir, path, flags), Full;
    264 => path::renameat(old_dir, old, new_dir, new), Full;
    265 => path::linkat(old_dir, old, new_dir, new, flags), Full;
    266 => path::symlinkat(target, dir, path), Full;
    267 => stat::readlinkat(dir, path, buf), Full;
    268 => path::fchmodat(dir, path, mode), Full;
    269 => stat::faccessat(dir, path, mode), Full;
    277 => sync::sync_file_range(fd, offset, len, flags), Partial("writes the whole file back");
    280 => path::utimensat(dir, path, times, flags), Full;
    285 => sync::fallocate(fd, mode, offset, len), Full;
    306 => sync::syncfs(fd), Full;
    316 => path::renameat2(old_dir, old, new_dir, new, flags), Full;
    332 => stat::statx(dir, path, flags, mask, out), Full;
    439 => stat::faccessat2(dir, path, mode, flags), Full;
    452 => path::fchmodat2(dir, path, mode, flags), Full;

    // Waiting for files; files without names.
    7 => @wait poll::poll(fds, timeout), Full;
    22 => pipe::pipe(fds), Full;
    23 => @wait poll::select(count, read, write, except, timeout), Full;
    213 => epoll::epoll_create(size), Full;
    232 => [epoll::try_epoll_wait] @wait epoll::epoll_wait(epfd, events, max, timeout), Full;
    233 => epoll::epoll_ctl(epfd, operation, fd, event), Full;
    270 => @wait poll::pselect6(count, read, write, except, timeout, mask), Full;
    271 => @wait poll::ppoll(fds, timeout, mask, size), Full;
    281 => @wait epoll::epoll_pwait(epfd, events, max, timeout, mask, size), Full;
    284 => pipe::eventfd(initial), Full;
    290 => pipe::eventfd2(initial, flags), Full;
    291 => epoll::epoll_create1(flags), Full;
    293 => pipe::pipe2(fds, flags), Full;
    441 => @wait epoll::epoll_pwait2(epfd, events, max, timeout, mask, size), Full;

    // Futexes and time.
    35 => @wait time::nanosleep(request, rest), Full;
    36 => timer::getitimer(which, out), Full;
    37 => timer::alarm(seconds), Full;
    38 => timer::setitimer(which, new, old), Full;
    96 => time::gettimeofday(time, zone), Full;
    159 => time::adjtimex(buf), Partial("reading only");
    164 => time::settimeofday(time, zone), Partial("EPERM for everyone");
    201 => time::time(out), Full;
    202 => [futex::try_futex] @wait futex::futex(uaddr, op, val, timeout, uaddr2, val3),
        Partial("no FUTEX_WAIT_REQUEUE_PI, FUTEX_CMP_REQUEUE_PI; no priorities");
    222 => timer::timer_create(clock, event, id), Partial("a thread's CPU clock is its process's");
    223 => timer::timer_settime(id, flags, new, old), Full;
    224 => timer::timer_gettime(id, out), Full;
    225 => timer::timer_getoverrun(id), Partial("counted until the signal is sent");
    226 => timer::timer_delete(id), Full;
    227 => time::clock_settime(clock, time), Partial("EPERM for everyone");
    228 => time::clock_gettime(clock, out), Partial("a thread's CPU clock is its process's");
    229 => time::clock_getres(clock, out), Full;
    230 => @wait time::clock_nanosleep(clock, flags, request, rest), Full;
    283 => timer::timerfd_create(clock, flags), Full;
    286 => timer::timerfd_settime(fd, flags, new, old), Full;
    287 => timer::timerfd_gettime(fd, out), Full;
    253 => inotify::inotify_init(), Full;
    254 => inotify::inotify_add_watch(fd, path, mask), Partial("changes made inside only");
    255 => inotify::inotify_rm_watch(fd, wd), Full;
    294 => inotify::inotify_init1(flags), Full;
    305 => time::clock_adjtime(clock, buf), Partial("reading only");
    449 => @wait futex::futex_waitv(waiters, count, flags, timeout, clock), Full;
    454 => @wait futex::futex_wake(uaddr, mask, count, flags), Full;
    455 => @wait futex::futex_wait(uaddr, val, mask, flags, timeout, clock), Full;

    // About the system.
    165 => mount::mount(source, target, kind, flags, data),
        Partial("tmpfs, ramfs, proc, bind and remount; no move, no propagation");
    166 => mount::umount2(target, flags), Partial("no MNT_EXPIRE");
    310 => process_vm::process_vm_readv(pid, local, local_count, remote, remote_count, flags), Full;
    311 => process_vm::process_vm_writev(pid, local, local_count, remote, remote_count, flags), Full;
    63 => sysinfo::uname(out), Full;
    99 => sysinfo::sysinfo(out), Partial("no loads, no buffers");
    103 => sysinfo::syslog(action, buf), Partial("the log is empty");
    170 => sysinfo::sethostname(name), Full;
    171 => sysinfo::setdomainname(name), Full;
    318 => random::getrandom(buf, flags), Full;
    // Sockets.
    41 => socket::socket(domain, kind, protocol), Partial("AF_UNIX; AF_INET and AF_INET6 over loopback");
    42 => @wait socket::connect(fd, address, length), Full;
    43 => @wait socket::accept(fd, address, length), Full;
    44 => @wait message::sendto(fd, buf, flags, address, length), Partial("no MSG_OOB");
    45 => @wait message::recvfrom(fd, buf, flags, address, length), Partial("no MSG_OOB");
    46 => @wait message::sendmsg(fd, message, flags), Partial("no MSG_OOB");
    47 => @wait message::recvmsg(fd, message, flags), Partial("no MSG_OOB");
    48 => socket::shutdown(fd, how), Full;
    49 => socket::bind(fd, address, length), Full;
    50 => socket::listen(fd, backlog), Full;
    51 => socket::getsockname(fd, address, length), Full;
    52 => socket::getpeername(fd, address, length), Full;
    53 => socket::socketpair(domain, kind, protocol, out), Full;
    54 => sockopt::setsockopt(fd, level, option, value, length),
        Partial("no SO_ATTACH_FILTER, SO_PEEK_OFF, SO_MARK");
    55 => sockopt::getsockopt(fd, level, option, value, length),
        Partial("no SO_PEERPIDFD, SO_PEERSEC, SO_MEMINFO");
    288 => @wait socket::accept4(fd, address, length, flags), Full;
    299 => @wait message::recvmmsg(fd, messages, count, flags, timeout), Full;
    307 => @wait message::sendmmsg(fd, messages, count, flags), Full;

    // Identity.
    39 => identity::getpid(), Full;
    186 => identity::gettid(), Full;
    110 => identity::getppid(), Full;
    102 => identity::getuid(), Full;
    104 => identity::getgid(), Full;
    107 => identity::geteuid(), Full;
    108 => identity::getegid(), Full;
    105 => identity::setuid(uid), Full;
    106 => identity::setgid(gid), Full;
    113 => identity::setreuid(ruid, euid), Full;
    114 => identity::setregid(rgid, egid), Full;
    115 => identity::getgroups(size, list), Full;
    116 => identity::setgroups(size, list), Full;
    117 => identity::setresuid(ruid, euid, suid), Full;
    118 => identity::getresuid(ruid, euid, suid), Full;
    119 => identity::setresgid(rgid, egid, sgid), Full;
    120 => identity::getresgid(rgid, egid, sgid), Full;
    122 => identity::setfsuid(uid), Full;
    123 => identity::setfsgid(gid), Full;
    125 => capability::capget(header, data), Full;
    126 => capability::capset(header, data), Full;

    // Processes.
    56 => @wait clone::clone(flags, stack, parent_tid, child_tid, tls),
        Partial("no namespaces; CLONE_SIGHAND without CLONE_THREAD copies");
    57 => @wait clone::fork(), Full;
    58 => @wait clone::vfork(), Full;
    435 => @wait clone::clone3(args), Partial("no namespaces, set_tid, CLONE_INTO_CGROUP; CLONE_SIGHAND without CLONE_THREAD copies");
    218 => clone::set_tid_address(addr), Full;
    60 => exit::exit(status), Full;
    231 => exit::exit_group(status), Full;
    61 => @wait wait::wait4(pid, status, options, usage), Full;
    247 => @wait wait::waitid(kind, id, info, options, usage), Full;
    109 => session::setpgid(pid, pgid), Full;
    111 => session::getpgrp(), Full;
    112 => session::setsid(), Full;
    121 => session::getpgid(pid), Full;
    124 => session::getsid(pid), Full;
    434 => task_files::pidfd_open(pid, flags), Partial("no PIDFD_THREAD");
    438 => task_files::pidfd_getfd(fd, target, flags), Full;

    // Attributes of processes.
    97 => rlimit::getrlimit(which, out), Full;
    160 => rlimit::setrlimit(which, new), Partial("RLIMIT_CPU is not enforced");
    302 => rlimit::prlimit64(pid, which, new, old), Partial("RLIMIT_CPU is not enforced");
    98 => usage::getrusage(who, out), Partial("a thread is told what its process used; the largest resident size is an estimate");
    100 => usage::times(out), Full;
    309 => usage::getcpu(cpu, node), Partial("first CPU of the affinity");
    157 => prctl::prctl(option, a, b, c, d), Partial("no PR_SET_MM, PR_SET_SECCOMP, PR_SET_VMA");
    158 => arch_prctl::arch_prctl(code, addr), Partial("no CPUID faulting, AMX, shadow stacks");
    135 => robust::personality(persona), Full;
    273 => robust::set_robust_list(head, len), Full;
    274 => robust::get_robust_list(tid, head, len), Full;
    24 => sched::sched_yield(), Full;
    324 => @wait membarrier::membarrier(command, flags, cpu), Partial("no RSEQ, no CPU");
    140 => sched::getpriority(which, who), Full;
    141 => sched::setpriority(which, who, nice), Partial("told back, not heeded");
    142 => sched::sched_setparam(tid, param), Partial("told back, not heeded");
    143 => sched::sched_getparam(tid, param), Full;
    144 => sched::sched_setscheduler(tid, policy, param), Partial("told back, not heeded");
    145 => sched::sched_getscheduler(tid), Full;
    146 => sched::sched_get_priority_max(policy), Full;
    147 => sched::sched_get_priority_min(policy), Full;
    148 => sched::sched_rr_get_interval(tid, out), Full;
    203 => sched::sched_setaffinity(tid, len, mask), Partial("told back, not heeded");
    204 => sched::sched_getaffinity(tid, len, mask), Full;
    251 => sched::ioprio_set(which, who, priority), Partial("told back, not heeded");
    252 => sched::ioprio_get(which, who), Full;
    314 => sched::sched_setattr(tid, new, flags), Partial("told back, not heeded");
    315 => sched::sched_getattr(tid, out, size, flags), Full;

    // Signals.
    13 => signal::rt_sigaction(signal, new, old, size), Full;
    14 => signal::rt_sigprocmask(how, set, old, size), Full;
    15 => signal::rt_sigreturn(), Full;
    34 => @wait signal::pause(), Full;
    127 => signal::rt_sigpending(set, size), Full;
    128 => @wait signal::rt_sigtimedwait(set, info, timeout, size), Full;
    130 => @wait signal::rt_sigsuspend(set, size), Full;
    131 => signal::sigaltstack(new, old), Full;
    62 => kill::kill(pid, signal), Full;
    200 => kill::tkill(tid, signal), Full;
    234 => kill::tgkill(tgid, tid, signal), Full;
    129 => kill::rt_sigqueueinfo(pid, signal, info), Full;
    297 => kill::rt_tgsigqueueinfo(tgid, tid, signal, info), Full;
    424 => kill::pidfd_send_signal(fd, signal, info, flags), Full;
    282 => task_files::signalfd(fd, mask, size), Full;
    289 => task_files::signalfd4(fd, mask, size, flags), Full;

    // Memory.
    9 => [mmap::try_mmap] @wait mmap::mmap(addr, len, prot, flags, fd, offset),
        Partial("no MAP_HUGETLB, MAP_DROPPABLE, MAP_SYNC");
    10 => [mmap::try_mprotect] @wait mmap::mprotect(addr, len, prot), Full;
    11 => [mmap::try_munmap] @wait mmap::munmap(addr, len), Full;
    12 => [mmap::try_brk] @wait mmap::brk(end), Full;
    25 => [mmap::try_mremap] @wait mmap::mremap(old, old_len, new_len, flags, new), Full;
    26 => mmap::msync(addr, len, flags), Full;
    27 => mmap::mincore(addr, len, vec), Partial("every mapped page counts as resident");
    28 => [mmap::try_madvise] @wait mmap::madvise(addr, len, advice),
        Partial("no MADV_REMOVE, MADV_MERGEABLE, MADV_HWPOISON, MADV_GUARD_INSTALL");
    149 => mmap::mlock(addr, len), Partial("counted, not pinned");
    150 => mmap::munlock(addr, len), Full;
    151 => mmap::mlockall(flags), Partial("counted, not pinned");
    152 => mmap::munlockall(), Full;
    325 => mmap::mlock2(addr, len, flags), Partial("counted, not pinned");

    // Programs.
    59 => @wait exec::execve(name, args, env), Full;
    322 => @wait exec::execveat(dir, name, args, env, flags), Full;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_linux_name_of_its_number() {
        for row in ROWS {
            let name = abi::arch::x86_64_calls::name(u64::from(row.number));
            let bare = row.name.trim_start_matches("r#");
            assert_eq!(name, Some(bare), "row {}", row.number);
        }
    }

    #[test]
    fn numbers_find_their_rows() {
        assert_eq!(row(39).map(|row| row.name), Some("getpid"));
        assert!(row(511).is_none() && row(512).is_none() && row(u64::MAX).is_none());
    }
}
