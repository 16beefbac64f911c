//! mremap(2): shrink, grow in place, move, duplicate.

use std::ops::Range;

use abi::addr::{PAGE_SIZE, page_up};
use abi::mman::MremapFlags;
use abi::{Errno, Result, UserAddr};
use platform::{Backing, HostOp};

use crate::mm::state::{Limits, MAX_MAP_COUNT, MmState, Plan, Undo, unmap_op};
use crate::mm::vma::{Content, Vma, VmaFlags};

/// The arguments of mremap(2), lengths in whole pages.
#[derive(Debug, Clone, Copy)]
struct Move {
    addr: u64,
    old_len: u64,
    new_len: u64,
    flags: MremapFlags,
}

impl MmState {
    /// Plans mremap(2).
    ///
    /// # Errors
    /// `EINVAL`, `EFAULT`, `ENOMEM`, `EAGAIN`; see mremap(2).
    pub fn plan_remap(
        &mut self,
        addr: u64,
        old_len: u64,
        new_len: u64,
        flags: MremapFlags,
        new_addr: u64,
        limits: &Limits,
    ) -> Result<Plan> {
        let may_move = flags.contains(MremapFlags::MAYMOVE);
        let keeps_old = flags.contains(MremapFlags::DONTUNMAP);
        let bad_flags = (flags.contains(MremapFlags::FIXED) && !may_move)
            || (keeps_old && (!may_move || old_len != new_len));
        if bad_flags || !addr.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let old_len = page_up(old_len).ok_or(Errno::EINVAL)?;
        let new_len = page_up(new_len).filter(|len| *len > 0).ok_or(Errno::EINVAL)?;
        let request = Move { addr, old_len, new_len, flags };
        if flags.intersects(MremapFlags::FIXED | MremapFlags::DONTUNMAP) {
            return self.remap_to(request, new_addr, limits);
        }
        let (_, vma) = self.tree.find(addr).ok_or(Errno::EFAULT)?;
        let end = vma.end;
        if old_len >= new_len && old_len > 0 {
            return self.remap_shrink(request);
        }
        self.check_resize(request, limits)?;
        if old_len == end - addr && self.can_extend(end, new_len - old_len) {
            return Ok(self.remap_extend(request, end));
        }
        if !may_move {
            return Err(Errno::ENOMEM);
        }
        if self.tree.len() + 2 > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let anonymous = !matches!(vma_at(self, addr)?.content, Content::File { .. });
        let target = self.free_range(0, new_len, false, anonymous)?;
        self.remap_move(request, target)
    }

    /// MREMAP_FIXED and MREMAP_DONTUNMAP.
    fn remap_to(&mut self, mut request: Move, hint: u64, limits: &Limits) -> Result<Plan> {
        let Move { addr, old_len, new_len, flags } = request;
        let fixed = flags.contains(MremapFlags::FIXED);
        self.tree.find(addr).ok_or(Errno::EFAULT)?;
        if !hint.is_multiple_of(PAGE_SIZE) || !self.is_guest_range(hint, new_len) {
            return Err(Errno::EINVAL);
        }
        let overlap = addr < hint.saturating_add(new_len) && hint < addr.saturating_add(old_len);
        if overlap {
            return Err(Errno::EINVAL);
        }
        if fixed && hint < self.bounds.min_addr {
            return Err(Errno::EPERM);
        }
        if self.tree.len() + 2 > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let surplus = addr + new_len..addr.saturating_add(old_len);
        if !surplus.is_empty() && !self.is_guest_range(surplus.start, surplus.end - surplus.start) {
            // As munmap(2), which Linux calls for it.
            return Err(Errno::EINVAL);
        }
        request.old_len = old_len.min(new_len);
        self.check_resize(request, limits)?;
        if flags.contains(MremapFlags::DONTUNMAP) {
            self.check_growth(new_len, 0, false, limits)?;
        }
        let target = if fixed { hint } else { self.free_range(hint, new_len, false, false)? };
        if surplus.start >= surplus.end {
            return self.remap_move(request, target);
        }
        // Linux unmaps the surplus first, and it stays unmapped whatever comes next.
        self.tree.remove(surplus.clone());
        let mut plan = self.remap_move(request, target)?;
        plan.ops.insert(0, unmap_op(&surplus));
        Ok(plan)
    }

    fn remap_shrink(&mut self, request: Move) -> Result<Plan> {
        let Move { addr, old_len, new_len, .. } = request;
        let end = addr.checked_add(old_len).ok_or(Errno::EINVAL)?;
        let tail = addr + new_len..end;
        if tail.is_empty() {
            return Ok(Plan::done(addr));
        }
        let mut plan = self.plan_unmap(tail.start, tail.end - tail.start)?;
        plan.value = Ok(addr);
        Ok(plan)
    }

    /// The kernel's `check_prep_vma`: may this much of this VMA become that much.
    fn check_resize(&self, request: Move, limits: &Limits) -> Result<()> {
        let Move { addr, old_len, new_len, .. } = request;
        let (start, vma) = self.tree.find(addr).ok_or(Errno::EFAULT)?;
        if old_len == 0 && !vma.is_shared() {
            return Err(Errno::EINVAL);
        }
        if old_len > vma.end - addr {
            return Err(Errno::EFAULT);
        }
        if new_len <= old_len {
            return Ok(());
        }
        if let Content::File { offset, .. } = vma.content {
            let at = offset.checked_add(addr - start).ok_or(Errno::EINVAL)?;
            at.checked_add(new_len).ok_or(Errno::EINVAL)?;
        }
        let more = new_len - old_len;
        if vma.flags.contains(VmaFlags::LOCKED) {
            self.check_lock_growth(more, limits)?;
        }
        self.check_growth(more, 0, vma.is_data(), limits)
    }

    fn can_extend(&self, end: u64, more: u64) -> bool {
        self.is_guest_range(end, more) && self.tree.is_free(end..end + more)
    }

    fn remap_extend(&mut self, request: Move, end: u64) -> Plan {
        let Move { addr, old_len, new_len, .. } = request;
        let added = end..addr + new_len;
        let mut undo = Undo::default();
        self.save(&mut undo, added.clone());
        let Some((start, vma)) = self.tree.find(addr) else { return Plan::done(addr) };
        let mut grown = vma.clone();
        grown.content = vma.content.advanced(end - start);
        grown.end = added.end;
        // Private anonymous memory is mapped next to the old range: the host may hold that in several pieces,
        // which its mremap would refuse. Others must go on in the same object.
        let op = if matches!(grown.content, Content::Anonymous) {
            HostOp::Map {
                addr: UserAddr(added.start),
                len: added.end - added.start,
                prot: grown.prot,
                shared: false,
                noreserve: grown.flags.contains(VmaFlags::NO_RESERVE),
                backing: Backing::Anonymous,
            }
        } else {
            remap_op(request, addr, old_len)
        };
        self.tree.insert(end, grown);
        self.note_peak();
        Plan::one(addr, op, undo)
    }

    fn remap_move(&mut self, request: Move, target: u64) -> Result<Plan> {
        let Move { addr, old_len, new_len, flags } = request;
        let (start, vma) = self.tree.find(addr).ok_or(Errno::EFAULT)?;
        let moved = Vma {
            end: target + new_len,
            content: vma.content.advanced(addr - start),
            ..vma.clone()
        };
        let old: Range<u64> = addr..addr + old_len;
        let mut undo = Undo::default();
        self.save(&mut undo, old.clone());
        self.save(&mut undo, target..target + new_len);
        self.tree.remove(target..target + new_len);
        if flags.contains(MremapFlags::DONTUNMAP) {
            // As Linux: what stays behind is no longer locked.
            self.tree.update(old, |vma| vma.flags -= VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT);
        } else {
            self.tree.remove(old);
        }
        self.tree.insert(target, moved);
        self.note_peak();
        Ok(Plan::one(target, remap_op(request, target, old_len), undo))
    }
}

fn vma_at(state: &MmState, addr: u64) -> Result<&Vma> {
    state.tree.find(addr).map(|(_, vma)| vma).ok_or(Errno::EFAULT)
}

fn remap_op(request: Move, new_addr: u64, len: u64) -> HostOp {
    HostOp::Remap {
        addr: UserAddr(request.addr),
        len,
        new_addr: UserAddr(new_addr),
        new_len: request.new_len,
        keep_old: request.flags.contains(MremapFlags::DONTUNMAP),
    }
}
