//! Bytes of guest text by address, and what instruction is at an address.

use std::ops::Range;

use iced_x86::{ConstantOffsets, Decoder, DecoderOptions, Instruction};

use super::step::Step;

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
    pub fn step(&self, addr: u64) -> Option<Step> {
        let from = usize::try_from(addr.checked_sub(self.start)?).ok()?;
        Step::decode(self.bytes.get(from..)?, addr)
    }

    /// Length of the instruction at an address, 0 where there is no valid one.
    pub fn length_at(&self, addr: u64) -> u8 {
        self.step(addr).map_or(0, |step| step.len)
    }

    /// The same, and 0 where that is not told from a table.
    pub fn known_length_at(&self, addr: u64) -> u8 {
        let from = addr.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let bytes = from.and_then(|from| self.bytes.get(from..));
        bytes.and_then(|bytes| Step::look_up(bytes, addr)).map_or(0, |step| step.len)
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
