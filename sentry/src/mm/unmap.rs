//! munmap(2).

use std::ops::Range;

use abi::addr::{PAGE_SIZE, page_up};
use abi::{Errno, Result};

use crate::mm::state::{MAX_MAP_COUNT, MmState, Plan, Undo, unmap_op};
use crate::mm::vma::VmaFlags;

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
        let plan = Plan::one(0, unmap_op(&range), undo);
        let Some(area) = self.area_below(range.start) else { return Ok(plan) };
        self.tree.remove(area.clone());
        // For a reserved one the host has nothing to do, and says so.
        Ok(plan.and_try(unmap_op(&area)))
    }

    /// The trampolines of a file whose lowest mapping began at `start`, see `rewrite`.
    fn area_below(&self, start: u64) -> Option<Range<u64>> {
        let (area, vma) = self.tree.overlapping(start.checked_sub(1)?..start).next()?;
        vma.flags.contains(VmaFlags::TRAMPOLINES).then_some(area..vma.end)
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
