use std::io::Write as _;

use super::*;

const ENTRY: u64 = 0x7e00_0001_1000;

/// A nameless file of two pages with `mov eax, 39; syscall; ret` at 0x1010.
fn text() -> Arc<FileText> {
    let fd = rustix::fs::memfd_create("program", MemfdFlags::CLOEXEC).unwrap();
    let mut bytes = vec![0x90; 0x2000];
    bytes[0x1010..0x1018].copy_from_slice(&[0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3]);
    let mut file = std::fs::File::from(fd);
    file.write_all(&bytes).unwrap();
    FileText::new(&Arc::new(OwnedFd::from(file)), 0)
}

/// The file's first page at 0x40_0000, its text behind it.
fn place() -> Place {
    Place { origin: 0x40_0000, lowest: 0x40_0000, text: 0x1000..0x2000 }
}

#[test]
fn a_learned_site_is_in_the_copy_and_nobody_can_change_that() {
    let text = text();
    assert!(text.shared(0x1000, 0x1000).is_none(), "nothing is known");
    let learned = text.learn(&place(), 0x1015, 39, ENTRY).unwrap();
    assert_eq!((learned.offset, learned.trampoline), (0x1010, 0));
    let shared = text.shared(0x1000, 0x1000).unwrap();
    assert_eq!((shared.text.clone(), shared.area), (0x1000..0x2000, 0x1000));
    assert_eq!(shared.distance, 0_u64.wrapping_sub(AREA_LEN));
    let mut bytes = [0; 8];
    rustix::io::pread(&shared.fd, &mut bytes, 0x10).unwrap();
    // A jump down to the area, and the instruction still there.
    let jump = i64::from(i32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]));
    assert_eq!((bytes[0], 0x1015 + jump), (0xe9, -(AREA_LEN as i64)));
    assert_eq!(bytes[5..], [0x0f, 0x05, 0xc3]);
    assert!(rustix::io::pwrite(&shared.fd, &[0], 0).is_err());
    assert!(text.shared(0x1000, 0x2000).is_none(), "another part of the file");
}

#[test]
fn a_large_text_is_copied_when_that_spares_traps_enough() {
    let pages = 3 * COPIED_PER_TRAP / PAGE_SIZE;
    let len = pages * PAGE_SIZE;
    let text = text();
    text.learn(&place(), 0x1015, 39, ENTRY).unwrap();
    assert!(text.shared(0x1000, len).is_none(), "one of three");
    for _ in 0..2 {
        assert!(!text.note(0x1015), "it is known");
    }
    let shared = text.shared(0x1000, len).unwrap();
    // The file ends before: there is nothing behind that end, as in a mapping of the file.
    let mut bytes = [1; 8];
    rustix::io::pread(&shared.fd, &mut bytes, 0x1000).unwrap();
    assert_eq!(bytes, [0; 8]);
    rustix::io::pread(&shared.fd, &mut bytes, shared.area).unwrap();
    assert_eq!(bytes[..5], [0xb8, 39, 0, 0, 0]);
    text.note(0x1015);
    assert!(Arc::ptr_eq(&shared, &text.shared(0x1000, len).unwrap()), "nothing new was learned");
}

#[test]
fn small_pieces_are_read_as_they_are() {
    let text = text();
    let blocks = Blocks { file: &text, read: RefCell::default() };
    for range in [0x1010..0x1018, 0xfff..0x1011, 0x1ff8..0x2000, 0x1ff8..0x2008, 0x2000..0x2001] {
        assert_eq!(blocks.read(range.clone()), text.read(range));
    }
    assert_eq!(blocks.read(Range { start: 0x1018, end: 0x1010 }), None);
}

#[test]
fn a_refused_site_is_not_looked_at_again() {
    let text = text();
    assert!(matches!(text.learn(&place(), 0x1013, 39, ENTRY), Err(Some(_))));
    assert!(matches!(text.learn(&place(), 0x1013, 39, ENTRY), Err(None)));
}

#[test]
fn functions_of_a_program_are_known() {
    // This very program.
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let len = file.metadata().unwrap().len();
    let text = FileText::new(&Arc::new(OwnedFd::from(file)), 0);
    let place = Place { origin: 0, lowest: 0, text: 0..u64::MAX };
    let read = |range| text.read(range);
    let functions = Functions::parse(&read);
    let from = Source { functions: functions.as_ref(), read: &read };
    // Wherever its text is: many of these offsets lie in some function.
    let known = (0..len).step_by(0x1003).filter_map(|at| {
        let function = from.extents(&place, at)?.function;
        assert!(function.contains(&at));
        Some(function)
    });
    assert!(known.count() > 100);
}

#[test]
fn enough_processes_make_a_site_worth_learning() {
    let text = text();
    let noted: Vec<bool> = (0..LEARN_AFTER + 2).map(|_| text.note(0x1015)).collect();
    assert_eq!(noted.iter().position(|due| *due), Some(LEARN_AFTER as usize - 1));
    assert_eq!(noted.iter().filter(|due| **due).count(), 1);
}

#[test]
fn no_two_sites_change_the_same_bytes() {
    // This very program, which has the host's calls in it, some of them without room before.
    let mut file = std::fs::File::open("/proc/self/exe").unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
    let read = |range: Range<u64>| {
        let end = (range.end as usize).min(bytes.len());
        Some(bytes.get(range.start as usize..end)?.to_vec())
    };
    let functions = Functions::parse(&read).expect("an ELF file");
    let from = Source { functions: Some(&functions), read: &read };
    let text = FileText::new(&Arc::new(OwnedFd::from(file)), 0);
    let place = Place { origin: 0x40_0000, lowest: 0x40_0000, text: 0..bytes.len() as u64 };
    for at in (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&[0x0f, 0x05])) {
        let _ = text.learn_from(&from, &place, (at as u64, 39), ENTRY);
    }
    let known = text.known.lock();
    let edits = known.learned.iter().flat_map(|learned| learned.patch.edits());
    let mut spans: Vec<_> = edits.map(|(at, _, bytes)| at..at + bytes.len() as u64).collect();
    spans.sort_by_key(|span| span.start);
    assert!(spans.len() > 5, "{spans:x?}");
    assert!(spans.is_sorted_by(|a, b| a.end <= b.start), "{spans:x?}");
}

#[test]
fn the_area_keeps_its_distance() {
    let text = text();
    assert_eq!(text.area(&place()), 0x40_0000 - AREA_LEN);
    let elsewhere = Place { origin: 0x7000_0000, lowest: 0x7000_1000, ..place() };
    assert_eq!(text.area(&elsewhere), 0x7000_0000 - AREA_LEN);
}
