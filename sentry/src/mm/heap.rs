//! What guest code may do with the heap on its own, and with free room for mappings beside it.
//!
//! brk(2) of a thread that is alone in its address space needs nobody's leave where no limit is near: from the heap's own first
//! page up to the next mapping, or as far as is lent at once. The platform then makes the host's part, and the tree follows with
//! the next event, before anything looks at it. Whatever changes in that range in another way ends the loan: its thread is told
//! again before it next runs ([`crate::heap`]). In the same way it has memory without a file mapped where the next mappings would go: a
//! megabyte at most, from its end on.

use std::ops::{Range, RangeInclusive};

use abi::addr::page_up;
use abi::mman::MapFlags;
use abi::{Errno, Result};
use platform::Heap;

use crate::mm::map::MapRequest;
use crate::mm::state::{Limits, MmState, Plan, STACK_GUARD_GAP};

/// So much may be taken without a call: we should hear now and then of memory that is in use.
const MOST_LENT: u64 = 64 << 20;
/// So much room is there at least for mappings, and is given away at once.
const LEAST_ROOM: u64 = 256 << 10;
const MOST_ROOM: u64 = 1 << 20;
/// So many mappings of the heap are looked at: one as a rule.
const MOST_PIECES: usize = 4;

/// What is lent.
#[derive(Debug, Clone, Default)]
pub(in crate::mm) struct HeapLoan {
    /// Where the break may be moved.
    range: Option<RangeInclusive<u64>>,
    /// Free memory beside it, of which guest code maps parts from its end on.
    room: Range<u64>,
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
        let room = if lends && self.may_lend_map() { self.free_room() } else { 0..0 };
        let room = if are_apart(&room, &watched) { room } else { 0..0 };
        self.tree.watch([watched, room.clone()]);
        self.heap = HeapLoan { range: range.clone(), room: room.clone(), is_stale: false };
        Heap { end: self.brk, range: range.unwrap_or(self.brk..=self.brk), room }
    }

    /// Where the next mappings would go.
    fn free_room(&mut self) -> Range<u64> {
        let Ok(start) = self.free_range(0, LEAST_ROOM, false, false) else { return 0..0 };
        let end = start + LEAST_ROOM;
        let below = self.tree.end_below(end).max(self.bounds.min_addr);
        below.max(end.saturating_sub(MOST_ROOM))..end
    }

    /// Guest code has mapped memory without a file, or says so.
    pub(in crate::mm) fn follow_room(&mut self, addr: u64, len: u64, prot: u32) -> Result<Plan> {
        let Range { start, end } = self.heap.room;
        let is_last = addr >= start && addr.checked_add(len) == Some(end);
        if !is_last || !self.tree.is_free(addr..end) {
            // It is told what is true.
            self.heap.is_stale = true;
            return Err(Errno::EINVAL);
        }
        let flags = MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED;
        let request = MapRequest {
            addr,
            len,
            prot,
            flags,
            file: None,
            offset: 0,
            noexec: false,
            shared_text: None,
        };
        let plan = self.plan_map(&request, None, &Limits::NONE);
        self.heap.room.end = addr;
        // That was no news.
        self.take_heap_stale();
        self.tree.watch_less(1, start..addr);
        plan
    }

    pub(in crate::mm) fn end_heap_loan(&mut self) {
        self.tree.watch([0..0, 0..0]);
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

fn are_apart(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start >= b.end || b.start >= a.end
}
