//! mlock(2) and its kin: accounting. Pages are not pinned on the host, so that no guest can take its memory.

use abi::addr::{PAGE_SIZE, page_up};
use abi::mman::MclFlags;
use abi::{Errno, Result};

use crate::mm::state::{Limits, MmState};
use crate::mm::vma::VmaFlags;

impl MmState {
    /// mlock2(2): `flags` is `LOCKED`, with `LOCK_ON_FAULT` for MLOCK_ONFAULT.
    ///
    /// # Errors
    /// `EPERM`, `EINVAL`, `ENOMEM`; see mlock(2).
    pub fn lock_range(
        &mut self,
        addr: u64,
        len: u64,
        flags: VmaFlags,
        limits: &Limits,
    ) -> Result<()> {
        if !limits.may_lock && limits.memlock == 0 {
            return Err(Errno::EPERM);
        }
        let (start, end) = lock_bounds(addr, len)?;
        let already: u64 = self
            .tree
            .overlapping(start..end)
            .filter(|(_, vma)| vma.flags.contains(VmaFlags::LOCKED))
            .map(|(at, vma)| vma.end.min(end) - at.max(start))
            .sum();
        self.check_lock_growth((end - start).saturating_sub(already), limits)
            .map_err(|_| Errno::ENOMEM)?;
        self.set_locked(start, end, flags)
    }

    /// munlock(2).
    ///
    /// # Errors
    /// `EINVAL`, `ENOMEM`; see munlock(2).
    pub fn unlock_range(&mut self, addr: u64, len: u64) -> Result<()> {
        let (start, end) = lock_bounds(addr, len)?;
        self.set_locked(start, end, VmaFlags::empty())
    }

    /// mlockall(2).
    ///
    /// # Errors
    /// `EINVAL`, `EPERM`, `ENOMEM`; see mlockall(2).
    pub fn lock_all(&mut self, flags: MclFlags, limits: &Limits) -> Result<()> {
        if !flags.intersects(MclFlags::CURRENT | MclFlags::FUTURE) {
            return Err(Errno::EINVAL);
        }
        if !limits.may_lock && limits.memlock == 0 {
            return Err(Errno::EPERM);
        }
        let current = flags.contains(MclFlags::CURRENT);
        if current && !limits.may_lock && self.tree.totals().mapped > limits.memlock {
            return Err(Errno::ENOMEM);
        }
        let mut kind = VmaFlags::LOCKED;
        kind.set(VmaFlags::LOCK_ON_FAULT, flags.contains(MclFlags::ONFAULT));
        self.lock_future = if flags.contains(MclFlags::FUTURE) { kind } else { VmaFlags::empty() };
        self.heap.is_stale = true;
        if current {
            self.mark_all(kind);
        }
        Ok(())
    }

    /// munlockall(2).
    pub fn unlock_all(&mut self) {
        self.lock_future = VmaFlags::empty();
        self.heap.is_stale = true;
        self.mark_all(VmaFlags::empty());
    }

    fn mark_all(&mut self, flags: VmaFlags) {
        let end = self.bounds.task_size;
        self.tree.update(0..end, |vma| vma.flags = without_lock(vma.flags) | flags);
    }

    fn set_locked(&mut self, start: u64, end: u64, flags: VmaFlags) -> Result<()> {
        let hole = self.tree.first_hole(start..end);
        let until = hole.unwrap_or(end);
        self.tree.update(start..until, |vma| vma.flags = without_lock(vma.flags) | flags);
        if hole.is_some() { Err(Errno::ENOMEM) } else { Ok(()) }
    }
}

fn without_lock(flags: VmaFlags) -> VmaFlags {
    flags - (VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT)
}

/// Whole pages around a range.
fn lock_bounds(addr: u64, len: u64) -> Result<(u64, u64)> {
    let start = addr & !(PAGE_SIZE - 1);
    let len = len.checked_add(addr - start).and_then(page_up).unwrap_or(0);
    let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
    Ok((start, end))
}
