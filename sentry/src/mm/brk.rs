//! brk(2).

use abi::UserAddr;
use abi::addr::{PAGE_SIZE, page_up};
use platform::{Backing, HostOp, Prot};

use crate::mm::state::{Limits, MmState, Plan, STACK_GUARD_GAP, Undo, unmap_op};
use crate::mm::vma::{Content, Vma, VmaFlags};

impl MmState {
    /// Plans brk(2): the new break, or the old one when it cannot be moved. Never an error.
    pub fn plan_brk(&mut self, new: u64, limits: &Limits) -> Plan {
        if self.may_move_brk(new, limits) { self.move_brk(new) } else { Plan::done(self.brk) }
    }

    fn may_move_brk(&self, new: u64, limits: &Limits) -> bool {
        let (Some(old_end), Some(new_end)) = (page_up(self.brk), page_up(new)) else {
            return false;
        };
        // RLIMIT_DATA counts the data segment and the heap.
        // A strange executable's data may end before it starts.
        let data = (self.image.data.end.saturating_sub(self.image.data.start))
            .saturating_add(new.saturating_sub(self.brk_start));
        if new < self.brk_start || data > limits.data {
            return false;
        }
        if new_end <= old_end {
            // Who has unmapped all that would go finds the end where it was.
            return new_end == old_end || !self.tree.is_free(new_end..old_end);
        }
        let len = new_end - old_end;
        let is_locked = self.lock_future.contains(VmaFlags::LOCKED);
        new_end <= self.most_brk(old_end)
            && self.check_map_count().is_ok()
            && self.check_growth(len, 0, true, limits).is_ok()
            && (!is_locked || self.check_lock_growth(len, limits).is_ok())
    }

    /// How far a heap that ends at this page could grow: a page stays free behind it. Less than `end` where it cannot.
    pub(in crate::mm) fn most_brk(&self, end: u64) -> u64 {
        if self.tree.find(end).is_some() {
            return end.saturating_sub(PAGE_SIZE);
        }
        let next = self.tree.next_from(end).map_or(self.bounds.task_size, |(start, vma)| {
            let grows_down = vma.flags.contains(VmaFlags::GROWSDOWN);
            if grows_down { start.saturating_sub(STACK_GUARD_GAP) } else { start }
        });
        next.saturating_sub(PAGE_SIZE)
    }

    /// Moves the break to where it may be.
    pub(in crate::mm) fn move_brk(&mut self, new: u64) -> Plan {
        let (Some(old_end), Some(new_end)) = (page_up(self.brk), page_up(new)) else {
            return Plan::done(self.brk);
        };
        let mut undo = Undo::default();
        undo.brk(self.brk);
        self.brk = new;
        self.heap.is_stale = true;
        if new_end < old_end {
            self.save(&mut undo, new_end..old_end);
            self.tree.remove(new_end..old_end);
            return Plan::one(new, unmap_op(&(new_end..old_end)), undo);
        }
        if new_end == old_end {
            return Plan::done(new);
        }
        let prot = Prot::READ | Prot::WRITE;
        self.save(&mut undo, old_end..new_end);
        let content = Content::Anonymous;
        let vma =
            Vma { end: new_end, prot, max_prot: Prot::all(), flags: self.lock_future, content };
        self.tree.insert(old_end, vma);
        self.note_peak();
        let op = HostOp::Map {
            addr: UserAddr(old_end),
            len: new_end - old_end,
            prot,
            shared: false,
            noreserve: false,
            backing: Backing::Anonymous,
        };
        Plan::one(new, op, undo)
    }
}
