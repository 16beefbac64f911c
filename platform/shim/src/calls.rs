//! Host calls.

use core::arch::asm;

use crate::abi;

pub const MMAP: u64 = 9;
pub const MUNMAP: u64 = 11;
pub const BRK: u64 = 12;
pub const RT_SIGACTION: u64 = 13;
pub const MINCORE: u64 = 27;
pub const MADVISE: u64 = 28;
pub const EXIT: u64 = 60;
pub const CLOSE: u64 = 3;
pub const READ: u64 = 0;
pub const PREAD64: u64 = 17;
pub const PWRITE64: u64 = 18;
pub const WRITE: u64 = 1;
pub const PRCTL: u64 = 157;
pub const ARCH_PRCTL: u64 = 158;
pub const FUTEX: u64 = 202;
pub const EXIT_GROUP: u64 = 231;
pub const SECCOMP: u64 = 317;
pub const SIGALTSTACK: u64 = 131;

/// Any host call; the result is the kernel's own, errors as small negative numbers.
#[inline(always)]
pub fn syscall(nr: u64, a: [u64; 6]) -> i64 {
    let ret: i64;
    // SAFETY: the callers pass what the sentry ordered or what this blob's start-up needs; nothing here relies
    // on Rust's view of the memory that such a call changes.
    unsafe {
        asm!("syscall", inlateout("rax") nr as i64 => ret, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5], lateout("rcx") _, lateout("r11") _,
            options(nostack));
    }
    ret
}

/// Whether a call's result is an error.
#[inline(always)]
pub fn failed(ret: i64) -> bool {
    (-4095..0).contains(&ret)
}

/// Ends the process.
#[cold]
pub fn die(code: u64) -> ! {
    loop {
        syscall(EXIT_GROUP, [code, 0, 0, 0, 0, 0]);
    }
}

/// Rings the doorbell; returns what the sentry said. Without a sentry there is nothing to live for.
pub fn ring(why: u64, what: u64) -> u64 {
    ring_with([why, what, 0, 0, 0, 0])
}

/// The same with all arguments.
pub fn ring_with(args: [u64; 6]) -> u64 {
    const EINTR: i64 = -4;
    loop {
        let ret = syscall(u64::from(abi::DOORBELL), args);
        if ret >= 0 {
            return ret as u64;
        }
        if ret != EINTR {
            die(102);
        }
    }
}
