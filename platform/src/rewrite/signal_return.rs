//! The return from a signal: rt_sigreturn(2), which unwinders look for.
//!
//! Where a handler returns to they expect `mov $15,%rax; syscall`, byte for byte, unless an unwind table describes the place
//! as a signal's frame: then they do as that says, and do not look (libgcc and LLVM's unwinder and libunwind look for the
//! table first; GNU's C library has it since 2.5, musl has none). So only there the site is rewritten.

use super::code::Code;
use super::window::Window;
use super::{Refusal, Site};

/// Its number.
pub const NUMBER: u64 = 15;
/// `mov $15,%rax`.
const LOAD: [u8; 7] = [0x48, 0xc7, 0xc0, 15, 0, 0, 0];
pub const LOAD_LEN: u64 = 7;

/// Its window; `None` if the site is another call.
pub fn window(code: &Code<'_>, site: &Site<'_>) -> Result<Option<Window>, Refusal> {
    let syscall = site.syscall;
    if site.number != NUMBER && !looks_like_it(code, syscall) {
        return Ok(None);
    }
    let start = syscall.checked_sub(LOAD_LEN).ok_or(Refusal::SignalReturn)?;
    let is_plain = site.number == NUMBER && code.slice(start..syscall) == Some(&LOAD);
    let window = Window { start, syscall, instructions: vec![start] };
    if is_plain && site.is_signal_return { Ok(Some(window)) } else { Err(Refusal::SignalReturn) }
}

/// By its bytes, whatever number was seen: `mov $15,%eax` in any form, and the number of that call for programs with short
/// pointers.
fn looks_like_it(code: &Code<'_>, syscall: u64) -> bool {
    let before = syscall.checked_sub(4).and_then(|start| code.slice(start..syscall));
    before == Some(&[15, 0, 0, 0]) || before == Some(&[1, 2, 0, 0x40])
}
