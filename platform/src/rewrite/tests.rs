#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a panic is how a test fails"
)]

use proptest::prelude::*;

use super::*;

mod nearby;
mod signal_return;

const TEXT: u64 = 0x7f00_0000_1000;
const TRAMPOLINE: u64 = 0x7f00_0100_0000;
const ENTRY: u64 = 0x1000_0123;

/// A function of these bytes and a system call, then `cmp $-4096,%rax; ja +2; ret`.
struct Sample {
    text: Vec<u8>,
    syscall: u64,
    number: u64,
}

impl Sample {
    fn new(before: &[u8], number: u64) -> Self {
        let mut text = before.to_vec();
        text.extend([0x0f, 0x05, 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x77, 0x01, 0xc3, 0x90]);
        Self { text, syscall: TEXT + before.len() as u64, number }
    }

    fn then(mut self, after: &[u8]) -> Self {
        self.text.extend(after);
        self
    }

    fn site(&self, function: Option<Range<u64>>) -> Site<'_> {
        let Self { ref text, syscall, number } = *self;
        Site {
            text,
            text_addr: TEXT,
            syscall,
            number,
            function,
            before: None,
            next: None,
            is_signal_return: false,
            taken: &[],
        }
    }

    fn known(&self) -> Result<Patch, Refusal> {
        let end = TEXT + self.text.len() as u64;
        plan(&self.site(Some(TEXT..end)), TRAMPOLINE, ENTRY)
    }

    fn unknown(&self) -> Result<Patch, Refusal> {
        plan(&self.site(None), TRAMPOLINE, ENTRY)
    }

    fn window(&self, patch: &Patch) -> usize {
        assert_eq!(patch.at + patch.original.len() as u64, self.syscall);
        patch.original.len()
    }
}

/// Instructions that say nothing, of different lengths, to stand before what is looked at.
fn preamble() -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..8 {
        bytes.extend([0x55, 0x48, 0x89, 0xe5, 0x41, 0x54, 0x53, 0x48, 0x83, 0xec, 0x10]);
        bytes.extend([0x48, 0x8b, 0x47, 0x08, 0x31, 0xdb, 0x85, 0xc0]);
    }
    bytes
}

#[test]
fn a_number_before_the_call_is_moved_alone() {
    let sample = Sample::new(&[0xf3, 0x0f, 0x1e, 0xfa, 0xb8, 0x27, 0, 0, 0], 39);
    let patch = sample.known().unwrap();
    assert!(patch.is_single);
    assert_eq!(patch.original, [0xb8, 0x27, 0, 0, 0]);
    assert_eq!(patch.bytes[0], 0xe9);
    let jump = i32::from_le_bytes(patch.bytes[1..5].try_into().unwrap());
    assert_eq!((patch.at + 5).wrapping_add_signed(jump.into()), TRAMPOLINE);
    assert_eq!(patch.trampoline[..5], patch.original);
    assert_eq!(patch.trampoline[5..8], [0x48, 0x8d, 0x0d]);
    let lea = i32::from_le_bytes(patch.trampoline[8..12].try_into().unwrap());
    assert_eq!((TRAMPOLINE + 12).wrapping_add_signed(lea.into()), sample.syscall + 2);
    assert_eq!(patch.trampoline[12..18], [0xff, 0x25, 0, 0, 0, 0]);
    assert_eq!(patch.trampoline[18..], ENTRY.to_le_bytes());
    // Without extents the number itself is what tells.
    assert_eq!(sample.unknown().unwrap(), patch);
}

#[test]
fn longer_forms_of_the_number_are_moved_whole() {
    let mut before = preamble();
    before.extend([0x48, 0xc7, 0xc0, 0x27, 0, 0, 0]);
    let sample = Sample::new(&before, 39);
    assert_eq!(sample.window(&sample.unknown().unwrap()), 7);
    let mut before = preamble();
    before.extend([0xc7, 0xc0, 0x27, 0, 0, 0]);
    let sample = Sample::new(&before, 39);
    assert_eq!(sample.window(&sample.unknown().unwrap()), 6);
}

#[test]
fn mov_to_r8d_is_not_taken_for_the_number() {
    let sample = Sample::new(&[0x90, 0x41, 0xb8, 0x27, 0, 0, 0], 39);
    assert_eq!(sample.unknown(), Err(Refusal::NoBoundary));
    let patch = sample.known().unwrap();
    assert_eq!((sample.window(&patch), patch.is_single), (6, true));
    let mut before = preamble();
    before.extend([0x41, 0xb8, 0x27, 0, 0, 0]);
    let sample = Sample::new(&before, 39);
    assert!(sample.unknown().map_or(true, |patch| sample.window(&patch) == 6));
}

#[test]
fn bytes_of_a_longer_instruction_are_not_taken_for_the_number() {
    // movl $39,-0x48(%rsp)
    let mut before = preamble();
    before.extend([0xc7, 0x44, 0x24, 0xb8, 0x27, 0, 0, 0]);
    let sample = Sample::new(&before, 39);
    assert!(sample.unknown().map_or(true, |patch| sample.window(&patch) == 8));
}

#[test]
fn a_number_that_is_not_in_rax_proves_nothing() {
    let sample = Sample::new(&[0x90, 0xb8, 0x27, 0, 0, 0], 40);
    assert_eq!(sample.unknown(), Err(Refusal::NoBoundary));
}

/// glibc's read: `cmpb $0,x(%rip); je +0x13; xor %eax,%eax; syscall`.
const GLIBC_READ: [u8; 11] = [0x80, 0x3d, 0x99, 0x88, 0x0e, 0, 0, 0x74, 0x13, 0x31, 0xc0];

#[test]
fn flags_and_displacements_move_with_the_window() {
    let before = [[0xf3, 0x0f, 0x1e, 0xfa].as_slice(), &GLIBC_READ].concat();
    let sample = Sample::new(&before, 0).then(&[0x90; 32]);
    let patch = sample.known().unwrap();
    // je and xor are too short for a jump.
    assert_eq!(sample.window(&patch), 11);
    assert!(!patch.is_single);
    let moved = |at: usize| i32::from_le_bytes(patch.trampoline[at..at + 4].try_into().unwrap());
    let variable = TEXT + 4 + 7 + 0xe_8899;
    assert_eq!(patch.trampoline[..2], [0x80, 0x3d]);
    assert_eq!((TRAMPOLINE + 7).wrapping_add_signed(moved(2).into()), variable);
    assert_eq!(patch.trampoline[7..9], [0x0f, 0x84]);
    assert_eq!((TRAMPOLINE + 13).wrapping_add_signed(moved(9).into()), TEXT + 4 + 9 + 0x13);
    assert_eq!(patch.trampoline[13..15], [0x31, 0xc0]);
}

#[test]
fn instruction_pointers_translate_both_ways() {
    let sample = Sample::new(&GLIBC_READ, 0).then(&[0x90; 32]);
    let patch = sample.known().unwrap();
    for (window, trampoline) in [(0, 0), (7, 7), (9, 13)] {
        assert_eq!(patch.to_trampoline(TEXT + window), Some(trampoline));
        assert_eq!(patch.to_text(trampoline), Some(TEXT + window));
    }
    assert_eq!(patch.to_text(15), Some(sample.syscall));
    assert_eq!(patch.to_text(22), Some(sample.syscall));
    assert_eq!(patch.to_text(16), None);
    assert_eq!(patch.to_trampoline(TEXT + 1), None);
    assert_eq!(patch.to_trampoline(sample.syscall), None);
}

#[test]
fn glibcs_syscall_loses_its_last_loads() {
    let before = [
        0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x48, 0x89, 0xd6, 0x48, 0x89, 0xca, 0x4d, 0x89, 0xc2,
        0x4d, 0x89, 0xc8, 0x4c, 0x8b, 0x4c, 0x24, 0x08,
    ];
    let patch = Sample::new(&before, 39).known().unwrap();
    // mov 8(%rsp),%r9 alone, as long as a jump.
    assert_eq!((patch.original.len(), patch.is_single), (5, true));
}

#[test]
fn musls_register_moves_take_the_number_along() {
    // mov $2,%eax; mov %rdi,%rsi
    let mut before = preamble();
    before.extend([0xb8, 2, 0, 0, 0, 0x48, 0x89, 0xfe]);
    let sample = Sample::new(&before, 2);
    for patch in [sample.known(), sample.unknown()] {
        assert_eq!(sample.window(&patch.unwrap()), 8);
    }
}

#[test]
fn gos_register_moves_are_found_behind_padding() {
    let moves = [0x49, 0x89, 0xf2, 0x48, 0x89, 0xfa, 0x48, 0x89, 0xce, 0x48, 0x89, 0xdf];
    let mut before = preamble();
    before.extend([0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc]);
    before.extend(moves);
    let sample = Sample::new(&before, 1);
    let patch = sample.unknown().unwrap();
    assert_eq!((sample.window(&patch), patch.is_single), (6, false));
}

#[test]
fn a_site_at_the_start_of_the_text_has_no_window() {
    let sample = Sample::new(&[], 0);
    assert_eq!(sample.known(), Err(Refusal::TooShort));
    assert_eq!(sample.unknown(), Err(Refusal::NoBoundary));
}

#[test]
fn something_else_than_a_call_is_no_site() {
    let sample = Sample::new(&[0xb8, 0, 0, 0, 0], 0);
    let mut site = sample.site(None);
    site.syscall += 1;
    assert_eq!(plan(&site, TRAMPOLINE, ENTRY), Err(Refusal::NoSite(site.syscall)));
    site.syscall = u64::MAX;
    assert_eq!(plan(&site, TRAMPOLINE, ENTRY), Err(Refusal::NoSite(u64::MAX)));
}

/// `mov %rdi,%rsi; mov %rdx,%rdi`, a window of two.
const TWO_MOVES: [u8; 6] = [0x48, 0x89, 0xfe, 0x48, 0x89, 0xd7];

#[test]
fn a_branch_into_the_window_is_seen() {
    // jmp back to the second move
    let sample = Sample::new(&TWO_MOVES, 0).then(&[0xeb, (-17i8).cast_unsigned()]);
    assert_eq!(sample.known(), Err(Refusal::BranchInside(TEXT + 18)));
    // To its start and to the call itself there is no harm.
    let sample = Sample::new(&TWO_MOVES, 0).then(&[0xeb, (-20i8).cast_unsigned()]);
    assert!(sample.known().is_ok());
    let sample = Sample::new(&TWO_MOVES, 0).then(&[0xeb, (-14i8).cast_unsigned()]);
    assert!(sample.known().is_ok());
}

#[test]
fn a_branch_from_a_part_far_away_is_seen() {
    let mut sample = Sample::new(&TWO_MOVES, 0).then(&[0x90; 4000]);
    let end = sample.text.len();
    let displacement = 3 - (end as i32 + 7);
    sample = sample.then(&[0xcc, 0x0f, 0x8f]).then(&displacement.to_le_bytes()).then(&[0xcc]);
    let site = sample.site(Some(TEXT..TEXT + end as u64));
    let at = TEXT + end as u64 + 1;
    assert_eq!(plan(&site, TRAMPOLINE, ENTRY), Err(Refusal::BranchInside(at)));
}

#[test]
fn a_call_at_the_start_of_the_text_is_seen() {
    let before = [&[0xe8, 3, 0, 0, 0], TWO_MOVES.as_slice()].concat();
    let sample = Sample::new(&before, 0);
    assert_eq!(sample.known(), Err(Refusal::BranchInside(TEXT)));
}

#[test]
fn a_table_of_jumps_keeps_the_trap() {
    // notrack jmp *%rax
    let sample = Sample::new(&TWO_MOVES, 0).then(&[0x3e, 0xff, 0xe0]);
    assert_eq!(sample.known(), Err(Refusal::IndirectJump(TEXT + 18)));
    // jmp *x(%rip) has one target
    let sample = Sample::new(&TWO_MOVES, 0).then(&[0xff, 0x25, 0, 0, 0, 0]);
    assert!(sample.known().is_ok());
    // One instruction has no inside.
    let sample = Sample::new(&[0xb8, 0, 0, 0, 0], 0).then(&[0xff, 0xe0]);
    assert!(sample.known().is_ok());
    let before = [preamble(), TWO_MOVES.to_vec()].concat();
    let sample = Sample::new(&before, 0).then(&[0xff, 0xe0]);
    let at = sample.syscall + 12;
    assert_eq!(sample.unknown(), Err(Refusal::IndirectJump(at)));
}

#[test]
fn an_unknown_instruction_keeps_the_trap() {
    let sample = Sample::new(&TWO_MOVES, 0).then(&[0x06]);
    assert_eq!(sample.known(), Err(Refusal::Undecodable(TEXT + 18)));
    let sample = Sample::new(&[0x06, 0xb8, 0, 0, 0, 0], 0);
    assert_eq!(sample.known(), Err(Refusal::Undecodable(TEXT)));
}

#[test]
fn what_cannot_move_stays() {
    let cases: &[&[u8]] = &[
        &[0xe8, 0x10, 0, 0, 0],                // call
        &[0xe9, 0x10, 0, 0, 0],                // jmp
        &[0x0f, 0x05, 0x48, 0x89, 0xfe],       // syscall
        &[0xcd, 0x80, 0x48, 0x89, 0xfe],       // int $0x80
        &[0xf3, 0x0f, 0x1e, 0xfa, 0x31, 0xc0], // endbr64
        &[0x90, 0x90, 0x90, 0x31, 0xc0],       // nop
        &[0x0f, 0x1f, 0x44, 0, 0],             // nopl
        &[0xcc, 0xcc, 0xcc, 0xcc, 0xcc],       // int3
        &[0x9c, 0x58, 0x48, 0x89, 0xfe],       // pushfq
        &[0x9d, 0x90, 0x48, 0x89, 0xfe],       // popfq
        &[0xe3, 0x20, 0x48, 0x89, 0xfe],       // jrcxz
        &[0xe2, 0x20, 0x48, 0x89, 0xfe],       // loop
        &[0xc7, 0xf8, 0x20, 0, 0, 0],          // xbegin
        &[0xf0, 0x48, 0x0f, 0xb1, 0x13],       // lock cmpxchg
        &[0x67, 0x8b, 0x05, 0, 0, 0, 0],       // mov (%eip),%eax
        &[0x8b, 0x05, 0xfb, 0xff, 0xff, 0xff], // mov from the window itself
        &[0x8e, 0xd0, 0x48, 0x89, 0xfe],       // mov %eax,%ss
        &[0x0f, 0x20, 0xc0, 0x31, 0xc0],       // mov %cr0,%rax
        &[0x66, 0x0f, 0x84, 0x20, 0, 0, 0],    // je with a prefix
        &[0x2e, 0x74, 0x20, 0x31, 0xc0],       // je with a hint
        &[0xc3, 0x48, 0x89, 0xfe, 0x90],       // ret
    ];
    for before in cases {
        let refusal = Sample::new(before, 0).then(&[0x90; 64]).known().unwrap_err();
        assert!(matches!(refusal, Refusal::NotRelocatable(_)), "{before:x?}: {refusal}");
    }
}

#[test]
fn a_misaligned_start_is_not_believed() {
    // Two bytes of a constant make another instruction of what follows, up to the call.
    let mut before = preamble();
    let start = before.len() as u64 - 1;
    before.extend([0x48, 0xc7, 0xc0, 0x0e, 0, 0, 0]);
    before[start as usize] = 0;
    let sample = Sample::new(&before, 0);
    let site = sample.site(Some(TEXT + start..TEXT + sample.text.len() as u64));
    assert_eq!(plan(&site, TRAMPOLINE, ENTRY), Err(Refusal::NoBoundary));
}

#[test]
fn a_patch_is_taken_out_of_a_part_of_its_window() {
    let sample = Sample::new(&GLIBC_READ, 0).then(&[0x90; 32]);
    let patch = sample.known().unwrap();
    for from in 0..12 {
        let mut text = sample.text.clone();
        text[..11].copy_from_slice(&patch.bytes);
        let part = &mut text[from..];
        patch.restore(part, TEXT + from as u64);
        assert_eq!(*part, sample.text[from..]);
    }
}

#[test]
fn extents_beyond_the_text_are_refused() {
    let sample = Sample::new(&TWO_MOVES, 0);
    let end = TEXT + sample.text.len() as u64;
    for function in [TEXT - 1..end, TEXT..end + 1, 0..u64::MAX] {
        let refusal = plan(&sample.site(Some(function)), TRAMPOLINE, ENTRY);
        assert_eq!(refusal, Err(Refusal::Function));
    }
    let elsewhere = Some(TEXT..TEXT + 6);
    assert_eq!(plan(&sample.site(elsewhere), TRAMPOLINE, ENTRY), Err(Refusal::NoBoundary));
}

const HEADER: u64 = 0x1000;
const CIE: u64 = 0x2000;
const FDE: u64 = CIE + 24;
const FUNCTION: u64 = 0x9000;

/// A table of one function of 0x40 bytes, its CIE with the augmentation given, and its FDE.
fn frames(augmentation: [u8; 3], encoding: u8) -> (Vec<u8>, Vec<u8>) {
    let mut header = vec![1, 0x1b, 3, 0x3b, 0, 0, 0, 0, 1, 0, 0, 0];
    header.extend(((FUNCTION - HEADER) as u32).to_le_bytes());
    header.extend(((FDE - HEADER) as u32).to_le_bytes());
    // Length, CIE, version, augmentation, alignments, return register, augmentation's length and data.
    let mut section = vec![20, 0, 0, 0, 0, 0, 0, 0, 1];
    section.extend(augmentation);
    section.extend([1, 0x78, 16, 1, encoding, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(section.len() as u64, FDE - CIE);
    section.extend([13, 0, 0, 0]);
    section.extend(((FDE + 4 - CIE) as u32).to_le_bytes());
    section.extend(((FUNCTION - (FDE + 8)) as u32).to_le_bytes());
    section.extend([0x40, 0, 0, 0, 0]);
    (header, section)
}

fn find(frames: &(Vec<u8>, Vec<u8>), pc: u64) -> Option<Range<u64>> {
    let read = |addr: u64, len: usize| {
        let from = addr.checked_sub(CIE)? as usize;
        frames.1.get(from..from + len).map(<[u8]>::to_vec)
    };
    function_extents(&frames.0, HEADER, pc, &read)
}

#[test]
fn a_functions_extents_are_found() {
    let frames = frames(*b"zR\0", 0x1b);
    for pc in [FUNCTION, FUNCTION + 0x3f] {
        assert_eq!(find(&frames, pc), Some(FUNCTION..FUNCTION + 0x40));
    }
    assert_eq!(find(&frames, FUNCTION - 1), None);
    assert_eq!(find(&frames, FUNCTION + 0x40), None);
}

#[test]
fn extents_in_another_form_are_unknown() {
    assert_eq!(find(&frames(*b"zR\0", 0x3b), FUNCTION), None);
    assert_eq!(find(&frames(*b"zQ\0", 0x1b), FUNCTION), None);
    let (mut header, section) = frames(*b"zR\0", 0x1b);
    header[8] = 2;
    assert_eq!(find(&(header, section), FUNCTION), None);
}

/// A patch, wherever it comes from, keeps to its form.
fn check_form(site: &Site<'_>, patch: &Patch) {
    assert_eq!(patch.at + patch.bytes.len() as u64, site.syscall);
    for (at, original, bytes) in patch.edits() {
        let jump = if at == patch.at && patch.island.is_some() { 2 } else { 5 };
        assert!(bytes.len() >= jump && bytes.len() == original.len());
        assert!(bytes[jump..].iter().all(|byte| *byte == INT3));
        let from = (at - site.text_addr) as usize;
        assert_eq!(site.text[from..from + original.len()], *original);
    }
    assert!(patch.trampoline.len() <= TRAMPOLINE_MAX);
    assert_eq!(patch.to_trampoline(patch.at), Some(0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_bytes_make_it_panic(
        mut text in prop::collection::vec(any::<u8>(), 0..300),
        text_addr in prop_oneof![Just(TEXT), Just(0), Just(u64::MAX - 299), any::<u64>()],
        at in any::<prop::sample::Index>(),
        number in prop_oneof![Just(0u64), any::<u64>()],
        neighbours in prop::option::of((0u64..300, 0u64..300, 0u64..300)),
        function in prop::option::of((0u64..300, 0u64..300)),
        trampoline in prop_oneof![Just(TRAMPOLINE), Just(0), Just(u64::MAX), any::<u64>()],
        is_signal_return in any::<bool>(),
    ) {
        let at = at.index(text.len() + 1);
        if let Some(bytes) = text.get_mut(at..at + 2) {
            bytes.copy_from_slice(&SYSCALL);
        }
        let function = function.map(|(from, to)| {
            text_addr.wrapping_add(from)..text_addr.wrapping_add(to)
        });
        let syscall = text_addr.wrapping_add(at as u64);
        let before = neighbours.map(|(from, to, _)| {
            text_addr.wrapping_add(from)..text_addr.wrapping_add(to)
        });
        let next = neighbours.map(|(_, _, next)| text_addr.wrapping_add(next));
        let site =
            Site { text: &text, text_addr, syscall, number, function, is_signal_return, before, next, taken: &[] };
        if let Ok(patch) = plan(&site, trampoline, ENTRY) {
            check_form(&site, &patch);
        }
    }

    #[test]
    fn a_branch_from_anywhere_is_seen(
        distance in 0usize..5000,
        (opcode, short) in prop::sample::select(vec![
            (vec![0xe8u8], false), (vec![0xe9], false), (vec![0x0f, 0x80], false),
            (vec![0x0f, 0x8f], false), (vec![0xc7, 0xf8], false), (vec![0xeb], true), (vec![0x7f], true),
        ]),
        target in 1usize..6,
    ) {
        let sample = Sample::new(&TWO_MOVES, 0).then(&vec![0x90; distance]);
        let at = sample.text.len();
        let displacement = |len: usize| target as i32 - (at + opcode.len() + len) as i32;
        let sample = sample.then(&opcode);
        let sample = match (short, i8::try_from(displacement(1))) {
            (true, Err(_)) => return Ok(()),
            (true, Ok(displacement)) => sample.then(&displacement.to_le_bytes()),
            (false, _) => sample.then(&displacement(4).to_le_bytes()),
        };
        let elsewhere = TEXT..TEXT + 18;
        let refusal = plan(&sample.site(Some(elsewhere)), TRAMPOLINE, ENTRY);
        assert_eq!(refusal, Err(Refusal::BranchInside(TEXT + at as u64)));
    }

    #[test]
    fn no_section_makes_extents_panic(
        mut header in prop::collection::vec(any::<u8>(), 0..64),
        has_form in any::<bool>(),
        section in prop::collection::vec(any::<u8>(), 0..64),
        base in any::<u64>(),
        pc in any::<u64>(),
    ) {
        if has_form && header.len() >= 12 {
            header[..4].copy_from_slice(&[1, 0x1b, 3, 0x3b]);
            header[8..12].copy_from_slice(&[3, 0, 0, 0]);
        }
        let read = |addr: u64, len: usize| {
            let from = (addr % 64) as usize;
            section.get(from..from.checked_add(len)?).map(<[u8]>::to_vec)
        };
        if let Some(function) = function_extents(&header, base, pc, &read) {
            assert!(function.contains(&pc));
        }
    }
}
