//! What is lent of the heap, and how the tree follows.

use super::*;
use crate::mm::state::STACK_GUARD_GAP;

const HEAP: u64 = 0x100_0000;
const LENT: u64 = 64 << 20;

/// A heap of 4 pages.
fn with_heap() -> MmState {
    let mut state = state();
    (state.brk_start, state.brk) = (HEAP, HEAP);
    assert_eq!(state.plan_brk(HEAP + 4 * P, &Limits::NONE).value, Ok(HEAP + 4 * P));
    state
}

fn lent(state: &mut MmState) -> (u64, u64) {
    let heap = state.lend_heap(true);
    assert_eq!(heap.end, state.brk);
    assert!(!state.take_heap_stale(), "it was told just now");
    (*heap.range.start(), *heap.range.end())
}

fn follows(state: &mut MmState, end: u64) -> bool {
    let before: Vec<_> = state.tree.iter().map(|(start, vma)| (start, vma.end)).collect();
    let did = state.follow_brk(end).is_ok();
    assert_eq!(state.brk == end, did);
    let after: Vec<_> = state.tree.iter().map(|(start, vma)| (start, vma.end)).collect();
    assert!(did || before == after);
    assert_eq!(state.take_heap_stale(), !did, "what was wrong is told again");
    did
}

#[test]
fn it_is_lent_up_to_what_is_ahead() {
    let mut state = with_heap();
    assert_eq!(lent(&mut state), (HEAP, HEAP + 4 * P + LENT));
    let _ = map(&mut state, HEAP + 90 * P, P, PRIVATE | MapFlags::FIXED);
    assert!(state.take_heap_stale());
    assert_eq!(lent(&mut state), (HEAP, HEAP + 89 * P));
    let _ = map(&mut state, HEAP + 3 * P, 2 * P, PRIVATE | MapFlags::FIXED);
    assert!(state.take_heap_stale());
    assert_eq!(lent(&mut state), (HEAP, HEAP + 3 * P), "it must not grow");
    let heap = state.lend_heap(false);
    assert_eq!((heap.end, heap.range), (HEAP + 4 * P, HEAP + 4 * P..=HEAP + 4 * P));
}

#[test]
fn a_stack_ahead_keeps_its_gap() {
    let mut state = with_heap();
    let flags = PRIVATE | MapFlags::FIXED | MapFlags::GROWSDOWN;
    let _ = map(&mut state, HEAP + 900 * P, P, flags);
    assert_eq!(lent(&mut state), (HEAP, HEAP + 900 * P - STACK_GUARD_GAP - P));
    let _ = map(&mut state, HEAP + 899 * P, P, flags);
    assert!(state.take_heap_stale(), "near is too near");
}

#[test]
fn not_over_holes() {
    let mut state = with_heap();
    let _ = state.plan_unmap(HEAP + P, P);
    assert_eq!(lent(&mut state).0, HEAP + 2 * P);
    let _ = state.plan_unmap(HEAP + 3 * P, P);
    assert!(state.take_heap_stale());
    assert_eq!(lent(&mut state).0, HEAP + 4 * P);
}

#[test]
fn locked_memory_is_not_lent() {
    let mut state = with_heap();
    assert_ne!(lent(&mut state).0, HEAP + 4 * P);
    state.lock_all(MclFlags::FUTURE, &Limits::NONE).unwrap();
    assert!(state.take_heap_stale());
    assert_eq!(lent(&mut state), (HEAP + 4 * P, HEAP + 4 * P));
    state.unlock_all();
    assert!(state.take_heap_stale());
}

#[test]
fn the_tree_follows_what_was_lent() {
    let mut state = with_heap();
    let _ = lent(&mut state);
    for pages in [9, 2, 3, 0, 0, 77] {
        assert!(follows(&mut state, HEAP + pages * P));
        assert_eq!(state.tree.totals().mapped, pages * P);
    }
    assert!(follows(&mut state, HEAP + 1));
    assert_eq!(state.tree.totals().mapped, P);
    // Elsewhere nothing is noticed.
    let _ = map(&mut state, 0x4000_0000, P, PRIVATE | MapFlags::FIXED);
    assert!(!state.take_heap_stale());
}

#[test]
fn it_does_not_follow_further() {
    let mut state = with_heap();
    assert!(!follows(&mut state, HEAP + 5 * P), "nothing was lent");
    let (start, limit) = lent(&mut state);
    for end in [0, start - 1, limit + 1, 1 << 47, 1 << 63, u64::MAX] {
        assert!(!follows(&mut state, end), "{end:#x}");
    }
    // What the guest has mapped since, or says that it has unmapped, though it was told otherwise.
    let _ = map(&mut state, HEAP + 9 * P, P, PRIVATE | MapFlags::FIXED);
    assert!(state.take_heap_stale());
    assert!(!follows(&mut state, HEAP + 20 * P));
    assert!(follows(&mut state, HEAP + 8 * P));
    let _ = lent(&mut state);
    state.end_heap_loan();
    assert!(!follows(&mut state, HEAP + 5 * P), "it is over");
    let child = with_heap().forked();
    assert!(!follows(&mut { child }, HEAP + 5 * P), "it was lent another");
}

/// What guest code maps on its own goes where calls would have it go, and nowhere else.
#[test]
fn the_tree_follows_into_the_room_beside_it() {
    let mut state = with_heap();
    let top = map(&mut state, 0, P, PRIVATE).unwrap();
    let room = state.lend_heap(true).room;
    assert_eq!((room.start, room.end), (top - (1 << 20), top));
    for addr in [room.end, room.end - 2 * P, room.start - P, 0, u64::MAX - P + 1, 1 << 47] {
        let before = state.tree.totals();
        assert!(state.follow_map(addr, P, RW, None).is_err(), "{addr:#x}");
        assert_eq!(state.tree.totals(), before);
        assert!(state.take_heap_stale(), "it is told again");
    }
    for pages in 1..4 {
        let taken = state.tree.totals().mapped;
        let addr = top - (1..=pages).sum::<u64>() * P;
        assert!(state.follow_map(addr, pages * P, RW, None).is_ok());
        assert_eq!(state.tree.totals().mapped, taken + pages * P);
        assert!(!state.take_heap_stale(), "that was no news");
    }
    assert!(state.follow_map(room.start, P, RW, Some(0)).is_err(), "no file was lent");
    let next = map(&mut state, 0, P, PRIVATE).unwrap();
    assert_eq!(next, top - 7 * P, "below what was mapped");
    assert!(state.take_heap_stale());
    let room = state.lend_heap(true).room;
    assert_eq!(room.end, next);
    assert!(state.lend_heap(false).room.is_empty());
    assert!(state.follow_map(next - P, P, RW, None).is_err(), "nothing was lent");
    let _ = state.lend_heap(true);
    state.end_heap_loan();
    assert!(state.follow_map(next - P, P, RW, None).is_err(), "it is over");
}

#[test]
fn there_is_no_room_where_memory_is_locked() {
    let mut state = with_heap();
    assert!(!state.lend_heap(true).room.is_empty());
    state.lock_all(MclFlags::FUTURE, &Limits::NONE).unwrap();
    assert!(state.lend_heap(true).room.is_empty());
}
