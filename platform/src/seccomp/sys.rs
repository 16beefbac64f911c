//! The host calls of this platform that no crate wraps: seccomp notifications, process_vm, pidfds of threads.
//!
//! # Safety
//! Every call here takes plain values or memory that the wrapper itself borrows for the call's duration.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use abi::Errno;

/// `struct seccomp_data`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct SeccompData {
    pub nr: i32,
    pub arch: u32,
    pub instruction_pointer: u64,
    pub args: [u64; 6],
}

/// `struct seccomp_notif`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Notification {
    pub id: u64,
    /// Thread id.
    pub pid: u32,
    pub flags: u32,
    pub data: SeccompData,
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[repr(C)]
struct AddFd {
    id: u64,
    flags: u32,
    srcfd: u32,
    newfd: u32,
    newfd_flags: u32,
}

const NOTIF_RECV: u64 = 0xc050_2100;
const NOTIF_SEND: u64 = 0xc018_2101;
const NOTIF_ID_VALID: u64 = 0x4008_2102;
const NOTIF_ADDFD: u64 = 0x4018_2103;
const NOTIF_SET_FLAGS: u64 = 0x4008_2104;
const ADDFD_FLAG_SETFD: u32 = 1;
const ADDFD_FLAG_SEND: u32 = 2;

/// The calling thread's errno, as ours.
pub fn last_errno() -> Errno {
    Errno::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// A libc result as ours.
fn check(ret: i64) -> Result<i64, Errno> {
    if ret < 0 { Err(last_errno()) } else { Ok(ret) }
}

fn ioctl<T>(fd: BorrowedFd<'_>, request: u64, argument: *mut T) -> Result<i64, Errno> {
    // SAFETY: the callers pair each request with the struct that the kernel expects for it.
    check(i64::from(unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) }))
}

/// SECCOMP_IOCTL_NOTIF_RECV: blocks until a doorbell rings.
pub fn notif_recv(listener: BorrowedFd<'_>) -> Result<Notification, Errno> {
    let mut notification = Notification::default();
    ioctl(listener, NOTIF_RECV, &raw mut notification)?;
    Ok(notification)
}

/// SECCOMP_IOCTL_NOTIF_SEND: the call of `id` returns `value`.
pub fn notif_send(listener: BorrowedFd<'_>, id: u64, value: u64) -> Result<(), Errno> {
    let mut response = Response { id, val: value.cast_signed(), error: 0, flags: 0 };
    ioctl(listener, NOTIF_SEND, &raw mut response).map(drop)
}

/// SECCOMP_IOCTL_NOTIF_SEND: the call of `id` is to be carried out.
pub fn notif_continue(listener: BorrowedFd<'_>, id: u64) -> Result<(), Errno> {
    const CONTINUE: u32 = 1;
    let mut response = Response { id, val: 0, error: 0, flags: CONTINUE };
    ioctl(listener, NOTIF_SEND, &raw mut response).map(drop)
}

/// SECCOMP_IOCTL_NOTIF_ID_VALID.
pub fn notif_id_valid(listener: BorrowedFd<'_>, mut id: u64) -> bool {
    ioctl(listener, NOTIF_ID_VALID, &raw mut id).is_ok()
}

/// Whether SECCOMP_IOCTL_NOTIF_ADDFD answers the notification as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterAddFd {
    Keep,
    Answer,
    /// No, and its number over there is to be this one.
    KeepAs(u32),
}

/// SECCOMP_IOCTL_NOTIF_ADDFD: installs `fd`, close-on-exec; returns its number over there.
pub fn notif_addfd(
    listener: BorrowedFd<'_>,
    id: u64,
    fd: RawFd,
    after: AfterAddFd,
) -> Result<u32, Errno> {
    let (flags, newfd) = match after {
        AfterAddFd::Keep => (0, 0),
        AfterAddFd::Answer => (ADDFD_FLAG_SEND, 0),
        AfterAddFd::KeepAs(number) => (ADDFD_FLAG_SETFD, number),
    };
    let mut add = AddFd {
        id,
        flags,
        srcfd: fd.cast_unsigned(),
        newfd,
        newfd_flags: libc::O_CLOEXEC.cast_unsigned(),
    };
    let number = ioctl(listener, NOTIF_ADDFD, &raw mut add)?;
    u32::try_from(number).map_err(|_| Errno::EIO)
}

/// SECCOMP_IOCTL_NOTIF_SET_FLAGS: wake the other side on this CPU.
pub fn notif_set_sync(listener: BorrowedFd<'_>, is_sync: bool) -> Result<(), Errno> {
    // The argument is the value itself.
    let flags = std::ptr::without_provenance_mut::<u8>(usize::from(is_sync));
    ioctl(listener, NOTIF_SET_FLAGS, flags).map(drop)
}

/// pidfd_open(2) of a process.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: plain values.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    own(fd)
}

/// pidfd_getfd(2).
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: plain values.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })?;
    own(fd)
}

fn own(fd: i64) -> Result<OwnedFd, Errno> {
    let fd = i32::try_from(fd).map_err(|_| Errno::EIO)?;
    // SAFETY: the kernel just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// pidfd_send_signal(2); 0 only asks.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    // SAFETY: a null siginfo is allowed.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(ret).map(drop)
}

/// Undoes an inherited SIG_IGN of SIGCHLD, under which nobody would learn how a guest process ended.
pub fn keep_zombies() -> Result<(), Errno> {
    // SAFETY: the default action has no handler.
    let old = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    if old == libc::SIG_ERR { Err(last_errno()) } else { Ok(()) }
}

/// tgkill(2); 0 only asks whether the thread belongs to the group.
pub fn tgkill(tgid: i32, tid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: plain values.
    check(unsafe { libc::syscall(libc::SYS_tgkill, tgid, tid, signal) }).map(drop)
}

/// kill(2): by any thread's id the whole process is meant.
pub fn kill(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: plain values.
    check(i64::from(unsafe { libc::kill(pid, signal) })).map(drop)
}

/// FUTEX_WAKE of everyone who waits on a word that is shared between processes.
pub fn futex_wake(word: &std::sync::atomic::AtomicU32) {
    // SAFETY: the kernel does not access the word for a wake.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX);
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Exited(i32),
    Killed(i32),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with status {code}"),
            Self::Killed(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

/// waitid(2) by pidfd; `None` when it still lives.
pub fn wait_pidfd(pidfd: BorrowedFd<'_>) -> Result<Option<Ending>, Errno> {
    let id = pidfd.as_raw_fd().cast_unsigned();
    wait(libc::P_PIDFD, id, libc::WNOHANG)
}

/// waitid(2) by pid, blocking.
pub fn wait_pid(pid: i32) -> Result<Option<Ending>, Errno> {
    wait(libc::P_PID, pid.cast_unsigned(), 0)
}

fn wait(kind: libc::idtype_t, id: u32, flags: i32) -> Result<Option<Ending>, Errno> {
    // SAFETY: an all-zero siginfo is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is ours.
    let ret = unsafe { libc::waitid(kind, id, &raw mut info, libc::WEXITED | flags) };
    check(i64::from(ret))?;
    // SAFETY: waitid filled the SIGCHLD member, or left zeroes.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok(match info.si_code {
        _ if pid == 0 => None,
        libc::CLD_EXITED => Some(Ending::Exited(status)),
        _ => Some(Ending::Killed(status)),
    })
}

/// Which way process_vm goes.
#[derive(Debug)]
pub enum Transfer<'a> {
    Read(&'a mut [u8]),
    Write(&'a [u8]),
}

impl Transfer<'_> {
    pub fn len(&self) -> usize {
        match self {
            Self::Read(into) => into.len(),
            Self::Write(bytes) => bytes.len(),
        }
    }

    pub fn reborrow(&mut self) -> Transfer<'_> {
        match self {
            Self::Read(into) => Transfer::Read(into),
            Self::Write(bytes) => Transfer::Write(bytes),
        }
    }

    /// Forgets the first bytes.
    pub fn advance(&mut self, done: usize) {
        match self {
            Self::Read(into) => {
                let rest = std::mem::take(into);
                *into = rest.get_mut(done..).unwrap_or_default();
            }
            Self::Write(bytes) => *bytes = bytes.get(done..).unwrap_or_default(),
        }
    }
}

/// process_vm_readv(2) or process_vm_writev(2); bytes that went through, 0 when none did.
pub fn process_vm(pid: i32, remote: &[libc::iovec], transfer: Transfer<'_>) -> usize {
    let (call, base, len) = match transfer {
        Transfer::Read(into) => (libc::SYS_process_vm_readv, into.as_mut_ptr(), into.len()),
        Transfer::Write(bytes) => {
            (libc::SYS_process_vm_writev, bytes.as_ptr().cast_mut(), bytes.len())
        }
    };
    let local = libc::iovec { iov_base: base.cast(), iov_len: len };
    // SAFETY: `local` names memory borrowed (mutably, for a read) by `transfer`; the remote side is not ours.
    let ret = unsafe {
        libc::syscall(call, pid, &raw const local, 1usize, remote.as_ptr(), remote.len(), 0usize)
    };
    usize::try_from(ret).unwrap_or(0)
}

/// How often the calling thread was put off its CPU for another.
pub fn involuntary_switches() -> u64 {
    // SAFETY: all-zero is a valid rusage, and the call only fills it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage.ru_nivcsw.cast_unsigned()
    }
}

/// CPU time of a process, user and total, in nanoseconds; zeroes when it is gone.
pub fn process_times(pid: i32) -> (u64, u64) {
    // See clock_getcpuclockid(3): the complement of the pid, then the kind of clock. The first two count ticks.
    const PROFILE: i32 = 0;
    const VIRTUAL: i32 = 1;
    const SCHED: i32 = 2;
    let read = |kind: i32| -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is ours.
        let ret = unsafe { libc::clock_gettime((!pid << 3) | kind, &raw mut time) };
        if ret != 0 {
            return 0;
        }
        let (seconds, ns) = (time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned());
        seconds.wrapping_mul(1_000_000_000).wrapping_add(ns)
    };
    // As Linux' `cputime_adjust`: the scheduler's sum is exact, ticks only say how to share it out.
    let (total, ticks) = (read(SCHED), read(PROFILE));
    let user_ticks = if ticks == 0 { 0 } else { read(VIRTUAL) };
    let share = u128::from(total) * u128::from(user_ticks);
    let user = share.checked_div(u128::from(ticks)).map_or(total, |user| user as u64);
    (user.min(total), total)
}
