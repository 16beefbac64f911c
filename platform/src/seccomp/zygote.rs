//! Starting the zygote: a fork of this process that becomes the blob.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;

use rustix::fs::MemfdFlags;
use shim_abi::global_flag;

use super::region::{GlobalPage, errno};
use super::{SetupError, blob, filter, sys};

/// The running zygote, not yet answered.
pub struct Zygote {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub listener: OwnedFd,
}

/// Where the zygote's filter has its listener.
const LISTENER_FD: RawFd = 0;
const NEW_LISTENER: u32 = 1 << 3;
const WAIT_KILLABLE_RECV: u32 = 1 << 5;
const HWCAP2_FSGSBASE: u64 = 2;

/// A zygote on its way.
pub struct Starting {
    pid: i32,
    /// Ends without a word when the zygote has its filter.
    report: OwnedFd,
    filter_flags: u32,
    /// Taken over by whom it became.
    is_taken: bool,
}

/// Fills in the page that all shims read: flags and the filter program.
pub fn prepare(global: &GlobalPage, may_rewrite: bool) -> Result<(), SetupError> {
    let page = global.get();
    let program = filter::program(&blob::text()?).ok_or(SetupError::Blob)?;
    if program.len() > page.filter.len() {
        return Err(SetupError::Blob);
    }
    for (word, instruction) in page.filter.iter().zip(&program) {
        word.store(instruction.to_word(), Ordering::Relaxed);
    }
    page.filter_len.store(program.len() as u32, Ordering::Relaxed);
    let has_fsgsbase = rustix::param::linux_hwcap().1 as u64 & HWCAP2_FSGSBASE != 0;
    let mut flags = if has_fsgsbase { global_flag::FSGSBASE } else { 0 };
    // What the shim's entry is written with.
    if may_rewrite && has_fsgsbase {
        let (has_bmi2, is_slow) = has_bmi2();
        if has_bmi2 {
            flags |= global_flag::SLOT_IN_GS;
        }
        if is_slow {
            flags |= global_flag::SLOW_QUESTIONS;
        }
    }
    page.flags.store(flags, Ordering::Relaxed);
    Ok(())
}

/// One question to the processor. The library's answers take a dozen, each of which a virtual machine leaves for its
/// host to answer. Also whether that took longer than a signal.
fn has_bmi2() -> (bool, bool) {
    const FEATURES: u32 = 7;
    const BMI2: u32 = 1 << 8;
    // This leaf is there: FSGSBASE, which is known to be there, is in it.
    let ([_, ebx, ..], is_slow) = crate::processor::features(FEATURES);
    (ebx & BMI2 != 0, is_slow)
}

/// Starts it, on another CPU if there is one.
pub fn start(global: &GlobalPage) -> Result<Starting, SetupError> {
    // WAIT_KILLABLE_RECV came with 5.19; without it a kick may abort a ring, which rings again.
    start_with(global, NEW_LISTENER | WAIT_KILLABLE_RECV)
}

impl Starting {
    /// Waits until it has its filter, and takes the listener.
    pub fn finish(mut self, global: &GlobalPage) -> Result<Zygote, SetupError> {
        match self.hear() {
            Err(SetupError::Filter(libc::EINVAL)) if self.filter_flags != NEW_LISTENER => {
                start_with(global, NEW_LISTENER)?.finish(global)
            }
            Err(error) => Err(error),
            Ok(()) => {
                let zygote = take_listener(self.pid)?;
                self.is_taken = true;
                Ok(zygote)
            }
        }
    }

    fn hear(&self) -> Result<(), SetupError> {
        let mut report = [0; 2];
        loop {
            match rustix::io::read(&self.report, &mut report) {
                Ok(0) => return Ok(()),
                // Two bytes go through a pipe at once.
                Ok(_) => return Err(reported(report)),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(SetupError::Host("read", errno(error))),
            }
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if !self.is_taken {
            let _ = sys::kill(self.pid, libc::SIGKILL);
            let _ = sys::wait_pid(self.pid);
        }
    }
}

fn start_with(global: &GlobalPage, filter_flags: u32) -> Result<Starting, SetupError> {
    global.get().filter_flags.store(filter_flags, Ordering::Relaxed);
    let image = image()?;
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| SetupError::Host("pipe2", errno(e)))?;
    let plan = ChildPlan {
        image: image.as_raw_fd(),
        global: global.fd().as_raw_fd(),
        report: writer.as_raw_fd(),
        parent: std::process::id().cast_signed(),
    };
    // SAFETY: the child only makes host calls on values prepared before, then executes the blob or ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        become_zygote(&plan);
    }
    if pid < 0 {
        return Err(SetupError::host("fork"));
    }
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        host::cpu::start_elsewhere(pid);
    }
    Ok(Starting { pid, report: reader, filter_flags, is_taken: false })
}

/// What the child said before the pipe's end.
fn reported(report: [u8; 2]) -> SetupError {
    match i32::from(u16::from_le_bytes(report)) {
        step if step >= 0x100 => SetupError::Filter(step - 0x100),
        step => SetupError::Zygote(step),
    }
}

fn take_listener(pid: i32) -> Result<Zygote, SetupError> {
    let pidfd = sys::pidfd_open(pid).map_err(|e| SetupError::Host("pidfd_open", e))?;
    let listener = sys::pidfd_getfd(pidfd.as_fd(), LISTENER_FD)
        .map_err(|e| SetupError::Host("pidfd_getfd", e))?;
    Ok(Zygote { pid, pidfd, listener })
}

/// The blob as an executable file that nobody can change.
fn image() -> Result<OwnedFd, SetupError> {
    let host = |call| move |e| SetupError::Host(call, errno(e));
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create("shim", flags | MemfdFlags::EXEC) {
        // Before 6.3 all memfds were executable.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("shim", flags),
        other => other,
    }
    .map_err(host("memfd_create"))?;
    let mut rest = blob::ELF;
    while !rest.is_empty() {
        let written = rustix::io::write(&fd, rest).map_err(host("write"))?;
        rest = rest.get(written..).unwrap_or_default();
    }
    let seals = rustix::fs::SealFlags::WRITE
        | rustix::fs::SealFlags::SHRINK
        | rustix::fs::SealFlags::GROW
        | rustix::fs::SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals).map_err(host("fcntl"))?;
    Ok(fd)
}

struct ChildPlan {
    image: RawFd,
    global: RawFd,
    report: RawFd,
    parent: i32,
}

/// In the child: no memory is allocated, nothing but host calls.
fn become_zygote(plan: &ChildPlan) -> ! {
    const KEEP: RawFd = 100;
    // SAFETY: host calls on values and on descriptors of this process; it ends here in any case.
    unsafe {
        let fail = |step: u16| -> ! {
            libc::write(plan.report, (&raw const step).cast(), 2);
            libc::_exit(108)
        };
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 || libc::getppid() != plan.parent
        {
            fail(10);
        }
        // Without handlers of ours, everything blocked: the mask outlives the execve.
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut mask);
        libc::sigdelset(&raw mut mask, libc::SIGSEGV);
        libc::sigdelset(&raw mut mask, libc::SIGBUS);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
        // Away from the terminal: its signals are for the sentry.
        libc::setsid();
        drop_capabilities();
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            fail(11);
        }
        // Out of the way first, then to where the blob expects them: 0 the page, 1 the report, 2 the image.
        let moved =
            [plan.global, plan.report, plan.image].map(|fd| libc::fcntl(fd, libc::F_DUPFD, KEEP));
        for (at, fd) in moved.into_iter().enumerate() {
            let flags = if at == 2 { libc::O_CLOEXEC } else { 0 };
            if libc::dup3(fd, at as i32, flags) < 0 {
                fail(13);
            }
        }
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
        // Now, for the caller may have more descriptors than that.
        set_limits();
        let none: [*const libc::c_char; 1] = [std::ptr::null()];
        let name: [*const libc::c_char; 2] = [c"guest".as_ptr(), std::ptr::null()];
        libc::syscall(
            libc::SYS_execveat,
            2,
            c"".as_ptr(),
            name.as_ptr(),
            none.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
        libc::_exit(109)
    }
}

/// No capability survives, whoever we are. See capset(2).
///
/// # Safety
/// Only in the child.
unsafe fn drop_capabilities() {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let data = [0u32; 6];
    // SAFETY: plain values; refused without CAP_SETPCAP, when there is nothing to drop either, and beyond the last.
    let drop = |capability: i32| unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    let _ = (0..64).all(|capability| drop(capability) == 0);
    // SAFETY: both structs have the sizes that version 3 asks for.
    unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
}

/// No core files, an ordinary stack limit (it decides the layout), few descriptors.
///
/// # Safety
/// Only in the child.
unsafe fn set_limits() {
    let set = |resource, value| {
        let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
        // SAFETY: `limit` is ours.
        unsafe { libc::setrlimit(resource, &raw const limit) };
    };
    set(libc::RLIMIT_CORE, 0);
    set(libc::RLIMIT_STACK, 8 << 20);
    set(libc::RLIMIT_NOFILE, 1024);
    set(libc::RLIMIT_MEMLOCK, 0);
    set(libc::RLIMIT_MSGQUEUE, 0);
}
