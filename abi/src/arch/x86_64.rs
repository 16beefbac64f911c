//! x86-64: registers, in the order of the kernel's `struct sigcontext_64`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// General registers of a guest thread. The first 18 fields have the layout of `struct sigcontext`'s head.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Registers {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rsp: u64,
    pub rip: u64,
    pub rflags: u64,
}

/// A system call: the registers that say which.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Call {
    pub number: u64,
    /// The six argument words, unchecked.
    pub args: [u64; 6],
}

impl Registers {
    /// Number of the call, when these registers were taken at a system call's entry.
    #[must_use]
    pub const fn syscall_number(&self) -> u64 {
        self.rax
    }

    /// The six argument words of a system call, unchecked.
    #[must_use]
    pub const fn syscall_args(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }
}
