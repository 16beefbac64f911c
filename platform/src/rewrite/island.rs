//! Room for a jump where none is before the site: padding nearby that a short jump reaches.
//!
//! ```text
//! W:   xor %eax,%eax   ->   jmp island                 two bytes, one instruction: nothing has an inside
//! S:   syscall              syscall
//!      ...
//!      ret                  ret
//!      nopw ...        ->   island: jmp trampoline
//! ```
//!
//! Padding is a run of no-operations behind an instruction that never goes on to the next one, up to where compilers
//! align to: inside of the function, behind it, or between it and the function before. Nobody comes there unless a
//! branch leads to it, which is looked for as for a window's inside.

use std::ops::Range;

use super::code::Code;
use super::step::{Kind, Step};
use super::{FUNCTION_MAX, JUMP_LEN, Site};

/// A short jump reaches so far behind its end, and before it.
const REACH_ON: u64 = 127;
const REACH_BACK: u64 = 128;
/// `jmp rel8`.
pub const SHORT_JUMP_LEN: u64 = 2;
/// Functions, loops and jump targets that are padded to are aligned to this at least.
const ALIGNMENT: u64 = 8;

/// Whole instructions of padding that a jump fits into, within reach of the site's window at `window`; not one of
/// those that are taken.
pub fn find(code: &Code<'_>, site: &Site<'_>, window: u64) -> Option<Vec<Range<u64>>> {
    let function = site.function.as_ref()?;
    let mut found = Vec::new();
    if let Some(before) = &site.before
        && before.end <= function.start
    {
        walk(code, before, function.start, window, &mut found)?;
    }
    walk(code, function, site.next.unwrap_or(function.end), window, &mut found)?;
    let is_free = |island: &Range<u64>| {
        let clashes = |taken: &Range<u64>| taken.start < island.end && island.start < taken.end;
        !site.taken.iter().any(clashes)
    };
    found.retain(is_free);
    Some(found)
}

/// Collects the padding of a function, and of what lies between it and the next one at `next` if that is nothing but
/// padding. `None` if the function is not understood.
fn walk(
    code: &Code<'_>,
    function: &Range<u64>,
    next: u64,
    window: u64,
    found: &mut Vec<Range<u64>>,
) -> Option<()> {
    if function.end.checked_sub(function.start)? > FUNCTION_MAX {
        return None;
    }
    let mut at = function.start;
    let mut run = Run::default();
    while at < function.end {
        let step = code.step(at)?;
        let end = at.checked_add(step.length())?;
        run.step(step, at..end, window, found);
        at = end;
    }
    if at != function.end {
        return None;
    }
    while at < next {
        let padding = code.step(at).filter(|step| step.kind == Kind::Padding);
        let Some(step) = padding else { return Some(()) };
        let end = at.checked_add(step.length())?;
        run.step(step, at..end, window, found);
        at = end;
    }
    if at == next {
        run.finish(at, window, found);
    }
    Some(())
}

/// Where padding may be going on.
#[derive(Default)]
struct Run {
    /// Whether the instruction before is not followed by the next.
    is_cut: bool,
    /// The run's instructions.
    padding: Vec<Range<u64>>,
}

impl Run {
    fn step(&mut self, step: Step, range: Range<u64>, window: u64, found: &mut Vec<Range<u64>>) {
        if step.kind == Kind::Padding && self.is_cut {
            self.padding.push(range);
            return;
        }
        self.finish(range.start, window, found);
        self.is_cut = step.never_goes_on();
    }

    /// The run ends at `end`: an island, if it ends where compilers align to and is of any use.
    fn finish(&mut self, end: u64, window: u64, found: &mut Vec<Range<u64>>) {
        let padding = std::mem::take(&mut self.padding);
        let Some(start) = padding.first().map(|first| first.start) else { return };
        let has_room = |last: &&Range<u64>| last.end.saturating_sub(start) >= JUMP_LEN;
        if let Some(last) = padding.iter().find(has_room)
            && end.is_multiple_of(ALIGNMENT)
            && is_near(window, start)
        {
            found.push(start..last.end);
        }
    }
}

/// Whether a short jump at `from` leads to `to`.
fn is_near(from: u64, to: u64) -> bool {
    let Some(end) = from.checked_add(SHORT_JUMP_LEN) else { return false };
    match to.checked_sub(end) {
        Some(on) => on <= REACH_ON,
        None => end.saturating_sub(to) <= REACH_BACK,
    }
}
