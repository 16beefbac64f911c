//! A guest's address space: the rules. The host does the pages.
//!
//! Linux keeps VMAs and page tables together; here the VMA tree ([`vma`]) is ours and decides every mapping, limit and
//! errno, and the host process behind [`platform::AddressSpace`] executes the resulting mmap, munmap, mprotect... on
//! our order ([`platform::HostOp`]). Faults, copy-on-write and fork of pages are the host's, at native speed.
//!
//! Every change of the layout is a [`Plan`]: checked and applied to the tree under the state lock, then executed by
//! the host, undone in the tree when the host refuses. The host's part waits for the way back to the guest; with several
//! users the layout lock is held until the host is done, so that an address is never given out twice (`layout`).
//!
//! | module | what |
//! | --- | --- |
//! | `vma` | the tree: split, merge, totals, free ranges |
//! | `state` | what the state lock guards; plans and their undoing; limits |
//! | `map`, `unmap`, `protect`, `remap`, `brk`, `advise`, `lock` | one plan per call of that name |
//! | `heap` | what guest code may do with the heap on its own |
//! | `library` | what guest code may map on its own |
//! | `layout` | the lock of the layout, and changes that hold it until the host is done |
//! | `account` | what all processes together may take |
//! | `query` | mincore, msync, lookups for others |
//! | `fault` | what a fault means by our tree |
//! | `maps_view` | what /proc tells |
//! | `user_copy` | the one reader and writer of guest pointers |

mod account;
mod advise;
mod brk;
mod fault;
mod heap;
mod layout;
mod library;
mod lock;
mod map;
mod maps_view;
mod protect;
mod query;
mod remap;
mod state;
#[cfg(test)]
mod tests;
mod unmap;
mod user_copy;
mod vma;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use abi::Result;
use base::lock::Mutex;
use platform::{AddressSpace, Context, Note, Prot};
use vfs::Ledger;

use crate::lock_order;

use account::Charge;
use layout::Layout;

pub use account::MemoryAccount;
pub use fault::FaultVerdict;
pub use layout::LayoutGuard;
pub use library::LibraryLoan;
pub use map::MapRequest;
pub use maps_view::{MapLine, MemoryStat};
pub use query::SharedKey;
pub use state::{Bounds, ImageInfo, Limits, MmState, Plan};
pub use user_copy::{UserCStr, UserRef, UserSink, UserSlice, UserSource};
pub use vma::{Content, Vma, VmaFlags, VmaTree, page_range};

/// One address space; shared by threads and vfork children.
pub struct Mm {
    space: Arc<dyn AddressSpace>,
    /// Guest threads that run in it. Only a user makes more users, so one that sees 1 is alone.
    users: AtomicU32,
    /// The descriptor table whose files may be lent to this address space; 0: none so far.
    lender: AtomicU64,
    /// What guest code does to files on its own; `None`: nothing.
    ledger: OnceLock<Option<Arc<Ledger>>>,
    /// Held over a change's host part when there are several users, and over fork.
    layout: Layout,
    charge: Charge,
    /// What its thread was told of the heap is not true any more.
    has_heap_news: AtomicBool,
    state: Mutex<MmState, lock_order::MmState>,
}

impl Mm {
    /// An address space whose mappings `state` describes; the caller is its one user.
    #[must_use]
    pub fn new(
        space: Arc<dyn AddressSpace>,
        state: MmState,
        account: Option<Arc<MemoryAccount>>,
    ) -> Arc<Self> {
        Self::with_charge(space, state, Charge::new(account, 0))
    }

    fn with_charge(space: Arc<dyn AddressSpace>, state: MmState, charge: Charge) -> Arc<Self> {
        charge.settle(state.tree.totals().committed);
        Arc::new(Self {
            space,
            users: AtomicU32::new(1),
            lender: AtomicU64::new(0),
            ledger: OnceLock::new(),
            layout: Layout::default(),
            charge,
            has_heap_news: AtomicBool::new(true),
            state: Mutex::new(state),
        })
    }

    /// Host side of this address space.
    pub fn space(&self) -> &Arc<dyn AddressSpace> {
        &self.space
    }

    /// Another thread (CLONE_VM, vfork included) is about to run here. Before it is made.
    pub fn add_user(&self) {
        self.with_state(MmState::end_heap_loan);
        self.users.fetch_add(1, Ordering::Relaxed);
    }

    /// A thread left: it ended or went to another address space. Returns true for the last one.
    pub fn remove_user(&self) -> bool {
        let before = self.users.fetch_sub(1, Ordering::AcqRel);
        if before == 2 {
            // The other one is alone now.
            self.note_heap_news();
        }
        before == 1
    }

    /// Makes its thread be told of the heap again before it next runs.
    pub fn note_heap_news(&self) {
        self.has_heap_news.store(true, Ordering::SeqCst);
    }

    /// Whether there is something to tell.
    pub fn take_heap_news(&self) -> bool {
        self.has_heap_news.load(Ordering::SeqCst)
            && self.has_heap_news.swap(false, Ordering::SeqCst)
    }

    /// How many threads run here.
    pub fn users(&self) -> u32 {
        self.users.load(Ordering::Acquire)
    }

    /// Whether files of this descriptor table may be lent to this address space: those of the first one that asks, for a number
    /// means one file only.
    pub fn borrows_from(&self, table: u64) -> bool {
        let known = self.lender.compare_exchange(0, table, Ordering::AcqRel, Ordering::Acquire);
        known.map_or_else(|known| known == table, |_| true)
    }

    /// What the guest code of its only thread is entrusted with: files of one descriptor table only, as in [`Mm::borrows_from`].
    pub fn ledger(&self) -> Option<&Arc<Ledger>> {
        self.ledger.get_or_init(|| self.space.ledger().map(Ledger::new)).as_ref()
    }

    /// The same, when there has been something.
    pub fn ledger_so_far(&self) -> Option<&Arc<Ledger>> {
        self.ledger.get()?.as_ref()
    }

    /// Carries out what guest code has done to files on its own.
    pub fn settle_ledger(&self) {
        if let Some(Some(ledger)) = self.ledger.get() {
            ledger.settle_own();
        }
    }

    /// The description of a copy of this address space that the host just made as `space`. Take the layout guard
    /// before the host's fork.
    #[must_use]
    pub fn forked(&self, space: Arc<dyn AddressSpace>, _layout: &LayoutGuard) -> Arc<Self> {
        let state = self.state.lock().forked();
        let charge = self.charge.forked(state.tree.totals().committed);
        Self::with_charge(space, state, charge)
    }

    /// Reads or changes the state; no host call, no await.
    pub fn with_state<R>(&self, f: impl FnOnce(&mut MmState) -> R) -> R {
        let mut state = self.state.lock();
        let before = state.tree.totals().committed;
        let result = f(&mut state);
        let committed = state.tree.totals().committed;
        if committed != before {
            self.charge.settle(committed);
        }
        if state.take_heap_stale() {
            self.note_heap_news();
        }
        result
    }

    /// True when only the calling thread runs here; nobody but itself can change that.
    pub fn is_alone(&self) -> bool {
        self.users() <= 1
    }

    /// As [`Mm::change`] when [`Mm::is_alone`]: nobody sees the time between, so the host's part can wait until the
    /// way back to the guest.
    ///
    /// # Errors
    /// Of the plan; what the host says comes later, as [`platform::Event::DeferredFailed`].
    pub fn change_alone(
        &self,
        context: &mut dyn Context,
        plan: impl FnOnce(&mut MmState) -> Result<Plan>,
    ) -> Result<u64> {
        // What the last change kept is dropped after the lock: it may hold the last reference to a file.
        let (_done, planned) = self.with_state(|state| {
            let done = state.take_deferred();
            let planned = plan(state).map(|plan| {
                state.remember_deferred(plan.undo);
                (plan.value, plan.ops)
            });
            (done, planned)
        });
        let (value, ops) = planned?;
        for op in ops {
            context.defer(op);
        }
        value
    }

    /// The host has carried out this change already.
    pub fn take_note(&self, note: &Note) {
        // Both are dropped after the lock: they may hold the last reference to a file.
        let (_done, planned) = self.with_state(|state| {
            let done = state.take_deferred();
            let planned = match *note {
                Note::Unmapped { addr, len } => state.plan_unmap(addr, len),
                Note::Mapped { addr, len, prot, offset } => {
                    state.follow_map(addr, len, prot, offset)
                }
                Note::MovedBrk { end } => state.follow_brk(end),
                Note::ProtectedForReading { addr, len } => {
                    state.plan_protect(addr, len, Prot::READ.bits(), &Limits::NONE)
                }
                _ => return (done, None),
            };
            (done, Some(planned))
        });
        // One that is refused comes from a guest that has told something else than it did, to its own harm. Trampolines
        // that go with a text stay with the host, where nothing jumps to them; the next mapping there replaces them.
        drop(planned);
    }
}
