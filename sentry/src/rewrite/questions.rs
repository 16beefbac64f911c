//! Questions to the processor in a file's text.
//!
//! See `platform::rewrite`: they are answered by the shim where that is quicker.

use std::ops::Range;

use platform::rewrite::{ASKS_PROCESSOR, CPUID, FUNCTION_MAX, questions_in};

use super::functions::{Functions, Read};

/// Bytes of the instruction, and of what is put in its place.
pub const LEN: u64 = CPUID.len() as u64;
/// Larger texts are not searched. Loaders have some 200 KiB.
const MOST_SEARCHED: u64 = 1 << 20;
/// More functions than ask anything in a loader or a C library's start.
const MOST_FUNCTIONS: usize = 32;

/// File offsets of all questions in `text` that surely are instructions.
pub fn find(functions: Option<&Functions>, text: &Range<u64>, read: &Read<'_>) -> Vec<u64> {
    let Some(functions) = functions else { return Vec::new() };
    if text.end.saturating_sub(text.start) > MOST_SEARCHED {
        return Vec::new();
    }
    let Some(bytes) = read(text.clone()) else { return Vec::new() };
    let mut found = Vec::new();
    let mut looked_through = text.start;
    let mut looked = 0;
    for at in candidates(&bytes).map(|at| text.start.saturating_add(at)) {
        // One function may have many.
        if at < looked_through || looked == MOST_FUNCTIONS {
            continue;
        }
        looked += 1;
        let Some(function) = functions.around(at, read).map(|around| around.function) else {
            continue;
        };
        if function.end.saturating_sub(function.start) <= FUNCTION_MAX {
            found.extend(questions_in(&bytes, text.start, &function));
        }
        looked_through = function.end.max(at.saturating_add(1));
    }
    found
}

/// Offsets of bytes that look like the instruction.
fn candidates(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let pairs = bytes.windows(CPUID.len()).zip(0..);
    pairs.filter(|(pair, _)| *pair == CPUID).map(|(_, at)| at)
}

/// Puts the trap in the place of those of `questions` (file offsets) that are in `bytes`, which begin at `start`.
pub fn replace(bytes: &mut [u8], start: u64, questions: &[u64]) {
    for question in questions {
        let at = question.checked_sub(start).and_then(|at| usize::try_from(at).ok());
        let place = at.and_then(|at| bytes.get_mut(at..at.checked_add(CPUID.len())?));
        // The file may have been changed since it was searched.
        if let Some(place) = place.filter(|place| **place == CPUID) {
            place.copy_from_slice(&ASKS_PROCESSOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_replaced_where_they_still_are() {
        let mut bytes = [0x90, 0x0f, 0xa2, 0x0f, 0xa2, 0xcc, 0xcc, 0x0f];
        replace(&mut bytes, 0x100, &[0x101, 0x105, 0x107, 0x200, 0]);
        assert_eq!(bytes, [0x90, 0xcd, 0x03, 0x0f, 0xa2, 0xcc, 0xcc, 0x0f]);
    }

    #[test]
    fn without_an_unwind_table_nothing_is_found() {
        let read = |range: Range<u64>| Some(vec![0x0f; (range.end - range.start) as usize]);
        assert!(find(None, &(0..64), &read).is_empty());
    }
}
