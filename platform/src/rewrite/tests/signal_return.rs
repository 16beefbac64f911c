//! The one site that others know by its bytes.

use super::*;

#[test]
fn a_return_from_a_signal_is_known_without_its_number() {
    for bytes in [[0x48, 0xc7, 0xc0, 15, 0, 0, 0], [0x48, 0xc7, 0xc0, 1, 2, 0, 0x40]] {
        assert_eq!(Sample::new(&bytes, 39).known(), Err(Refusal::SignalReturn));
    }
}

#[test]
fn a_return_from_a_signal_stays() {
    let sample = Sample::new(&[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0], 15);
    assert_eq!(sample.known(), Err(Refusal::SignalReturn));
}

#[test]
fn a_return_from_a_signal_that_unwind_tables_describe_is_moved_alone() {
    let plan_described = |bytes: &[u8], number| {
        let sample = Sample::new(bytes, number);
        let site = Site { is_signal_return: true, ..sample.site(None) };
        let planned = plan(&site, TRAMPOLINE, ENTRY);
        assert_eq!(plan_alone(&site, TRAMPOLINE, ENTRY), planned.clone().ok());
        planned
    };
    let patch = plan_described(&[0x90, 0x48, 0xc7, 0xc0, 15, 0, 0, 0], 15).unwrap();
    assert!(patch.is_single);
    assert_eq!(patch.original, [0x48, 0xc7, 0xc0, 15, 0, 0, 0]);
    assert_eq!(patch.trampoline[..7], patch.original);
    // In other forms no unwinder knows it, and with other numbers it is none.
    for bytes in [[0xb8, 15, 0, 0, 0, 0x90, 0x90], [0x48, 0xc7, 0xc0, 1, 2, 0, 0x40]] {
        assert_eq!(plan_described(&bytes, 15), Err(Refusal::SignalReturn));
    }
    let other = plan_described(&[0x48, 0xc7, 0xc0, 15, 0, 0, 0], 39);
    assert_eq!(other, Err(Refusal::SignalReturn));
}

#[test]
fn what_signal_handlers_return_to_has_no_extents() {
    let frames = signal_frames();
    assert_eq!(find(&frames, FUNCTION), None);
    for pc in FUNCTION - 1..FUNCTION + 0x41 {
        // It is described from one byte before the instruction that loads the number.
        assert_eq!(is_described(&frames, pc), pc == FUNCTION + 8);
    }
    assert!(!is_described(&self::frames(*b"zR\0", 0x1b), FUNCTION + 8));
    assert!(!is_described(&self::frames(*b"zS\0", 0x3b), FUNCTION + 8));
}

/// The augmentation's letters in the order of GNU's assembler, and plain addresses.
fn signal_frames() -> (Vec<u8>, Vec<u8>) {
    let (header, mut section) = frames(*b"zS\0", 0);
    let start = section.len() - 13;
    section.splice(start - 4..start, 21u32.to_le_bytes());
    section.truncate(start + 4);
    section.extend(FUNCTION.to_le_bytes());
    section.extend([0x40, 0, 0, 0, 0, 0, 0, 0, 0]);
    (header, section)
}

fn is_described(frames: &(Vec<u8>, Vec<u8>), pc: u64) -> bool {
    let read = |addr: u64, len: usize| {
        let from = addr.checked_sub(CIE)? as usize;
        frames.1.get(from..from + len).map(<[u8]>::to_vec)
    };
    is_signal_return(&frames.0, HEADER, pc, &read)
}
