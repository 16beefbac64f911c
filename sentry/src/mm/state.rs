//! What the state lock of an address space guards.

use std::ops::Range;
use std::sync::Arc;

use abi::addr::PAGE_SIZE;
use abi::{Errno, Result, UserAddr};
use platform::{HostOp, Prot};
use smallvec::SmallVec;
use vfs::File;
use vfs::text_busy::Running;

use crate::loader::Profile;
use crate::mm::heap::HeapLoan;
use crate::mm::library::LibraryLoan;
use crate::mm::vma::{Vma, VmaFlags, VmaTree};
use crate::rewrite::Sites;

/// Most VMAs of one address space (`vm.max_map_count`).
pub const MAX_MAP_COUNT: usize = 65_530;
/// Bytes kept free below a VMA that grows down (`stack_guard_gap`).
pub const STACK_GUARD_GAP: u64 = 256 * PAGE_SIZE;

/// Where a guest may have mappings.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub min_addr: u64,
    /// First address beyond.
    pub task_size: u64,
    /// Ranges are given out downwards from here.
    pub mmap_base: u64,
}

/// What applies to a change: limits of the process, privileges, the sandbox's memory.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK in bytes.
    pub address_space: u64,
    pub data: u64,
    pub memlock: u64,
    /// CAP_IPC_LOCK: RLIMIT_MEMLOCK does not count.
    pub may_lock: bool,
    /// Memory of the sandbox: one request beyond it is refused, as overcommit's heuristic mode does.
    pub memory: u64,
}

impl Limits {
    pub const NONE: Self = Self {
        address_space: u64::MAX,
        data: u64::MAX,
        memlock: u64::MAX,
        may_lock: true,
        memory: u64::MAX,
    };
}

/// What execve(2) put where; see prctl(2) PR_SET_MM and proc(5).
#[derive(Debug, Clone, Default)]
pub struct ImageInfo {
    pub code: Range<u64>,
    pub data: Range<u64>,
    /// Where the shim answers what is asked of the processor: see `rewrite`.
    pub questions: Range<u64>,
    pub start_stack: u64,
    pub args: Range<u64>,
    pub env: Range<u64>,
    /// The auxiliary vector as the guest got it, key and value words.
    pub auxv: Vec<u64>,
    /// The program's file, as it was opened; its name is the thread group's to tell.
    pub exe: Option<Arc<File>>,
    /// Keeps it from being written.
    pub running: Option<Arc<Running>>,
    /// Where to note what it maps.
    pub profile: Option<Arc<Profile>>,
}

/// The layout of an address space.
#[derive(Debug, Clone)]
pub struct MmState {
    pub tree: VmaTree,
    pub bounds: Bounds,
    pub image: ImageInfo,
    pub brk_start: u64,
    pub brk: u64,
    /// Highest total of mapped bytes, for VmPeak.
    pub peak: u64,
    /// `LOCKED` and `LOCK_ON_FAULT` of new mappings, after mlockall(MCL_FUTURE).
    pub lock_future: VmaFlags,
    /// Rewritten call sites.
    pub sites: Sites,
    pub(in crate::mm) heap: HeapLoan,
    pub(in crate::mm) library: Option<LibraryLoan>,
    /// Undoing of the change whose host part waits for the way back to the guest.
    deferred: Option<Undo>,
}

/// A change of the layout that was made in the tree and now has to be made by the host.
#[derive(Debug)]
pub struct Plan {
    /// The call's result. May be an error although something changed (mprotect over a hole).
    pub value: Result<u64>,
    pub ops: SmallVec<[HostOp; 2]>,
    pub(in crate::mm) undo: Undo,
}

/// How to take a change back when the host refuses its first operation. Later operations are either optional or the
/// rest of something that cannot be taken back.
#[derive(Debug, Clone, Default)]
pub(in crate::mm) struct Undo {
    ranges: SmallVec<[(Range<u64>, Vec<(u64, Vma)>); 2]>,
    brk: Option<u64>,
    /// What the call returns when it was taken back, if not the errno.
    instead: Option<u64>,
    /// Operations from this index on may fail without consequence.
    optional_from: Option<usize>,
}

impl MmState {
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            tree: VmaTree::default(),
            bounds,
            image: ImageInfo::default(),
            brk_start: 0,
            brk: 0,
            peak: 0,
            lock_future: VmaFlags::empty(),
            sites: Sites::default(),
            heap: HeapLoan::default(),
            library: None,
            deferred: None,
        }
    }

    /// The child's copy at fork(2): no locks, no MADV_DONTFORK ranges.
    pub(in crate::mm) fn forked(&self) -> Self {
        let mut child = self.clone();
        let left_out: Vec<Range<u64>> = child
            .tree
            .iter()
            .filter(|(_, vma)| vma.flags.contains(VmaFlags::DONT_FORK))
            .map(|(start, vma)| start..vma.end)
            .collect();
        for range in left_out {
            child.tree.remove(range);
        }
        let locked = VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT;
        let ranges: Vec<Range<u64>> = child
            .tree
            .iter()
            .filter(|(_, vma)| vma.flags.intersects(locked))
            .map(|(start, vma)| start..vma.end)
            .collect();
        for range in ranges {
            child.tree.update(range, |vma| vma.flags -= locked);
        }
        child.lock_future = VmaFlags::empty();
        child.peak = child.tree.totals().mapped;
        child.deferred = None;
        child.end_heap_loan();
        child.library = None;
        child.sites = self.sites.forked();
        child
    }

    /// Remembers what is in `range`, for [`Plan::undo`].
    pub(in crate::mm) fn save(&self, undo: &mut Undo, range: Range<u64>) {
        let before = self.tree.copy(&range);
        undo.ranges.push((range, before));
    }

    pub(in crate::mm) fn remember_deferred(&mut self, undo: Undo) {
        self.deferred = Some(undo);
    }

    pub(in crate::mm) fn take_deferred(&mut self) -> Option<Undo> {
        self.deferred.take()
    }

    /// Operation `index` of a change failed on the host. `Some` is how the guest's call ends now.
    pub(in crate::mm) fn undo(
        &mut self,
        undo: Undo,
        index: usize,
        errno: Errno,
    ) -> Option<Result<u64>> {
        if undo.optional_from.is_some_and(|first| index >= first) {
            return None;
        }
        tracing::debug!(index, %errno, "host refused a memory operation");
        if index == 0 {
            for (range, before) in undo.ranges.into_iter().rev() {
                self.tree.remove(range);
                for (start, vma) in before {
                    self.tree.insert(start, vma);
                }
            }
            if let Some(brk) = undo.brk {
                self.brk = brk;
                self.heap.is_stale = true;
            }
        }
        Some(undo.instead.ok_or(errno))
    }

    /// `ENOMEM` when `more` bytes would break RLIMIT_AS, RLIMIT_DATA (for data) or the sandbox's memory.
    pub(in crate::mm) fn check_growth(
        &self,
        more: u64,
        replaced: u64,
        is_data: bool,
        limits: &Limits,
    ) -> Result<()> {
        let totals = self.tree.totals();
        let mapped = totals.mapped.saturating_sub(replaced).saturating_add(more);
        let data = totals.data.saturating_add(more);
        let too_much = mapped > limits.address_space
            || (is_data && (data > limits.data || more > limits.memory));
        if too_much { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// `EAGAIN` when locking `more` bytes would break RLIMIT_MEMLOCK.
    pub(in crate::mm) fn check_lock_growth(&self, more: u64, limits: &Limits) -> Result<()> {
        let locked = self.tree.totals().locked.saturating_add(more);
        if limits.may_lock || locked <= limits.memlock { Ok(()) } else { Err(Errno::EAGAIN) }
    }

    pub(in crate::mm) fn check_map_count(&self) -> Result<()> {
        if self.tree.len() >= MAX_MAP_COUNT { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    pub(in crate::mm) fn note_peak(&mut self) {
        self.peak = self.peak.max(self.tree.totals().mapped);
    }

    /// True when all of `addr..addr+len` may belong to the guest.
    #[must_use]
    pub fn is_guest_range(&self, addr: u64, len: u64) -> bool {
        len <= self.bounds.task_size && addr <= self.bounds.task_size - len
    }
}

impl Plan {
    /// Nothing for the host to do.
    #[must_use]
    pub fn done(value: u64) -> Self {
        Self { value: Ok(value), ops: SmallVec::new(), undo: Undo::default() }
    }

    pub(in crate::mm) fn one(value: u64, op: HostOp, undo: Undo) -> Self {
        Self { value: Ok(value), ops: smallvec::smallvec![op], undo }
    }

    /// Adds an operation whose failure changes nothing.
    pub(in crate::mm) fn and_try(mut self, op: HostOp) -> Self {
        self.undo.optional_from = Some(self.ops.len());
        self.ops.push(op);
        self
    }
}

impl Undo {
    pub(in crate::mm) fn brk(&mut self, before: u64) {
        self.brk = Some(before);
        self.instead = Some(before);
    }

    /// For changes that the host may refuse without consequence.
    pub(in crate::mm) fn optional() -> Self {
        Self { optional_from: Some(0), ..Self::default() }
    }
}

/// An unmap of `range`.
pub(in crate::mm) fn unmap_op(range: &Range<u64>) -> HostOp {
    HostOp::Unmap { addr: UserAddr(range.start), len: range.end - range.start }
}

/// `PROT_*` words to a protection; bits that mmap(2) ignores are ignored.
pub(in crate::mm) fn prot_of(word: u32) -> Prot {
    Prot::from_bits_truncate(word)
}
