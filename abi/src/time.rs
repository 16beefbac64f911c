//! Time as the ABI spells it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct timespec` (and, field for field, `__kernel_timespec`).
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Timespec {
    pub sec: i64,
    /// 0..1_000_000_000 when valid.
    pub nsec: i64,
}

impl Timespec {
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        self.sec >= 0 && self.nsec >= 0 && self.nsec < 1_000_000_000
    }

    /// Saturates at the ends of `u64` nanoseconds.
    #[must_use]
    pub const fn to_nanos(&self) -> u64 {
        if self.sec < 0 {
            return 0;
        }
        (self.sec as u64).saturating_mul(1_000_000_000).saturating_add(self.nsec as u64)
    }

    #[must_use]
    pub const fn from_nanos(ns: u64) -> Self {
        Self { sec: (ns / 1_000_000_000) as i64, nsec: (ns % 1_000_000_000) as i64 }
    }
}

/// `struct timeval`.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Timeval {
    pub sec: i64,
    pub usec: i64,
}

impl Timeval {
    /// `None` when negative or with a million microseconds or more.
    #[must_use]
    pub const fn to_nanos(&self) -> Option<u64> {
        if self.sec < 0 || self.usec < 0 || self.usec >= 1_000_000 {
            return None;
        }
        let seconds = (self.sec as u64).saturating_mul(1_000_000_000);
        Some(seconds.saturating_add(self.usec as u64 * 1000))
    }

    #[must_use]
    pub const fn from_nanos(ns: u64) -> Self {
        Self { sec: (ns / 1_000_000_000) as i64, usec: (ns % 1_000_000_000 / 1000) as i64 }
    }
}

pub const CLOCK_REALTIME: i32 = 0;
pub const CLOCK_MONOTONIC: i32 = 1;
pub const CLOCK_PROCESS_CPUTIME_ID: i32 = 2;
pub const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
pub const CLOCK_MONOTONIC_RAW: i32 = 4;
pub const CLOCK_REALTIME_COARSE: i32 = 5;
pub const CLOCK_MONOTONIC_COARSE: i32 = 6;
pub const CLOCK_BOOTTIME: i32 = 7;
pub const CLOCK_REALTIME_ALARM: i32 = 8;
pub const CLOCK_BOOTTIME_ALARM: i32 = 9;
pub const CLOCK_TAI: i32 = 11;

/// `TIMER_ABSTIME` of clock_nanosleep(2) and timer_settime(2).
pub const TIMER_ABSTIME: u32 = 1;

pub const ITIMER_REAL: u32 = 0;
pub const ITIMER_VIRTUAL: u32 = 1;
pub const ITIMER_PROF: u32 = 2;

crate::abi_struct! {
    /// `struct itimerval`.
    pub struct Itimerval {
        pub interval: Timeval,
        pub value: Timeval,
    }

    /// `struct itimerspec`.
    pub struct Itimerspec {
        pub interval: Timespec,
        pub value: Timespec,
    }

    /// `struct timezone`.
    pub struct Timezone {
        pub minutes_west: i32,
        pub dst_time: i32,
    }

    /// `struct utimbuf`.
    pub struct Utimbuf {
        pub actime: i64,
        pub modtime: i64,
    }

    /// `struct timex` of adjtimex(2).
    pub struct Timex {
        pub modes: u32,
        pub pad0: u32,
        pub offset: i64,
        pub freq: i64,
        pub maxerror: i64,
        pub esterror: i64,
        pub status: i32,
        pub pad1: u32,
        pub constant: i64,
        pub precision: i64,
        pub tolerance: i64,
        pub time: Timeval,
        pub tick: i64,
        pub ppsfreq: i64,
        pub jitter: i64,
        pub shift: i32,
        pub pad2: u32,
        pub stabil: i64,
        pub jitcnt: i64,
        pub calcnt: i64,
        pub errcnt: i64,
        pub stbcnt: i64,
        pub tai: i32,
        pub reserved: [i32; 11],
    }
}

/// `tv_nsec` of utimensat(2) that mean "now" and "leave alone".
pub const UTIME_NOW: i64 = (1 << 30) - 1;
pub const UTIME_OMIT: i64 = (1 << 30) - 2;

pub const SIGEV_SIGNAL: i32 = 0;
pub const SIGEV_NONE: i32 = 1;
pub const SIGEV_THREAD: i32 = 2;
pub const SIGEV_THREAD_ID: i32 = 4;

crate::abi_struct! {
    /// `struct sigevent`, 64 bytes.
    pub struct Sigevent {
        pub value: u64,
        pub signo: i32,
        /// `SIGEV_*`.
        pub notify: i32,
        /// With `SIGEV_THREAD_ID`.
        pub tid: i32,
        pub pad: [i32; 11],
    }
}
