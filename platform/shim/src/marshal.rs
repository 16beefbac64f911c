//! Small inputs of a call go with it in the slot, small outputs come back in it: spares the sentry a host call for each.
//!
//! What the sentry then reads of guest memory is the call's *inputs* where it asks for these; what it writes within the
//! call's *outputs* is copied out before guest code runs. Both are offers: who finds nothing here uses
//! process_vm_readv(2) and process_vm_writev(2). An output is offered only when all of it was found writable; when that
//! is not so any more at the end, the call fails with EFAULT.
//!
//! Never offered: words that other threads change to be seen at once (futexes).

use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{BOUNCE_END, BOUNCE_OFFSET, Fast, MAX_WINDOWS, Slot, window};
use crate::calls::{FUTEX, SIGALTSTACK};
use crate::guest_memory::{self, PAGE};
use crate::signal_calls::SET_ROBUST_LIST;

/// Longest input or output that goes through the slot. More touches pages of a large buffer that the call may not use.
const MOST: u64 = 0x4000;
/// Longest path.
const MOST_STRING: u64 = 256;

/// An argument that points to memory.
#[derive(Clone, Copy)]
enum Pointer {
    None,
    /// A string.
    Path(u8),
    /// So many bytes.
    In(u8, u16),
    Out(u8, u16),
    /// As many as another argument says, times a size.
    InCount(u8, u8, u16),
    OutCount(u8, u8, u16),
}

use Pointer::{In, InCount, None, Out, OutCount, Path};

/// Bytes of `struct stat`, `statx`, `pollfd`, `epoll_event`, `timespec`, `msghdr`, `iovec`.
const STAT: u16 = 144;
const STATX: u16 = 256;
const POLLFD: u16 = 8;
const EPOLL_EVENT: u16 = 12;
const TIMESPEC: u16 = 16;
const MSGHDR: u16 = 56;
const IOVEC: u16 = 16;

/// What a call takes and gives; see its page in section 2 of the manual. By value: a table of references would be data
/// that the linker fills in.
const fn pointers(number: u64) -> [Pointer; 4] {
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
        _ => [None; 4],
    }
}

/// Calls beyond have no pointers that are known here.
pub const NUMBERS: usize = 440;
/// Which calls have something to bring along, or may be answered by compiled code.
pub static IS_WANTED: [bool; NUMBERS] = {
    let mut all = [false; NUMBERS];
    let mut number = 0;
    while number < NUMBERS {
        all[number] = !matches!(pointers(number as u64)[0], None);
        number += 1;
    }
    all[FUTEX as usize] = true;
    all[SET_ROBUST_LIST as usize] = true;
    all[SIGALTSTACK as usize] = true;
    all
};

/// Offers what the call in `fast` points to.
pub fn offer(slot: &Slot, fast: &Fast) {
    let mut offers = Offers { slot, fast, count: 0, next: BOUNCE_OFFSET };
    let number = fast.register(Fast::RAX);
    for pointer in pointers(number) {
        match pointer {
            None => break,
            Path(at) => offers.path(fast.argument(at)),
            In(at, len) => offers.input(fast.argument(at), u64::from(len)),
            Out(at, len) => offers.output(fast.argument(at), u64::from(len)),
            InCount(at, count, size) => {
                offers.input(fast.argument(at), bytes(fast.argument(count), size));
            }
            // Of a large buffer mostly no more than the front is filled.
            OutCount(at, count, 1) => {
                offers.output(fast.argument(at), fast.argument(count).min(MOST));
            }
            OutCount(at, count, size) => {
                offers.output(fast.argument(at), bytes(fast.argument(count), size));
            }
        }
    }
    fast.window_count.store(offers.count as u32, Relaxed);
}

/// Saturates: too much is not offered anyway.
fn bytes(count: u64, size: u16) -> u64 {
    count.saturating_mul(u64::from(size))
}

struct Offers<'a> {
    slot: &'a Slot,
    fast: &'a Fast,
    count: usize,
    next: u64,
}

impl Offers<'_> {
    fn path(&mut self, addr: u64) {
        if addr == 0 || self.next + MOST_STRING > BOUNCE_END {
            return;
        }
        let len = guest_memory::copy_string(self.place(), addr, MOST_STRING);
        self.add(addr, len, window::INPUT);
    }

    fn input(&mut self, addr: u64, len: u64) {
        if addr == 0 || len == 0 || len > MOST || self.next + len > BOUNCE_END {
            return;
        }
        if guest_memory::copy(self.place(), addr, len) == 0 {
            self.add(addr, len, window::INPUT);
        }
    }

    fn output(&mut self, addr: u64, len: u64) {
        if addr == 0 || len == 0 || len > MOST || self.next + len > BOUNCE_END {
            return;
        }
        let Some(last) = addr.checked_add(len - 1) else { return };
        let mut page = addr;
        while page <= last {
            if !guest_memory::is_writable(page) {
                return;
            }
            page = (page & !(PAGE - 1)) + PAGE;
        }
        self.add(addr, len, window::OUTPUT);
    }

    fn place(&self) -> u64 {
        self.slot as *const Slot as u64 + self.next
    }

    fn add(&mut self, addr: u64, len: u64, kind: u32) {
        let Some(window) = self.fast.windows.get(self.count).filter(|_| len > 0) else { return };
        window.addr.store(addr, Relaxed);
        window.len.store(len as u32, Relaxed);
        window.place.store(self.next as u32 | kind, Relaxed);
        self.count += 1;
        self.next = (self.next + len + 63) & !63;
    }
}

const _: () = assert!(MAX_WINDOWS >= 4);

/// Copies out what the sentry wrote; false when guest memory is not there any more.
pub fn copy_out(slot: &Slot, fast: &Fast, count: u32) -> bool {
    for copy in fast.copies.iter().take(count as usize) {
        let (addr, len) = (copy.addr.load(Relaxed), u64::from(copy.len.load(Relaxed)));
        let from = slot as *const Slot as u64 + u64::from(copy.place.load(Relaxed));
        if guest_memory::copy(addr, from, len) != 0 {
            return false;
        }
    }
    true
}
