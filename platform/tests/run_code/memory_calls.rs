//! Changes of the layout that the shim makes itself and tells with the next event.

use abi::UserAddr;
use platform::{Context, Note, Prot};

use crate::harness::{block_on, map, next};
use crate::start_calls::{CALL, call, caller};

const PAGES: u64 = 0x80_0000;
const PAGE: u64 = 4096;
const MPROTECT: u64 = 10;
const MUNMAP: u64 = 11;
const PROT_READ: u64 = 1;
const PROT_READ_WRITE: u64 = 3;
/// In the first slot, as the guest sees it.
const FAST: u64 = shim_abi::CHANNEL_ADDR + shim_abi::FAST_OFFSET;
pub const NOTE_COUNT: u64 = FAST + std::mem::offset_of!(shim_abi::Fast, note_count) as u64;
pub const NOTES: u64 = FAST + std::mem::offset_of!(shim_abi::Fast, notes) as u64;
pub const NOTED: u64 = FAST + std::mem::offset_of!(shim_abi::Fast, noted) as u64;

/// With 16 pages at [`PAGES`].
fn caller_with_pages() -> Option<Box<dyn Context>> {
    let (mut context, _) = caller()?;
    let pages = map(PAGES, 16 * PAGE, Prot::READ | Prot::WRITE);
    block_on(context.execute(vec![pages])).unwrap().unwrap();
    context.kicker().set_alone(true);
    Some(context)
}

fn protect(context: &mut dyn Context, addr: u64, len: u64, prot: u64) -> Option<u64> {
    context.space().write(UserAddr(CALL + 24), &prot.to_le_bytes());
    call(context, MPROTECT, addr, len)
}

fn is_writable(context: &dyn Context, addr: u64) -> bool {
    context.space().write(UserAddr(addr), &[1]) == 1
}

#[test]
fn what_takes_away_is_done_and_told() {
    let Some(mut context) = caller_with_pages() else { return };
    let context = &mut *context;
    assert_eq!(protect(context, PAGES, PAGE, PROT_READ), Some(0));
    assert_eq!(context.take_notes(), [Note::ProtectedForReading { addr: PAGES, len: PAGE }]);
    assert_eq!(context.take_notes(), [], "once");
    assert!(!is_writable(context, PAGES) && is_writable(context, PAGES + PAGE));
    assert_eq!(call(context, MUNMAP, PAGES + PAGE, 1), Some(0));
    assert_eq!(context.take_notes(), [Note::Unmapped { addr: PAGES + PAGE, len: 1 }]);
    assert!(!is_writable(context, PAGES + PAGE) && is_writable(context, PAGES + 2 * PAGE));
}

#[test]
fn all_else_is_the_sentrys() {
    let Some(mut context) = caller_with_pages() else { return };
    let context = &mut *context;
    assert_eq!(protect(context, PAGES, PAGE, PROT_READ_WRITE), None, "more than to read");
    assert_eq!(protect(context, PAGES + 1, PAGE, PROT_READ), None, "unaligned");
    assert_eq!(protect(context, PAGES, 0, PROT_READ), None, "nothing");
    assert_eq!(protect(context, PAGES + 15 * PAGE, 2 * PAGE, PROT_READ), None, "with a hole");
    assert_eq!(protect(context, 0x7e00_4000_0000, PAGE, PROT_READ), None, "of ours");
    assert_eq!(protect(context, PAGES, u64::MAX, PROT_READ), None, "too long");
    assert_eq!(call(context, MUNMAP, PAGES, 1 << 20), None, "much");
    assert_eq!(context.take_notes(), []);
    context.kicker().set_alone(false);
    assert_eq!(protect(context, PAGES, PAGE, PROT_READ), None, "others run here");
}

/// Filled by the guest itself, which may do so.
#[test]
fn a_full_list_goes_the_ordinary_way() {
    let Some(mut context) = caller_with_pages() else { return };
    let context = &mut *context;
    context.space().write(UserAddr(NOTE_COUNT), &(shim_abi::ALL_NOTES as u64).to_le_bytes());
    assert_eq!(protect(context, PAGES, PAGE, PROT_READ), None);
    assert!(is_writable(context, PAGES));
}

#[test]
fn impossible_notes_end_the_process() {
    const TOO_MANY: u64 = shim_abi::ALL_NOTES as u64 + 1;
    const CLOSE: u64 = 3;
    const FCNTL: u64 = 72;
    for (count, number, fd) in [
        (TOO_MANY, MUNMAP, 0),
        (u64::MAX, MUNMAP, 0),
        (1, 0, 0),
        (1, 9 | 8 << 32, 0),
        (1, CLOSE, 64),
        (1, CLOSE, u64::MAX),
        (1, FCNTL, 64),
        (1, FCNTL | 3 << 32, 0),
        (1, CLOSE | 1 << 32, 0),
    ] {
        let Some(mut context) = caller_with_pages() else { return };
        let bits = shim_abi::kind::NOTED.to_le_bytes();
        context.space().write(UserAddr(NOTE_COUNT), &count.to_le_bytes());
        context.space().write(UserAddr(NOTES), &number.to_le_bytes());
        context.space().write(UserAddr(NOTES + 8), &fd.to_le_bytes());
        context.space().write(UserAddr(NOTED), &bits);
        context.resume();
        assert!(next(&mut *context).is_err(), "{count} notes, call {number}");
    }
}
