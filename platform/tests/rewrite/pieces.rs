//! Random instructions: what may stand before a system call, and harmless wherever it is executed.

use proptest::prelude::*;

use crate::machine;

/// getppid(2), which nothing of ours needs.
const NUMBER: u8 = 110;

/// A destination: neither rax (the number), rsp nor r15 (the data).
fn destination() -> impl Strategy<Value = u8> {
    prop::sample::select(vec![1u8, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14])
}

fn source() -> impl Strategy<Value = u8> {
    0u8..16
}

/// An instruction, as far as it can be encoded without an address.
#[derive(Debug, Clone)]
pub enum Piece {
    Plain(Vec<u8>),
    /// Opcode bytes with the place of a displacement to `.1` in the data, then what follows that.
    Rip(Vec<u8>, u8, Vec<u8>),
    /// Conditional jump, short or near.
    Jump(u8, To, bool),
}

#[derive(Debug, Clone, Copy)]
pub enum To {
    Out,
    Syscall,
    AfterNext,
}

/// REX for a register in the middle of ModRM and one at its end.
fn rex(is_wide: bool, reg: u8, rm: u8) -> u8 {
    0x40 | u8::from(is_wide) << 3 | (reg >> 3) << 2 | rm >> 3
}

fn modrm(mode: u8, reg: u8, rm: u8) -> u8 {
    mode << 6 | (reg & 7) << 3 | rm & 7
}

fn registers() -> impl Strategy<Value = Piece> {
    let opcodes = vec![0x01u8, 0x09, 0x11, 0x19, 0x21, 0x29, 0x31, 0x39, 0x85, 0x89];
    (prop::sample::select(opcodes), source(), destination(), any::<bool>()).prop_map(
        |(opcode, reg, rm, is_wide)| {
            let prefix = rex(is_wide, reg, rm);
            let bytes = [prefix, opcode, modrm(3, reg, rm)];
            // Without need a prefix would not be written.
            Piece::Plain(bytes[usize::from(prefix == 0x40)..].to_vec())
        },
    )
}

fn one_register() -> impl Strategy<Value = Piece> {
    let forms: Vec<(&[u8], u8, Option<u8>)> = vec![
        (&[0xff], 0, None),
        (&[0xff], 1, None),
        (&[0xf7], 2, None),
        (&[0xf7], 3, None),
        (&[0x83], 0, Some(0x7f)),
        (&[0x83], 4, Some(0xf0)),
        (&[0x83], 7, Some(0x11)),
        (&[0xc1], 4, Some(3)),
        (&[0xc1], 5, Some(9)),
        (&[0xc1], 7, Some(1)),
        (&[0x0f, 0xba], 4, Some(17)),
    ];
    (prop::sample::select(forms), destination(), any::<bool>()).prop_map(
        |((opcode, digit, immediate), rm, is_wide)| {
            let mut bytes = vec![rex(is_wide, 0, rm)];
            bytes.extend(opcode);
            bytes.push(modrm(3, digit, rm));
            bytes.extend(immediate);
            Piece::Plain(bytes)
        },
    )
}

fn into_register() -> impl Strategy<Value = Piece> {
    let opcodes = vec![0x40u8, 0x42, 0x44, 0x4c, 0x4f, 0xaf, 0xb6, 0xbe, 0xb7];
    (prop::sample::select(opcodes), destination(), source()).prop_map(|(op, reg, rm)| {
        Piece::Plain(vec![rex(true, reg, rm), 0x0f, op, modrm(3, reg, rm)])
    })
}

fn immediate() -> impl Strategy<Value = Piece> {
    (destination(), any::<[u8; 4]>(), any::<bool>()).prop_map(|(rm, value, is_wide)| {
        let mut bytes = match is_wide {
            true => vec![0x48 | rm >> 3, 0xc7, modrm(3, 0, rm)],
            false if rm < 8 => vec![0xb8 | rm],
            false => vec![0x41, 0xb8 | rm & 7],
        };
        bytes.extend(value);
        Piece::Plain(bytes)
    })
}

/// Loads, stores and address arithmetic around r15.
fn memory() -> impl Strategy<Value = Piece> {
    (prop::sample::select(vec![0x8bu8, 0x8d, 0x89, 0x01, 0x3b]), destination(), 0u8..100).prop_map(
        |(opcode, reg, at)| Piece::Plain(vec![rex(true, reg, 15), opcode, modrm(1, reg, 15), at]),
    )
}

fn stack() -> impl Strategy<Value = Piece> {
    prop_oneof![
        source().prop_map(|reg| Piece::Plain(vec![0x40 | reg >> 3, 0x50 | reg & 7])),
        destination().prop_map(|reg| Piece::Plain(vec![0x40 | reg >> 3, 0x58 | reg & 7])),
        any::<[u8; 4]>().prop_map(|[a, b, c, d]| Piece::Plain(vec![0x68, a, b, c, d])),
        (destination(), 0u8..64).prop_map(|(reg, at)| {
            Piece::Plain(vec![0x48 | (reg >> 3) << 2, 0x8b, modrm(1, reg, 4), 0x24, at])
        }),
    ]
}

fn rip_relative() -> impl Strategy<Value = Piece> {
    let with_register = (prop::sample::select(vec![0x8bu8, 0x8d, 0x89, 0x2b]), destination());
    prop_oneof![
        (with_register, 0u8..200).prop_map(|((opcode, reg), at)| Piece::Rip(
            vec![rex(true, reg, 0), opcode, modrm(0, reg, 5)],
            at,
            vec![]
        )),
        (0u8..200, any::<u8>()).prop_map(|(at, value)| Piece::Rip(
            vec![0x80, 0x3d],
            at,
            vec![value]
        )),
        (0u8..200, any::<[u8; 4]>()).prop_map(|(at, value)| Piece::Rip(
            vec![0xc7, 0x05],
            at,
            value.to_vec()
        )),
    ]
}

fn jump() -> impl Strategy<Value = Piece> {
    let to = prop_oneof![
        4 => Just(To::Out),
        1 => Just(To::Syscall),
        1 => Just(To::AfterNext),
    ];
    (0u8..16, to, any::<bool>())
        .prop_map(|(condition, to, is_short)| Piece::Jump(condition, to, is_short))
}

fn number() -> impl Strategy<Value = Piece> {
    let forms: Vec<&[u8]> = vec![&[0xb8], &[0xc7, 0xc0], &[0x48, 0xc7, 0xc0]];
    prop::sample::select(forms).prop_map(|form| Piece::Plain([form, &[NUMBER, 0, 0, 0]].concat()))
}

pub fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = prop_oneof![
        4 => registers(), 2 => one_register(), 2 => into_register(), 2 => immediate(), 2 => memory(),
        2 => stack(), 3 => rip_relative(), 3 => jump(), 1 => number(),
    ];
    prop::collection::vec(piece, 1..30)
}

/// Registers at the start; rsp and r15 are the arena's.
pub fn registers_at_start() -> impl Strategy<Value = [u64; 16]> {
    any::<[u64; 16]>().prop_map(|mut registers| {
        registers[0] = NUMBER.into();
        registers
    })
}

/// A function of pieces, a system call and the ways out.
pub struct Function {
    pub bytes: Vec<u8>,
    /// Offset of the call, and of what is no code any more.
    pub syscall: usize,
    pub end: usize,
    /// Behind that is padding up to here.
    pub next: usize,
}

impl Function {
    /// Encodes for address `code` with data at `data`.
    pub fn new(pieces: &[Piece], code: u64, data: u64) -> Self {
        // Lengths do not depend on where jumps lead, so a second pass knows all places.
        let (_, starts) = encode(pieces, code, data, &vec![0; pieces.len() + 2]);
        let (mut bytes, starts) = encode(pieces, code, data, &starts);
        let syscall = starts[pieces.len()];
        let end = bytes.len();
        // At least as much as a jump needs.
        let next = (end + 5).next_multiple_of(16);
        bytes.resize(next, 0x90);
        bytes.extend(machine::exits().iter().flat_map(|exit| exit.to_le_bytes()));
        Self { bytes, syscall, end, next }
    }
}

/// The code, and where its pieces, the call and the way out begin, if they began at `starts`.
fn encode(pieces: &[Piece], code: u64, data: u64, starts: &[usize]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes: Vec<u8> = Vec::new();
    let mut found = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        found.push(bytes.len());
        match piece {
            Piece::Plain(plain) => bytes.extend(plain),
            Piece::Rip(opcode, at, immediate) => {
                let end = bytes.len() + opcode.len() + 4 + immediate.len();
                let distance = data as i64 + i64::from(*at) - (code as i64 + end as i64);
                bytes.extend(opcode);
                bytes.extend(i32::try_from(distance).expect("data is near").to_le_bytes());
                bytes.extend(immediate);
            }
            Piece::Jump(condition, to, is_short) => {
                let target = match to {
                    To::Out => starts[pieces.len() + 1],
                    To::Syscall => starts[pieces.len()],
                    To::AfterNext => starts[(index + 2).min(pieces.len())],
                };
                push_jump(&mut bytes, *condition, target, *is_short);
            }
        }
    }
    found.push(bytes.len());
    bytes.extend([0x0f, 0x05]);
    // Both jumps, of 6 bytes each, read what comes behind the padding.
    let end = bytes.len() + 12;
    let exits = (end + 5).next_multiple_of(16);
    bytes.extend([0xff, 0x25, (exits - (end - 6)) as u8, 0, 0, 0]);
    found.push(bytes.len());
    bytes.extend([0xff, 0x25, (exits + 8 - end) as u8, 0, 0, 0]);
    (bytes, found)
}

fn push_jump(bytes: &mut Vec<u8>, condition: u8, target: usize, is_short: bool) {
    let end = bytes.len() as i64 + if is_short { 2 } else { 6 };
    let distance = target as i64 - end;
    if is_short {
        // Too far only for the ways out of long functions: then just to the next instruction.
        let distance = i8::try_from(distance).unwrap_or(0);
        bytes.extend([0x70 | condition, distance.cast_unsigned()]);
    } else {
        bytes.extend([0x0f, 0x80 | condition]);
        bytes.extend(i32::try_from(distance).expect("functions are short").to_le_bytes());
    }
}
