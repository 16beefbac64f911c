//! The frame that a signal handler starts on (x86-64): `struct rt_sigframe`. See sigreturn(2).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::arch::Registers;
use crate::siginfo::SigInfo;
use crate::signal::SigStack;

/// `struct sigcontext_64`.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SigContext {
    pub regs: Registers,
    pub cs: u16,
    pub gs: u16,
    pub fs: u16,
    pub ss: u16,
    pub err: u64,
    pub trapno: u64,
    pub oldmask: u64,
    pub cr2: u64,
    /// Address of the floating point state; 0 is none.
    pub fpstate: u64,
    pub reserved: [u64; 8],
}

/// The kernel's `struct ucontext`.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct UContext {
    pub flags: u64,
    pub link: u64,
    pub stack: SigStack,
    pub mcontext: SigContext,
    pub sigmask: u64,
}

/// `struct rt_sigframe`; the floating point state lies above it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RtSigFrame {
    /// Return address of the handler: `sa_restorer`.
    pub pretcode: u64,
    pub uc: UContext,
    pub info: SigInfo,
}

/// `uc_flags`: the frame has an xsave area, a valid `ss`, and sigreturn restores it strictly.
pub const UC_FP_XSTATE: u64 = 1;
pub const UC_SIGCONTEXT_SS: u64 = 2;
pub const UC_STRICT_RESTORE_SS: u64 = 4;

/// Selectors of 64-bit user mode.
pub const USER_CS: u16 = 0x33;
pub const USER_SS: u16 = 0x2b;

/// Bits of rflags that sigreturn takes from the frame (`FIX_EFLAGS`).
pub const RESTORABLE_FLAGS: u64 = 0x5_0dd5;
pub const FLAG_TF: u64 = 1 << 8;
pub const FLAG_DF: u64 = 1 << 10;
pub const FLAG_RF: u64 = 1 << 16;

const _: () = assert!(size_of::<SigContext>() == 256);
const _: () = assert!(size_of::<UContext>() == 304);
const _: () = assert!(size_of::<RtSigFrame>() == 440);
