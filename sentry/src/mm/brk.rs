//! brk(2).

use abi::UserAddr;
use abi::addr::page_up;
use platform::{Backing, HostOp, Prot};

use crate::mm::state::{Limits, MmState, Plan, STACK_GUARD_GAP, Undo, unmap_op};
use crate::mm::vma::{Content, Vma, VmaFlags};

impl MmState {
    /// Plans brk(2): the new break, or the old one when it cannot be moved. Never an error.
    pub fn plan_brk(&mut self, new: u64, limits: &Limits) -> Plan {
        let stay = Plan::done(self.brk);
        let (Some(old_end), Some(new_end)) = (page_up(self.brk), page_up(new)) else { return stay };
        // RLIMIT_DATA counts the data segment and the heap.
        // A strange executable's data may end before it starts.
        let data = (self.image.data.end.saturating_sub(self.image.data.start))
            .saturating_add(new.saturating_sub(self.brk_start));
        if new < self.brk_start || data > limits.data {
            return stay;
        }
        let mut undo = Undo::default();
        undo.brk(self.brk);
        if new_end == old_end {
            self.brk = new;
            return Plan::done(new);
        }
        if new_end < old_end {
            self.save(&mut undo, new_end..old_end);
            self.tree.remove(new_end..old_end);
            self.brk = new;
            return Plan::one(new, unmap_op(&(new_end..old_end)), undo);
        }
        let len = new_end - old_end;
        let flags = self.lock_future;
        let refused = !self.is_guest_range(old_end, len)
            || !self.tree.is_free(old_end..new_end.saturating_add(STACK_GUARD_GAP))
            || self.check_map_count().is_err()
            || self.check_growth(len, 0, true, limits).is_err()
            || (flags.contains(VmaFlags::LOCKED) && self.check_lock_growth(len, limits).is_err());
        if refused {
            return stay;
        }
        let prot = Prot::READ | Prot::WRITE;
        self.save(&mut undo, old_end..new_end);
        let vma =
            Vma { end: new_end, prot, max_prot: Prot::all(), flags, content: Content::Anonymous };
        self.tree.insert(old_end, vma);
        self.note_peak();
        self.brk = new;
        let op = HostOp::Map {
            addr: UserAddr(old_end),
            len,
            prot,
            shared: false,
            noreserve: false,
            backing: Backing::Anonymous,
        };
        Plan::one(new, op, undo)
    }
}
