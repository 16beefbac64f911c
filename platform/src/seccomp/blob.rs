//! The shim's ELF image, as `build.rs` made it.

use std::ops::Range;

use super::SetupError;

/// The file, to be executed from a memfd.
pub static ELF: &[u8] = include_bytes!(env!("SHIM_ELF"));

const PROGRAM_HEADERS: usize = 64;
const PROGRAM_HEADER_SIZE: usize = 56;
const PT_LOAD: u64 = 1;
const PF_X: u64 = 1;

/// Where its text lies: the one executable segment.
pub fn text() -> Result<Range<u64>, SetupError> {
    let count = number(56, 2)? as usize;
    for index in 0..count {
        let header = PROGRAM_HEADERS + index * PROGRAM_HEADER_SIZE;
        if number(header, 4)? == PT_LOAD && number(header + 4, 4)? & PF_X != 0 {
            let start = number(header + 16, 8)?;
            return Ok(start..start + number(header + 40, 8)?);
        }
    }
    Err(SetupError::Blob)
}

/// The entry for rewritten call sites: a jump right behind the first instruction of `_start`.
pub fn call_entry() -> Result<u64, SetupError> {
    const FIRST_INSTRUCTION: u64 = 2;
    Ok(number(24, 8)?.saturating_add(FIRST_INSTRUCTION))
}

/// A little-endian number in the file.
fn number(at: usize, bytes: usize) -> Result<u64, SetupError> {
    let field = ELF.get(at..at + bytes).ok_or(SetupError::Blob)?;
    Ok(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blob_lies_where_the_layout_says_and_is_small() {
        let text = text().expect("an executable segment");
        assert!(text.start > shim_abi::SHIM_BASE && text.end < shim_abi::GLOBAL_ADDR);
        assert!(ELF.len() < 44 << 10, "{}", ELF.len());
    }

    #[test]
    fn blob_has_no_writable_data() {
        let count = number(56, 2).expect("header") as usize;
        for header in (0..count).map(|i| PROGRAM_HEADERS + i * PROGRAM_HEADER_SIZE) {
            let is_load = number(header, 4).expect("header") == PT_LOAD;
            assert!(!is_load || number(header + 4, 4).expect("header") & 2 == 0);
        }
    }
}
