//! The traits that the sentry sees.

use std::future::Future;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use abi::arch::{Call, Registers};
use abi::signal::{SigAction, SigStack, Signal};
use abi::{Errno, UserAddr};
use base::{Ledger, Lent, SharedRing};

use crate::{Descriptor, Heap, HostOp, Library, Loan, Note, PathFact, Ready, STAT_BYTES, Trapped};

/// A future of a rare operation.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why the platform cannot go on with one address space or at all. The sandbox's reaction to the first kind is
/// that one guest process dies; to the second, that the sandbox ends with this message.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PlatformError {
    /// The guest's address space is gone: its host process was killed or broke its own shim.
    #[error("guest process died: {0}")]
    Died(String),
    /// Out of a host resource (processes, memory, descriptors); the call that needed it fails with this errno.
    #[error("host resource exhausted: {0}")]
    Exhausted(Errno),
    /// The platform as a whole is broken: fail closed.
    #[error("{0}")]
    Broken(String),
}

/// Something that guest code did; the thread stands still until it is resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A system call: number and arguments are in the registers, `rip` behind the instruction.
    Syscall,
    /// A processor exception, as the host's signal for it tells.
    Fault(Fault),
    /// A kick took effect; the guest did nothing.
    Interrupted,
    /// A host operation queued with [`Context::defer`] failed: index of it and the host's errno. The ones
    /// before it took effect, the ones after it did not.
    DeferredFailed { index: usize, errno: Errno },
}

/// A processor exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// SIGSEGV, SIGBUS, SIGFPE, SIGILL or SIGTRAP.
    pub signal: u8,
    /// `si_code`.
    pub code: i32,
    /// `si_addr`.
    pub addr: u64,
    /// `uc_mcontext.trapno`, `err` and `cr2`, for the guest's frame.
    pub trapno: u64,
    pub err: u64,
    pub cr2: u64,
}

/// What a new execution context starts with.
#[derive(Debug, Clone)]
pub struct NewContext {
    pub regs: Registers,
    /// `None`: the same thread pointer as the creator's.
    pub fs_base: Option<u64>,
}

/// How guest code is run on this host.
pub trait Platform: Send + Sync {
    /// Name for logs and `doctor`.
    fn name(&self) -> &'static str;

    /// Waits for what was begun when the platform was made, so that the time until then can be used. To be called by
    /// the thread that made it, before anything below but [`Platform::layout`]; further calls do nothing.
    ///
    /// # Errors
    /// `Broken`, with what the host lacks.
    fn get_ready(&self) -> Result<(), PlatformError>;

    /// Facts about every address space of this platform; those about the vDSO are there once it is ready.
    fn layout(&self) -> &Layout;

    /// Begins to end all guests, without waiting for it, before the caller's own end does: the host takes long for an address space,
    /// and can do so on another CPU meanwhile.
    fn end_guests(&self) {}

    /// Calls that were answered in guest processes, without an event, by contexts that are gone: for statistics. It is the
    /// guests' word.
    fn answered_calls(&self) -> u64 {
        0
    }

    /// Events that came by the slow way, with a wake-up of whoever takes them: for statistics.
    fn rings(&self) -> u64 {
        0
    }

    /// Whether there is likely to be a CPU for what a guest will want soon, beside that of who takes events.
    fn has_cpu_aside(&self) -> bool {
        false
    }

    /// The calling thread works for a guest on `cpu` that shall not wait for it: it moves to other CPUs, if there are any, and is
    /// counted as one more that wants a CPU for a while.
    fn step_aside(&self, cpu: usize) {
        let _ = cpu;
    }

    /// An empty address space with one execution context in it: what execve needs.
    fn spawn(&self) -> BoxFuture<'_, Result<Box<dyn Context>, PlatformError>>;

    /// Looks once at the channels of running contexts and wakes those that have an event. Never blocks.
    /// Returns true when it woke something.
    fn poll(&self) -> bool;

    /// Blocks the calling worker until some context has an event (its waker was then called) or until
    /// [`Platform::unpark`]. May spin for a few microseconds first. Calls `before_sleep` before it blocks, and returns if that
    /// says so.
    ///
    /// # Errors
    /// `Broken` when no guest can be served any more.
    fn park(&self, before_sleep: &dyn Fn() -> bool) -> Result<(), PlatformError>;

    /// Makes one parked worker return from [`Platform::park`], where that is possible cheaply.
    fn unpark(&self);

    /// Descriptor that becomes readable when a guest's host process has died, for the reactor; then call
    /// [`Platform::reap`].
    fn death_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>>;

    /// Collects dead host processes and wakes their contexts.
    fn reap(&self);

    /// A program maps this file of the host, which every guest may find, open and read: where many do, new address spaces may
    /// have its descriptor from the start. One that may be written is never shared.
    fn share(&self, file: &Arc<OwnedFd>) {
        let _ = file;
    }

    /// Somebody wants to hear of reads and writes: from now on guest code makes calls for those of devices, too.
    fn hear_transfers(&self) {}

    /// Tells all guest code whose threads [know paths](Context::know_paths) what an absolute path is, until
    /// [`Platform::forget_names`] is given more than `names`. Attributes end with what this returns.
    fn tell_path(&self, names: u64, path: &[u8], fact: PathFact<'_>) -> Option<Arc<dyn Lent>> {
        let _ = (names, path, fact);
        None
    }

    /// What the processor answered; heard once. Guest code that asks by a
    /// [trap](crate::rewrite::ASKS_PROCESSOR) is answered so without asking again.
    fn tell_processor(&self, answers: &[crate::processor::Answer]) {
        let _ = answers;
    }

    /// An absolute path may lead elsewhere now, or who may follow it is another: nothing holds that [`Platform::tell_path`] or
    /// [`AddressSpace::tell_stat`] has told with another number.
    fn forget_names(&self, names: u64) {
        let _ = names;
    }
}

/// Where things are in every address space.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Lowest mappable address.
    pub min_addr: u64,
    /// First address that the guest may not use (the shim lives above).
    pub task_size: u64,
    /// Start of the vDSO's ELF image, for AT_SYSINFO_EHDR, and the vDSO's and vvar's ranges for /proc/self/maps.
    pub vdso: Option<std::ops::Range<u64>>,
    pub vvar: Option<std::ops::Range<u64>>,
    /// AT_HWCAP, AT_HWCAP2, AT_MINSIGSTKSZ of the host.
    pub hwcap: u64,
    pub hwcap2: u64,
    pub minsigstksz: u64,
    /// Bytes of the xsave area in a signal frame, `FP_XSTATE_MAGIC2` included.
    pub xstate_size: usize,
    /// Where the trampolines of rewritten call sites jump to (see `rewrite`); `None`: sites are left alone.
    pub call_entry: Option<u64>,
    /// cpuid takes longer here than a trap: texts may have [`rewrite::ASKS_PROCESSOR`](crate::rewrite::ASKS_PROCESSOR) in its place.
    pub has_slow_questions: bool,
}

/// Memory of one guest process. Reading and writing obey the host's page permissions.
pub trait AddressSpace: Send + Sync {
    /// Copies guest memory out; returns how many bytes came through before the first unreadable page.
    fn read(&self, addr: UserAddr, into: &mut [u8]) -> usize;

    /// Copies out what the current call brought along from `addr` on; 0 when that is nothing. Costs no host call.
    fn peek(&self, addr: UserAddr, into: &mut [u8]) -> usize;

    /// Copies into guest memory; returns how many bytes went through before the first unwritable page.
    fn write(&self, addr: UserAddr, bytes: &[u8]) -> usize;

    /// Copies into guest memory what a host file has from `pos` on, at most `most` bytes, without a buffer of ours in
    /// between: how many, and how many were asked of the file. `None` when this way is not to be had.
    ///
    /// # Errors
    /// Those of pread(2).
    fn write_from(
        &self,
        addr: UserAddr,
        most: usize,
        file: BorrowedFd<'_>,
        pos: u64,
    ) -> Option<Result<(usize, usize), Errno>>;

    /// Prepares a loan of a file of the host to guest code, which knows it by the descriptor `number`. The caller sees to it
    /// that it ends before the number means another file. `None`: the platform cannot, or the file is not one that everybody
    /// may read.
    fn lend(&self, number: u32, file: BorrowedFd<'_>) -> Option<Arc<dyn Loan>>;

    /// Lends a file as [`AddressSpace::lend`] does, of which neither attributes (`attr`, a `struct stat`) nor bytes can change before
    /// the loan ends, and which everybody may read: guest code gets copies, of at most `most` bytes. It is there at once. In the call
    /// of the only thread here.
    fn bring(
        &self,
        number: u32,
        file: BorrowedFd<'_>,
        attr: &[u8; STAT_BYTES],
        most: usize,
    ) -> Option<Arc<dyn Lent>> {
        let _ = (number, file, attr, most);
        None
    }

    /// Tells guest code what stat(2) (true) or lstat(2) says of an absolute path, until [`Platform::forget_names`] is given more than
    /// `names`, or the end of what this returns. In the call of the only thread here. `None`: the platform cannot.
    fn tell_stat(
        &self,
        names: u64,
        path: (&[u8], bool),
        attr: &[u8; STAT_BYTES],
    ) -> Option<Arc<dyn Lent>> {
        let _ = (names, path, attr);
        None
    }

    /// Where guest code enters what it does on its own to files it was entrusted with; [`Note::Entered`] tells that it did. For the calls
    /// of the only thread here, of which descriptors mean the same files all the time. `None`: the platform cannot.
    fn ledger(&self) -> Option<Arc<dyn Ledger>> {
        None
    }

    /// Lays a file ready for guest code to open on its own, which [`Note::Opened`] tells then: of neither attributes nor contents can
    /// change before the loan ends, and everybody may read it. Guest code may run meanwhile. `None`: the platform cannot.
    fn lay_ready(&self, ready: Ready<'_>) -> Option<Arc<dyn ReadyLoan>> {
        let _ = ready;
        None
    }

    /// A ring of so many bytes for a pipe whose ends guests may use by themselves, once both have joined it. `None`: the platform cannot,
    /// or there are too many.
    fn make_ring(&self, capacity: usize) -> Option<Arc<dyn SharedRing>> {
        let _ = capacity;
        None
    }

    /// Has guest code find the descriptor `number` to be an end of a ring, from [`SharedRing::begin`] on; what is to be carried out
    /// before. First the one that writes; then the ring is to be sealed, then the one that reads joins. In the call of the only thread here.
    fn join_ring(&self, ring: &Arc<dyn SharedRing>, number: u32, writes: bool) -> Option<HostOp> {
        let _ = (ring, number, writes);
        None
    }

    /// How many files lie ready that were not opened, and with how few left the context is to come back as if it had been interrupted.
    fn tell_ready(&self, left: usize, low: usize) {
        let _ = (left, low);
    }

    /// Several ranges in one host call, in order; returns the total of bytes.
    fn read_vectored(&self, ranges: &[(UserAddr, usize)], into: &mut [u8]) -> usize;
    fn write_vectored(&self, ranges: &[(UserAddr, usize)], bytes: &[u8]) -> usize;

    /// Ends the host process at once. Its contexts fail with `Died`.
    fn kill(&self);

    /// Whether the host process is gone. When that happens, whoever polled a context of it last is woken.
    fn is_dead(&self) -> bool;

    /// Identity for futex keys and pointer comparison.
    fn id(&self) -> u64;

    /// Host accounting, in bytes and nanoseconds: resident set, user CPU time of all threads.
    fn usage(&self) -> Usage;

    /// Private futexes of this address space. Its threads may wait for them and wake each other without a call, so that
    /// waiters of one word may be here and there.
    fn futexes(&self) -> &dyn Futexes;
}

/// Who waits for the private futexes of an address space, and where.
pub trait Futexes: Send + Sync {
    /// Somebody is about to wait for `addr` in the sentry: before the word is looked at. Who wakes it then makes a call.
    fn add_waiter(&self, addr: UserAddr);

    /// The opposite.
    fn remove_waiter(&self, addr: UserAddr);

    /// Whether somebody may wait for `addr` without the sentry: to be woken by [`Context::wake_outside`].
    fn has_outside(&self, addr: UserAddr) -> bool;

    /// From now on all waits are made by calls, and those that are not end: to be called again until this is true.
    fn end_outside(&self) -> bool;
}

/// A file that lies ready, later a loan of it.
pub trait ReadyLoan: Lent {
    /// Guest code has opened it, or says so, as the descriptor `number`. It may be closed again.
    fn opened(&self, number: u32);

    /// It has ended, and its place is free: guest code has not opened it before.
    fn is_gone(&self) -> bool;

    /// Whether guest code says that it has opened it.
    fn was_opened(&self) -> bool;
}

/// Host accounting of an address space.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub resident_bytes: u64,
    pub user_ns: u64,
    pub system_ns: u64,
}

/// One guest thread's registers and its place in an address space. Owned by the thread's task; only its kicker is
/// shared. Dropping it ends the host thread (and, when it is the last one, the address space).
pub trait Context: Send {
    fn space(&self) -> &Arc<dyn AddressSpace>;

    /// Registers as of the last event; changes take effect at the next resume.
    fn regs(&mut self) -> &Registers;
    fn regs_mut(&mut self) -> &mut Registers;

    /// The part of [`Context::regs`] that says which system call; cheaper.
    fn call(&self) -> Call;

    /// What was done before the last event, in order; each is told once. To be taken before anything else looks at the layout.
    fn take_notes(&mut self) -> Vec<Note> {
        Vec::new()
    }

    /// Calls that came by a signal since this was asked last, and went on as if their sites were rewritten: all that have not, the
    /// last event's with them. A claim of the guest.
    fn take_traps(&mut self) -> Vec<Trapped> {
        Vec::new()
    }

    /// Whether guest code is told of the thread's descriptors.
    fn knows_descriptors(&self) -> bool {
        false
    }

    /// Begins to tell guest code of the thread's descriptors, which nobody else uses: of the lowest [`KNOWN_DESCRIPTORS`] all are to
    /// be told then, and each again whenever it changes. What it may do with them on its own comes with [`Context::take_notes`].
    /// Or ends that. Whether it knows then. While guest code stands still, as the next one.
    fn know_descriptors(&mut self, knows: bool) -> bool {
        let _ = knows;
        false
    }

    /// The root is the one from which paths were [told](Platform::tell_path), and this thread's alone, or not any more. For who
    /// [knows descriptors](Context::know_descriptors), until that ends.
    fn know_paths(&mut self, knows: bool) {
        let _ = knows;
    }

    /// What a descriptor is; `None`: not in use.
    fn tell_descriptor(&mut self, number: usize, state: Option<Descriptor>) {
        let _ = (number, state);
    }

    /// Lets guest code map parts of a file that what was deferred maps whole, until this is called again. For the only thread of its
    /// address space, which knows its descriptors. Without effect where the platform cannot.
    fn lend_library(&mut self, library: Option<Library>) {
        let _ = library;
    }

    /// Whether it may.
    fn lends_library(&self) -> bool {
        false
    }

    /// Sets the register of a call's result; cheaper than through [`Context::regs_mut`].
    fn set_return(&mut self, value: u64);

    /// Whether the last event is a signal's: neither a rewritten site's call nor one that [went on](Context::take_traps) as such.
    fn has_trapped(&self) -> bool;

    /// Small inputs and outputs that came with the last event, to be entered while its handler runs; `None`: none came.
    fn call_memory(&self) -> Option<Arc<dyn CallMemory>>;

    /// Makes the vector state, and the thread pointer as the guest may have changed it itself, available: to be
    /// awaited before [`Context::xstate`] and its kin, [`Context::fs_base`] and [`Context::gs_base`].
    fn settle(&mut self) -> BoxFuture<'_, Result<(), PlatformError>>;

    /// Thread pointer as of the last event.
    fn fs_base(&self) -> u64;
    fn gs_base(&self) -> u64;

    /// Floating point and vector state, as an xsave area in signal-frame format (with the software-reserved
    /// bytes and the trailing magic), and its replacement. A replacement that is not well formed is refused.
    fn xstate(&self) -> Vec<u8>;
    fn set_xstate(&mut self, bytes: &[u8]) -> Result<(), Errno>;
    /// The initial state, for execve and as the start of a signal handler on some ABIs. Needs no settling.
    fn reset_xstate(&mut self);

    /// Lets the guest run with the current registers. Then poll for the event.
    fn resume(&mut self);

    /// The next event after a resume. Registers are valid once this is ready.
    fn poll_event(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<Event, PlatformError>>;

    /// Executes operations now, in order, and says how many took effect and why the next one did not.
    /// May be called only between an event and the resume that follows it.
    fn execute<'a>(
        &'a mut self,
        ops: Vec<HostOp>,
    ) -> BoxFuture<'a, Result<Result<(), (usize, Errno)>, PlatformError>>;

    /// Queues an operation to be executed at the next resume, before guest code runs: one round trip less.
    /// A failure comes back as [`Event::DeferredFailed`] instead of running the guest.
    fn defer(&mut self, op: HostOp);

    /// Executes what was deferred now; as [`Context::execute`].
    fn flush<'a>(&'a mut self) -> BoxFuture<'a, Result<Result<(), (usize, Errno)>, PlatformError>>;

    /// Atomic compare-and-exchange of an aligned guest word; `Ok(previous)`.
    fn compare_exchange<'a>(
        &'a mut self,
        addr: UserAddr,
        expected: u32,
        new: u32,
    ) -> BoxFuture<'a, Result<Result<u32, Errno>, PlatformError>>;

    /// The wait that the last event has ended, if one did (see [`Futexes`]), counts no more: its thread is where others find
    /// it. Otherwise that is so from the next resume on.
    fn end_outside_wait(&mut self);

    /// Wakes at most `count` threads that wait for `addr` without the sentry; how many.
    fn wake_outside<'a>(
        &'a mut self,
        addr: UserAddr,
        count: u32,
        bitset: u32,
    ) -> BoxFuture<'a, Result<usize, PlatformError>>;

    /// A copy-on-write copy of the address space with one context in it, standing where `new` says.
    fn fork<'a>(
        &'a mut self,
        new: NewContext,
    ) -> BoxFuture<'a, Result<Box<dyn Context>, PlatformError>>;

    /// Another context in the same address space, standing where `new` says, not yet running.
    fn clone_thread<'a>(
        &'a mut self,
        new: NewContext,
    ) -> BoxFuture<'a, Result<Box<dyn Context>, PlatformError>>;

    /// Handle by which others interrupt this context.
    fn kicker(&self) -> Arc<dyn Kicker>;
}

/// What a call brought along, so that its handler needs no host call to reach it. [`AddressSpace`]'s methods find it by
/// themselves on a thread of the sentry that has entered it.
pub trait CallMemory: Send + Sync {
    /// To be called before each poll of the handler.
    fn enter(self: Arc<Self>);
    /// And after it.
    fn leave(&self);
}

/// Interrupts a running context.
pub trait Kicker: Send + Sync {
    /// Makes a context that runs guest code come back with [`Event::Interrupted`] (or another event that came
    /// first). Without effect when it is not running guest code. May be spurious; never lost: a kick after
    /// `resume` has an event as its consequence.
    fn kick(&self);

    /// The call that the context brought will not be answered soon: its host thread need not look for the answer.
    fn blocks(&self) {}

    /// Whether the operations that were deferred before the last resume are carried out, without a failure: so the guest's
    /// side says, which may lie. False as long as that is not known.
    fn has_carried_out(&self) -> bool;

    /// What the platform may answer on its own when the context asks who it is; replaces what was said before, and
    /// holds before this returns for every call that begins later. Platforms that cannot do so ignore it.
    fn set_answers(&self, answers: &Answers);

    /// The heap, of which who asks needs no call then, and moves its end on its own; `None`: it has to ask, because others may
    /// move it. While the context stands still.
    fn tell_heap(&self, heap: Option<&Heap>) {
        let _ = heap;
    }

    /// From now on only calls move the heap's end, or map parts of a library. At any time.
    fn fix_heap(&self) {}

    /// Whether the context is the only one in its address space: then it may change that without an event first, see [`Note`].
    /// While it stands still.
    fn set_alone(&self, is_alone: bool) {
        let _ = is_alone;
    }

    /// RLIMIT_STACK, for who asks. Callers take turns.
    fn tell_stack_limit(&self, soft: u64, hard: u64) {
        let _ = (soft, hard);
    }

    /// Whether it waits without the sentry, or so it says.
    fn is_asleep(&self) -> bool;

    /// Whether what is lent to the address space is what the context means by those descriptors. While it stands still only.
    fn set_lends(&self, lends: bool);

    /// Lets guest code change its blocked signals without a call. While it stands still only; `None`: the platform
    /// cannot. To be given up when the context ends: what it stands for may then be another's.
    fn share_signals(self: Arc<Self>) -> Option<Arc<dyn SharedSignals>>;
}

/// Signal state that guest code can reach, the alternate stack, the list of robust futexes, and the word of the thread's id. Bit n-1 of a word stands for signal n.
///
/// Who sends a signal calls [`SharedSignals::add_pending`] first and reads the mask then: either the mask is seen, or
/// guest code sees that it has to make a call.
pub trait SharedSignals: Send + Sync {
    /// Blocked signals as guest code says: any word, at any time another one.
    fn mask(&self) -> u64;

    /// Replaces the mask. While guest code stands still.
    fn set_mask(&self, mask: u64);

    /// What guest code has set by sigaltstack(2), or so it says.
    fn stack(&self) -> SigStack;

    /// Replaces it. While guest code stands still.
    fn set_stack(&self, stack: &SigStack);

    /// The list that guest code has set by set_robust_list(2), or so it says.
    fn robust_list(&self) -> u64;

    /// Replaces it. While guest code stands still.
    fn set_robust_list(&self, head: u64);

    /// The same of set_tid_address(2).
    fn tid_address(&self) -> u64;

    /// Replaces it. While guest code stands still.
    fn set_tid_address(&self, address: u64);

    /// Signals that guest code neither lets through nor newly blocks without a call: those that are pending. Replaces
    /// what was said before.
    fn set_pending(&self, signals: u64);

    /// The same, beside what was said before.
    fn add_pending(&self, signals: u64);

    /// Tells guest code all dispositions, so that it may look them up without a call; of signal n at n-1. Of those in
    /// `may_change` it may replace a default one by another default one (whose flags and the like differ). Callers of this
    /// and of the other methods about dispositions take turns.
    fn tell_actions(&self, actions: &[SigAction; 64], may_change: u64);

    /// One of them has changed; of no effect before they were told.
    fn change_action(&self, signal: Signal, action: &SigAction);

    /// Takes what guest code has replaced, or so it says. While it stands still.
    fn take_changed_actions(&self, each: &mut dyn FnMut(Signal, SigAction));

    /// It may not replace any more. While it stands still.
    fn forbid_changes(&self);
}

/// Results of getpid(2), gettid(2), getppid(2), getuid(2) and kin, and of rseq(2), whose answer is an errno.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    pub pid: u32,
    pub tid: u32,
    pub parent: u32,
    pub uid: u32,
    pub effective_uid: u32,
    pub gid: u32,
    pub effective_gid: u32,
    pub rseq: Errno,
    /// Where [`ASKS_PROCESSOR`](crate::rewrite::ASKS_PROCESSOR) stands for a question; elsewhere it is the program's own.
    pub questions: Range<u64>,
}
