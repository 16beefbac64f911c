//! Which processor this is, and where a new process begins.
//!
//! # Safety
//! The one call takes and keeps no pointer.

#![expect(unsafe_code, reason = "rustix asks the kernel where libc reads its rseq area")]

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Number of the processor the calling thread runs on now; a hint by the time it is read.
#[must_use]
pub fn current() -> Option<u16> {
    // SAFETY: no arguments, no memory; it reads the thread's registered rseq area.
    let cpu = unsafe { libc::sched_getcpu() };
    u16::try_from(cpu).ok()
}

/// Numbers of the processors the calling thread may run on; none when the host does not tell.
#[must_use]
pub fn allowed() -> Vec<u16> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    let all = 0..u16::try_from(CpuSet::MAX_CPU).unwrap_or(u16::MAX);
    all.filter(|cpu| set.is_set(usize::from(*cpu))).collect()
}

/// Has a process that was made just now begin on another processor than ours, if there is one, and then go where the
/// host likes. The host puts it on ours, where it waits until we sleep: on virtual machines it does not take a
/// processor that is halted for an idle one.
pub fn start_elsewhere(child: Pid) {
    let (Some(here), Ok(allowed)) = (current(), sched_getaffinity(Some(child))) else { return };
    let mut others = allowed;
    if usize::from(here) < CpuSet::MAX_CPU {
        others.unset(usize::from(here));
    }
    // It may have begun already. That is no matter: both calls are made here, the last one leaves it free.
    if others.count() > 0 && sched_setaffinity(Some(child), &others).is_ok() {
        let _ = sched_setaffinity(Some(child), &allowed);
    }
}

/// The same for our processor: for a process that we are about to wait for.
pub fn start_here(child: Pid) {
    if let Ok(allowed) = sched_getaffinity(Some(child)) {
        pull_here(child);
        let _ = sched_setaffinity(Some(child), &allowed);
    }
}

/// Has a process's first thread go on on our processor, if it may, and stay there.
pub fn pull_here(pid: Pid) {
    let Some(here) = current().filter(|here| usize::from(*here) < CpuSet::MAX_CPU) else { return };
    let mut only = CpuSet::new();
    only.set(here.into());
    // Without effect it is only slower.
    let _ = sched_setaffinity(Some(pid), &only);
}
