//! A guest process: its memory, its slots, its end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering, fence};

use abi::{Errno, UserAddr};
use base::{Ledger, Lent, SharedRing};
use parking_lot::Mutex;
use rustix::fs::{FileType, OFlags};
use shim_abi::{LEDGER_SLOT, Waits};

use super::common::Held;
use super::holdable::{self, EVERYBODY};
use super::ledger::GuestLedger;
use super::loans::Loans;
use super::path_stats::PathStats;
use super::ready::ReadyFile;
use super::region::{Region, SlotRef};
use super::streams::{Ring, StreamPlaces};
use super::sys::{self, Transfer};
use super::thread::{Donation, Thread};
use super::windows;
use crate::{
    AddressSpace, Futexes, HostOp, Kicker, Loan, PlatformError, Ready, ReadyLoan, STAT_BYTES, Usage,
};

/// Host threads of one process that wait for another guest thread.
const MOST_RESTING: usize = 8;
/// Descriptors that stay in one guest process, beside those that it was born with.
const MOST_HELD: usize = 16;

/// A host thread whose context is gone and that stands in its slot after an event, ready for another context.
pub struct Resting {
    pub thread: Arc<Thread>,
    /// It came without a signal; else where its frame is.
    pub is_fast: bool,
    pub frame: u64,
}

/// Host process of one guest address space.
pub struct Process {
    id: u64,
    pid: i32,
    pidfd: OwnedFd,
    region: Arc<Region>,
    loans: Arc<Loans>,
    path_stats: PathStats,
    ledger: Option<Arc<GuestLedger>>,
    streams: StreamPlaces,
    /// Its shim may answer what it knows.
    may_answer: bool,
    /// A thread that lives: process_vm_readv(2) wants one that has not exited.
    live_tid: AtomicI32,
    is_dead: AtomicBool,
    /// It was killed because its last context is gone.
    is_doomed: AtomicBool,
    /// Its id is, or will soon be, free for others.
    is_collected: AtomicBool,
    /// Which of what many programs map it was given for its copies: see `Common::news`.
    pub news: AtomicU64,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    /// Why it died.
    fate: Option<String>,
    threads: Vec<Arc<Thread>>,
    /// Slots ever used; those no thread came to; threads whose context is gone and whose host thread may still
    /// be dying in its slot.
    used: u32,
    /// Descriptors that stay in the guest, with their numbers there.
    held: Vec<Held>,
    free: Vec<SlotRef>,
    left: Vec<Arc<Thread>>,
    resting: Vec<Resting>,
}

impl Process {
    pub fn new(pid: i32, pidfd: OwnedFd, region: Arc<Region>, may_answer: bool) -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            pid,
            pidfd,
            loans: Loans::new(&region),
            ledger: SlotRef::new(&region, LEDGER_SLOT).map(GuestLedger::new).map(Arc::new),
            path_stats: PathStats::default(),
            streams: StreamPlaces::default(),
            region,
            may_answer,
            live_tid: AtomicI32::new(pid),
            is_dead: AtomicBool::new(false),
            is_doomed: AtomicBool::new(false),
            is_collected: AtomicBool::new(false),
            news: AtomicU64::new(0),
            members: Mutex::default(),
        })
    }

    pub fn may_answer(&self) -> bool {
        self.may_answer
    }

    /// Key in the death set.
    pub fn id_for_death(&self) -> u64 {
        self.id
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub fn loans(&self) -> &Arc<Loans> {
        &self.loans
    }

    pub fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Acquire)
    }

    pub fn mark_doomed(&self) {
        self.is_doomed.store(true, Ordering::Relaxed);
    }

    pub fn is_doomed(&self) -> bool {
        self.is_doomed.load(Ordering::Relaxed)
    }

    /// The error of every context of a dead process.
    pub fn death(&self) -> PlatformError {
        let fate = self.members.lock().fate.clone();
        PlatformError::Died(fate.unwrap_or_else(|| "killed".to_owned()))
    }

    /// Ends the process for a reason of ours.
    pub fn fail(&self, reason: &str) {
        tracing::warn!(pid = self.pid, reason, "guest process ended");
        self.mark_dead(reason.to_owned());
        self.kill();
        self.wake_all();
    }

    /// Notes the end; the first reason stays.
    pub fn mark_dead(&self, reason: String) {
        self.members.lock().fate.get_or_insert(reason);
        self.is_dead.store(true, Ordering::Release);
    }

    /// Wakes every context, for it to see that the process is dead.
    pub fn wake_all(&self) {
        let threads = self.members.lock().threads.clone();
        for thread in threads {
            thread.wake();
        }
    }

    /// All threads, for the listener to forget them; those without a context are forgotten here, too.
    pub fn bury(&self) -> Vec<Arc<Thread>> {
        let mut members = self.members.lock();
        let mut threads = std::mem::take(&mut members.left);
        threads.extend(members.resting.drain(..).map(|resting| resting.thread));
        threads.extend(members.threads.iter().cloned());
        threads
    }

    /// A slot for a new thread: one whose host thread is gone (that is told, too), else a fresh one.
    pub fn take_slot(&self) -> Result<(SlotRef, Option<Arc<Thread>>), Errno> {
        let mut members = self.members.lock();
        if let Some(slot) = members.free.pop() {
            return Ok((slot, None));
        }
        if let Some(at) = members.left.iter().position(|thread| thread.is_gone()) {
            let thread = members.left.swap_remove(at);
            return Ok((thread.slot().clone(), Some(thread)));
        }
        if members.used >= LEDGER_SLOT {
            return Err(Errno::EAGAIN);
        }
        let slot = SlotRef::new(&self.region, members.used).ok_or(Errno::EAGAIN)?;
        members.used += 1;
        Ok((slot, None))
    }

    /// The descriptor's number in the guest, if it is there.
    pub fn held(&self, file: &Arc<OwnedFd>) -> Option<u32> {
        let members = self.members.lock();
        let held = members.held.iter().find(|(held, _)| Arc::ptr_eq(held, file));
        held.map(|(_, number)| *number)
    }

    /// Whether a descriptor may stay in the guest once it is there: when all that it is good for there is to map the
    /// file again to read it, which everybody may (the process's rights may shrink later), and there are not many.
    pub fn may_hold(&self, file: &Arc<OwnedFd>) -> bool {
        let members = self.members.lock();
        let given = members.held.iter().filter(|(_, number)| *number < shim_abi::COMMON_FD);
        let has_room = given.count() < MOST_HELD;
        drop(members);
        has_room && holdable::is_holdable(file)
    }

    /// The descriptor was installed.
    pub fn hold(&self, donation: &Donation, number: u32) {
        if donation.keep {
            self.members.lock().held.push((Arc::clone(&donation.file), number));
        }
    }

    /// A copy has the same descriptors.
    pub fn inherit_held(&self, parent: &Self) {
        let held = parent.members.lock().held.clone();
        self.members.lock().held = held;
        self.loans.inherit(&parent.loans);
        self.news.store(parent.news.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// A child of the zygote has what that has.
    pub fn begin_with(&self, held: Vec<Held>) {
        self.members.lock().held = held;
    }

    /// Gives back a slot that no thread ever got.
    pub fn return_slot(&self, slot: SlotRef) {
        self.members.lock().free.push(slot);
    }

    pub fn add_thread(&self, thread: &Arc<Thread>) {
        self.members.lock().threads.push(Arc::clone(thread));
    }

    /// A context is gone; true when it was the last.
    pub fn remove_thread(&self, thread: &Arc<Thread>) -> bool {
        let mut members = self.members.lock();
        members.threads.retain(|member| !Arc::ptr_eq(member, thread));
        match members.threads.first() {
            Some(other) => {
                self.live_tid.store(other.tid(), Ordering::Relaxed);
                false
            }
            None => true,
        }
    }

    /// The host thread of a context that is gone will be, too.
    pub fn leave(&self, thread: &Arc<Thread>) {
        self.members.lock().left.push(Arc::clone(thread));
    }

    /// Keeps the host thread of a context that is gone for the next one; false when there are enough.
    pub fn rest(&self, resting: Resting) -> bool {
        let mut members = self.members.lock();
        let has_room = members.resting.len() < MOST_RESTING;
        if has_room {
            members.resting.push(resting);
        }
        has_room
    }

    /// The one that came last, whose memory is likely to be in the caches.
    pub fn take_resting(&self) -> Option<Resting> {
        self.members.lock().resting.pop()
    }

    fn transfer(&self, ranges: &[(UserAddr, usize)], mut transfer: Transfer<'_>) -> usize {
        let tid = self.live_tid.load(Ordering::Relaxed);
        if !self.owns(tid) {
            return 0;
        }
        let limit = transfer.len();
        let mut total = 0;
        // The kernel takes at most UIO_MAXIOV ranges; it says itself where the first bad page is.
        for chunk in ranges.chunks(1024) {
            let mut wanted = 0;
            let mut remote = Vec::with_capacity(chunk.len());
            for (addr, len) in chunk {
                let len = (*len).min(limit - total - wanted);
                wanted += len;
                let iov_base = std::ptr::without_provenance_mut(addr.0 as usize);
                remote.push(libc::iovec { iov_base, iov_len: len });
            }
            let done = sys::process_vm(tid, &remote, transfer.reborrow());
            total += done;
            if done < wanted || total >= limit {
                break;
            }
            transfer.advance(done);
        }
        // What was read from somebody else is not told.
        if self.owns(tid) { total } else { 0 }
    }

    /// By the host, whatever the current call brought along.
    pub fn write_directly(&self, addr: UserAddr, bytes: &[u8]) -> usize {
        self.transfer(&[(addr, bytes.len())], Transfer::Write(bytes))
    }

    /// Whether the id still means a thread of this process. The process's own does until it is collected; another
    /// thread may have left on its own, and its id be somebody else's.
    fn owns(&self, tid: i32) -> bool {
        !self.is_dead()
            && !self.is_collected()
            && (tid == self.pid || sys::tgkill(self.pid, tid, 0).is_ok())
    }

    pub fn is_collected(&self) -> bool {
        self.is_collected.load(Ordering::Acquire)
    }

    /// To be called before the host process is waited for.
    pub fn before_collection(&self) {
        self.is_collected.store(true, Ordering::SeqCst);
    }
}

impl AddressSpace for Process {
    fn peek(&self, addr: UserAddr, into: &mut [u8]) -> usize {
        windows::peek(self, addr.0, into)
    }

    fn read(&self, addr: UserAddr, into: &mut [u8]) -> usize {
        let len = into.len();
        if windows::read(self, addr.0, into) {
            return len;
        }
        self.transfer(&[(addr, len)], Transfer::Read(into))
    }

    fn write(&self, addr: UserAddr, bytes: &[u8]) -> usize {
        if windows::write(self, addr.0, bytes) {
            return bytes.len();
        }
        self.write_directly(addr, bytes)
    }

    fn write_from(
        &self,
        addr: UserAddr,
        most: usize,
        file: BorrowedFd<'_>,
        pos: u64,
    ) -> Option<Result<(usize, usize), Errno>> {
        windows::write_from(self, addr.0, most, file, pos)
    }

    fn read_vectored(&self, ranges: &[(UserAddr, usize)], into: &mut [u8]) -> usize {
        if let [(addr, len)] = ranges
            && let Some(part) = into.get_mut(..*len)
        {
            return self.read(*addr, part);
        }
        self.transfer(ranges, Transfer::Read(into))
    }

    fn write_vectored(&self, ranges: &[(UserAddr, usize)], bytes: &[u8]) -> usize {
        if let [(addr, len)] = ranges
            && let Some(part) = bytes.get(..*len)
        {
            return self.write(*addr, part);
        }
        self.transfer(ranges, Transfer::Write(bytes))
    }

    fn lend(&self, number: u32, file: BorrowedFd<'_>) -> Option<Arc<dyn Loan>> {
        if !self.may_answer || self.is_dead() || !is_for_all(file) {
            return None;
        }
        self.loans.begin(number)
    }

    fn bring(
        &self,
        number: u32,
        file: BorrowedFd<'_>,
        attr: &[u8; STAT_BYTES],
        most: usize,
    ) -> Option<Arc<dyn Lent>> {
        if !self.may_answer || self.is_dead() {
            return None;
        }
        self.loans.bring(number, file, attr, most)
    }

    fn tell_stat(
        &self,
        names: u64,
        path: (&[u8], bool),
        attr: &[u8; STAT_BYTES],
    ) -> Option<Arc<dyn Lent>> {
        if !self.may_answer || self.is_dead() {
            return None;
        }
        self.path_stats.tell(self.loans.slot()?, names, path, attr)
    }

    fn ledger(&self) -> Option<Arc<dyn Ledger>> {
        let ledger = self.ledger.as_ref().filter(|_| self.may_answer && !self.is_dead())?;
        Some(Arc::clone(ledger) as Arc<dyn Ledger>)
    }

    fn lay_ready(&self, ready: Ready<'_>) -> Option<Arc<dyn ReadyLoan>> {
        if !self.may_answer || self.is_dead() {
            return None;
        }
        let file = ReadyFile::new(&self.loans, ready)?;
        Some(file)
    }

    fn make_ring(&self, capacity: usize) -> Option<Arc<dyn SharedRing>> {
        let ring = Ring::new(capacity).filter(|_| self.may_answer)?;
        Some(ring)
    }

    fn join_ring(&self, ring: &Arc<dyn SharedRing>, number: u32, writes: bool) -> Option<HostOp> {
        if !self.may_answer || self.is_dead() {
            return None;
        }
        self.streams.join(self.loans.slot()?, ring, number, writes)
    }

    fn tell_ready(&self, left: usize, low: usize) {
        super::ready::tell_count(&self.loans, left, low);
    }

    fn kill(&self) {
        // Already dead is as good.
        let _ = sys::pidfd_send_signal(self.pidfd(), libc::SIGKILL);
    }

    fn is_dead(&self) -> bool {
        Process::is_dead(self)
    }

    fn id(&self) -> u64 {
        self.id
    }

    fn futexes(&self) -> &dyn Futexes {
        self
    }

    fn usage(&self) -> Usage {
        let (user_ns, total_ns) = sys::process_times(self.pid);
        Usage { resident_bytes: 0, user_ns, system_ns: total_ns.saturating_sub(user_ns) }
    }
}

/// Whether a descriptor is good for nothing but to read, or to map to be read, a file that everybody may read: the process's
/// rights may shrink while it has it.
fn is_for_all(file: BorrowedFd<'_>) -> bool {
    let is_plain = |stat: rustix::fs::Stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && stat.st_mode & EVERYBODY == EVERYBODY
    };
    rustix::fs::fcntl_getfl(file).is_ok_and(|flags| flags & OFlags::ACCMODE == OFlags::RDONLY)
        && rustix::fs::fstat(file).is_ok_and(is_plain)
}

impl Process {
    /// The slot that has what concerns the whole address space.
    fn first_slot(&self) -> Option<SlotRef> {
        SlotRef::new(&self.region, 0)
    }

    fn count_waiter(&self, addr: UserAddr, change: impl FnOnce(&AtomicU32)) {
        if let Some(first) = self.first_slot()
            && let Some(count) = first.head().waits.in_sentry.get(Waits::bucket(addr.0))
        {
            change(count);
        }
    }

    /// A thread that waited on the host for `addr` does not any more.
    pub fn take_off_host(&self, addr: u64) {
        if let Some(first) = self.first_slot()
            && let Some(count) = first.head().waits.on_host.get(Waits::bucket(addr))
        {
            count.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Futexes for Process {
    fn add_waiter(&self, addr: UserAddr) {
        self.count_waiter(addr, |count| {
            count.fetch_add(1, Ordering::SeqCst);
        });
    }

    fn remove_waiter(&self, addr: UserAddr) {
        self.count_waiter(addr, |count| {
            count.fetch_sub(1, Ordering::SeqCst);
        });
    }

    fn has_outside(&self, addr: UserAddr) -> bool {
        fence(Ordering::SeqCst);
        self.first_slot().is_some_and(|first| {
            let count = first.head().waits.on_host.get(Waits::bucket(addr.0));
            count.is_some_and(|count| count.load(Ordering::SeqCst) != 0)
        })
    }

    fn end_outside(&self) -> bool {
        let Some(first) = self.first_slot() else { return true };
        first.head().host_futexes.store(0, Ordering::SeqCst);
        if first.head().waits.on_host.iter().all(|count| count.load(Ordering::SeqCst) == 0) {
            return true;
        }
        let threads = self.members.lock().threads.clone();
        threads.iter().filter(|thread| thread.is_asleep()).for_each(|thread| thread.kick());
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody can reach it any more: it must not outlive this. The zombie is collected here when the reactor
        // has not done so; a killed process needs no more than a moment.
        if !self.is_dead() {
            self.kill();
            let _ = sys::wait_pid(self.pid);
        }
    }
}
