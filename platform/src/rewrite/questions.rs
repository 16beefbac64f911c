//! Where programs ask the processor what it can do.
//!
//! Unlike a system call, cpuid is answered by nobody whom we could ask where it is: all of a text is searched. It is replaced by a trap
//! of the same length, so that nothing has to move; only that the two bytes are an instruction has to be sure.

use std::ops::Range;

use super::code::Code;

/// The instruction.
pub const CPUID: [u8; 2] = [0x0f, 0xa2];

/// The addresses of all instructions of these bytes in a function; `None` if it cannot be decoded from its beginning to its end. `text`
/// begins at address `start`.
#[must_use]
pub fn in_function(
    text: &[u8],
    start: u64,
    function: &Range<u64>,
    instruction: [u8; 2],
) -> Option<Vec<u64>> {
    let code = Code::new(text, start)?;
    let mut found = Vec::new();
    let mut at = function.start;
    while at < function.end {
        let next = at.checked_add(code.step(at)?.length())?;
        // Not with a prefix, which would go on to be before the trap.
        if code.slice(at..next)? == instruction {
            found.push(at);
        }
        at = next;
    }
    (at == function.end).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_instructions_not_bytes() {
        // mov $4,%eax; cpuid; mov $0xa20f,%ebx; rep cpuid; cpuid; ret
        let text = [
            0xb8, 4, 0, 0, 0, 0x0f, 0xa2, 0xbb, 0x0f, 0xa2, 0, 0, 0xf3, 0x0f, 0xa2, 0x0f, 0xa2,
            0xc3,
        ];
        let found = in_function(&text, 0x1000, &(0x1000..0x1012), CPUID);
        assert_eq!(found, Some(vec![0x1005, 0x100f]));
    }

    #[test]
    fn what_cannot_be_decoded_tells_nothing() {
        let text = [0x0f, 0xa2, 0x06, 0xc3];
        assert_eq!(in_function(&text, 0, &(0..4), CPUID), None);
        // It ends within an instruction, or beyond the text.
        assert_eq!(in_function(&[0x0f, 0xa2, 0xb8, 0, 0, 0, 0], 0, &(0..4), CPUID), None);
        assert_eq!(in_function(&[0x0f, 0xa2, 0xc3], 0, &(0..8), CPUID), None);
        assert_eq!(in_function(&[0x0f, 0xa2, 0xc3], 0, &(0..3), CPUID), Some(vec![0]));
    }
}
