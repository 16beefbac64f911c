//! A fork that can enter new namespaces: the child goes on in the same program image, without exec.
//!
//! # Safety
//! A copy made of a process with several threads may hold locks of threads that do not exist in it. [`fork`]
//! therefore refuses when the caller is not alone (1), and its child never returns into the caller's frames:
//! it runs one closure and leaves with `_exit` (2).
#![expect(unsafe_code, reason = "clone(2), close_range(2) and _exit(2) have no safe wrapper")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

bitflags::bitflags! {
    /// Namespaces the child gets of its own.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Namespaces: i32 {
        const USER = libc::CLONE_NEWUSER;
        const PID = libc::CLONE_NEWPID;
        const NET = libc::CLONE_NEWNET;
        const IPC = libc::CLONE_NEWIPC;
        const UTS = libc::CLONE_NEWUTS;
        const MOUNT = libc::CLONE_NEWNS;
    }
}

impl Namespaces {
    /// Has the calling process, which has one thread, enter new ones of all these, or, when the host refuses, of as many
    /// as it can be had. Gives those that were entered.
    #[must_use]
    pub fn enter(self) -> Self {
        // SAFETY: no memory is concerned.
        let unshare = |namespaces: &Self| unsafe { libc::unshare(namespaces.bits()) } == 0;
        if self.is_empty() || unshare(&self) {
            return self;
        }
        self.iter().filter(unshare).collect()
    }
}

/// A child of [`fork`].
#[derive(Debug)]
pub struct Child {
    pub pid: Pid,
    /// Readable once the child has ended.
    pub pidfd: OwnedFd,
}

/// Runs `body` in a child process and ends it with the code that `body` returns. The child has the descriptors in
/// `keep` and 0, 1, 2; everything else is closed before `body` runs, so `body` must own or borrow no other.
///
/// # Errors
/// That of clone(2) (namespaces refused: EPERM, ENOSPC, EUSERS, EINVAL); `Other` when the caller has threads.
pub fn fork(
    namespaces: Namespaces,
    keep: &[RawFd],
    body: impl FnOnce() -> i32,
) -> io::Result<Child> {
    if !is_single_threaded()? {
        return Err(io::Error::other("cannot fork a process that has several threads"));
    }
    let mut pidfd: RawFd = -1;
    let flags = namespaces.bits() | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with a null stack this is fork(2): the child gets a copy of everything. The
    // process is single-threaded (1), `pidfd` outlives the call, and the child does not return from here (2).
    let pid = unsafe { libc::syscall(libc::SYS_clone, i64::from(flags), 0, &raw mut pidfd, 0, 0) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        close_all_except(keep);
        let code = body();
        // SAFETY: ends the process without running the parent's exit handlers; always sound.
        unsafe { libc::_exit(code) }
    };
    // SAFETY: the kernel stored a new descriptor there that nobody else knows.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid, pidfd })
}

/// Ends a child of [`fork`] with code 0, from whichever thread, whatever its others do.
pub fn leave() -> ! {
    // SAFETY: ends the process without running the parent's exit handlers; always sound.
    unsafe { libc::_exit(0) }
}

/// True when this process has one thread: its task directory links itself, its parent and one entry.
fn is_single_threaded() -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata("/proc/self/task")?.nlink() == 3)
}

fn close_all_except(keep: &[RawFd]) {
    let mut kept: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    kept.sort_unstable();
    let mut first = 3_u32;
    for fd in kept.into_iter().chain([u32::MAX]) {
        if first < fd {
            close_range(first, if fd == u32::MAX { fd } else { fd - 1 });
        }
        first = first.max(fd.saturating_add(1));
    }
}

fn close_range(first: u32, last: u32) {
    // SAFETY: called in a fresh child that by contract uses none of these descriptors again. A failure (a kernel
    // before 5.9) leaves them open, which the confinement that follows must bear anyway.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_forked() {
        // The test runner's own threads make this process a plural one.
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || receiver.recv());
        assert!(fork(Namespaces::empty(), &[], || 0).is_err());
        drop(sender);
        assert!(thread.join().is_ok());
    }
}
