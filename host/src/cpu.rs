//! Which processor this is.
//!
//! # Safety
//! The one call takes and keeps no pointer.

#![expect(unsafe_code, reason = "rustix asks the kernel where libc reads its rseq area")]

/// Number of the processor the calling thread runs on now; a hint by the time it is read.
#[must_use]
pub fn current() -> Option<u16> {
    // SAFETY: no arguments, no memory; it reads the thread's registered rseq area.
    let cpu = unsafe { libc::sched_getcpu() };
    u16::try_from(cpu).ok()
}
