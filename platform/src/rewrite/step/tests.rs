//! What the tables say, against the decoder.

use super::super::code::decode;
use super::super::relocate::is_movable;
use super::*;

/// Libraries whose bytes are gone through, from every offset: more than half of them are no instruction's first.
const LIBRARIES: [&str; 4] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib/ld-musl-x86_64.so.1",
    "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
];
const MOST_BYTES: usize = 3 << 20;
const ADDR: u64 = 0x7f00_1234_5000;

/// Whether the tables know the instruction.
fn compare(bytes: &[u8]) -> bool {
    let bytes = bytes.get(..INSTRUCTION_MAX).unwrap_or(bytes);
    let Some(quick) = quick(bytes, ADDR) else {
        if is_surely_invalid(bytes) {
            assert_eq!(Step::decode_slowly(bytes, ADDR), None, "{bytes:02x?}");
        }
        return false;
    };
    assert_eq!(Some(quick.step), Step::decode_slowly(bytes, ADDR), "{bytes:02x?}");
    if quick.is_movable {
        let (instruction, _) = decode(bytes, ADDR).expect("a valid one");
        let is_relative = instruction.memory_base() == Register::RIP;
        assert!(is_movable(&instruction) && !is_relative, "{bytes:02x?} {instruction:?}");
    }
    true
}

#[test]
fn tables_agree_with_the_decoder_on_libraries() {
    let (mut all, mut known) = (0, 0);
    for library in LIBRARIES {
        // Not every system has them all; some have the first.
        let Ok(file) = std::fs::read(library) else { continue };
        let file = file.get(..MOST_BYTES).unwrap_or(&file);
        // Of a debug build's time; phases of 5 come to all residues of 8.
        for at in (0..file.len()).step_by(5) {
            all += 1;
            known += u32::from(compare(file.get(at..).unwrap_or_default()));
        }
    }
    assert!(known > all / 3, "{known} of {all} are known");
}

/// Numbers without a pattern, the same in each run (xorshift).
fn noise() -> impl Iterator<Item = u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    })
}

#[test]
fn tables_agree_with_the_decoder_on_noise() {
    let prefixes = [0x66, 0xf2, 0xf3, 0x64, 0x48, 0x41, 0x4f, 0x40, 0x2e, 0x67, 0xf0, 0x3e];
    let mut words = noise();
    for _ in 0..200_000 {
        let [a, b, c] = [(); 3].map(|()| words.next().unwrap_or_default());
        let mut bytes = Vec::new();
        for place in 0..a % 4 {
            let index = (b >> (place * 8)) % prefixes.len() as u64;
            bytes.extend(prefixes.get(index as usize));
        }
        if a & 0x100 != 0 {
            bytes.push(0x0f);
        }
        bytes.extend(c.to_le_bytes());
        bytes.extend(a.to_be_bytes());
        compare(&bytes);
    }
}

#[test]
fn every_opcode_is_compared() {
    // Each opcode of both maps, behind each of some prefixes, with each operand byte.
    let prefixes: [&[u8]; 12] = [
        &[],
        &[0x66],
        &[0xf2],
        &[0xf3],
        &[0x64],
        &[0x48],
        &[0x41],
        &[0x66, 0x48],
        &[0xf3, 0x48],
        &[0xf3, 0x66],
        &[0x64, 0x66],
        &[0x66, 0x66],
    ];
    let mut known = 0;
    for prefix in prefixes {
        for map in [&[][..], &[0x0f]] {
            for opcode in 0..=u8::MAX {
                for operand in (0..=u8::MAX).step_by(3) {
                    let start = [prefix, map, &[opcode, operand, 0x25]].concat();
                    let bytes = [&start[..], &[0x11; 12]].concat();
                    known += u32::from(compare(&bytes));
                }
            }
        }
    }
    assert!(known > 100_000, "{known} are known");
}

#[test]
fn a_cut_instruction_is_none() {
    let whole = [0x48, 0xc7, 0xc0, 0x27, 0, 0, 0];
    for len in 0..whole.len() {
        assert_eq!(Step::decode(whole.get(..len).unwrap_or_default(), ADDR), None);
    }
    assert_eq!(Step::decode(&whole, ADDR), Some(Step { len: 7, kind: Kind::Plain }));
}
