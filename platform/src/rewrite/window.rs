//! Where the instructions before a system call begin, and which of them make room for a jump.

use std::ops::Range;

use super::chains::{CLEAR_MAJORITY, Chains, Starts};
use super::code::Code;
use super::island::SHORT_JUMP_LEN;
use super::{FUNCTION_MAX, JUMP_LEN, Refusal, Site};

/// The instructions to be moved: from `start` to the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    pub start: u64,
    pub syscall: u64,
    /// Addresses of the instructions, ascending; the first is `start`.
    pub instructions: Vec<u64>,
}

impl Window {
    pub fn range(&self) -> Range<u64> {
        self.start..self.syscall
    }

    pub fn is_single(&self) -> bool {
        self.instructions.len() == 1
    }
}

/// The shortest run of whole instructions before the site that a jump fits into.
pub fn find(code: &Code<'_>, site: &Site<'_>) -> Result<Window, Refusal> {
    let Some(function) = &site.function else {
        let chains = Chains::follow(code, site.syscall);
        let starts = agree(&chains, code, site)?;
        return cut(&chains, starts, site.syscall, JUMP_LEN);
    };
    let starts = from_function(code, function, site.syscall)?;
    if let Some(load) = number_load(code, site)
        && load.window_start(JUMP_LEN) == starts.window_start(JUMP_LEN)
    {
        // The function has an instruction there that loads what was found in rax: no need to ask others, which takes time.
        return run(starts, site.syscall, JUMP_LEN);
    }
    cut_in_function(code, starts, site.syscall, JUMP_LEN)
}

/// The instruction right before the site, if it is one of a known function and a short jump fits into it.
pub fn find_short(code: &Code<'_>, site: &Site<'_>) -> Result<Window, Refusal> {
    let function = site.function.as_ref().ok_or(Refusal::NoBoundary)?;
    let starts = from_function(code, function, site.syscall)?;
    let window = cut_in_function(code, starts, site.syscall, SHORT_JUMP_LEN)?;
    if window.is_single() { Ok(window) } else { Err(Refusal::TooShort) }
}

/// The same by what the function's start says. Mostly the chains of instructions that are in tables are enough to agree, and the
/// decoder needs not be made ready, which takes longer than all else about a site.
fn cut_in_function(
    code: &Code<'_>,
    starts: Starts,
    syscall: u64,
    least: u64,
) -> Result<Window, Refusal> {
    if Chains::follow_known(code, syscall).clearly_support(starts, least) {
        return run(starts, syscall, least);
    }
    cut(&Chains::follow(code, syscall), starts, syscall, least)
}

/// The shortest window of at least `least` bytes, if most chains see it, too.
fn cut(chains: &Chains, starts: Starts, syscall: u64, least: u64) -> Result<Window, Refusal> {
    let window = run(starts, syscall, least)?;
    if chains.oppose(starts, least) { Err(Refusal::NoBoundary) } else { Ok(window) }
}

/// The shortest window of at least `least` bytes.
fn run(starts: Starts, syscall: u64, least: u64) -> Result<Window, Refusal> {
    let start = starts.window_start(least).ok_or(Refusal::TooShort)?;
    let nearer = (1..=start).rev().filter(|back| starts.has(*back));
    let instructions: Option<Vec<u64>> = nearer.map(|back| syscall.checked_sub(back)).collect();
    let instructions = instructions.ok_or(Refusal::TooShort)?;
    let start = instructions.first().copied().ok_or(Refusal::TooShort)?;
    Ok(Window { start, syscall, instructions })
}

/// Decodes from the function's start; it must arrive exactly at the site.
fn from_function(code: &Code<'_>, function: &Range<u64>, syscall: u64) -> Result<Starts, Refusal> {
    let len = function.end.checked_sub(function.start).ok_or(Refusal::Function)?;
    if len > FUNCTION_MAX || function.start < code.start() || function.end > code.end() {
        return Err(Refusal::Function);
    }
    if !function.contains(&syscall) {
        return Err(Refusal::NoBoundary);
    }
    let mut starts = Starts::default();
    let mut at = function.start;
    while at < syscall {
        let step = code.step(at).ok_or(Refusal::Undecodable(at))?;
        let back = syscall.checked_sub(at).ok_or(Refusal::NoBoundary)?;
        starts = starts.add(back);
        at = at.checked_add(step.length()).ok_or(Refusal::NoBoundary)?;
    }
    if at == syscall { Ok(starts) } else { Err(Refusal::NoBoundary) }
}

/// Where instructions begin, if that is beyond doubt.
fn agree(chains: &Chains, code: &Code<'_>, site: &Site<'_>) -> Result<Starts, Refusal> {
    let votes: Vec<_> = chains.votes(JUMP_LEN).collect();
    if let Some(first) = votes.first().copied().flatten()
        && votes.len() >= CLEAR_MAJORITY
        && votes.iter().all(|vote| *vote == Some(first))
    {
        return Ok(first);
    }
    let padded = chains.after_padding(code, site.syscall);
    let number = number_load(code, site);
    let found = padded.into_iter().chain(number).find(|starts| !chains.oppose(*starts, JUMP_LEN));
    found.ok_or(Refusal::NoBoundary)
}

/// An instruction right before the site that puts into rax just what was found there.
fn number_load(code: &Code<'_>, site: &Site<'_>) -> Option<Starts> {
    // The number is below 2^31, or this is no call worth the effort: sign extension makes no difference.
    let number = i32::try_from(site.number).ok()?.to_le_bytes();
    let forms: [(u64, &[u8]); 2] = [(6, &[0xc7, 0xc0]), (5, &[0xb8])];
    let (back, _) = forms.into_iter().find(|(back, opcode)| {
        let start = site.syscall.checked_sub(*back);
        let bytes = start.and_then(|start| code.slice(start..site.syscall));
        bytes.and_then(|bytes| bytes.strip_prefix(*opcode)) == Some(&number)
    })?;
    let mut before = site.syscall.checked_sub(back)?.checked_sub(1)?;
    // It may be `mov rax, imm32`, or this byte may end the instruction before. A jump behind it is right either way:
    // the prefix means nothing to it.
    if back == 6 && code.byte(before)? == REX_W {
        before = before.checked_sub(1)?;
    }
    (!is_prefix(code.byte(before)?)).then(|| Starts::default().add(back))
}

/// The prefix of 64-bit operands.
const REX_W: u8 = 0x48;

/// Whether a byte would change the meaning of the instruction behind it. See Intel SDM volume 2, 2.1.1 and 2.2.1.
fn is_prefix(byte: u8) -> bool {
    let legacy = [0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];
    (0x40..=0x4f).contains(&byte) || legacy.contains(&byte)
}
