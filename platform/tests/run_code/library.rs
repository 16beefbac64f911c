//! mmap(2) of parts of a file that was mapped whole.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::UserAddr;
use platform::{
    Backing, Context, Descriptor, Heap, HostOp, Library, LibraryText, Note, Prot, Watched,
};

use crate::harness::block_on;
use crate::start_calls::{CALL, call, caller};

const MMAP: u64 = 9;
const CLOSE: u64 = 3;
const PAGE: u64 = 4096;
/// Pages of trampolines.
const AREA: u64 = 4;
/// Where the file is, of which so many pages are mapped.
const PLACE: u64 = 0x80_0000;
const PAGES: u64 = 8;
const NUMBER: u32 = 5;
const R: u64 = 1;
const RW: u64 = 3;
const RX: u64 = 5;
const PART: u64 = 0x812;
const ZEROS: u64 = 0x32;

/// A file that everybody may read, with its name's first byte plus its number in each page.
fn file(name: &str) -> Arc<OwnedFd> {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
    let mut file = std::fs::File::create(&path).expect("a new one");
    for page in 0..PAGES + AREA {
        let byte = name.as_bytes()[0] + u8::try_from(page).expect("few");
        file.write_all(&[byte; PAGE as usize]).expect("there is room");
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("ours");
    let file = std::fs::File::open(&path).expect("it is there");
    std::fs::remove_file(&path).expect("ours");
    Arc::new(file.into())
}

/// With the file mapped whole with the next answer, and lent.
fn lend(context: &mut dyn Context, file: &Arc<OwnedFd>, text: LibraryText) {
    let map = |addr, len, fd: &Arc<OwnedFd>| HostOp::Map {
        addr: UserAddr(addr),
        len,
        prot: Prot::READ,
        shared: false,
        noreserve: false,
        backing: Backing::File { fd: Arc::clone(fd), offset: 0 },
    };
    if let LibraryText::Copy { file, .. } = &text {
        block_on(context.execute(vec![map(PLACE, PAGE, file)])).unwrap().unwrap();
    }
    context.defer(map(PLACE, PAGES * PAGE, file));
    let range = PLACE..PLACE + PAGES * PAGE;
    let library = Library { range, number: NUMBER, file: Arc::clone(file), text };
    context.lend_library(Some(library));
    assert!(context.lends_library());
}

fn caller_with(file: &Arc<OwnedFd>, text: LibraryText) -> Option<Box<dyn Context>> {
    let (mut context, _) = caller()?;
    context.kicker().set_alone(true);
    assert!(context.know_descriptors(true));
    lend(&mut *context, file, text);
    Some(context)
}

/// mmap(2) of a page at page `at`.
fn map(context: &mut dyn Context, at: u64, rest: [u64; 4]) -> Option<u64> {
    for (place, word) in (CALL + 24..).step_by(8).zip(rest) {
        context.space().write(UserAddr(place), &word.to_le_bytes());
    }
    call(context, MMAP, PLACE.wrapping_add(at.wrapping_mul(PAGE)), PAGE)
}

fn byte(context: &dyn Context, addr: u64) -> Option<u8> {
    let mut byte = [0];
    (context.space().read(UserAddr(addr), &mut byte) == 1).then_some(byte[0])
}

fn mapped(at: u64, prot: u64, offset: Option<u64>) -> [Note; 1] {
    let (addr, offset) = (PLACE + at * PAGE, offset.map(|page| page * PAGE));
    [Note::Mapped { addr, len: PAGE, prot: u32::try_from(prot).unwrap(), offset }]
}

#[test]
fn parts_are_mapped_and_told() {
    let file = file("a");
    let Some(mut context) = caller_with(&file, LibraryText::Plain) else { return };
    let context = &mut *context;
    // The second time the file is there already.
    for _ in 0..2 {
        for (at, prot, offset) in [(2, R, 6), (3, RW, 0), (7, RX, 7)] {
            let rest = [prot, PART, u64::from(NUMBER), offset * PAGE];
            assert_eq!(map(context, at, rest), Some(PLACE + at * PAGE));
            assert_eq!(context.take_notes(), mapped(at, prot, Some(offset)));
            assert_eq!(byte(context, PLACE + at * PAGE), Some(b'a' + offset as u8));
        }
        assert_eq!(map(context, 4, [RW, ZEROS, u64::MAX, 0]), Some(PLACE + 4 * PAGE));
        assert_eq!(context.take_notes(), mapped(4, RW, None));
        assert_eq!(byte(context, PLACE + 4 * PAGE), Some(0));
        assert_eq!(byte(context, PLACE + 5 * PAGE), Some(b'f'), "as it was");
        lend(context, &file, LibraryText::Plain);
    }
}

#[test]
fn all_else_is_the_sentrys() {
    let file = file("b");
    let Some(mut context) = caller_with(&file, LibraryText::Plain) else { return };
    let context = &mut *context;
    let number = u64::from(NUMBER);
    assert_eq!(map(context, PAGES, [R, PART, number, 0]), None, "behind it");
    assert_eq!(map(context, u64::MAX, [R, PART, number, 0]), None, "before it");
    assert_eq!(map(context, 0, [R, PART, number + 1, 0]), None, "another file");
    assert_eq!(map(context, 0, [R, PART, number, 1]), None, "unaligned");
    assert_eq!(map(context, 0, [R, PART, number, 1 << 40]), None, "far");
    assert_eq!(map(context, 0, [R | 8, PART, number, 0]), None, "who knows what");
    for flags in [PART ^ 0x10, PART ^ 3, PART | 0x2000, ZEROS ^ 3, ZEROS | 0x100, ZEROS ^ 0x10] {
        assert_eq!(map(context, 0, [R, flags, number, 0]), None, "{flags:#x}");
    }
    context.kicker().set_alone(false);
    assert_eq!(map(context, 0, [R, PART, number, 0]), None, "others run here");
    context.kicker().set_alone(true);
    assert!(map(context, 0, [R, PART, number, 0]).is_some());
    context.kicker().fix_heap();
    assert_eq!(map(context, 0, [R, PART, number, 0]), None, "taken back");
    lend(context, &file, LibraryText::Plain);
    assert!(map(context, 0, [R, PART, number, 0]).is_some());
    context.lend_library(None);
    assert_eq!(map(context, 0, [R, PART, number, 0]), None, "taken back");
    assert!(!context.lends_library());
}

#[test]
fn a_number_that_is_closed_means_the_file_no_more() {
    let file = file("c");
    let Some(mut context) = caller_with(&file, LibraryText::Plain) else { return };
    let context = &mut *context;
    let open = Descriptor {
        flags: 0,
        cloexec: false,
        is_own: true,
        device: None,
        dir: 0,
        is_epoll: false,
        watched: Watched::Unknown,
    };
    context.tell_descriptor(NUMBER as usize, Some(open));
    let number = u64::from(NUMBER);
    assert!(map(context, 0, [R, PART, number, 0]).is_some());
    assert_eq!(call(context, CLOSE, number, 0), Some(0));
    assert_eq!(map(context, 0, [R, PART, number, 0]), None);
}

#[test]
fn text_comes_from_its_copy_with_trampolines() {
    let (file, copy) = (file("d"), file("A"));
    let area = PLACE - AREA * PAGE;
    let text = |distance: u64| LibraryText::Copy {
        range: 2 * PAGE..3 * PAGE,
        file: Arc::clone(&copy),
        area_offset: PAGE,
        area,
        distance,
    };
    // The text goes to page 4.
    let distance = (AREA + 2).wrapping_neg().wrapping_mul(PAGE);
    let Some(mut context) = caller_with(&file, text(distance)) else { return };
    let context = &mut *context;
    let number = u64::from(NUMBER);
    assert_eq!(map(context, 4, [RX, PART, number, 3 * PAGE]), None, "another part");
    assert_eq!(map(context, 5, [RX, PART, number, 2 * PAGE]), None, "trampolines are elsewhere");
    assert_eq!(byte(context, area), None);
    assert_eq!(map(context, 4, [RX, PART, number, 2 * PAGE]), Some(PLACE + 4 * PAGE));
    assert_eq!(context.take_notes(), mapped(4, RX, Some(2)));
    let seen = [PLACE + 4 * PAGE, area, PLACE - PAGE].map(|at| byte(context, at));
    assert_eq!(seen, [Some(b'A'), Some(b'B'), Some(b'E')]);
    assert_eq!(map(context, 4, [R, PART, number, 2 * PAGE]), Some(PLACE + 4 * PAGE));
    assert_eq!(byte(context, PLACE + 4 * PAGE), Some(b'd' + 2), "not executable: the file's own");
    lend(context, &file, LibraryText::Ask);
    assert_eq!(map(context, 4, [RX, PART, number, 2 * PAGE]), None);
}

/// mmap(2) without an address: the result, notes, and the first byte.
fn anywhere(
    context: &mut dyn Context,
    len: u64,
    rest: [u64; 2],
) -> (Option<u64>, Vec<Note>, Option<u8>) {
    for (place, word) in (CALL + 24..).step_by(8).zip(rest) {
        context.space().write(UserAddr(place), &word.to_le_bytes());
    }
    let addr = call(context, MMAP, 0, len);
    (addr, context.take_notes(), addr.and_then(|addr| byte(context, addr)))
}

#[test]
fn memory_without_a_file_comes_from_the_room_beside_the_heap() {
    const ANYWHERE: u64 = 0x22;
    let Some((mut context, _)) = caller() else { return };
    let context = &mut *context;
    assert_eq!(anywhere(context, PAGE, [RW, ANYWHERE]), (None, vec![], None), "there is none");
    let (room, end) = (PLACE..PLACE + 4 * PAGE, PLACE);
    context.kicker().set_alone(true);
    context.kicker().tell_heap(Some(&Heap { end, range: end..=end, room }));
    let note = |page, pages, prot| {
        let (addr, len) = (PLACE + page * PAGE, pages * PAGE);
        vec![Note::Mapped { addr, len, prot, offset: None }]
    };
    assert_eq!(anywhere(context, 5 * PAGE, [RW, ANYWHERE]), (None, vec![], None), "too much");
    assert_eq!(anywhere(context, 0, [RW, ANYWHERE]), (None, vec![], None), "nothing");
    assert_eq!(anywhere(context, PAGE, [RW | 8, ANYWHERE]), (None, vec![], None));
    for flags in [0x21, 0x4022, 0x2_0022, 0x8022, 0x32, 0x2, 0x62] {
        assert_eq!(anywhere(context, PAGE, [RW, flags]), (None, vec![], None), "{flags:#x}");
    }
    let (addr, notes, byte) = anywhere(context, PAGE, [RW, ANYWHERE]);
    assert_eq!((addr, notes, byte), (Some(PLACE + 3 * PAGE), note(3, 1, 3), Some(0)));
    let (addr, notes, byte) = anywhere(context, PAGE + 1, [R, ANYWHERE]);
    assert_eq!((addr, notes, byte), (Some(PLACE + PAGE), note(1, 2, 1), Some(0)));
    assert_eq!(anywhere(context, 2 * PAGE, [RW, ANYWHERE]), (None, vec![], None), "there is less");
    let (addr, notes, byte) = anywhere(context, 1, [0, ANYWHERE]);
    assert_eq!((addr, notes, byte), (Some(PLACE), note(0, 1, 0), None));
    assert_eq!(anywhere(context, PAGE, [RW, ANYWHERE]), (None, vec![], None), "it is used up");
}
