//! System-call sites rewritten to jumps: analysis and encoding only, x86-64.
//!
//! A call that traps costs a signal or a notification; a jump into the shim costs nothing. Linux itself has no need
//! of this; the nearest relative are its own kprobes, which also move whole instructions out of the way of a jump
//! (see Documentation/trace/kprobes.rst, "How Does Jump Optimization Work?"). Unlike there, the instruction of
//! interest stays where it is: we take the place of what *precedes* it.
//!
//! ```text
//! W:   mov $39,%eax   ->   jmp trampoline        trampoline:  mov $39,%eax        the window, moved
//! S:   syscall             syscall                            lea S+2,%rcx        what syscall leaves in rcx
//! S+2: ...                 ...                                jmp *entry          into the shim, which goes to rcx
//! ```
//!
//! The window `[W, S)` is the shortest run of whole instructions before the site that has room for a jump of 5 bytes.
//! Where there is none, an instruction of two bytes gives room for a short jump to padding nearby, and that for the
//! long one (`island`). Whoever jumps to `S` itself, and every restarted call, finds the instruction there and traps as before. At the
//! jump to the entry all registers, flags and memory are as they were at `S`, but for rcx and r11, which the
//! instruction destroys anyway.
//!
//! # Rules
//!
//! A site that cannot be shown to be safe is left alone ([`Refusal`]); it works by trapping.
//!
//! 1. Where instructions begin is known from the start of the function, or from padding, or because decoding from
//!    all bytes before comes to the same answer. Nothing is believed against most of these, but a function's instruction
//!    right before the site that loads just the number that was found in rax.
//! 2. No branch may lead between `W` and `S`. A window of one instruction has no inside. For others the
//!    function is decoded (no unknown instruction, no jump through a table), and *every* offset of the text given
//!    is looked at as if a branch began there, unless nearly all chains of instructions from before agree that it
//!    is inside of another one.
//! 3. Only instructions of a list are moved. Of these, operands relative to rip and conditional jumps are encoded
//!    anew; all others are copied. What was encoded is decoded again and compared.
//! 4. A thread may stand in the window, or later in the trampoline: [`Patch`] translates its instruction pointer.
//!    Signal handlers must see the translated one: musl's looks whether it is in front of a cancellable call.
//! 5. Sites are planned on what the text was before any patch ([`Patch::restore`]): a jump that was moved into a
//!    trampoline may lead into the next window.
//!
//! What this cannot see: addresses of the window's inside that only data knows, outside of jump tables (no compiler
//! makes such; dynamic symbols could be in the middle of a window written by hand), and code that is read. Of the latter there is
//! one that matters: see `signal_return`.
//!
//! All bytes come from guests: nothing here panics, indexes unchecked or overflows.
//!
//! | module | what |
//! | --- | --- |
//! | `code` | bytes of guest text by address; decoding |
//! | `step` | how long instructions are and whether they lead elsewhere, mostly from tables |
//! | `chains` | where instructions begin when nobody says so |
//! | `window` | which instructions make room |
//! | `island` | room for a jump in padding nearby |
//! | `branches` | who might jump into the window or the padding |
//! | `questions` | where programs ask the processor, of which the shim knows the answers |
//! | `signal_return` | the one site that others know by its bytes |
//! | `relocate` | which instructions may move, and how |
//! | `extents` | where a function begins and ends, from `.eh_frame` |

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]

mod branches;
mod chains;
mod code;
mod extents;
mod island;
mod questions;
mod relocate;
mod signal_return;
mod step;
#[cfg(test)]
mod tests;
mod window;

use std::ops::Range;

use self::code::Code;
pub use self::extents::{
    Extents, FUNCTION_MAX, extents_around, function_extents, is_signal_return,
};
pub use self::questions::{CPUID, in_function as questions_in};
use self::relocate::Moved;
pub use self::signal_return::NUMBER as SIGRETURN;
use self::window::Window;
pub use shim_abi::ASKS_PROCESSOR;

/// No trampoline is longer: two short jumps and an instruction of 15 bytes, moved, then the way to the entry.
pub const TRAMPOLINE_MAX: usize = 2 * 6 + 15 + relocate::TAIL_LEN;

/// So much text before a site has a say in where its window begins.
pub const CONTEXT: u64 = chains::REACH + step::INSTRUCTION_MAX as u64;

/// `jmp rel32`.
const JUMP_LEN: u64 = 5;
/// `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
const INT3: u8 = 0xcc;

/// What is known of a site when it trapped.
#[derive(Debug, Clone)]
pub struct Site<'a> {
    /// Code around it: the whole function at least, better all of the mapping. The work grows with its length.
    /// Without patches: see [`Patch::restore`].
    pub text: &'a [u8],
    /// Where `text` begins.
    pub text_addr: u64,
    /// Address of the instruction.
    pub syscall: u64,
    /// rax at the trap.
    pub number: u64,
    /// The function around it, if known; see [`function_extents`].
    pub function: Option<Range<u64>>,
    /// The unwind table describes it as the return from a signal; see [`is_signal_return`].
    pub is_signal_return: bool,
    /// The function before that one and the start of the next, if known: between them may be padding.
    pub before: Option<Range<u64>>,
    pub next: Option<u64>,
    /// Padding that other patches have made use of.
    pub taken: &'a [Range<u64>],
}

/// Bytes to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    pub at: u64,
    /// What is there now, to be compared before writing.
    pub original: Vec<u8>,
    /// What is to be there: of the same length.
    pub bytes: Vec<u8>,
}

/// How to rewrite a site: first write `trampoline` where it was planned for, then `island`, then `bytes` at `at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// Address of the window.
    pub at: u64,
    /// What is there now, to be compared before writing and for taking the patch back.
    pub original: Vec<u8>,
    /// What is to be there: of the same length, ends before the system call.
    pub bytes: Vec<u8>,
    /// At most [`TRAMPOLINE_MAX`] bytes, for the address given.
    pub trampoline: Vec<u8>,
    /// Padding that leads from the window to the trampoline, where the window is too short for that.
    pub island: Option<Edit>,
    /// The window is one instruction: no thread can stand inside.
    pub is_single: bool,
    moved: Moved,
}

impl Patch {
    /// What is to be written into the text, in this order, once the trampoline is there: address, what is there now,
    /// and what then.
    pub fn edits(&self) -> impl Iterator<Item = (u64, &[u8], &[u8])> {
        let island = self.island.iter().map(|edit| (edit.at, &edit.original[..], &edit.bytes[..]));
        island.chain([(self.at, &self.original[..], &self.bytes[..])])
    }

    /// Takes the patch out of a copy of some text, as far as it is in there.
    pub fn restore(&self, text: &mut [u8], text_addr: u64) {
        let originals = self.edits().flat_map(|(at, original, _)| (at..).zip(original));
        for (addr, byte) in originals {
            let offset = addr.checked_sub(text_addr).and_then(|offset| offset.try_into().ok());
            let place = offset.and_then(|offset: usize| text.get_mut(offset));
            if let Some(place) = place {
                *place = *byte;
            }
        }
    }

    /// Where in the trampoline a thread goes on that was stopped at `addr` in the window; `None` if no
    /// instruction of the window begins there.
    pub fn to_trampoline(&self, addr: u64) -> Option<usize> {
        let offset = addr.checked_sub(self.at)?;
        let step = self.moved.steps.iter().find(|step| u64::from(step.window) == offset)?;
        Some(usize::from(step.trampoline))
    }

    /// Where in its own text a thread stands that was stopped at `offset` in the trampoline; `None` if no
    /// instruction begins there. Behind the window that is the system call.
    pub fn to_text(&self, offset: usize) -> Option<u64> {
        let steps = &self.moved.steps;
        if let Some(step) = steps.iter().find(|step| usize::from(step.trampoline) == offset) {
            return Some(self.at.wrapping_add(u64::from(step.window)));
        }
        let tail = self.moved.bytes.len();
        let starts = [tail, tail.wrapping_add(relocate::LEA_LEN)];
        let len = u64::try_from(self.original.len()).ok()?;
        starts.contains(&offset).then(|| self.at.wrapping_add(len))
    }
}

/// Why a site stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the text given has no system call at {0:#x}")]
    NoSite(u64),
    #[error("unwinders know the return from a signal by its bytes, here at least")]
    SignalReturn,
    #[error("it cannot be told where the instructions before the system call begin")]
    NoBoundary,
    #[error("less than a jump's length lies between the function's start and the system call")]
    TooShort,
    #[error("the function is too long to look through, or reaches beyond the text given")]
    Function,
    #[error("unknown instruction at {0:#x} in the function")]
    Undecodable(u64),
    #[error("what is at {0:#x} may be a branch into the window")]
    BranchInside(u64),
    #[error("indirect jump at {0:#x}: the function may have a table of jumps")]
    IndirectJump(u64),
    #[error("the instruction at {0:#x} cannot be moved")]
    NotRelocatable(u64),
    #[error("the trampoline is too far from the site or from what the window refers to")]
    OutOfReach,
}

/// Plans the rewriting of a site with a trampoline at address `trampoline` that ends in a jump to `entry`.
///
/// The entry is reached with rcx = address behind the system call, and has to go there.
///
/// # Errors
/// Says why the site is to be left alone.
pub fn plan(site: &Site<'_>, trampoline: u64, entry: u64) -> Result<Patch, Refusal> {
    let (code, ends) = begin(site, trampoline, entry)?;
    if let Some(window) = signal_return::window(&code, site)? {
        return jump_from(&code, &window, &ends);
    }
    let refusal = match plan_jump(&code, site, &ends) {
        Err(
            refusal @ (Refusal::TooShort
            | Refusal::NotRelocatable(_)
            | Refusal::BranchInside(_)
            | Refusal::IndirectJump(_)),
        ) => refusal,
        planned => return planned,
    };
    plan_by_island(&code, site, &ends).map_err(|_| refusal)
}

/// The same for a site whose window is one instruction: none other is planned. Nobody can come to its inside, so that
/// little text is needed: the function, and some [`CONTEXT`] before the site.
#[must_use]
pub fn plan_alone(site: &Site<'_>, trampoline: u64, entry: u64) -> Option<Patch> {
    let (code, ends) = begin(site, trampoline, entry).ok()?;
    if let Some(window) = signal_return::window(&code, site).ok()? {
        return jump_from(&code, &window, &ends).ok();
    }
    let window = window::find(&code, site).ok().filter(Window::is_single)?;
    jump_from(&code, &window, &ends).ok()
}

/// What there is to know before anything is looked at.
fn begin<'a>(site: &Site<'a>, trampoline: u64, entry: u64) -> Result<(Code<'a>, Ends), Refusal> {
    let syscall = site.syscall;
    let code = Code::new(site.text, site.text_addr).ok_or(Refusal::NoSite(syscall))?;
    let after = syscall.checked_add(2).ok_or(Refusal::NoSite(syscall))?;
    if code.slice(syscall..after) != Some(&SYSCALL) {
        return Err(Refusal::NoSite(syscall));
    }
    Ok((code, Ends { trampoline, entry, after }))
}

/// Where a trampoline is, where it leads, and what follows the system call.
struct Ends {
    trampoline: u64,
    entry: u64,
    after: u64,
}

/// With a window that the jump fits into.
fn plan_jump(code: &Code<'_>, site: &Site<'_>, ends: &Ends) -> Result<Patch, Refusal> {
    let window = window::find(code, site)?;
    // First what costs little.
    let patch = jump_from(code, &window, ends)?;
    if !window.is_single() {
        branches::check(code, site, &window)?;
    }
    Ok(patch)
}

/// The patch with a jump as the window's replacement, whoever may lead inside.
fn jump_from(code: &Code<'_>, window: &Window, ends: &Ends) -> Result<Patch, Refusal> {
    let patch = assemble(code, window, ends)?;
    let bytes = near_jump(window.start, ends.trampoline, patch.original.len())?;
    Ok(Patch { bytes, ..patch })
}

/// With a short jump and padding nearby.
fn plan_by_island(code: &Code<'_>, site: &Site<'_>, ends: &Ends) -> Result<Patch, Refusal> {
    let window = window::find_short(code, site)?;
    let patch = assemble(code, &window, ends)?;
    let islands = island::find(code, site, window.start).ok_or(Refusal::TooShort)?;
    let mut free = islands.into_iter();
    let island = free
        .find(|island| branches::check_island(code, site, island).is_ok())
        .ok_or(Refusal::TooShort)?;
    let original = code.slice(island.clone()).ok_or(Refusal::TooShort)?.to_vec();
    let after_jump = window.start.checked_add(island::SHORT_JUMP_LEN).ok_or(Refusal::OutOfReach)?;
    let distance = i8::try_from(island.start.wrapping_sub(after_jump).cast_signed());
    let mut bytes = vec![0xeb, distance.map_err(|_| Refusal::OutOfReach)?.cast_unsigned()];
    bytes.resize(patch.original.len(), INT3);
    let long = near_jump(island.start, ends.trampoline, original.len())?;
    let island = Edit { at: island.start, original, bytes: long };
    Ok(Patch { bytes, island: Some(island), ..patch })
}

/// The trampoline of a window, without what replaces that.
fn assemble(code: &Code<'_>, window: &Window, ends: &Ends) -> Result<Patch, Refusal> {
    let moved = relocate::relocate(code, window, ends.trampoline)?;
    let mut trampoline = moved.bytes.clone();
    trampoline.extend(relocate::tail(&moved, ends.trampoline, ends.after, ends.entry)?);
    Ok(Patch {
        at: window.start,
        original: code.slice(window.range()).ok_or(Refusal::NoBoundary)?.to_vec(),
        bytes: Vec::new(),
        trampoline,
        island: None,
        is_single: window.is_single(),
        moved,
    })
}

/// A jump from `at` to `to`, and what fills the rest of `len` bytes.
fn near_jump(at: u64, to: u64, len: usize) -> Result<Vec<u8>, Refusal> {
    let after_jump = at.checked_add(JUMP_LEN).ok_or(Refusal::OutOfReach)?;
    let mut bytes = vec![0xe9];
    bytes.extend(relocate::distance(after_jump, to)?);
    bytes.resize(len, INT3);
    Ok(bytes)
}
