//! Instruction boundaries without a start to count from: chains of instructions from all bytes before a place fall
//! into step soon, and then with the true ones.

use super::code::Code;
use super::{INT3, JUMP_LEN};

/// Chains are followed from up to so many bytes before a place; fits a bit each in `u128`.
pub const REACH: u64 = 120;
/// Chains that begin here or farther away have a say: nearer ones have had no time to fall into step.
const VOTE_FROM: u64 = 24;
const VOTE_TO: u64 = 96;
/// So many chains, and so many times as many as have it otherwise, are believed.
pub const CLEAR_MAJORITY: usize = 8;

/// What decoding from each of the bytes before a site comes to: entry n is for n bytes before it, `None` if the chain
/// from there meets no valid instruction or misses the site.
pub struct Chains(Vec<Option<Starts>>);

impl Chains {
    pub fn follow(code: &Code<'_>, syscall: u64) -> Self {
        Self::follow_by(code, syscall, |addr| code.length_at(addr))
    }

    /// Only those without an instruction that is in no table.
    pub fn follow_known(code: &Code<'_>, syscall: u64) -> Self {
        Self::follow_by(code, syscall, |addr| code.known_length_at(addr))
    }

    fn follow_by(code: &Code<'_>, syscall: u64, length: impl Fn(u64) -> u8) -> Self {
        let mut chains = vec![Some(Starts::default())];
        let from = syscall.saturating_sub(REACH).max(code.start());
        // Nearest first.
        let lengths = (from..syscall).rev().map(length);
        for (back, length) in (1..=REACH).zip(lengths.chain(std::iter::repeat(0))) {
            let next = back.checked_sub(length.into()).filter(|next| *next < back);
            let chain = next.and_then(|next| {
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

    /// The windows of at least `least` bytes that the chains from farther away see.
    pub fn votes(&self, least: u64) -> impl Iterator<Item = Option<Starts>> {
        let chains = (VOTE_FROM..=VOTE_TO).filter_map(|back| self.from(back));
        chains.map(move |starts| starts.window(least))
    }

    /// Whether most see another window of at least `least` bytes.
    pub fn oppose(&self, starts: Starts, least: u64) -> bool {
        let ours = starts.window(least);
        let all = self.votes(least).count();
        let against = self.votes(least).filter(|vote| *vote != ours).count();
        against > all / 2
    }

    /// Whether so many see that window that there is no need to ask others.
    pub fn clearly_support(&self, starts: Starts, least: u64) -> bool {
        let ours = starts.window(least);
        let all = self.votes(least).count();
        let with_us = self.votes(least).filter(|vote| *vote == ours).count();
        with_us >= CLEAR_MAJORITY && all.saturating_sub(with_us) <= with_us / CLEAR_MAJORITY
    }

    /// The chain that begins behind a run of int3: linkers and Go's assembler fill with it before a function.
    pub fn after_padding(&self, code: &Code<'_>, syscall: u64) -> Option<Starts> {
        let is_int3 = |back: u64| {
            let byte = syscall.checked_sub(back).and_then(|at| code.byte(at));
            byte == Some(INT3)
        };
        let begins = |back: &u64| {
            let before = [back.checked_add(1), back.checked_add(2)];
            // Functions behind padding are aligned; else the bytes may be part of an immediate value.
            let start = syscall.checked_sub(*back);
            start.is_some_and(|start| start.is_multiple_of(ALIGNMENT))
                && !is_int3(*back)
                && before.into_iter().flatten().all(is_int3)
        };
        (1..=REACH).find(begins).and_then(|back| self.from(back))
    }
}

/// Of functions that are padded to it.
const ALIGNMENT: u64 = 16;

/// Where instructions begin, as distances back from the site: bit n stands for n bytes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Starts(u128);

impl Starts {
    pub fn add(self, back: u64) -> Self {
        if back > REACH {
            return self;
        }
        let bit = u32::try_from(back).ok().and_then(|back| 1u128.checked_shl(back));
        Self(self.0 | bit.unwrap_or(0))
    }

    pub fn has(self, back: u64) -> bool {
        self.0 & Self::default().add(back).0 != 0
    }

    /// How far back the shortest window of at least `least` bytes begins.
    pub fn window_start(self, least: u64) -> Option<u64> {
        let least = u32::try_from(least).ok()?;
        let nearest = self.0.checked_shr(least)?.trailing_zeros().checked_add(least)?;
        (u64::from(nearest) <= REACH).then_some(nearest.into())
    }

    /// Only what lies in the shortest window of at least `least` bytes.
    fn window(self, least: u64) -> Option<Self> {
        let start = u32::try_from(self.window_start(least)?).ok()?;
        let beyond = u128::MAX.checked_shl(start.checked_add(1)?)?;
        Some(Self(self.0 & !beyond))
    }
}

/// Whether an instruction may begin at a place, to judge by the chains from before: nearly all of them agree that it
/// is inside of another one, or it may.
pub fn may_begin(code: &Code<'_>, addr: u64) -> bool {
    let arrivals = |addr: u64| Chains::follow(code, addr).votes(JUMP_LEN).count();
    let around = (1..15).filter_map(|back| addr.checked_sub(back)).filter(|start| {
        let step = code.step(*start);
        step.and_then(|step| start.checked_add(step.length())).is_some_and(|end| end > addr)
    });
    let others = around.map(arrivals).max().unwrap_or(0);
    others < CLEAR_MAJORITY || others / CLEAR_MAJORITY < arrivals(addr)
}
