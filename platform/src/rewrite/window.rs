//! Where the instructions before a system call begin, and which of them make room for a jump.

use std::ops::Range;

use super::code::{Code, Length};
use super::{FUNCTION_MAX, INT3, JUMP_LEN, Refusal, Site};

/// Chains of instructions are followed from up to so many bytes before the site; fits a bit each in `u128`.
const REACH: u64 = 120;
/// Chains that begin here or farther away have a say: nearer ones have had no time to fall into step.
const VOTE_FROM: u64 = 24;
const VOTE_TO: u64 = 96;
/// Fewer chains prove nothing.
const VOTES_MIN: usize = 8;

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
    let chains = Chains::follow(code, site.syscall);
    let starts = match &site.function {
        Some(function) => from_function(code, function, site.syscall)?,
        None => chains.agree(code, site)?,
    };
    let start = starts.window_start().ok_or(Refusal::TooShort)?;
    if chains.oppose(starts) {
        return Err(Refusal::NoBoundary);
    }
    let nearer = (1..=start).rev().filter(|back| starts.has(*back));
    let instructions: Option<Vec<u64>> =
        nearer.map(|back| site.syscall.checked_sub(back)).collect();
    let instructions = instructions.ok_or(Refusal::TooShort)?;
    let start = instructions.first().copied().ok_or(Refusal::TooShort)?;
    Ok(Window { start, syscall: site.syscall, instructions })
}

/// Where instructions begin, as distances back from the site: bit n stands for n bytes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Starts(u128);

impl Starts {
    fn add(self, back: u64) -> Self {
        if back > REACH {
            return self;
        }
        let bit = u32::try_from(back).ok().and_then(|back| 1u128.checked_shl(back));
        Self(self.0 | bit.unwrap_or(0))
    }

    fn has(self, back: u64) -> bool {
        self.0 & Self::default().add(back).0 != 0
    }

    /// How far back the shortest window begins.
    fn window_start(self) -> Option<u64> {
        (JUMP_LEN..=REACH).find(|back| self.has(*back))
    }

    /// Only what lies in the shortest window.
    fn window(self) -> Option<Self> {
        let start = self.window_start()?;
        let inside = (1..=start).filter(|back| self.has(*back));
        Some(inside.fold(Self::default(), Self::add))
    }
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
        let instruction = code.decode(at).ok_or(Refusal::Undecodable(at))?;
        let back = syscall.checked_sub(at).ok_or(Refusal::NoBoundary)?;
        starts = starts.add(back);
        at = at.checked_add(instruction.length()).ok_or(Refusal::NoBoundary)?;
    }
    if at == syscall { Ok(starts) } else { Err(Refusal::NoBoundary) }
}

/// What decoding from each of the bytes before a site comes to: entry n is for n bytes before it, `None` if the chain
/// from there meets no valid instruction or misses the site.
struct Chains(Vec<Option<Starts>>);

impl Chains {
    fn follow(code: &Code<'_>, syscall: u64) -> Self {
        let mut chains = vec![Some(Starts::default())];
        for back in 1..=REACH {
            let chain = syscall.checked_sub(back).and_then(|at| {
                let next = back.checked_sub(code.decode(at)?.length())?;
                let rest = *chains.get(usize::try_from(next).ok()?)?;
                Some(rest?.add(back))
            });
            chains.push(chain);
        }
        Self(chains)
    }

    fn from(&self, back: u64) -> Option<Starts> {
        *self.0.get(usize::try_from(back).ok()?)?
    }

    /// The windows that the chains from farther away see.
    fn votes(&self) -> Vec<Option<Starts>> {
        let chains = (VOTE_FROM..=VOTE_TO).filter_map(|back| self.from(back));
        chains.map(Starts::window).collect()
    }

    /// Where instructions begin, if that is beyond doubt.
    fn agree(&self, code: &Code<'_>, site: &Site<'_>) -> Result<Starts, Refusal> {
        let votes = self.votes();
        if let Some(first) = votes.first().copied().flatten()
            && votes.len() >= VOTES_MIN
            && votes.iter().all(|vote| *vote == Some(first))
        {
            return Ok(first);
        }
        let padded = self.after_padding(code, site.syscall);
        let number = number_load(code, site);
        let found = padded.into_iter().chain(number).find(|starts| !self.oppose(*starts));
        found.ok_or(Refusal::NoBoundary)
    }

    /// Whether most see another window.
    fn oppose(&self, starts: Starts) -> bool {
        let votes = self.votes();
        let against = votes.iter().filter(|vote| **vote != starts.window()).count();
        against > votes.len() / 2
    }

    /// The chain that begins behind a run of int3: linkers and Go's assembler fill with it before a function.
    fn after_padding(&self, code: &Code<'_>, syscall: u64) -> Option<Starts> {
        let is_int3 = |back: u64| {
            let byte = syscall.checked_sub(back).and_then(|at| code.byte(at));
            byte == Some(INT3)
        };
        let begins = |back: &u64| {
            let before = [back.checked_add(1), back.checked_add(2)];
            !is_int3(*back) && before.into_iter().flatten().all(is_int3)
        };
        (1..=REACH).find(begins).and_then(|back| self.from(back))
    }
}

/// An instruction right before the site that puts into rax just what was found there.
fn number_load(code: &Code<'_>, site: &Site<'_>) -> Option<Starts> {
    // The number is below 2^31, or this is no call worth the effort: sign extension makes no difference.
    let number = i32::try_from(site.number).ok()?.to_le_bytes();
    let forms: [(u64, &[u8]); 3] = [(7, &[0x48, 0xc7, 0xc0]), (6, &[0xc7, 0xc0]), (5, &[0xb8])];
    let (back, _) = forms.into_iter().find(|(back, opcode)| {
        let start = site.syscall.checked_sub(*back);
        let bytes = start.and_then(|start| code.slice(start..site.syscall));
        bytes.and_then(|bytes| bytes.strip_prefix(*opcode)) == Some(&number)
    })?;
    let before = site.syscall.checked_sub(back)?.checked_sub(1)?;
    (!is_prefix(code.byte(before)?)).then(|| Starts::default().add(back))
}

/// Whether a byte would change the meaning of the instruction behind it. See Intel SDM volume 2, 2.1.1 and 2.2.1.
fn is_prefix(byte: u8) -> bool {
    let legacy = [0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];
    (0x40..=0x4f).contains(&byte) || legacy.contains(&byte)
}
