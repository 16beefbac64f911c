//! Sites that nobody has met yet: bytes that look like a system call, and whether they are one beyond doubt.
//!
//! Where a call trapped there was an instruction. Of sites planned ahead it is only known what unwinders say of the
//! function, and text may hold data. So more is asked for: all of the function is instructions, and a number that
//! a call can have is loaded right before.

use std::ops::Range;

use iced_x86::{Code as Opcode, Instruction, Register};

use super::code::{Code, Length};
use super::{Refusal, SIGRETURN};

/// The number is loaded by one of so many instructions before the call.
const NEAR: usize = 6;
/// Numbers of calls are below.
const NUMBERS: u64 = 512;
/// Bytes that are looked through at once.
const BLOCK: usize = 64;

/// Offsets of all bytes in `text` that look like a system call.
pub fn candidates(text: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    for (index, block) in text.chunks(BLOCK).enumerate() {
        // Most have none, which a loop without branches tells.
        let mut has_any = false;
        for byte in block {
            has_any |= *byte == 0x05;
        }
        if has_any {
            let from = index.saturating_mul(BLOCK).saturating_sub(1);
            let to = from.saturating_add(BLOCK).saturating_add(1).min(text.len());
            let pairs = text.get(from..to).unwrap_or_default().windows(2).enumerate();
            let calls = pairs.filter(|(_, pair)| *pair == super::SYSCALL);
            found.extend(calls.map(|(offset, _)| from.saturating_add(offset)));
        }
    }
    found.dedup();
    found
}

/// Refuses unless the bytes at `syscall` are an instruction of the function, by all that can be known.
pub fn check(code: &Code<'_>, function: &Range<u64>, syscall: u64) -> Result<(), Refusal> {
    let mut at = function.start;
    let mut constants = Constants::default();
    let mut found = None;
    while at < function.end {
        let instruction = code.decode(at).ok_or(Refusal::Undecodable(at))?;
        if at == syscall {
            found = constants.number();
        }
        constants.step(&instruction);
        at = at.checked_add(instruction.length()).ok_or(Refusal::NoBoundary)?;
    }
    match found {
        Some(SIGRETURN) => Err(Refusal::SignalReturn),
        Some(number) if number < NUMBERS && at == function.end => Ok(()),
        _ => Err(Refusal::NoNumber),
    }
}

/// Constants in registers, as if there were no branches: nothing depends on it but what a number looks like.
#[derive(Default)]
struct Constants {
    registers: [Option<u64>; 16],
    /// Instructions since rax was loaded.
    since: usize,
}

impl Constants {
    fn number(&self) -> Option<u64> {
        self.registers.first().copied().flatten().filter(|_| self.since < NEAR)
    }

    fn step(&mut self, instruction: &Instruction) {
        self.since = self.since.saturating_add(1);
        let Some(to) = index(instruction.op0_register()) else { return };
        let from = index(instruction.op1_register());
        let value = match instruction.code() {
            Opcode::Mov_r32_imm32 | Opcode::Mov_rm32_imm32 => {
                Some(instruction.immediate32().into())
            }
            Opcode::Mov_rm64_imm32 => Some(instruction.immediate32to64().cast_unsigned()),
            Opcode::Xor_r32_rm32 | Opcode::Xor_rm32_r32 if from == Some(to) => Some(0),
            Opcode::Mov_r32_rm32 | Opcode::Mov_rm32_r32 => {
                from.and_then(|from| self.registers.get(from).copied().flatten())
            }
            _ => return,
        };
        if let Some(register) = self.registers.get_mut(to) {
            *register = value;
        }
        if to == 0 {
            self.since = 0;
        }
    }
}

/// Which general register of 32 or 64 bits it is; rax is 0.
fn index(register: Register) -> Option<usize> {
    let distance = |first: Register| (register as usize).checked_sub(first as usize);
    [Register::EAX, Register::RAX].into_iter().filter_map(distance).find(|number| *number < 16)
}
