//! Which arguments of which calls point to memory that goes with the call in its slot. Shim and sentry both know this table, so
//! a post says no more than which of a call's pointers it offers; the shim includes this file as a module.

use super::layout::{BOUNCE_END, BOUNCE_OFFSET, argument_offset};

/// Longest input or output that goes through the slot. More touches pages of a large buffer that the call may not use.
pub const MOST: u64 = 0x4000;
/// Longest path, with its end.
pub const MOST_STRING: u64 = 256;

/// As much of a list of `epoll_event`s as goes through the slot. Programs often have room for thousands and get a few.
pub const MOST_EVENTS: u64 = 64 * EPOLL_EVENT as u64;

/// Pointers of one call.
pub const MOST_POINTERS: usize = 4;

/// An argument that points to memory.
#[derive(Clone, Copy)]
pub enum Pointer {
    None,
    /// A string; only as a whole.
    Path(u8),
    /// So many bytes.
    In(u8, u16),
    Out(u8, u16),
    /// As many as another argument says, times a size.
    InCount(u8, u8, u16),
    OutCount(u8, u8, u16),
    /// The `struct flock` of fcntl(2), when the command takes one, or gives one back; else nothing.
    LockIn,
    LockOut,
}

use Pointer::{In, InCount, LockIn, LockOut, None, Out, OutCount, Path};

/// Bytes of `struct stat`, `statx`, `pollfd`, `epoll_event`, `timespec`, `msghdr`, `iovec`.
const STAT: u16 = 144;
const STATX: u16 = 256;
const POLLFD: u16 = 8;
const EPOLL_EVENT: u16 = 12;
const TIMESPEC: u16 = 16;
const MSGHDR: u16 = 56;
const IOVEC: u16 = 16;
/// Bytes of `struct flock`.
const FLOCK: u64 = 32;

/// What a call takes and gives; see its page in section 2 of the manual. By value: a table of references would be data
/// that the linker fills in.
pub const fn pointers(number: u64) -> [Pointer; MOST_POINTERS] {
    match number {
        // read, pread64, recvfrom, getdents64; write, pwrite64, sendto
        0 | 17 | 45 | 217 => [OutCount(1, 2, 1), None, None, None],
        1 | 18 | 44 => [InCount(1, 2, 1), None, None, None],
        // readv, writev, preadv, pwritev
        19 | 20 | 295 | 296 => [InCount(1, 2, IOVEC), None, None, None],
        // open, access, chdir, mkdir, rmdir, creat, unlink, chmod, chown, truncate
        2 | 21 | 80 | 83 | 84 | 85 | 87 | 90 | 92 | 76 => [Path(0), None, None, None],
        // stat, lstat, fstat
        4 | 6 => [Path(0), Out(1, STAT), None, None],
        5 => [Out(1, STAT), None, None, None],
        // rename, link, symlink
        82 | 86 | 88 => [Path(0), Path(1), None, None],
        // poll, ppoll
        7 => [InCount(0, 1, POLLFD), OutCount(0, 1, POLLFD), None, None],
        271 => [InCount(0, 1, POLLFD), OutCount(0, 1, POLLFD), In(2, TIMESPEC), In(3, 8)],
        // rt_sigaction, rt_sigprocmask
        13 => [In(1, 32), Out(2, 32), None, None],
        14 => [In(1, 8), Out(2, 8), None, None],
        // pipe, pipe2, socketpair
        22 | 293 => [Out(0, 8), None, None, None],
        53 => [Out(3, 8), None, None, None],
        // nanosleep, clock_nanosleep, clock_gettime
        35 => [In(0, TIMESPEC), None, None, None],
        230 => [In(2, TIMESPEC), None, None, None],
        228 => [Out(1, TIMESPEC), None, None, None],
        // connect, bind
        42 | 49 => [InCount(1, 2, 1), None, None, None],
        // sendmsg, recvmsg
        46 | 47 => [In(1, MSGHDR), None, None, None],
        // fcntl
        72 => [LockIn, LockOut, None, None],
        // wait4
        61 => [Out(1, 4), None, None, None],
        // getcwd, getrandom
        79 | 318 => [OutCount(0, 1, 1), None, None, None],
        // readlink
        89 => [Path(0), OutCount(1, 2, 1), None, None],
        // getrlimit, getrusage, prlimit64
        97 => [Out(1, 16), None, None, None],
        98 => [Out(1, 144), None, None, None],
        302 => [In(2, 16), Out(3, 16), None, None],
        // epoll_wait, epoll_pwait; epoll_ctl
        232 | 281 => [OutCount(1, 2, EPOLL_EVENT), None, None, None],
        233 => [In(3, EPOLL_EVENT), None, None, None],
        // openat, mkdirat, unlinkat, faccessat, faccessat2, fchmodat, fchownat
        257 | 258 | 263 | 269 | 439 | 268 | 260 => [Path(1), None, None, None],
        // renameat, renameat2
        264 | 316 => [Path(1), Path(3), None, None],
        // newfstatat, readlinkat, statx, utimensat
        262 => [Path(1), Out(2, STAT), None, None],
        267 => [Path(1), OutCount(2, 3, 1), None, None],
        332 => [Path(1), Out(4, STATX), None, None],
        280 => [Path(1), In(2, 32), None, None],
        // sched_getaffinity, clone3
        204 => [OutCount(2, 1, 1), None, None, None],
        435 => [InCount(0, 1, 1), None, None, None],
        _ => [None; 4],
    }
}

/// What a pointer of a call stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    String,
    Input,
    Output,
}

impl Pointer {
    /// Kind, address and (of a string: greatest) length. May be nonsense: see [`Places::place`].
    pub fn resolve(self, argument: impl Fn(u8) -> u64) -> Option<(Kind, u64, u64)> {
        Some(match self {
            None => return Option::None,
            Path(at) => (Kind::String, argument(at), MOST_STRING),
            In(at, len) => (Kind::Input, argument(at), len as u64),
            Out(at, len) => (Kind::Output, argument(at), len as u64),
            InCount(at, count, size) => (Kind::Input, argument(at), bytes(argument(count), size)),
            // Of a large buffer mostly no more than the front is filled.
            LockIn if is_lock_command(argument(1)) => (Kind::Input, argument(2), FLOCK),
            LockOut if is_lock_question(argument(1)) => (Kind::Output, argument(2), FLOCK),
            LockIn | LockOut => return Option::None,
            OutCount(at, count, 1) => (Kind::Output, argument(at), argument(count).min(MOST)),
            OutCount(at, count, EPOLL_EVENT) => {
                (Kind::Output, argument(at), bytes(argument(count), EPOLL_EVENT).min(MOST_EVENTS))
            }
            OutCount(at, count, size) => (Kind::Output, argument(at), bytes(argument(count), size)),
        })
    }
}

/// Where in the line of the call itself its input goes: in place of arguments that it does not have. `None`: to the next of
/// [`Places`], where there is more room.
pub const fn inline_place(number: u64, kind: Kind, len: u64) -> Option<u64> {
    // How many arguments these have, which have one pointer.
    let arguments = match number {
        // write
        1 => 3,
        // pwrite64, epoll_ctl
        18 | 233 => 4,
        _ => return Option::None,
    };
    let fits = matches!(kind, Kind::Input) && len <= 8 * (6 - arguments);
    if fits { Some(argument_offset(arguments as usize)) } else { Option::None }
}

/// F_GETLK and F_OFD_GETLK.
fn is_lock_question(command: u64) -> bool {
    matches!(command as u32, 5 | 36)
}

/// These, F_SETLK, F_SETLKW, F_OFD_SETLK and F_OFD_SETLKW.
fn is_lock_command(command: u64) -> bool {
    matches!(command as u32, 5..=7 | 36..=38)
}

/// Saturates: too much is not offered anyway.
fn bytes(count: u64, size: u16) -> u64 {
    count.saturating_mul(size as u64)
}

/// Gives out places in a slot, to both sides the same.
pub struct Places {
    next: u64,
}

impl Places {
    pub const fn first() -> Self {
        Self { next: BOUNCE_OFFSET }
    }

    /// Offset in the slot for what is at `addr`; `None`: not to be offered. It counts once [`Places::take`] says so.
    pub fn place(&self, addr: u64, len: u64) -> Option<u64> {
        let fits = addr != 0
            && len != 0
            && len <= MOST
            && addr.checked_add(len).is_some()
            && self.next + len <= BOUNCE_END;
        fits.then_some(self.next)
    }

    /// The last place is in use. Each begins with a cache line.
    pub fn take(&mut self, len: u64) {
        self.next = (self.next + len + 63) & !63;
    }
}
