//! Instructions as far as it takes to go over them: how long each is, and whether it leads elsewhere.
//!
//! What compilers write mostly is told from tables here. All else is left to the decoder, which is right about everything but
//! takes ten times as long, and half a millisecond before it knows the first instruction. Where both answer they agree: a
//! test goes over the text of libraries, and over bytes at random.

use iced_x86::{Code as Opcode, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use super::INT3;

#[cfg(test)]
mod tests;

/// No instruction is longer. See Intel SDM volume 2, 2.3.11.
pub const INSTRUCTION_MAX: usize = 15;

/// One instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// In bytes, 1..=15.
    pub len: u8,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain,
    /// What compilers and assemblers fill with: no-operations, int3.
    Padding,
    Return,
    /// A jump to this address.
    Jump(u64),
    /// A jump to where a register or memory says.
    IndirectJump,
    /// The same by one place relative to rip: no table (but a linkage table's slot, for one).
    SlotJump,
    /// A branch that may go on: conditional jumps, calls, loops, transactions.
    Branch(u64),
}

impl Step {
    /// The instruction that `bytes` begin with, at address `addr`; `None` if there is no valid one.
    pub fn decode(bytes: &[u8], addr: u64) -> Option<Self> {
        match quick(bytes, addr) {
            Some(quick) => Some(quick.step),
            None if is_surely_invalid(bytes) => None,
            None => Self::decode_slowly(bytes, addr),
        }
    }

    /// The same as far as the tables say.
    pub fn look_up(bytes: &[u8], addr: u64) -> Option<Self> {
        quick(bytes, addr).map(|quick| quick.step)
    }

    fn decode_slowly(bytes: &[u8], addr: u64) -> Option<Self> {
        let bytes = bytes.get(..INSTRUCTION_MAX).unwrap_or(bytes);
        let instruction =
            Decoder::try_with_ip(64, bytes, addr, DecoderOptions::NONE).ok()?.decode();
        let len = u8::try_from(instruction.len()).ok()?;
        (!instruction.is_invalid()).then(|| Self { len, kind: kind_of(&instruction) })
    }

    pub fn length(&self) -> u64 {
        self.len.into()
    }

    /// Where a direct branch of any kind leads.
    pub fn target(&self) -> Option<u64> {
        match self.kind {
            Kind::Jump(target) | Kind::Branch(target) => Some(target),
            _ => None,
        }
    }

    /// Returns and unconditional jumps.
    pub fn never_goes_on(&self) -> bool {
        matches!(self.kind, Kind::Return | Kind::Jump(_) | Kind::IndirectJump | Kind::SlotJump)
    }
}

fn kind_of(instruction: &Instruction) -> Kind {
    let target = branch_target(instruction);
    match (instruction.mnemonic(), target) {
        // What a prefix makes of a jump's target differs between processors.
        (Mnemonic::Jmp, Some(target)) if instruction.op0_kind() != OpKind::NearBranch16 => {
            Kind::Jump(target)
        }
        (_, Some(target)) => Kind::Branch(target),
        (Mnemonic::Jmp, None) if instruction.memory_base() == Register::RIP => Kind::SlotJump,
        (Mnemonic::Jmp, None) => Kind::IndirectJump,
        (Mnemonic::Ret, None) => Kind::Return,
        _ if is_padding(instruction) => Kind::Padding,
        _ => Kind::Plain,
    }
}

/// Where a direct branch of any kind leads: jumps, calls, loops, transactions.
pub fn branch_target(instruction: &Instruction) -> Option<u64> {
    match instruction.op0_kind() {
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
            Some(instruction.near_branch_target())
        }
        _ => None,
    }
}

fn is_padding(instruction: &Instruction) -> bool {
    matches!(
        instruction.code(),
        Opcode::Nopd
            | Opcode::Nopw
            | Opcode::Nopq
            | Opcode::Nop_rm16
            | Opcode::Nop_rm32
            | Opcode::Nop_rm64
            | Opcode::Int3
    )
}

/// Length of the instruction that `bytes` begin with, if it is one that does the same at any address and may be moved: on
/// general registers and memory, not relative to rip.
pub fn movable_length(bytes: &[u8]) -> Option<u8> {
    quick(bytes, 0).filter(|quick| quick.is_movable).map(|quick| quick.step.len)
}

/// Whether it is an opcode that was taken out of the 64-bit instruction set.
fn is_surely_invalid(bytes: &[u8]) -> bool {
    let is_prefix = |byte: &&u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x66);
    let prefixes = bytes.iter().take_while(is_prefix).count();
    let opcode = match bytes.get(prefixes..) {
        Some([0x40..=0x4f, opcode, ..] | [opcode, ..]) => *opcode,
        _ => return false,
    };
    prefixes < MOST_PREFIXES
        && matches!(
            opcode,
            0x06 | 0x07
                | 0x0e
                | 0x16
                | 0x17
                | 0x1e
                | 0x1f
                | 0x27
                | 0x2f
                | 0x37
                | 0x3f
                | 0x60
                | 0x61
                | 0x82
                | 0x9a
                | 0xce
                | 0xd4..=0xd6 | 0xea
        )
}

/// Behind more of them the tables have no say.
const MOST_PREFIXES: usize = 8;

/// What the tables say of an instruction.
#[derive(Clone, Copy)]
struct Quick {
    step: Step,
    is_movable: bool,
}

/// What follows an opcode.
#[derive(Clone, Copy)]
enum Tail {
    /// So many bytes.
    Bytes(usize),
    /// An operand byte with its address, then so many bytes.
    Operand(usize),
    /// A displacement of so many bytes.
    Branch(usize),
}

/// Operand size, thread-local data by fs, repetition or the choice among vector instructions.
#[derive(Default, Clone, Copy)]
struct Prefixes {
    len: usize,
    size: bool,
    /// 0xf2 or 0xf3.
    repeat: u8,
    has_fs: bool,
    rex: u8,
}

impl Prefixes {
    const WIDE: u8 = 8;

    /// `None`: others, or these in unusual numbers or order.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut found = Self::default();
        loop {
            let byte = *bytes.get(found.len)?;
            match byte {
                0x66 if !found.size => found.size = true,
                0xf2 | 0xf3 if found.repeat == 0 => found.repeat = byte,
                0x64 if !found.has_fs => found.has_fs = true,
                0x40..=0x4f => {
                    found.rex = byte;
                    found.len = found.len.checked_add(1)?;
                    return Some(found);
                }
                _ => return Some(found),
            }
            found.len = found.len.checked_add(1)?;
        }
    }

    fn is_wide(&self) -> bool {
        self.rex & Self::WIDE != 0
    }

    /// Bytes of an immediate value of the operand's size, which is never of eight.
    fn immediate(&self) -> Option<usize> {
        match (self.size, self.is_wide()) {
            (false, _) => Some(4),
            (true, false) => Some(2),
            (true, true) => None,
        }
    }

    fn has_none(&self) -> bool {
        !self.size && self.repeat == 0 && !self.has_fs
    }
}

fn quick(bytes: &[u8], addr: u64) -> Option<Quick> {
    if let Some(len) = long_nop(bytes) {
        return Some(Quick { step: Step { len, kind: Kind::Padding }, is_movable: false });
    }
    let prefixes = Prefixes::parse(bytes)?;
    let rest = bytes.get(prefixes.len..)?;
    match *rest {
        [0x0f, opcode, ref rest @ ..] => {
            let (tail, is_movable) = two_bytes(opcode, rest, &prefixes)?;
            let kind = if (0x80..=0x8f).contains(&opcode) { Some(Kind::Branch(0)) } else { None };
            finish(&prefixes, 2, rest, tail, kind, is_movable, addr)
        }
        [opcode, ref rest @ ..] => {
            let (tail, kind, is_movable) = one_byte(opcode, rest, &prefixes)?;
            finish(&prefixes, 1, rest, tail, kind, is_movable, addr)
        }
        [] => None,
    }
}

/// `0f 1f /0` behind any number of operand-size and cs prefixes, as assemblers fill with.
fn long_nop(bytes: &[u8]) -> Option<u8> {
    let prefixes = bytes.iter().take_while(|byte| matches!(byte, 0x66 | 0x2e)).count();
    let rest = bytes.get(prefixes..)?.strip_prefix(&[0x0f, 0x1f])?;
    let (operand, register) = operand_length(rest)?;
    let len = prefixes.checked_add(2)?.checked_add(operand.len)?;
    (register == 0 && len <= INSTRUCTION_MAX).then(|| u8::try_from(len).ok())?
}

/// Puts an instruction together. `kind`: if it is not plain.
fn finish(
    prefixes: &Prefixes,
    opcode: usize,
    rest: &[u8],
    tail: Tail,
    kind: Option<Kind>,
    is_movable: bool,
    addr: u64,
) -> Option<Quick> {
    let before = prefixes.len.checked_add(opcode)?;
    let mut is_movable = is_movable;
    let tail_len = match tail {
        Tail::Bytes(count) => count,
        Tail::Branch(count) => count,
        Tail::Operand(count) => {
            let (operand, _) = operand_length(rest)?;
            is_movable &= !operand.is_relative;
            operand.len.checked_add(count)?
        }
    };
    rest.get(..tail_len)?;
    let len = before.checked_add(tail_len)?;
    if len > INSTRUCTION_MAX {
        return None;
    }
    let len = u8::try_from(len).ok()?;
    let kind = match kind {
        None => Kind::Plain,
        Some(kind @ (Kind::Jump(_) | Kind::Branch(_))) => {
            let distance = match *rest.get(..tail_len)? {
                [near] => i64::from(near.cast_signed()),
                [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
                _ => return None,
            };
            let target = addr.wrapping_add(len.into()).wrapping_add_signed(distance);
            if matches!(kind, Kind::Jump(_)) { Kind::Jump(target) } else { Kind::Branch(target) }
        }
        Some(kind) => kind,
    };
    Some(Quick { step: Step { len, kind }, is_movable })
}

/// An operand byte with what follows it of the address.
struct Operand {
    len: usize,
    /// To rip.
    is_relative: bool,
}

/// That, and the register field.
fn operand_length(rest: &[u8]) -> Option<(Operand, u8)> {
    let modrm = *rest.first()?;
    let (mode, base) = (modrm >> 6, modrm & 7);
    let has_sib = mode != 3 && base == 4;
    let sib_base = if has_sib { *rest.get(1)? & 7 } else { 0 };
    let displacement = match mode {
        0 if base == 5 || has_sib && sib_base == 5 => 4,
        1 => 1,
        2 => 4,
        _ => 0,
    };
    let len = 1usize.checked_add(usize::from(has_sib))?.checked_add(displacement)?;
    rest.get(..len)?;
    Some((Operand { len, is_relative: mode == 0 && base == 5 }, modrm >> 3 & 7))
}

fn one_byte(opcode: u8, rest: &[u8], prefixes: &Prefixes) -> Option<(Tail, Option<Kind>, bool)> {
    let register = rest.first().map(|modrm| modrm >> 3 & 7);
    let is_memory = rest.first().is_some_and(|modrm| modrm >> 6 != 3);
    let plain = |tail| Some((tail, None, true));
    if prefixes.repeat != 0 {
        return repeated(opcode, prefixes);
    }
    match opcode {
        0x00..=0x3f => match opcode & 7 {
            0..=3 => plain(Tail::Operand(0)),
            4 => plain(Tail::Bytes(1)),
            5 => plain(Tail::Bytes(prefixes.immediate()?)),
            _ => None,
        },
        0x50..=0x5f if prefixes.has_none() => plain(Tail::Bytes(0)),
        0x63 if !prefixes.size => plain(Tail::Operand(0)),
        0x68 if prefixes.has_none() => Some((Tail::Bytes(4), None, false)),
        0x6a if prefixes.has_none() => Some((Tail::Bytes(1), None, false)),
        0x69 => plain(Tail::Operand(prefixes.immediate()?)),
        0x6b | 0x80 | 0x83 => plain(Tail::Operand(1)),
        0x81 => plain(Tail::Operand(prefixes.immediate()?)),
        0x70..=0x7f if prefixes.has_none() => Some((Tail::Branch(1), Some(Kind::Branch(0)), false)),
        0x84..=0x8b => plain(Tail::Operand(0)),
        0x8d if is_memory => plain(Tail::Operand(0)),
        0x90 if prefixes.rex & 1 == 0 && !prefixes.has_fs => {
            Some((Tail::Bytes(0), Some(Kind::Padding), false))
        }
        0x91..=0x99 if !prefixes.has_fs => plain(Tail::Bytes(0)),
        0xa8 => plain(Tail::Bytes(1)),
        0xa9 => plain(Tail::Bytes(prefixes.immediate()?)),
        0xa4..=0xa7 | 0xaa..=0xaf if !prefixes.has_fs => Some((Tail::Bytes(0), None, false)),
        0xb0..=0xb7 => plain(Tail::Bytes(1)),
        0xb8..=0xbf if prefixes.is_wide() => {
            if prefixes.size {
                None
            } else {
                plain(Tail::Bytes(8))
            }
        }
        0xb8..=0xbf => plain(Tail::Bytes(prefixes.immediate()?)),
        // Not the rotations through carry, nor the twin of `shl`.
        0xc0 | 0xc1 if matches!(register?, 0 | 1 | 4 | 5 | 7) => plain(Tail::Operand(1)),
        0xd0..=0xd3 if matches!(register?, 0 | 1 | 4 | 5 | 7) => plain(Tail::Operand(0)),
        0xc3 if prefixes.has_none() && prefixes.rex == 0 => {
            Some((Tail::Bytes(0), Some(Kind::Return), false))
        }
        0xc6 if register? == 0 => plain(Tail::Operand(1)),
        0xc7 if register? == 0 => plain(Tail::Operand(prefixes.immediate()?)),
        0xc9 if prefixes.has_none() => Some((Tail::Bytes(0), None, false)),
        INT3 if prefixes.len == 0 => Some((Tail::Bytes(0), Some(Kind::Padding), false)),
        0xe8 if prefixes.has_none() => Some((Tail::Branch(4), Some(Kind::Branch(0)), false)),
        0xe9 if prefixes.has_none() => Some((Tail::Branch(4), Some(Kind::Jump(0)), false)),
        0xeb if prefixes.has_none() => Some((Tail::Branch(1), Some(Kind::Jump(0)), false)),
        0xf6 => match register? {
            0 => plain(Tail::Operand(1)),
            2..=5 => plain(Tail::Operand(0)),
            6 | 7 => Some((Tail::Operand(0), None, false)),
            _ => None,
        },
        0xf7 => match register? {
            0 => plain(Tail::Operand(prefixes.immediate()?)),
            2..=5 => plain(Tail::Operand(0)),
            // Divisions stay where they are: they may fault.
            6 | 7 => Some((Tail::Operand(0), None, false)),
            _ => None,
        },
        0xfe if matches!(register?, 0 | 1) => plain(Tail::Operand(0)),
        0xff => group_five(register?, rest, prefixes),
        _ if prefixes.has_none() => seldom(opcode, register, is_memory),
        _ => None,
    }
}

/// String instructions and `rep ret`; `pause` is no padding.
fn repeated(opcode: u8, prefixes: &Prefixes) -> Option<(Tail, Option<Kind>, bool)> {
    match opcode {
        0xa4..=0xa7 | 0xaa..=0xaf if !prefixes.has_fs => Some((Tail::Bytes(0), None, false)),
        0xc3 if prefixes.repeat == 0xf3 && !prefixes.size && !prefixes.has_fs => {
            Some((Tail::Bytes(0), Some(Kind::Return), false))
        }
        _ => None,
    }
}

/// What is rarely in programs, but often found where no instruction begins.
fn seldom(opcode: u8, register: Option<u8>, is_memory: bool) -> Option<(Tail, Option<Kind>, bool)> {
    let plain = |tail| Some((tail, None, false));
    match opcode {
        0x6c..=0x6f | 0x9b..=0x9f | 0xcb | 0xcf | 0xd7 | 0xec..=0xef | 0xf1 | 0xf4 | 0xf5 => {
            plain(Tail::Bytes(0))
        }
        0xf8..=0xfd => plain(Tail::Bytes(0)),
        0xcd | 0xe4..=0xe7 => plain(Tail::Bytes(1)),
        0xca => plain(Tail::Bytes(2)),
        0xc8 => plain(Tail::Bytes(3)),
        0xa0..=0xa3 => plain(Tail::Bytes(8)),
        0xe0..=0xe3 => Some((Tail::Branch(1), Some(Kind::Branch(0)), false)),
        // Of the floating point unit, with memory.
        0xd8 | 0xda | 0xdc | 0xde | 0xdf if is_memory => plain(Tail::Operand(0)),
        0xd9 if is_memory && register? != 1 => plain(Tail::Operand(0)),
        0xdb if is_memory && !matches!(register?, 4 | 6) => plain(Tail::Operand(0)),
        0xdd if is_memory && register? != 5 => plain(Tail::Operand(0)),
        _ => None,
    }
}

/// `inc`, `dec`, `push`, and calls and jumps to where a register or memory says.
fn group_five(
    register: u8,
    rest: &[u8],
    prefixes: &Prefixes,
) -> Option<(Tail, Option<Kind>, bool)> {
    let is_relative = operand_length(rest)?.0.is_relative;
    match register {
        0 | 1 => Some((Tail::Operand(0), None, true)),
        2 | 6 if prefixes.has_none() => Some((Tail::Operand(0), None, false)),
        4 if prefixes.has_none() => {
            let kind = if is_relative { Kind::SlotJump } else { Kind::IndirectJump };
            Some((Tail::Operand(0), Some(kind), false))
        }
        _ => None,
    }
}

/// Opcodes behind 0x0f.
fn two_bytes(opcode: u8, rest: &[u8], prefixes: &Prefixes) -> Option<(Tail, bool)> {
    let register = rest.first().map(|modrm| modrm >> 3 & 7);
    let has_size = prefixes.size && prefixes.repeat == 0;
    let has_neither = !prefixes.size && prefixes.repeat == 0;
    let vector = |is_known: bool, tail| is_known.then_some((tail, false));
    match opcode {
        // xgetbv.
        0x01 if prefixes.len == 0 && rest.first() == Some(&0xd0) => Some((Tail::Bytes(1), false)),
        // syscall, ud2.
        0x05 | 0x0b if prefixes.len == 0 => Some((Tail::Bytes(0), false)),
        0x10 | 0x11 => vector(!(prefixes.size && prefixes.repeat != 0), Tail::Operand(0)),
        // endbr64.
        0x1e if prefixes.len == 1 && prefixes.repeat == 0xf3 && rest.first() == Some(&0xfa) => {
            Some((Tail::Bytes(1), false))
        }
        0x14 | 0x15 | 0x28 | 0x29 | 0x2e | 0x2f | 0x54..=0x57 => {
            vector(prefixes.repeat == 0, Tail::Operand(0))
        }
        0x40..=0x4f if prefixes.repeat == 0 => Some((Tail::Operand(0), true)),
        0x6e => vector(has_size, Tail::Operand(0)),
        0x6f | 0x7f => {
            vector(has_size || !prefixes.size && prefixes.repeat == 0xf3, Tail::Operand(0))
        }
        0x70 => vector(has_size, Tail::Operand(1)),
        0x60..=0x6d | 0x74..=0x76 => vector(has_size, Tail::Operand(0)),
        0x7e => vector(has_size || !prefixes.size && prefixes.repeat == 0xf3, Tail::Operand(0)),
        0x80..=0x8f if prefixes.has_none() => Some((Tail::Branch(4), false)),
        0x90..=0x9f if has_neither => Some((Tail::Operand(0), false)),
        // cpuid.
        0xa2 if prefixes.len == 0 => Some((Tail::Bytes(0), false)),
        0xa3 | 0xab | 0xb3 | 0xbb if prefixes.repeat == 0 => Some((Tail::Operand(0), true)),
        0xa4 | 0xac if prefixes.repeat == 0 => Some((Tail::Operand(1), true)),
        0xa5 | 0xad | 0xaf | 0xb0 | 0xb1 | 0xc0 | 0xc1 if prefixes.repeat == 0 => {
            Some((Tail::Operand(0), true))
        }
        0xb6 | 0xb7 | 0xbe | 0xbf | 0xbc | 0xbd if prefixes.repeat == 0 => {
            Some((Tail::Operand(0), true))
        }
        0xba if prefixes.repeat == 0 && register? >= 4 => Some((Tail::Operand(1), true)),
        0xc8..=0xcf if prefixes.has_none() => Some((Tail::Bytes(0), true)),
        0xd1..=0xd6 | 0xd8..=0xdf | 0xe0..=0xe5 | 0xe8..=0xef | 0xf1..=0xf6 | 0xf8..=0xfe => {
            vector(has_size, Tail::Operand(0))
        }
        _ => None,
    }
}
