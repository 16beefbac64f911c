//! munmap(2).

use std::ops::Range;

use abi::addr::{PAGE_SIZE, page_up};
use abi::{Errno, Result};
use platform::Prot;

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
        let area = self.area_that_goes_with(&range);
        let mut undo = Undo::default();
        self.save(&mut undo, range.clone());
        if let Some((area, _)) = &area {
            self.save(&mut undo, area.clone());
        }
        self.tree.remove(range.clone());
        let plan = Plan::one(0, unmap_op(&range), undo);
        let Some((area, is_mapped)) = area else { return Ok(plan) };
        self.tree.remove(area.clone());
        Ok(if is_mapped { plan.and_try(unmap_op(&area)) } else { plan })
    }

    /// The trampolines (see `rewrite`) of the file whose lowest mapping begins the range, and whether the host has them:
    /// in use, they stay as long as text does that jumps to them.
    fn area_that_goes_with(&self, range: &Range<u64>) -> Option<(Range<u64>, bool)> {
        let below = range.start.checked_sub(1)?..range.start;
        let (start, area) = self.tree.overlapping(below).next()?;
        let pieces = self.tree.overlapping(range.clone());
        let mut text = pieces.filter(|(_, vma)| vma.prot.contains(Prot::EXEC)).peekable();
        let goes = area.is_reserved_area()
            || (text.peek().is_some() && text.all(|(_, vma)| vma.end <= range.end));
        (area.flags.contains(VmaFlags::TRAMPOLINES) && goes)
            .then_some((start..area.end, !area.is_reserved_area()))
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
