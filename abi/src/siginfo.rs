//! `siginfo_t`: why a signal was sent. See sigaction(2).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ids::{Tid, Uid};
use crate::signal::Signal;

/// `siginfo_t`, 128 bytes: a head and a union, whose members here are words and half-words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SigInfo {
    pub signo: i32,
    pub errno: i32,
    pub code: i32,
    pad: i32,
    /// `_sifields`, as 32-bit halves.
    pub fields: [u32; 28],
}

pub const SI_USER: i32 = 0;
pub const SI_KERNEL: i32 = 0x80;
pub const SI_QUEUE: i32 = -1;
pub const SI_TIMER: i32 = -2;
pub const SI_MESGQ: i32 = -3;
pub const SI_TKILL: i32 = -6;

pub const CLD_EXITED: i32 = 1;
pub const CLD_KILLED: i32 = 2;
pub const CLD_DUMPED: i32 = 3;
pub const CLD_STOPPED: i32 = 5;
pub const CLD_CONTINUED: i32 = 6;

pub const POLL_IN: i32 = 1;

impl SigInfo {
    /// Head only.
    #[must_use]
    pub const fn new(signal: Signal, code: i32) -> Self {
        Self { signo: signal.number() as i32, errno: 0, code, pad: 0, fields: [0; 28] }
    }

    /// Sent by the kernel itself (`SI_KERNEL`).
    #[must_use]
    pub const fn kernel(signal: Signal) -> Self {
        Self::new(signal, SI_KERNEL)
    }

    /// kill(2), tkill(2) and the like: sender's process and real user.
    #[must_use]
    pub const fn user(signal: Signal, code: i32, pid: Tid, uid: Uid) -> Self {
        let mut info = Self::new(signal, code);
        info.fields[0] = pid.0 as u32;
        info.fields[1] = uid.0;
        info
    }

    /// A processor exception at `addr`.
    #[must_use]
    pub const fn fault(signal: Signal, code: i32, addr: u64) -> Self {
        Self::new(signal, code).with_word(0, addr)
    }

    /// SIGCHLD; times in clock ticks.
    #[must_use]
    pub const fn child(
        code: i32,
        pid: Tid,
        uid: Uid,
        status: i32,
        user_ticks: u64,
        system_ticks: u64,
    ) -> Self {
        let mut info = Self::user(Signal::SIGCHLD, code, pid, uid);
        info.fields[2] = status as u32;
        info.with_word(4, user_ticks).with_word(6, system_ticks)
    }

    /// A POSIX timer: its id, how often it overran, the value of its `sigev_value`.
    #[must_use]
    pub const fn timer(signal: Signal, id: i32, overrun: i32, value: u64) -> Self {
        let mut info = Self::new(signal, SI_TIMER);
        info.fields[0] = id as u32;
        info.fields[1] = overrun as u32;
        info.with_word(2, value)
    }

    /// Stores a 64-bit member that starts at half-word `at`.
    const fn with_word(mut self, at: usize, value: u64) -> Self {
        self.fields[at] = value as u32;
        self.fields[at + 1] = (value >> 32) as u32;
        self
    }

    const fn word(&self, at: usize) -> u64 {
        self.fields[at] as u64 | (self.fields[at + 1] as u64) << 32
    }

    /// `None` when `signo` is no signal (a guest may queue such a thing).
    #[must_use]
    pub const fn signal(&self) -> Option<Signal> {
        if self.signo > 0 { Signal::new(self.signo as u64) } else { None }
    }

    /// `si_pid`.
    #[must_use]
    pub const fn pid(&self) -> Tid {
        Tid(self.fields[0] as i32)
    }

    /// `si_uid`.
    #[must_use]
    pub const fn uid(&self) -> Uid {
        Uid(self.fields[1])
    }

    /// `si_status` of SIGCHLD.
    #[must_use]
    pub const fn status(&self) -> i32 {
        self.fields[2] as i32
    }

    /// `si_addr` of a fault.
    #[must_use]
    pub const fn addr(&self) -> u64 {
        self.word(0)
    }

    /// `si_value` of a queued signal.
    #[must_use]
    pub const fn value(&self) -> u64 {
        self.word(2)
    }

    /// `si_utime` and `si_stime` of SIGCHLD, in clock ticks.
    #[must_use]
    pub const fn child_ticks(&self) -> (u64, u64) {
        (self.word(4), self.word(6))
    }
}
