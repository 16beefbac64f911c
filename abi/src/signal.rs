//! Signal numbers and sets. See signal(7).

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A signal number in 1..=64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Signal(u8);

impl Signal {
    /// `None` outside 1..=64.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number >= 1 && number <= 64 { Some(Self(number as u8)) } else { None }
    }

    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    #[must_use]
    pub const fn is_realtime(self) -> bool {
        self.0 >= 32
    }
}

macro_rules! signals {
    ($($name:ident = $value:literal;)*) => {
        impl Signal {
            $(pub const $name: Self = Self($value);)*
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 { $($value => Some(stringify!($name)),)* _ => None }
            }
        }
    };
}

signals! {
    SIGHUP = 1; SIGINT = 2; SIGQUIT = 3; SIGILL = 4; SIGTRAP = 5; SIGABRT = 6; SIGBUS = 7;
    SIGFPE = 8; SIGKILL = 9; SIGUSR1 = 10; SIGSEGV = 11; SIGUSR2 = 12; SIGPIPE = 13; SIGALRM = 14;
    SIGTERM = 15; SIGSTKFLT = 16; SIGCHLD = 17; SIGCONT = 18; SIGSTOP = 19; SIGTSTP = 20;
    SIGTTIN = 21; SIGTTOU = 22; SIGURG = 23; SIGXCPU = 24; SIGXFSZ = 25; SIGVTALRM = 26;
    SIGPROF = 27; SIGWINCH = 28; SIGIO = 29; SIGPWR = 30; SIGSYS = 31;
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "SIGRT_{}", self.0.wrapping_sub(32)),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A set of signals; bit n-1 stands for signal n, as in the kernel's `sigset_t`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct SigSet(pub u64);

impl SigSet {
    pub const EMPTY: Self = Self(0);
    pub const ALL: Self = Self(!0);
    /// What sigprocmask(2) silently leaves out.
    pub const UNBLOCKABLE: Self =
        Self((1 << (Signal::SIGKILL.0 - 1)) | (1 << (Signal::SIGSTOP.0 - 1)));

    #[must_use]
    pub const fn single(signal: Signal) -> Self {
        Self(1 << (signal.0 - 1))
    }

    #[must_use]
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & (1 << (signal.0 - 1)) != 0
    }

    pub const fn insert(&mut self, signal: Signal) {
        self.0 |= 1 << (signal.0 - 1);
    }

    pub const fn remove(&mut self, signal: Signal) {
        self.0 &= !(1 << (signal.0 - 1));
    }

    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The lowest member, which Linux delivers first.
    #[must_use]
    pub const fn lowest(self) -> Option<Signal> {
        if self.0 == 0 { None } else { Some(Signal(self.0.trailing_zeros() as u8 + 1)) }
    }
}

impl fmt::Debug for SigSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries((1..=64).filter_map(Signal::new).filter(|s| self.contains(*s)))
            .finish()
    }
}

bitflags::bitflags! {
    /// `sa_flags` of sigaction(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct SaFlags: u64 {
        const NOCLDSTOP = 0x1;
        const NOCLDWAIT = 0x2;
        const SIGINFO = 0x4;
        const UNSUPPORTED = 0x400;
        const EXPOSE_TAGBITS = 0x800;
        const RESTORER = 0x0400_0000;
        const ONSTACK = 0x0800_0000;
        const RESTART = 0x1000_0000;
        const NODEFER = 0x4000_0000;
        const RESETHAND = 0x8000_0000;
        /// What the kernel keeps of a guest's flags (`UAPI_SA_FLAGS`).
        const KNOWN = 0xdc00_0807;
    }
}

/// `SIG_DFL`.
pub const SIG_DFL: u64 = 0;
/// `SIG_IGN`.
pub const SIG_IGN: u64 = 1;

/// The kernel's `struct sigaction` (x86-64).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SigAction {
    pub handler: u64,
    pub flags: u64,
    pub restorer: u64,
    pub mask: u64,
}

impl SigAction {
    #[must_use]
    pub const fn flags(&self) -> SaFlags {
        SaFlags::from_bits_retain(self.flags)
    }

    #[must_use]
    pub const fn mask(&self) -> SigSet {
        SigSet(self.mask)
    }

    /// What the kernel keeps of one that it is given.
    #[must_use]
    pub const fn as_kept(&self) -> Self {
        let mask = self.mask().without(SigSet::UNBLOCKABLE).0;
        Self { flags: self.flags & SaFlags::KNOWN.bits(), mask, ..*self }
    }

    #[must_use]
    pub const fn is_default(&self) -> bool {
        self.handler == SIG_DFL
    }

    #[must_use]
    pub const fn is_ignore(&self) -> bool {
        self.handler == SIG_IGN
    }
}

/// `stack_t` of sigaltstack(2).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SigStack {
    pub sp: u64,
    pub flags: i32,
    pub pad: i32,
    pub size: u64,
}

pub const SS_ONSTACK: i32 = 1;
pub const SS_DISABLE: i32 = 2;
/// `SS_AUTODISARM`.
pub const SS_AUTODISARM: i32 = 1 << 31;
pub const MINSIGSTKSZ: u64 = 2048;

/// `how` of sigprocmask(2).
pub const SIG_BLOCK: i32 = 0;
pub const SIG_UNBLOCK: i32 = 1;
pub const SIG_SETMASK: i32 = 2;
