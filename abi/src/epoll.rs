//! epoll(7), eventfd(2), timerfd_create(2), inotify(7): structs and flags.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct epoll_event`, packed on x86-64.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, packed)]
pub struct EpollEvent {
    pub events: u32,
    pub data: u64,
}

pub const EPOLL_CTL_ADD: u32 = 1;
pub const EPOLL_CTL_DEL: u32 = 2;
pub const EPOLL_CTL_MOD: u32 = 3;

pub const EPOLLEXCLUSIVE: u32 = 1 << 28;
pub const EPOLLWAKEUP: u32 = 1 << 29;
pub const EPOLLONESHOT: u32 = 1 << 30;
pub const EPOLLET: u32 = 1 << 31;

bitflags::bitflags! {
    /// Flags of epoll_create1(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct EpollCreateFlags: u32 {
        const CLOEXEC = 0o2000000;
    }

    /// Flags of eventfd2(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct EventfdFlags: u32 {
        const SEMAPHORE = 1;
        const NONBLOCK = 0o4000;
        const CLOEXEC = 0o2000000;
    }

    /// Flags of timerfd_create(2) and inotify_init1(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct FdFlags: u32 {
        const NONBLOCK = 0o4000;
        const CLOEXEC = 0o2000000;
    }

    /// Flags of timerfd_settime(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct TimerfdSetFlags: u32 {
        const ABSTIME = 1;
        const CANCEL_ON_SET = 2;
    }
}
