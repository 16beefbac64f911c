//! munmap(2).

use std::ops::Range;

use abi::addr::{PAGE_SIZE, page_up};
use abi::{Errno, Result};

use crate::mm::state::{MAX_MAP_COUNT, MmState, Plan, Undo, unmap_op};

impl MmState {
    /// Plans munmap(2).
    ///
    /// # Errors
    /// `EINVAL` for a bad range, `ENOMEM` when the split would make too many VMAs.
    pub fn plan_unmap(&mut self, addr: u64, len: u64) -> Result<Plan> {
        let range = self.unmap_range(addr, len)?;
        let mut pieces = self.tree.overlapping(range.clone());
        let Some((start, vma)) = pieces.next() else { return Ok(Plan::done(0)) };
        let splits = start < range.start && range.end < vma.end;
        drop(pieces);
        if splits && self.tree.len() >= MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let mut undo = Undo::default();
        self.save(&mut undo, range.clone());
        self.tree.remove(range.clone());
        Ok(Plan::one(0, unmap_op(&range), undo))
    }

    fn unmap_range(&self, addr: u64, len: u64) -> Result<Range<u64>> {
        if !addr.is_multiple_of(PAGE_SIZE) || !self.is_guest_range(addr, len) {
            return Err(Errno::EINVAL);
        }
        let len = page_up(len).filter(|len| *len > 0).ok_or(Errno::EINVAL)?;
        // The last page may round up over the guest's end, where nothing of the guest's can be.
        Ok(addr..(addr + len).min(self.bounds.task_size))
    }
}
