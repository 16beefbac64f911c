//! Islands, and what stays whatever is nearby.

use super::*;

/// glibc's `__read_nocancel` from its start at `START`, between two functions: 16 bytes aligned.
struct Short {
    text: Vec<u8>,
    function: Range<u64>,
}

const START: u64 = TEXT + 0x20;
/// `nopw %cs:0(%rax,%rax,1)`, as assemblers pad with.
const NOP_10: [u8; 10] = [0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0];
const NOP_2: [u8; 2] = [0x66, 0x90];

impl Short {
    /// Padding of `before` bytes' end and of the function's own; what comes last in both.
    fn new(last_before: &[u8], gap_before: &[u8], last: &[u8], gap: &[u8]) -> Self {
        let mut text = vec![0x90; 0x20 - last_before.len() - gap_before.len()];
        text.extend(last_before);
        text.extend(gap_before);
        text.extend([0x31, 0xc0, 0x0f, 0x05, 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x77, 0x00]);
        text.extend(last);
        let function = START..TEXT + text.len() as u64;
        text.extend(gap);
        text.extend([0xc3; 16]);
        Self { text, function }
    }

    fn site<'a>(&'a self, gap_before: u64, taken: &'a [Range<u64>]) -> Site<'a> {
        Site {
            is_signal_return: false,
            text: &self.text,
            text_addr: TEXT,
            syscall: START + 2,
            number: 0,
            function: Some(self.function.clone()),
            before: Some(TEXT..START - gap_before),
            next: Some(TEXT + self.text.len() as u64 - 16),
            taken,
        }
    }

    fn plan(&self, gap_before: u64) -> Result<Patch, Refusal> {
        plan(&self.site(gap_before, &[]), TRAMPOLINE, ENTRY)
    }
}

/// Padding before the function, none behind it.
fn padded_before() -> Short {
    Short::new(&[0xc3], &NOP_10, &[0xc3, 0x90, 0x90, 0xc3], &[])
}

#[test]
fn a_short_jump_leads_to_padding_before_the_function() {
    let short = padded_before();
    let patch = short.plan(10).unwrap();
    let island = patch.island.clone().unwrap();
    assert_eq!((patch.at, &patch.original[..]), (START, &[0x31, 0xc0][..]));
    assert_eq!(patch.bytes, [0xeb, (-12i8).cast_unsigned()]);
    assert_eq!((island.at, island.original.len()), (START - 10, 10));
    let jump = i32::from_le_bytes(island.bytes[1..5].try_into().unwrap());
    assert_eq!((island.at + 5).wrapping_add_signed(jump.into()), TRAMPOLINE);
    assert_eq!(island.bytes[5..], [INT3; 5]);
    assert_eq!(patch.trampoline[..2], [0x31, 0xc0]);
    assert!(patch.is_single);
    check_form(&short.site(10, &[]), &patch);
    let mut text = short.text.clone();
    text[0x16..0x20].copy_from_slice(&island.bytes);
    text[0x20..0x22].copy_from_slice(&patch.bytes);
    patch.restore(&mut text, TEXT);
    assert_eq!(text, short.text);
}

#[test]
fn a_short_jump_leads_to_padding_behind_and_in_the_function() {
    let ret = [0xc3, 0x90, 0x90, 0xc3];
    let behind = Short::new(&[0xc3], &[], &ret, &[NOP_10.as_slice(), &NOP_10[..6]].concat());
    assert!(behind.plan(0).is_err(), "what is behind is no padding");
    let behind =
        Short::new(&[0xc3], &[], &ret, &[NOP_10.as_slice(), &NOP_2, &NOP_2, &NOP_2].concat());
    assert_eq!(behind.plan(0).unwrap().island.unwrap().at, START + 16);
    // ret, padding up to what is aligned, and more of the function.
    let inside = [&[0xc3, 0x66, 0x90], &[0x0f, 0x1f, 0x44, 0, 0][..], &[0x66, 0x90, 0xc3]];
    let inside = Short::new(&[0xc3], &[], &inside.concat(), &[]);
    assert!(inside.plan(0).is_err(), "it does not end at what is aligned");
    let inside = [&[0xc3, 0x66, 0x90], &[0x0f, 0x1f, 0x80, 0, 0, 0, 0][..], &[0x66, 0x90, 0xc3]];
    let inside = Short::new(&[0xc3], &[], &inside.concat(), &[]);
    assert_eq!(inside.plan(0).unwrap().island.unwrap().at, START + 13);
}

#[test]
fn padding_is_used_once() {
    let short = padded_before();
    let island = START - 10..START;
    let taken = [island.start + 9..island.end + 1, TEXT..TEXT];
    assert_eq!(plan(&short.site(10, &taken), TRAMPOLINE, ENTRY), Err(Refusal::TooShort));
    let taken = [island.end..island.end + 1, TEXT..island.start];
    assert!(plan(&short.site(10, &taken), TRAMPOLINE, ENTRY).is_ok());
}

#[test]
fn padding_that_somebody_may_come_to_is_left_alone() {
    let ret = [0xc3, 0x90, 0x90, 0xc3];
    // Not behind a return.
    let falls = Short::new(&[0x90], &NOP_10, &ret, &[]);
    assert_eq!(falls.plan(10), Err(Refusal::TooShort));
    let calls = Short::new(&[0xe8, 0, 0, 0, 0], &NOP_10, &ret, &[]);
    assert_eq!(calls.plan(10), Err(Refusal::TooShort));
    // A branch leads to its start, or into it: from the function, the one before, and what is known of neither.
    for target in [START - 10, START - 5] {
        let to = |from: u64| (target.wrapping_sub(from) as i8).cast_unsigned();
        let ours = Short::new(&[0xc3], &NOP_10, &[0xeb, to(START + 14), 0x90, 0xc3], &[]);
        assert_eq!(ours.plan(10), Err(Refusal::TooShort));
        let theirs = Short::new(&[0xeb, to(START - 11), 0xc3], &NOP_10, &ret, &[]);
        assert_eq!(theirs.plan(10), Err(Refusal::TooShort));
        let mut far = padded_before();
        far.text.extend([0xe8, 0, 0, 0, 0]);
        let end = TEXT + far.text.len() as u64;
        let displacement = (target.wrapping_sub(end) as i32).to_le_bytes();
        let at = far.text.len() - 4;
        far.text[at..].copy_from_slice(&displacement);
        let mut site = far.site(10, &[]);
        site.next = None;
        assert_eq!(plan(&site, TRAMPOLINE, ENTRY), Err(Refusal::TooShort));
    }
    // Nobody knows what is between functions.
    let short = padded_before();
    let mut site = short.site(10, &[]);
    site.before = None;
    assert_eq!(plan(&site, TRAMPOLINE, ENTRY), Err(Refusal::TooShort));
    site.function = None;
    assert!(plan(&site, TRAMPOLINE, ENTRY).is_err());
    // Out of a short jump's reach.
    let mut away = vec![0x90; 126];
    away.extend([0xc3, 0x90, 0x90, 0x90, 0x90, 0xc3]);
    let away = Short::new(&[0xc3], &[], &away, &[0x90; 16]);
    assert_eq!(away.plan(0), Err(Refusal::TooShort));
}

#[test]
fn a_trampoline_out_of_reach_is_refused() {
    let near = Sample::new(&[0xb8, 0, 0, 0, 0], 0);
    let site = near.site(Some(TEXT..TEXT + 7));
    // The way there is shorter than the way back from the end of lea.
    let edge = TEXT + 7 + (1 << 31) - 12;
    assert!(plan(&site, edge, ENTRY).is_ok());
    assert_eq!(plan(&site, edge + 1, ENTRY), Err(Refusal::OutOfReach));
    assert_eq!(plan(&site, u64::MAX - 2, ENTRY), Err(Refusal::OutOfReach));
    // cmpb $0,x(%rip), x far below
    let far = Sample::new(&[0x80, 0x3d, 0, 0, 0, 0x80, 0], 0);
    assert_eq!(far.known(), Err(Refusal::OutOfReach));
}
