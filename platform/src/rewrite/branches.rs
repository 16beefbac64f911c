//! Who might jump into the middle of a window.

use std::ops::Range;

use super::code::{Code, Length, branch_target, is_indirect_jump};
use super::window::Window;
use super::{Refusal, Site};

/// How far around a site an indirect jump counts when the function is not known.
const NEAR: u64 = 128;

/// Refuses unless nothing seems to lead between the window's start and the site.
pub fn check(code: &Code<'_>, site: &Site<'_>, window: &Window) -> Result<(), Refusal> {
    let inside = Inside::new(window);
    match &site.function {
        Some(function) => check_function(code, function, &inside)?,
        None => check_indirect_jumps(code, site.syscall)?,
    }
    check_text(code, &inside)
}

/// The addresses strictly between a window's start and the site.
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
        let instruction = code.decode(at).ok_or(Refusal::Undecodable(at))?;
        if is_indirect_jump(&instruction) {
            return Err(Refusal::IndirectJump(at));
        }
        if branch_target(&instruction).is_some_and(|target| inside.contains(target)) {
            return Err(Refusal::BranchInside(at));
        }
        at = at.checked_add(instruction.length()).ok_or(Refusal::Undecodable(at))?;
    }
    Ok(())
}

/// Looks for `ff /4` and `ff /5` at every offset near the site.
fn check_indirect_jumps(code: &Code<'_>, syscall: u64) -> Result<(), Refusal> {
    let from = syscall.saturating_sub(NEAR).max(code.start());
    let to = syscall.saturating_add(NEAR).min(code.end());
    let bytes = code.slice(from..to).unwrap_or_default();
    let is_indirect = |pair: &[u8]| match *pair {
        // mod 0, rm 5: relative to rip.
        [0xff, 0x25 | 0x2d] => false,
        [0xff, modrm] => matches!((modrm >> 3) & 7, 4 | 5),
        _ => false,
    };
    match bytes.windows(2).position(is_indirect) {
        Some(offset) => Err(Refusal::IndirectJump(address(from, offset))),
        None => Ok(()),
    }
}

/// Takes every offset of the text for the start of a branch.
fn check_text(code: &Code<'_>, inside: &Inside) -> Result<(), Refusal> {
    check_short(code, inside)?;
    check_near(code, inside)
}

/// Branches with a displacement of one byte: only from nearby.
fn check_short(code: &Code<'_>, inside: &Inside) -> Result<(), Refusal> {
    let from = inside.first.saturating_sub(NEAR + 2).max(code.start());
    let to = inside.first.saturating_add(inside.len).saturating_add(NEAR).min(code.end());
    let bytes = code.slice(from..to).unwrap_or_default();
    for (offset, pair) in bytes.windows(2).enumerate() {
        let [0x70..=0x7f | 0xeb | 0xe0..=0xe3, displacement] = *pair else { continue };
        let at = address(from, offset);
        let next = at.wrapping_add(2);
        if inside.contains(next.wrapping_add_signed(displacement.cast_signed().into())) {
            return Err(Refusal::BranchInside(at));
        }
    }
    Ok(())
}

/// Branches with a displacement of four bytes: from anywhere.
fn check_near(code: &Code<'_>, inside: &Inside) -> Result<(), Refusal> {
    // Few displacements lead inside at all; what stands before them is looked at only then.
    for (offset, window) in code.bytes().windows(6).enumerate() {
        let [first, second, a, b, c, d] = *window else { continue };
        let at = address(code.start(), offset);
        let displacement = i32::from_le_bytes([a, b, c, d]);
        if !inside.contains(at.wrapping_add(6).wrapping_add_signed(displacement.into())) {
            continue;
        }
        let is_branch = matches!(second, 0xe8 | 0xe9)
            || matches!((first, second), (0x0f, 0x80..=0x8f) | (0xc7, 0xf8));
        if is_branch {
            return Err(Refusal::BranchInside(at));
        }
    }
    check_first(code, inside)
}

/// A call or jump at the very start of the text has no byte before it.
fn check_first(code: &Code<'_>, inside: &Inside) -> Result<(), Refusal> {
    let Some([0xe8 | 0xe9, a, b, c, d]) = code.bytes().first_chunk::<5>() else { return Ok(()) };
    let displacement = i32::from_le_bytes([*a, *b, *c, *d]);
    let next = code.start().wrapping_add(5);
    match inside.contains(next.wrapping_add_signed(displacement.into())) {
        true => Err(Refusal::BranchInside(code.start())),
        false => Ok(()),
    }
}

fn address(start: u64, offset: usize) -> u64 {
    start.wrapping_add(u64::try_from(offset).unwrap_or(u64::MAX))
}
