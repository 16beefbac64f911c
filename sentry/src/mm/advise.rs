//! madvise(2): what is passed to the host, what is ours to remember.

use std::ops::Range;

use abi::addr::{PAGE_SIZE, page_up};
use abi::mman::advice;
use abi::{Errno, Result, UserAddr};
use platform::HostOp;

use crate::mm::state::{MmState, Plan, Undo};
use crate::mm::vma::{Content, Vma, VmaFlags};

/// How an advice is carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Flags of the VMA only: set, clear.
    Remember(VmaFlags, VmaFlags),
    /// Flags of the VMA, and the host must know.
    RememberAndTell(VmaFlags, VmaFlags),
    /// The host does it; a failure is the guest's.
    Tell,
    /// The host may do it.
    Hint,
}

fn way(advice: i32) -> Option<Way> {
    let none = VmaFlags::empty();
    Some(match advice {
        advice::NORMAL => Way::Remember(none, VmaFlags::SEQUENTIAL | VmaFlags::RANDOM),
        advice::RANDOM => Way::Remember(VmaFlags::RANDOM, VmaFlags::SEQUENTIAL),
        advice::SEQUENTIAL => Way::Remember(VmaFlags::SEQUENTIAL, VmaFlags::RANDOM),
        advice::DONTDUMP => Way::Remember(VmaFlags::DONT_DUMP, none),
        advice::DODUMP => Way::Remember(none, VmaFlags::DONT_DUMP),
        advice::HUGEPAGE => Way::RememberAndTell(VmaFlags::HUGE, VmaFlags::NO_HUGE),
        advice::NOHUGEPAGE => Way::RememberAndTell(VmaFlags::NO_HUGE, VmaFlags::HUGE),
        advice::DONTFORK => Way::RememberAndTell(VmaFlags::DONT_FORK, none),
        advice::DOFORK => Way::RememberAndTell(none, VmaFlags::DONT_FORK),
        advice::WIPEONFORK => Way::RememberAndTell(VmaFlags::WIPE_ON_FORK, none),
        advice::KEEPONFORK => Way::RememberAndTell(none, VmaFlags::WIPE_ON_FORK),
        advice::DONTNEED
        | advice::DONTNEED_LOCKED
        | advice::FREE
        | advice::POPULATE_READ
        | advice::POPULATE_WRITE => Way::Tell,
        advice::WILLNEED | advice::COLD | advice::PAGEOUT | advice::COLLAPSE => Way::Hint,
        _ => return None,
    })
}

impl MmState {
    /// Plans madvise(2).
    ///
    /// # Errors
    /// `EINVAL` for unknown advice, bad ranges or VMAs that it does not fit; `ENOMEM` for holes (the rest is done).
    pub fn plan_advise(&mut self, addr: u64, len: u64, advice: i32) -> Result<Plan> {
        let way = way(advice).ok_or(Errno::EINVAL)?;
        if !addr.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let len = page_up(len).ok_or(Errno::EINVAL)?;
        let end = addr.checked_add(len).ok_or(Errno::EINVAL)?;
        if len == 0 {
            return Ok(Plan::done(0));
        }
        if !self.is_guest_range(addr, len) {
            return Err(Errno::ENOMEM);
        }
        let refused = self.tree.overlapping(addr..end).any(|(_, vma)| !fits(advice, vma));
        if refused {
            return Err(Errno::EINVAL);
        }
        let populates = matches!(advice, advice::POPULATE_READ | advice::POPULATE_WRITE);
        let hole = self.tree.first_hole(addr..end);
        if populates && hole.is_some() {
            return Err(Errno::ENOMEM);
        }
        let mut plan = self.advised(addr..end, advice, way);
        if hole.is_some() {
            plan.value = Err(Errno::ENOMEM);
        }
        Ok(plan)
    }

    fn advised(&mut self, range: Range<u64>, advice: i32, way: Way) -> Plan {
        let op =
            HostOp::Advise { addr: UserAddr(range.start), len: range.end - range.start, advice };
        match way {
            Way::Remember(set, clear) => {
                self.tree.update(range, |vma| vma.flags = (vma.flags | set) - clear);
                Plan::done(0)
            }
            Way::RememberAndTell(set, clear) => {
                let mut undo = Undo::default();
                self.save(&mut undo, range.clone());
                self.tree.update(range, |vma| vma.flags = (vma.flags | set) - clear);
                Plan::one(0, op, undo)
            }
            // Holes make the host say ENOMEM after it did the rest, as our own answer does.
            Way::Tell if self.tree.first_hole(range.clone()).is_none() => {
                Plan::one(0, op, Undo::default())
            }
            Way::Tell | Way::Hint => Plan::one(0, op, Undo::optional()),
        }
    }
}

fn fits(advice: i32, vma: &Vma) -> bool {
    let private_anonymous = matches!(vma.content, Content::Anonymous);
    match advice {
        advice::DONTNEED => !vma.flags.contains(VmaFlags::LOCKED),
        advice::FREE | advice::WIPEONFORK => private_anonymous,
        _ => true,
    }
}
