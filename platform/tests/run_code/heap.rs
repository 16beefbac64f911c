//! brk(2) within what is lent.

use std::ops::RangeInclusive;

use abi::UserAddr;
use platform::{Context, Event, Heap, Note, Prot};

use crate::harness::{block_on, map, next};
use crate::memory_calls::{NOTE_COUNT, NOTED, NOTES};
use crate::start_calls::{call, caller};

const BRK: u64 = 12;
const MUNMAP: u64 = 11;
const HEAP: u64 = 0x80_0000;
const PAGE: u64 = 4096;

/// With a heap from [`HEAP`] on that ends after 4 pages.
fn caller_with_heap(range: RangeInclusive<u64>) -> Option<Box<dyn Context>> {
    let (mut context, _) = caller()?;
    let pages = map(HEAP, 4 * PAGE, Prot::READ | Prot::WRITE);
    block_on(context.execute(vec![pages])).unwrap().unwrap();
    context.kicker().tell_heap(Some(&Heap { end: HEAP + 4 * PAGE, range, room: 0..0 }));
    Some(context)
}

fn is_there(context: &dyn Context, page: u64) -> bool {
    context.space().read(UserAddr(HEAP + page * PAGE), &mut [0]) == 1
}

fn moved(end: u64) -> Note {
    Note::MovedBrk { end }
}

#[test]
fn the_end_of_the_heap_is_told() {
    let Some((mut context, _)) = caller() else { return };
    let context = &mut *context;
    assert_eq!(call(context, BRK, 0, 0), None, "nothing was said yet");
    let end = 0x123_4000;
    context.kicker().tell_heap(Some(&Heap { end, range: end..=end, room: 0..0 }));
    assert_eq!(call(context, BRK, 0, 0), Some(end));
    assert_eq!(call(context, BRK, end, 0), Some(end));
    assert_eq!(call(context, BRK, end + PAGE, 0), None, "moving it is the sentry's");
    assert_eq!(call(context, BRK, end - 1, 0), None);
    context.kicker().tell_heap(None);
    assert_eq!(call(context, BRK, 0, 0), None);
    assert_eq!(context.take_notes(), []);
}

#[test]
fn it_is_moved_within_what_is_lent() {
    let Some(mut context) = caller_with_heap(HEAP + 5..=HEAP + 9 * PAGE) else { return };
    let context = &mut *context;
    for (end, pages) in [(8 * PAGE + 1, 9), (9 * PAGE, 9), (5, 1), (PAGE, 1), (6 * PAGE - 1, 6)] {
        let end = HEAP + end;
        assert_eq!(call(context, BRK, end, 0), Some(end));
        assert_eq!(call(context, BRK, 0, 0), Some(end));
        assert_eq!(context.take_notes(), [moved(end)]);
        assert!(is_there(context, pages - 1) && !is_there(context, pages), "{end:#x}");
    }
    for beyond in [HEAP, HEAP + 4, HEAP + 9 * PAGE + 1, 1, 1 << 47, u64::MAX] {
        assert_eq!(call(context, BRK, beyond, 0), None, "{beyond:#x}");
    }
    context.kicker().fix_heap();
    assert_eq!(call(context, BRK, HEAP + PAGE, 0), None, "taken back");
    assert_eq!(call(context, BRK, 0, 0), Some(HEAP + 6 * PAGE - 1), "but known");
    assert_eq!(context.take_notes(), []);
}

/// All moves of the guest between two events.
fn moves(context: &mut dyn Context, ends: &[u64]) -> Vec<Note> {
    let mut notes = Vec::new();
    for end in ends {
        // The event between has taken the notes: the shim finds its list as it was.
        let count = u64::try_from(notes.len()).unwrap();
        context.space().write(UserAddr(NOTE_COUNT), &count.to_le_bytes());
        let bits = if count == 0 { 0 } else { shim_abi::kind::NOTED };
        context.space().write(UserAddr(NOTED), &bits.to_le_bytes());
        assert_eq!(call(context, BRK, HEAP + end * PAGE, 0), Some(HEAP + end * PAGE));
        notes = context.take_notes();
    }
    notes
}

#[test]
fn moves_in_one_direction_are_one_note() {
    let Some(mut context) = caller_with_heap(HEAP..=HEAP + 20 * PAGE) else { return };
    let notes = moves(&mut *context, &[5, 6, 9, 7, 3, 4, 8, 2, 1]);
    let expected = [9, 3, 8, 1].map(|end| moved(HEAP + end * PAGE));
    assert_eq!(notes, expected);
}

#[test]
fn a_piece_of_the_heap_is_not_unmapped_unheard() {
    let Some(mut context) = caller_with_heap(HEAP..=HEAP + 9 * PAGE) else { return };
    let context = &mut *context;
    let near = map(HEAP - 2 * PAGE, 2 * PAGE, Prot::READ);
    let behind = map(HEAP + 4 * PAGE, 2 * PAGE, Prot::READ);
    block_on(context.execute(vec![near, behind])).unwrap().unwrap();
    context.kicker().set_alone(true);
    assert_eq!(call(context, MUNMAP, HEAP - PAGE, 2 * PAGE), None);
    assert_eq!(call(context, MUNMAP, HEAP, PAGE), None);
    assert_eq!(call(context, MUNMAP, HEAP + 3 * PAGE, 1), None);
    assert_eq!(call(context, MUNMAP, HEAP - PAGE, PAGE), Some(0));
    assert_eq!(call(context, MUNMAP, HEAP + 4 * PAGE, PAGE), Some(0));
    assert!(is_there(context, 0) && is_there(context, 3) && !is_there(context, 4));
}

/// Filled by the guest itself, which may do so.
#[test]
fn without_room_to_tell_it_goes_the_ordinary_way() {
    let Some(mut context) = caller_with_heap(HEAP..=HEAP + 9 * PAGE) else { return };
    let context = &mut *context;
    context.space().write(UserAddr(NOTE_COUNT), &(shim_abi::ALL_NOTES as u64).to_le_bytes());
    assert_eq!(call(context, BRK, HEAP + 5 * PAGE, 0), None);
    assert!(!is_there(context, 4));
}

#[test]
fn any_end_may_be_told() {
    for end in [0, 1, HEAP, 1 << 63, u64::MAX] {
        let Some(mut context) = caller_with_heap(HEAP..=HEAP) else { return };
        let write = |at, word: u64| context.space().write(UserAddr(at), &word.to_le_bytes());
        for (at, word) in [(NOTE_COUNT, 1), (NOTES, BRK), (NOTES + 8, end), (NOTES + 16, end)] {
            write(at, word);
        }
        context.space().write(UserAddr(NOTED), &shim_abi::kind::NOTED.to_le_bytes());
        context.resume();
        assert_eq!(next(&mut *context).unwrap(), Event::Syscall);
        assert_eq!(context.take_notes(), [moved(end)]);
    }
}
