//! mprotect(2).

use std::ops::Range;

use abi::addr::{PAGE_SIZE, page_up};
use abi::mman::{PROT_GROWSDOWN, PROT_GROWSUP, PROT_SEM};
use abi::{Errno, Result, UserAddr};
use platform::{HostOp, Prot};

use crate::mm::state::{Limits, MAX_MAP_COUNT, MmState, Plan, Undo, prot_of};
use crate::mm::vma::{Vma, VmaFlags, is_data};

impl MmState {
    /// Plans mprotect(2). As Linux, VMAs before a hole or a refused one are changed although the call fails.
    ///
    /// # Errors
    /// `EINVAL`, `ENOMEM`, `EACCES`; see mprotect(2).
    pub fn plan_protect(
        &mut self,
        addr: u64,
        len: u64,
        word: u32,
        limits: &Limits,
    ) -> Result<Plan> {
        let grows = word & (PROT_GROWSDOWN | PROT_GROWSUP);
        if grows == PROT_GROWSDOWN | PROT_GROWSUP || !addr.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(Plan::done(0));
        }
        let end = page_up(len).and_then(|len| addr.checked_add(len)).filter(|end| *end > addr);
        let end = end.ok_or(Errno::ENOMEM)?;
        if word & !(Prot::all().bits() | PROT_SEM | PROT_GROWSDOWN | PROT_GROWSUP) != 0 {
            return Err(Errno::EINVAL);
        }
        let start = self.protect_start(addr, end, grows)?;
        let prot = prot_of(word);
        let (until, value) = self.protectable(start..end, prot, limits);
        if until == start {
            return value.map(Plan::done);
        }
        let mut undo = Undo::default();
        self.save(&mut undo, start..until);
        self.tree.update(start..until, |vma| vma.prot = prot);
        let op = HostOp::Protect { addr: UserAddr(start), len: until - start, prot };
        let mut plan = Plan::one(0, op, undo);
        plan.value = value;
        Ok(plan)
    }

    fn protect_start(&self, addr: u64, end: u64, grows: u32) -> Result<u64> {
        match grows {
            0 => Ok(addr),
            PROT_GROWSDOWN => {
                let (start, vma) = self.tree.overlapping(addr..end).next().ok_or(Errno::ENOMEM)?;
                if vma.flags.contains(VmaFlags::GROWSDOWN) { Ok(start) } else { Err(Errno::EINVAL) }
            }
            // Nothing grows up on this architecture.
            _ => Err(Errno::EINVAL),
        }
    }

    /// How far the change goes, and how the call ends.
    fn protectable(&self, range: Range<u64>, prot: Prot, limits: &Limits) -> (u64, Result<u64>) {
        let mut at = range.start;
        let (mut new_data, mut committed) = (0, 0);
        for (start, vma) in self.tree.overlapping(range.clone()) {
            if start > at {
                return (at, Err(Errno::ENOMEM));
            }
            if !vma.max_prot.contains(prot) {
                return (at, Err(Errno::EACCES));
            }
            let end = vma.end.min(range.end);
            if becomes_data(vma, prot) {
                new_data += end - at;
                if !vma.flags.contains(VmaFlags::NO_RESERVE) {
                    committed += end - at;
                }
                if self.tree.totals().data.saturating_add(new_data) > limits.data
                    || committed > limits.memory
                {
                    return (at, Err(Errno::ENOMEM));
                }
            }
            let splits = usize::from(start < at) + usize::from(range.end < vma.end);
            if vma.prot != prot && self.tree.len() + splits > MAX_MAP_COUNT {
                return (at, Err(Errno::ENOMEM));
            }
            at = end;
        }
        if at < range.end { (at, Err(Errno::ENOMEM)) } else { (at, Ok(0)) }
    }
}

fn becomes_data(vma: &Vma, prot: Prot) -> bool {
    is_data(prot, vma.flags) && !vma.is_data()
}
