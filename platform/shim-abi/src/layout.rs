//! What the sentry and the shim share byte for byte: the places in a guest's address space, the channel's layout
//! and the values of its words. The protocol itself is told in `platform::seccomp`'s module documentation.
//!
//! Every field that both sides touch is an atomic: the sentry must never hold a reference to memory that a
//! hostile guest writes, and both sides then agree on the order of things.

use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicU32, AtomicU64};

pub use super::files::{Brought, Descriptors, KnownPath, Loans, PathStat, Ready, ReadyIndex};
pub use super::ledger::{Entry, LEDGER_ADDR, LEDGER_SLOT, Ledger, Told, entry, trust};
pub use super::processor::{ASKS_PROCESSOR, MOST_ANSWERS, ProcessorAnswer, leaf_part};
pub use super::streams::{MOST_STREAM, STREAM_HEAD, STREAM_STRIDE, STREAMS_ADDR, Streams};

/// First address that guest code may not use; everything of ours but the vDSO lies above.
pub const TASK_SIZE: u64 = 0x7e00_0000_0000;
/// Lowest address that guest code may map.
pub const MIN_ADDR: u64 = 0x1_0000;
/// Where the blob is linked (see `build.rs`).
pub const SHIM_BASE: u64 = 0x7e00_0001_0000;
/// Read-only page of the sentry, the same in all guests: [`Global`].
pub const GLOBAL_ADDR: u64 = 0x7e00_0080_0000;
pub const GLOBAL_SIZE: u64 = 0x2a000;
/// In the same memory: [`KnownPath`]s.
pub const KNOWN_PATHS_OFFSET: u64 = 0x2000;
/// Private stack on which zygote and fresh children stand until they have a channel.
pub const SCRATCH_ADDR: u64 = 0x7e00_00c0_0000;
pub const SCRATCH_SIZE: u64 = 0x8000;
/// The channel region of this process; a multiple of its size, which the shim's entry relies on.
pub const CHANNEL_ADDR: u64 = 0x7e00_4000_0000;
pub const SLOT_SIZE: u64 = 0x2_0000;
pub const MAX_SLOTS: u32 = 4096;
pub const CHANNEL_SIZE: u64 = SLOT_SIZE * MAX_SLOTS as u64;

/// What a fresh child of the zygote is told of its channel: the offset of that in the memory which the zygote has under
/// [`ARENA_FD`], with this bit. Without: the descriptor of a channel.
pub const IN_ARENA: u64 = 1 << 62;
/// Where the zygote has the memory of its children's channels. Each of them closes it before guest code runs.
pub const ARENA_FD: u32 = 79;
/// Numbers of the files that the zygote has for all its children to map: from this one on.
pub const COMMON_FD: u32 = 80;

/// As [`Slot::start_frame`]: no frame, but the registers in [`Fast`], vector registers as the creator had them.
pub const START_FAST: u32 = 1;

/// Within a slot: [`Fast`], the registers of a call that came without a signal.
pub const FAST_OFFSET: u64 = 0x1000;
/// Within a slot: where the stack of the entry without a signal begins; it grows down to [`Fast`].
pub const FAST_STACK_TOP: u64 = 0x3000;
/// Within a slot: the alternate signal stack.
pub const STACK_OFFSET: u64 = 0x3000;
pub const STACK_END: u64 = 0x1_0000;
/// Within a slot: the small inputs and outputs of a call.
pub const BOUNCE_OFFSET: u64 = 0x1_0000;
pub const BOUNCE_END: u64 = SLOT_SIZE;
/// Within a slot, at the end of the last: what [`keeps_state`] calls leave there, an xsave area.
pub const STATE_OFFSET: u64 = 0x1_c000;
/// Within a slot: where a new thread's stack pointer starts, well below the frame that the sentry prepared.
pub const START_STACK_OFFSET: u64 = 0x9000;

/// The last slot is no thread's: it has [`Loans`].
pub const LOANS_SLOT: u32 = MAX_SLOTS - 1;
pub const LOANS_ADDR: u64 = CHANNEL_ADDR + SLOT_SIZE * LOANS_SLOT as u64;
/// In the same slot, and the same page: [`Brought`], of place [`Loans::FIRST_BROUGHT`] and so on. Then the bytes of each.
pub const BROUGHT_OFFSET: u64 = 0x800;
pub const BROUGHT_BYTES_OFFSET: u64 = 0x1000;
/// Bytes of one file at most.
pub const BROUGHT_BYTES: u64 = 0x7000;
/// In the same slot: [`PathStat`]s.
pub const PATH_STATS_OFFSET: u64 = 0x1_d000;
/// In the same slot: [`ReadyIndex`].
pub const READY_INDEX_OFFSET: u64 = 0x1_e800;
/// In the same slot: the [`Note`]s that [`Fast`] has no room for.
pub const MORE_NOTES_OFFSET: u64 = 0x1_f000;
/// In the same slot: [`Streams`].
pub const STREAMS_OFFSET: u64 = 0x1_ff00;
/// The slots below it are no threads' either: they have [`Ready`] files, two in each, and then the bytes of both. One file may have
/// the bytes of both.
pub const READY_SLOTS: u32 = 32;
pub const READY_SLOT: u32 = LOANS_SLOT - READY_SLOTS;
pub const READY_ADDR: u64 = CHANNEL_ADDR + SLOT_SIZE * READY_SLOT as u64;
pub const READY_STRIDE: u64 = 0x200;
pub const READY_BYTES_OFFSET: u64 = READY_PER_SLOT * READY_STRIDE;
pub const READY_BYTES_STRIDE: u64 = (SLOT_SIZE - READY_BYTES_OFFSET) / READY_PER_SLOT;
pub const READY_PER_SLOT: u64 = 2;

/// getppid(2) from the shim's text means: look here. The filter turns it into a notification. A call that everybody
/// allows, because an outer sandbox that answers an unknown number with an errno would have precedence.
pub const DOORBELL: u32 = 110;
/// Interrupts a running guest. A standard signal, so that kicks merge and sending one cannot fail.
pub const KICK_SIGNAL: i32 = 10;

/// First argument of the doorbell: why it rings.
pub mod ring {
    /// The zygote waits for an order; second argument: result of the last one. The first time the next three are
    /// start of vvar, start and end of the vDSO.
    pub const ZYGOTE: u64 = 1;
    /// A new process or thread wants to begin; second argument: token of the order it stems from.
    pub const HELLO: u64 = 2;
    /// The caller's slot is posted, or it was told to ring.
    pub const EVENT: u64 = 3;
}

/// Values of [`Slot::state`].
pub mod state {
    /// Guest code or the shim runs. Owner: guest.
    pub const RUNNING: u32 = 0;
    /// Something is to be looked at, and its shim looks for the answer. Owner: sentry.
    pub const POSTED: u32 = 1;
    /// Reply: execute the operations, then return to guest code. Owner: guest.
    pub const RESUME: u32 = 2;
    /// Reply: execute the operations, then post [`super::kind::OPS_DONE`]. Owner: guest.
    pub const EXECUTE: u32 = 3;
    /// Reply: ring, the true reply needs a pending notification. Owner: guest.
    pub const RING: u32 = 4;
    /// Reply: end this thread. Owner: guest.
    pub const EXIT: u32 = 5;
    /// Reply to a [`super::kind::CALL`]: raise a signal, whose frame holds the whole state. Owner: guest.
    pub const SETTLE: u32 = 6;
    /// As POSTED, but it was taken, and the answer will take long: it is not worth looking for. Owner: sentry.
    pub const LONG: u32 = 7;
    /// As POSTED and LONG, and the shim sleeps (or is about to) in a futex on the word. Owner: sentry.
    pub const POSTED_ASLEEP: u32 = 8;
    pub const LONG_ASLEEP: u32 = 9;
}

/// Low bits of a posted [`Slot::word`].
pub mod kind {
    /// A signal arrived: `signal` and `frame` say which and where.
    pub const SIGNAL: u32 = 1;
    /// All operations of an [`super::state::EXECUTE`] were carried out, or `ops_done` of them and then `errno`.
    pub const OPS_DONE: u32 = 2;
    /// An operation of a [`super::state::RESUME`] failed: `ops_done`, `errno`.
    pub const DEFER_FAILED: u32 = 3;
    /// A system call through a rewritten site: registers are in [`super::Slot::call`] and [`super::Fast`].
    pub const CALL: u32 = 4;
    /// A kick that found the thread on its way back from such a call; registers as above.
    pub const KICKED: u32 = 5;
    /// Guest memory that a call's output should go to is not there.
    pub const COPY_FAILED: u32 = 6;

    /// Beside any kind: the slot has [notes](super::Fast::notes).
    pub const NOTED: u32 = 1 << 31;
    /// The same of [traps](super::Fast::traps).
    pub const TRAPPED: u32 = 1 << 30;
    pub const MARKS: u32 = NOTED | TRAPPED;
    /// The kind is in the low bits of a posted [`super::Slot::word`]; with a call a bit above for each of its
    /// [pointers](crate::pointers) that goes with it.
    pub const MASK: u32 = 0xff;
    pub const POINTERS_SHIFT: u32 = 8;
}

/// Bits of [`Slot::word`] with a reply.
pub mod task {
    /// How many [`super::Slot::ops`] are to be carried out.
    pub const OPS: u32 = 0xff;
    /// How many of [`super::Fast::copies`] are to be made then.
    pub const COPIES: u32 = 0xf;
    pub const COPIES_SHIFT: u32 = 8;
    /// The doorbell returned a descriptor, to be closed after the operations.
    pub const HAS_FD: u32 = 1 << 12;
    /// With these: they are in [`super::Slot::call`], behind the result.
    pub const INLINE: u32 = 1 << 13;
    /// So many bytes are to be copied out of the front of the call's first output; not with `copies`.
    pub const OUTPUT_SHIFT: u32 = 16;
    pub const MOST_OUTPUT: u64 = 0xffff;
}

/// Operations beyond plain host calls (whose number is the call's own).
pub mod op {
    /// Thread pointer := argument 0.
    pub const SET_FS: u64 = 0x1_0000;
    /// gs base := argument 0.
    pub const SET_GS: u64 = 0x1_0001;
    /// Compare-and-exchange of the u32 at argument 0: expected, new; `result` gets the previous value.
    pub const COMPARE_EXCHANGE: u64 = 0x1_0002;
    /// A thread in slot argument 0 with token argument 1 and thread pointer argument 2 (or [`super::INHERIT_FS`]); `result`: tid.
    pub const CLONE_THREAD: u64 = 0x1_0003;
    /// Does nothing: its descriptor is what it is for.
    pub const NOTHING: u64 = 0x1_0005;
    /// Vector and floating point registers as a program finds them at its start, for a thread in [`super::Fast`].
    pub const RESET_VECTORS: u64 = 0x1_0006;
    /// Vector and floating point registers := those at [`super::STATE_OFFSET`], for a thread in [`super::Fast`].
    pub const LOAD_STATE: u64 = 0x1_0007;
    /// A copy of the process with token argument 0; `result`: pid.
    pub const FORK: u64 = 0x1_0004;
    /// Closes the lent descriptors whose places are the bits of argument 0, as far as they are there.
    pub const CLOSE_LOANS: u64 = 0x1_0008;
    /// mmap(2) of a ring of [`super::Streams`]; where the host refuses, nothing is there. Never fails.
    pub const MAP_STREAM: u64 = 0x1_0009;
}

/// The thread pointer of who makes a thread, where guest code may set it itself.
pub const INHERIT_FS: u64 = u64::MAX;

/// As the descriptor of an mmap operation: the one that the doorbell's return value names.
pub const FD_OF_RING: u64 = u64::MAX - 1;

/// Flags of [`Global::flags`].
pub mod global_flag {
    /// rdfsbase and friends work.
    pub const FSGSBASE: u32 = 1;
    /// Threads carry their slot's address in the base of gs, for the entry without a signal.
    pub const SLOT_IN_GS: u32 = 2;
    /// Reads and writes are to be heard of.
    pub const HEARD: u32 = 4;
    /// Questions to the processor take long: [`ASKS_PROCESSOR`](super::ASKS_PROCESSOR) may stand for them.
    pub const SLOW_QUESTIONS: u32 = 8;
}

/// Clone flags for a thread, as the filter demands them: VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS,
/// CHILD_CLEARTID.
pub const THREAD_CLONE_FLAGS: u64 =
    0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000 | 0x8_0000 | 0x20_0000;
/// Clone flags for a process: CLONE_PARENT, and SIGCHLD to the sentry.
pub const PROCESS_CLONE_FLAGS: u64 = 0x8000 | 17;

/// Calls that may make a thread, clone(2), vfork(2) and clone3(2): with these a thread in [`Fast`] leaves its vector and floating
/// point registers at [`STATE_OFFSET`].
pub const fn keeps_state(number: u64) -> bool {
    matches!(number, 56 | 58 | 435)
}

/// Longest filter program.
pub const MAX_FILTER: usize = 256;

/// The sentry's word to all shims.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Global {
    /// Not zero: a worker will look at every channel before it blocks.
    pub looking: AtomicU32,
    _line: [u32; 15],
    pub flags: AtomicU32,
    /// How many times a shim looks for its reply before it sleeps.
    pub spins: AtomicU32,
    pub filter_flags: AtomicU32,
    pub filter_len: AtomicU32,
    /// Goes up whenever an absolute path may lead elsewhere, or who may follow it is another.
    pub names: AtomicU64,
    /// Where the channel of the zygote's next child begins in the memory of [`ARENA_FD`].
    pub next_channel: AtomicU64,
    _line_1: [u32; 8],
    /// The zygote's filter, as `struct sock_filter`.
    pub filter: [AtomicU64; MAX_FILTER],
    /// See [`ProcessorAnswer`]; so many of them are there.
    pub answer_count: AtomicU32,
    _line_2: [u32; 15],
    pub answers: [ProcessorAnswer; MOST_ANSWERS],
}

/// An order for the shim: a host call, or one of [`op`].
#[repr(C)]
#[derive(Debug)]
pub struct Op {
    pub nr: AtomicU64,
    pub args: [AtomicU64; 6],
    _pad: u64,
}

/// Operations in one reply.
pub const MAX_OPS: usize = 56;

/// Head of a slot. What a call and its answer consist of is in one cache line, for each line that goes from one processor
/// to the other takes a tenth of a microsecond or two.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Slot {
    /// Who owns the slot, see [`state`]; also the futex word.
    pub state: AtomicU32,
    /// With a post: a [`kind`]; with a reply: what is to be done, see [`task`].
    pub word: AtomicU32,
    /// With a [`kind::CALL`]: number and arguments; in place of the arguments that it does not have, its input when that is small
    /// enough. With a reply: the result, and small outputs ([`task::INLINE`]). Back in guest code rax is what is here; all other
    /// registers are in [`Fast::registers`].
    pub call: [AtomicU64; 7],
    pub signal: AtomicU32,
    /// Offset of the `ucontext` in the slot.
    pub frame: AtomicU32,
    pub ops_done: AtomicU32,
    pub errno: AtomicU32,
    pub result: AtomicU64,
    /// Written by the sentry: what this thread was ordered to make has said hello.
    pub born: AtomicU32,
    _pad: u32,
    pub fs_base: AtomicU64,
    pub gs_base: AtomicU64,
    /// Where a context that never ran finds its frame: offset of the `ucontext`.
    pub start_frame: AtomicU32,
    /// CLONE_CHILD_CLEARTID: zero when the slot's thread is gone.
    pub alive: AtomicU32,
    /// See [`sleep`].
    pub asleep: AtomicU32,
    /// In the first slot. Not zero: threads may wait for private futexes on the host. Written by the sentry.
    pub host_futexes: AtomicU32,
    /// In the first slot: who waits for private futexes.
    pub waits: Waits,
    /// What goes into `call` with the next post: until then that line is left alone, for the sentry looks at it. The guest's side only.
    pub given: [AtomicU64; 7],
    _room: [u64; 9],
    pub ops: [Op; MAX_OPS],
}

impl Slot {
    /// The number of a call that is to be posted.
    pub fn number(&self) -> u64 {
        self.given[0].load(core::sync::atomic::Ordering::Relaxed)
    }

    /// Argument `index` of that call.
    pub fn argument(&self, index: u8) -> u64 {
        self.given[1 + index as usize % 6].load(core::sync::atomic::Ordering::Relaxed)
    }
}

/// Offset in a slot of an argument of [`Slot::given`].
pub const fn given_offset(index: usize) -> u64 {
    (offset_of!(Slot, given) + 8 * (1 + index)) as u64
}

/// Offset in a slot of an argument.
pub const fn argument_offset(index: usize) -> u64 {
    (offset_of!(Slot, call) + 8 * (1 + index)) as u64
}

/// So many bytes fit behind the result.
pub const MOST_INLINE: usize = 48;

/// Counts of threads that wait for private futexes of the address space, by [`Waits::bucket`].
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Waits {
    /// In the sentry, and kept by it: these must be woken by it.
    pub in_sentry: [AtomicU32; Waits::BUCKETS],
    /// On the host, or on their way to it or from it. Kept by the shim; a wait that was interrupted is the sentry's to take
    /// off.
    pub on_host: [AtomicU32; Waits::BUCKETS],
}

impl Waits {
    pub const BUCKETS: usize = 32;

    /// Where a futex is counted.
    pub const fn bucket(addr: u64) -> usize {
        ((addr >> 2 ^ addr >> 7 ^ addr >> 12) % Self::BUCKETS as u64) as usize
    }
}

/// Values of [`Slot::asleep`]: a thread in a futex on the host. A hint for the sentry, but for `INTERRUPTED`.
pub mod sleep {
    pub const AWAKE: u32 = 0;
    pub const ASLEEP: u32 = 1;
    /// With a [`super::kind::CALL`]: a kick has ended a wait that is still counted in [`super::Waits::on_host`].
    pub const INTERRUPTED: u32 = 2;
}

/// What the entry without a signal saves beside [`Slot::call`]. `registers` are in the order of `ucontext`'s `gregs`, at the same
/// distance from its start. The sentry looks at them only when it wants more of a call than number and arguments.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Fast {
    _context: [u64; 5],
    pub registers: [AtomicU64; 18],
    /// A kick came while the shim's code ran; the guest's side only.
    pub kicked: AtomicU32,
    _align: u32,
    /// Bits of the valid `answers`.
    pub answered: AtomicU64,
    /// Results of calls that the shim answers itself, by [`answer`]; kept true by the sentry.
    pub answers: [AtomicU64; answer::COUNT],
    /// With a reply: what is to be copied to guest memory.
    pub copies: [CopyOut; MAX_COPIES],
    /// The call's first output and its place; the guest's side only.
    pub output_addr: AtomicU64,
    pub output_place: AtomicU64,
    /// The guest's xmm registers while compiled code runs; the guest's side only.
    pub vectors: [Vector; 16],
    /// Not zero: the shim may change `mask`.
    pub has_mask: AtomicU32,
    /// Odd: `actions` are being written; 0: they are not there. Written by the sentry.
    pub actions_version: AtomicU32,
    /// Blocked signals; bit n-1 stands for signal n. Written by the shim while guest code runs, else by the sentry.
    pub mask: AtomicU64,
    /// Signals that are pending for the thread or its process, perhaps more: kept by the sentry. Who lets one through, or
    /// blocks it while it is on its way, asks the sentry to do so.
    pub pending: AtomicU64,
    /// For copying small things from and to guest memory; the guest's side only.
    pub words: [AtomicU64; 4],
    /// The process's dispositions, each a `struct sigaction` of the kernel; of signal n at n-1. Kept true by the sentry.
    pub actions: [[AtomicU64; 4]; 64],
    /// While `has_mask`: set_robust_list(2)'s list. Written by the shim while guest code runs, else by the sentry.
    pub robust_list: AtomicU64,
    /// The same of sigaltstack(2): start, flags, size.
    pub stack: [AtomicU64; 3],
    /// Signals whose disposition the shim may change as long as it stays the default one: only its flags and the like are
    /// new, which nobody but the process's only thread can see. Bit n-1 stands for signal n.
    pub may_change: AtomicU64,
    /// Those of them that it has changed since the sentry looked.
    pub changed: AtomicU64,
    /// While `has_mask`: set_tid_address(2)'s word, as `robust_list`.
    pub tid_address: AtomicU64,
    pub heap: Heap,
    /// Not zero: the thread is alone in its address space, and may carry out what [`Note`] can say. Written by the sentry.
    pub is_alone: AtomicU32,
    /// [`kind::NOTED`] while there are notes that the sentry has not taken, [`kind::TRAPPED`] with traps: goes into what is posted
    /// next.
    pub noted: AtomicU32,
    /// How many notes there are.
    pub note_count: AtomicU64,
    /// Calls that the shim has answered; for statistics, so nobody minds what a guest writes. The sentry takes it at the end.
    pub answered_calls: AtomicU64,
    /// What the shim did on its own.
    pub notes: [Note; MAX_NOTES],
    /// RLIMIT_STACK, soft and hard. While the sentry writes it, or does not tell, the hard one is 0.
    pub stack_limit: [AtomicU64; 2],
    /// Not zero: the thread's descriptors are those of [`Loans`]. Written by the sentry while guest code stands still.
    pub lends: AtomicU32,
    /// Not zero: `descriptors` are the thread's, and nobody else's; it may carry out what [`Note`] can say of them. Bits beyond the
    /// first: [`knows`]. Written by the sentry while guest code stands still.
    pub knows: AtomicU32,
    pub descriptors: Descriptors,
    /// Sites whose calls came by a signal and went on as if rewritten, until the sentry takes them: address behind the
    /// instruction, and number.
    pub traps: [[AtomicU64; 2]; MAX_TRAPS],
    /// How many these are.
    pub trap_count: AtomicU64,
    pub library: Library,
}

/// So many of [`Fast::traps`]; who has no room for another one asks the sentry.
pub const MAX_TRAPS: usize = 8;

/// What the shim may do about brk(2). Written by the sentry; `end` by the shim, too, when it moves it.
#[repr(C)]
#[derive(Debug)]
pub struct Heap {
    /// Where the heap ends; 0: ask the sentry.
    pub end: AtomicU64,
    /// Where that may be moved at least
    pub start: AtomicU64,
    /// and at most: there is nothing between the heap and this. 0: not at all.
    pub limit: AtomicU64,
    /// Free memory for mappings; the shim takes from its end.
    pub room_start: AtomicU64,
    pub room_end: AtomicU64,
}

/// A file that the last call has mapped whole: the shim maps parts of it in its place. Written by the sentry while guest code stands
/// still; ended by either side.
#[repr(C)]
#[derive(Debug)]
pub struct Library {
    /// Where it is mapped. The end is 0 when there is none.
    pub start: AtomicU64,
    pub end: AtomicU64,
    /// The guest's descriptor of it,
    pub number: AtomicU64,
    /// and the host's in its process; [`FD_OF_RING`] until that is known.
    pub file: AtomicU64,
    /// File offsets of what is executable, and mapped not from the file, but from a copy with rewritten call sites. The end is 0 when
    /// all is mapped from the file.
    pub text: [AtomicU64; 2],
    /// The host's descriptor of that copy, where its trampolines begin in it,
    pub text_file: AtomicU64,
    pub area_offset: AtomicU64,
    /// and where in memory, if the first byte of the file would be as far below as the last of these says (wrapping).
    pub area: AtomicU64,
    pub distance: AtomicU64,
}

/// Bytes of an area of trampolines.
pub const AREA_LEN: u64 = 0x4000;

/// A call that the shim has carried out, in three words. Of mmap(2): number, protection ([`Note::COMMAND_SHIFT`]) and
/// [`Note::ANONYMOUS`]; address; pages of length ([`Note::LENGTH_SHIFT`]) and offset. Of munmap(2) and mprotect(2), the latter to `PROT_READ`: number, address
/// and length. Of brk(2): number, the old end and the new. Of close(2): number, descriptor, and how far a file that was [brought along](Brought) was read. Of fcntl(2):
/// number and command ([`Note::COMMAND_SHIFT`]), descriptor, and its new flags or the new descriptor. Of openat(2): number and which
/// [`Ready`] file in the place of the command, descriptor, and flags. Of epoll_ctl(2): number and operation; epoll, descriptor
/// ([`Note::TARGET_SHIFT`]) and events ([`Note::EVENTS_SHIFT`]); data. Of fcntl(2) with F_SETLK: number and command, for there is something in
/// the [`Ledger`].
#[repr(C)]
#[derive(Debug)]
pub struct Note(pub [AtomicU64; 3]);

impl Note {
    pub const COMMAND_SHIFT: u32 = 32;
    pub const TARGET_SHIFT: u32 = 8;
    pub const EVENTS_SHIFT: u32 = 32;
    pub const ANONYMOUS: u64 = 1 << 40;
    pub const LENGTH_SHIFT: u32 = 32;
}

/// So many before the next event in [`Fast`],
pub const MAX_NOTES: usize = 16;
/// and so many in the slot of [`Loans`], for who has more to tell.
pub const MORE_NOTES: usize = 160;
pub const ALL_NOTES: usize = MAX_NOTES + MORE_NOTES;

/// Bits of [`Fast::knows`].
pub mod knows {
    pub const DESCRIPTORS: u32 = 1;
    /// Its root is the one that [`super::KnownPath`]s are seen from, and nobody else changes it.
    pub const PATHS: u32 = 2;
}

/// One xmm register.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct Vector(pub [AtomicU64; 2]);

/// Calls that only ask what the sentry has said before: places in [`Fast::answers`].
pub mod answer {
    /// No such call; never valid.
    pub const NONE: u8 = 0;
    pub const PID: u8 = 1;
    pub const TID: u8 = 2;
    pub const PARENT: u8 = 3;
    pub const UID: u8 = 4;
    pub const EFFECTIVE_UID: u8 = 5;
    pub const GID: u8 = 6;
    pub const EFFECTIVE_GID: u8 = 7;
    /// sched_yield(2), which the shim makes itself; the answer is not used.
    pub const YIELD: u8 = 8;
    /// rseq(2): an errno, for who asks at the start of each thread.
    pub const RSEQ: u8 = 9;
    /// No call's: the guest's text in which [`ASKS_PROCESSOR`](super::ASKS_PROCESSOR) is a question, from and to.
    pub const QUESTIONS: u8 = 10;
    pub const QUESTIONS_END: u8 = 11;
    pub const COUNT: usize = 16;

    /// The place of a call's answer.
    pub const fn of(number: u64) -> u8 {
        match number {
            39 => PID,
            186 => TID,
            110 => PARENT,
            102 => UID,
            107 => EFFECTIVE_UID,
            104 => GID,
            108 => EFFECTIVE_GID,
            24 => YIELD,
            334 => RSEQ,
            _ => NONE,
        }
    }
}

impl Fast {
    pub const RSP: usize = 15;

    pub fn register(&self, index: usize) -> u64 {
        self.registers[index].load(core::sync::atomic::Ordering::Relaxed)
    }
}

/// Guest memory that a call gives, and its place in the slot.
#[repr(C)]
#[derive(Debug)]
pub struct CopyOut {
    pub addr: AtomicU64,
    pub len: AtomicU32,
    /// Offset in the slot.
    pub place: AtomicU32,
}

pub const MAX_COPIES: usize = 8;

const _: () = assert!(CHANNEL_ADDR.is_multiple_of(CHANNEL_SIZE) && CHANNEL_SIZE == 1 << 29);
const _: () = assert!(STATE_OFFSET.is_multiple_of(64) && STATE_OFFSET < BOUNCE_END);
const _: () = assert!(size_of::<Op>() == 64);
const _: () = assert!(argument_offset(0) + MOST_INLINE as u64 == offset_of!(Slot, signal) as u64);
const _: () = assert!(offset_of!(Slot, signal) == 64);
const _: () = assert!(offset_of!(Slot, ops) == 512);
const _: () = assert!(MAX_OPS as u32 <= task::OPS && MAX_COPIES as u32 <= task::COPIES);
const _: () = assert!(offset_of!(Fast, registers) == 40);
const _: () = assert!(size_of::<Slot>() as u64 == FAST_OFFSET);
// The rest is the stack.
const _: () = assert!(FAST_OFFSET + size_of::<Fast>() as u64 + 0x1000 <= FAST_STACK_TOP);
const _: () = assert!(size_of::<Global>() as u64 <= KNOWN_PATHS_OFFSET);
