//! Who might jump into the middle of a window.

use std::ops::Range;

use super::chains::may_begin;
use super::code::Code;
use super::step::Kind;
use super::window::Window;
use super::{Refusal, Site};

/// How far around a site an indirect jump counts when the function is not known.
const NEAR: u64 = 128;

/// Only so many things that look like branches are looked at closely: it takes time, and a guest could ask for a lot.
const DOUBTS: u32 = 16;

/// Refuses unless nothing seems to lead between the window's start and the site.
pub fn check(code: &Code<'_>, site: &Site<'_>, window: &Window) -> Result<(), Refusal> {
    check_inside(code, site, &Inside::new(window))
}

/// Refuses unless nothing seems to lead to any byte of the padding at `island`.
pub fn check_island(code: &Code<'_>, site: &Site<'_>, island: &Range<u64>) -> Result<(), Refusal> {
    let inside = Inside { first: island.start, len: island.end.saturating_sub(island.start) };
    if let Some(before) = &site.before {
        check_function(code, before, &inside)?;
    }
    check_inside(code, site, &inside)
}

fn check_inside(code: &Code<'_>, site: &Site<'_>, inside: &Inside) -> Result<(), Refusal> {
    let mut doubts = Doubts { code, left: DOUBTS };
    match &site.function {
        Some(function) => check_function(code, function, inside)?,
        None => check_indirect_jumps(code, site.syscall, &mut doubts)?,
    }
    // Parts that a linker put far away are not in the function's extents, and extents may be unknown.
    let mut branches = short_branches(code, inside).chain(near_branches(code, inside));
    match branches.find(|at| !doubts.clear(*at)) {
        Some(at) => Err(Refusal::BranchInside(at)),
        None => Ok(()),
    }
}

/// Bytes that look like a branch but may be the inside of another instruction.
struct Doubts<'a> {
    code: &'a Code<'a>,
    left: u32,
}

impl Doubts<'_> {
    /// Whether surely no instruction begins there.
    fn clear(&mut self, addr: u64) -> bool {
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        !may_begin(self.code, addr)
    }
}

/// Addresses that nobody may come to by a branch: those strictly between a window's start and the site, or an island.
struct Inside {
    first: u64,
    len: u64,
}

impl Inside {
    fn new(window: &Window) -> Self {
        let first = window.start.wrapping_add(1);
        Self { first, len: window.syscall.saturating_sub(first) }
    }

    fn contains(&self, addr: u64) -> bool {
        addr.wrapping_sub(self.first) < self.len
    }
}

/// Decodes all of the function.
fn check_function(code: &Code<'_>, function: &Range<u64>, inside: &Inside) -> Result<(), Refusal> {
    let mut at = function.start;
    while at < function.end {
        let step = code.step(at).ok_or(Refusal::Undecodable(at))?;
        if step.kind == Kind::IndirectJump {
            return Err(Refusal::IndirectJump(at));
        }
        if step.target().is_some_and(|target| inside.contains(target)) {
            return Err(Refusal::BranchInside(at));
        }
        at = at.checked_add(step.length()).ok_or(Refusal::Undecodable(at))?;
    }
    Ok(())
}

/// Looks for `ff /4` at every offset near the site.
fn check_indirect_jumps(
    code: &Code<'_>,
    syscall: u64,
    doubts: &mut Doubts<'_>,
) -> Result<(), Refusal> {
    let from = syscall.saturating_sub(NEAR).max(code.start());
    let to = syscall.saturating_add(NEAR).min(code.end());
    let pairs = code.slice(from..to).unwrap_or_default().windows(2).enumerate();
    // mod 0, rm 5 is relative to rip.
    let is_indirect =
        |pair: &[u8]| matches!(*pair, [0xff, modrm] if modrm & 0x38 == 0x20 && modrm != 0x25);
    let mut found = pairs.filter(|(_, pair)| is_indirect(pair)).map(|(at, _)| address(from, at));
    match found.find(|at| !doubts.clear(*at)) {
        Some(at) => Err(Refusal::IndirectJump(at)),
        None => Ok(()),
    }
}

/// Everything that looks like a branch of one byte's displacement into the window: only from nearby.
fn short_branches(code: &Code<'_>, inside: &Inside) -> impl Iterator<Item = u64> {
    let from = inside.first.saturating_sub(NEAR + 2).max(code.start());
    let to = inside.first.saturating_add(inside.len).saturating_add(NEAR).min(code.end());
    let pairs = code.slice(from..to).unwrap_or_default().windows(2).enumerate();
    pairs.filter_map(move |(offset, pair)| {
        let [0x70..=0x7f | 0xeb | 0xe0..=0xe3, displacement] = *pair else { return None };
        let at = address(from, offset);
        let target = at.wrapping_add(2).wrapping_add_signed(displacement.cast_signed().into());
        inside.contains(target).then_some(at)
    })
}

/// Everything that looks like a branch of four bytes' displacement into the window: from anywhere.
fn near_branches(code: &Code<'_>, inside: &Inside) -> impl Iterator<Item = u64> {
    let displacements = (0..4usize).flat_map(move |phase| {
        let bytes = code.bytes().get(phase..).unwrap_or_default();
        let blocks = bytes.as_chunks::<4>().0.chunks(BLOCK).enumerate();
        let found = blocks.filter_map(move |(index, block)| {
            let from = index.checked_mul(BLOCK * 4)?.checked_add(phase)?;
            leads_inside(block, address(code.start(), from), inside).then_some((from, block.len()))
        });
        found.flat_map(|(from, count)| (from..).step_by(4).take(count))
    });
    displacements.filter_map(|offset| near_branch(code, inside, offset))
}

/// How many displacements are looked at together.
const BLOCK: usize = 256;

/// Whether one of the block's displacements leads inside, as far as 32 bits tell: what most blocks are done with, in
/// a loop without branches.
fn leads_inside(block: &[[u8; 4]], addr: u64, inside: &Inside) -> bool {
    // Truncated on purpose.
    let len = inside.len as u32;
    let mut distance = addr.wrapping_add(4).wrapping_sub(inside.first) as u32;
    let mut leads = false;
    for displacement in block {
        leads |= u32::from_le_bytes(*displacement).wrapping_add(distance) < len;
        distance = distance.wrapping_add(4);
    }
    leads
}

/// Address of the branch whose displacement is at `offset`, if it looks like one and leads inside.
fn near_branch(code: &Code<'_>, inside: &Inside, offset: usize) -> Option<u64> {
    let (before, field) = code.bytes().split_at_checked(offset)?;
    let displacement = i32::from_le_bytes(*field.first_chunk()?);
    let opcode = match *before {
        [.., 0x0f, 0x80..=0x8f] | [.., 0xc7, 0xf8] => 2,
        [.., 0xe8 | 0xe9] => 1,
        _ => return None,
    };
    let at = address(code.start(), offset);
    let target = at.wrapping_add(4).wrapping_add_signed(displacement.into());
    inside.contains(target).then(|| at.wrapping_sub(opcode))
}

fn address(start: u64, offset: usize) -> u64 {
    start.wrapping_add(u64::try_from(offset).unwrap_or(u64::MAX))
}
