//! Bytes of guest text by address, and what instruction is at an address.

use std::ops::Range;

use iced_x86::{ConstantOffsets, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

/// No instruction is longer. See Intel SDM volume 2, 2.3.11.
const INSTRUCTION_MAX: usize = 15;

/// A piece of guest text whose end is an address, too.
#[derive(Debug, Clone, Copy)]
pub struct Code<'a> {
    bytes: &'a [u8],
    start: u64,
    end: u64,
}

impl<'a> Code<'a> {
    /// `None` if the piece would reach around the address space.
    pub fn new(bytes: &'a [u8], start: u64) -> Option<Self> {
        let end = start.checked_add(u64::try_from(bytes.len()).ok()?)?;
        Some(Self { bytes, start, end })
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn start(&self) -> u64 {
        self.start
    }

    pub fn end(&self) -> u64 {
        self.end
    }

    /// The bytes of a range of addresses, if it lies within.
    pub fn slice(&self, range: Range<u64>) -> Option<&'a [u8]> {
        let from = usize::try_from(range.start.checked_sub(self.start)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..to)
    }

    /// The byte at an address.
    pub fn byte(&self, addr: u64) -> Option<u8> {
        let offset = usize::try_from(addr.checked_sub(self.start)?).ok()?;
        self.bytes.get(offset).copied()
    }

    /// The instruction at an address, if there is a valid one that ends within the text.
    pub fn decode(&self, addr: u64) -> Option<Instruction> {
        let from = usize::try_from(addr.checked_sub(self.start)?).ok()?;
        let rest = self.bytes.get(from..)?;
        let bytes = rest.get(..INSTRUCTION_MAX).unwrap_or(rest);
        let instruction =
            Decoder::try_with_ip(64, bytes, addr, DecoderOptions::NONE).ok()?.decode();
        (!instruction.is_invalid()).then_some(instruction)
    }

    /// Length of the instruction at each of the addresses, 0 where there is no valid one. Quicker than one by one.
    pub fn lengths(&self, addrs: Range<u64>) -> Option<Vec<u8>> {
        let from = usize::try_from(addrs.start.checked_sub(self.start)?).ok()?;
        let count = usize::try_from(addrs.end.checked_sub(addrs.start)?).ok()?;
        let rest = self.bytes.get(from..)?;
        let bytes = rest.get(..count.checked_add(INSTRUCTION_MAX)?).unwrap_or(rest);
        let mut decoder =
            Decoder::try_with_ip(64, bytes, addrs.start, DecoderOptions::NONE).ok()?;
        let mut instruction = Instruction::default();
        let mut lengths = Vec::with_capacity(count);
        for position in 0..count {
            decoder.set_position(position).ok()?;
            decoder.decode_out(&mut instruction);
            let is_valid = !instruction.is_invalid();
            lengths.push(if is_valid { u8::try_from(instruction.len()).ok()? } else { 0 });
        }
        Some(lengths)
    }
}

/// The instruction that `bytes` begin with, and where its constants are.
pub fn decode(bytes: &[u8], addr: u64) -> Option<(Instruction, ConstantOffsets)> {
    let mut decoder = Decoder::try_with_ip(64, bytes, addr, DecoderOptions::NONE).ok()?;
    let instruction = decoder.decode();
    if instruction.is_invalid() || instruction.len() == 0 {
        return None;
    }
    Some((instruction, decoder.get_constant_offsets(&instruction)))
}

/// Length in bytes; 1..=15 for whatever [`decode`] returned.
pub trait Length {
    fn length(&self) -> u64;
}

impl Length for Instruction {
    fn length(&self) -> u64 {
        self.len().try_into().unwrap_or(u64::MAX)
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

/// Whether it jumps to where a register or memory says. One place relative to rip is no table (but a linkage
/// table's slot, for one).
pub fn is_indirect_jump(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Jmp
        && branch_target(instruction).is_none()
        && instruction.memory_base() != Register::RIP
}
