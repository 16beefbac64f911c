//! What guest code may do with the heap on its own.
//!
//! brk(2) of a thread that is alone in its address space needs nobody's leave where no limit is near: from the heap's own first
//! page up to the next mapping, or as far as is lent at once. The platform then makes the host's part, and the tree follows with
//! the next event, before anything looks at it. Whatever changes in that range in another way ends the loan: its thread is told
//! again before it next runs ([`crate::heap`]).

use std::ops::RangeInclusive;

use abi::addr::page_up;
use abi::{Errno, Result};
use platform::Heap;

use crate::mm::state::{MmState, Plan, STACK_GUARD_GAP};

/// So much may be taken without a call: we should hear now and then of memory that is in use.
const MOST_LENT: u64 = 64 << 20;
/// So many mappings of the heap are looked at: one as a rule.
const MOST_PIECES: usize = 4;

/// What is lent.
#[derive(Debug, Clone, Default)]
pub(in crate::mm) struct HeapLoan {
    /// Where the break may be moved.
    range: Option<RangeInclusive<u64>>,
    /// It changes, or what it rests on.
    pub is_stale: bool,
}

impl MmState {
    /// The heap, as guest code is to be told; without `lends` it may only know where it ends.
    pub fn lend_heap(&mut self, lends: bool) -> Heap {
        let range = self.heap_range().filter(|_| lends && self.lock_future.is_empty());
        let watched = match &range {
            Some(range) => *range.start()..range.end().saturating_add(2 * STACK_GUARD_GAP),
            None => 0..0,
        };
        self.tree.watch(watched);
        self.heap = HeapLoan { range: range.clone(), is_stale: false };
        Heap { end: self.brk, range: range.unwrap_or(self.brk..=self.brk) }
    }

    pub(in crate::mm) fn end_heap_loan(&mut self) {
        self.tree.watch(0..0);
        self.heap = HeapLoan::default();
    }

    /// Whether what guest code knows of the heap is not so any more.
    pub(in crate::mm) fn take_heap_stale(&mut self) -> bool {
        self.tree.take_touched() | std::mem::take(&mut self.heap.is_stale)
    }

    /// Where the break may be: nothing but the heap there, and that without a hole.
    fn heap_range(&self) -> Option<RangeInclusive<u64>> {
        let end = page_up(self.brk)?;
        let mut start = end;
        for _ in 0..MOST_PIECES {
            let Some(below) = start.checked_sub(1).filter(|_| start > self.brk_start) else {
                break;
            };
            let Some((first, _)) = self.tree.find(below) else { break };
            start = first;
        }
        let start = start.max(self.brk_start);
        let limit = self.most_brk(end).min(end.saturating_add(MOST_LENT));
        (start <= self.brk).then_some(start..=limit)
    }

    /// The break was moved by guest code, which perhaps had no right to.
    pub(in crate::mm) fn follow_brk(&mut self, end: u64) -> Result<Plan> {
        let is_lent = self.heap.range.as_ref().is_some_and(|range| range.contains(&end));
        let is_free = match (page_up(self.brk), page_up(end)) {
            (Some(old), Some(new)) => new <= old || new <= self.most_brk(old),
            _ => false,
        };
        if !(is_lent && is_free) {
            // It is told what is true.
            self.heap.is_stale = true;
            return Err(Errno::EINVAL);
        }
        let plan = self.move_brk(end);
        // That was no news.
        self.take_heap_stale();
        Ok(plan)
    }
}
