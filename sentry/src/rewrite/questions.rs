//! Questions to the processor in a file's text.
//!
//! See `platform::rewrite`: they are answered by the shim where that is quicker.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::addr::PAGE_SIZE;
use platform::rewrite::{ASKS_PROCESSOR, CPUID, FUNCTION_MAX, questions_in};
use rustix::fs::MemfdFlags;

use super::file_text::{Learned, seal, write_at};
use super::functions::{Functions, Read};

/// Bytes of the instruction, and of what is put in its place.
pub const LEN: u64 = CPUID.len() as u64;
/// Larger texts are not searched. Loaders have some 200 KiB.
const MOST_SEARCHED: u64 = 1 << 20;
/// Pages from the first question to the last. A loader has three.
const MOST_PAGES: u64 = 16;
/// So much is looked at in one go.
const PIECE: usize = 64;
/// More functions than ask anything in a loader or a C library's start.
const MOST_FUNCTIONS: usize = 32;

/// File offsets of all questions in `text` that surely are instructions; none where what is put in their place might be the
/// program's own beside them.
pub fn find(functions: Option<&Functions>, text: &Range<u64>, read: &Read<'_>) -> Vec<u64> {
    let Some(functions) = functions else { return Vec::new() };
    if text.end.saturating_sub(text.start) > MOST_SEARCHED {
        return Vec::new();
    }
    let Some(bytes) = read(text.clone()) else { return Vec::new() };
    let (found, _) = instructions(functions, text, read, (&bytes, 0), CPUID);
    let Some(pages) = pages(text, &found) else { return Vec::new() };
    let [from, to] = [pages.start, pages.end].map(|at| (at - text.start) as usize);
    let Some(near) = bytes.get(..to) else { return Vec::new() };
    let (own, is_sure) = instructions(functions, text, read, (near, from), ASKS_PROCESSOR);
    if own.is_empty() && is_sure { found } else { Vec::new() }
}

/// File offsets of all instructions of these bytes, but for the first `skip` of the text's; and whether there surely are no others.
fn instructions(
    functions: &Functions,
    text: &Range<u64>,
    read: &Read<'_>,
    (bytes, skip): (&[u8], usize),
    instruction: [u8; 2],
) -> (Vec<u64>, bool) {
    let (mut found, mut is_sure) = (Vec::new(), true);
    let mut looked_through = text.start;
    let mut looked = 0;
    for at in candidates(bytes, skip, instruction).map(|at| text.start.saturating_add(at)) {
        // One function may have many.
        if at < looked_through {
            continue;
        }
        looked += 1;
        let around = if looked > MOST_FUNCTIONS { None } else { functions.around(at, read) };
        let Some(function) = around.map(|around| around.function) else {
            is_sure = false;
            continue;
        };
        looked_through = function.end.max(at.saturating_add(1));
        let is_short = function.end.saturating_sub(function.start) <= FUNCTION_MAX;
        let all = is_short.then(|| questions_in(bytes, text.start, &function, instruction));
        match all.flatten() {
            Some(all) => found.extend(all),
            None => is_sure = false,
        }
    }
    (found, is_sure)
}

/// Offsets of bytes that look like the instruction.
fn candidates(bytes: &[u8], skip: usize, instruction: [u8; 2]) -> impl Iterator<Item = u64> {
    let [_, last] = instruction;
    // Few pieces have one, which is quickly seen of all bytes at once.
    let rest = bytes.get(skip..).unwrap_or_default();
    let pieces = rest.chunks(PIECE).zip((skip..).step_by(PIECE));
    let found = pieces
        .filter(move |(piece, _)| piece.iter().fold(false, |any, byte| any | (*byte == last)))
        .flat_map(move |(piece, at)| (at..).zip(piece).filter(move |(_, byte)| **byte == last));
    let first = found.filter_map(|(at, _): (usize, _)| at.checked_sub(1));
    let is_it = move |at: &usize| bytes.get(*at..*at + 2) == Some(&instruction[..]);
    first.filter(is_it).map(|at| at as u64)
}

/// Those of `questions` that are not in the way of what was learned.
pub fn beside(questions: &[u64], learned: &[Arc<Learned>]) -> Vec<u64> {
    let is_clear = |question: &&u64| {
        let (start, end) = (**question, question.saturating_add(LEN));
        !learned.iter().any(|learned| {
            learned.patch.edits().any(|(addr, original, _)| {
                let at = learned.offset.wrapping_add(addr.wrapping_sub(learned.patch.at));
                start < at.saturating_add(original.len() as u64) && at < end
            })
        })
    };
    questions.iter().filter(is_clear).copied().collect()
}

/// Pages of a text that ask the processor, changed so that the shim is asked.
#[derive(Debug)]
pub struct AskingPages {
    /// These pages, and nothing else; nobody can change them any more.
    pub fd: Arc<OwnedFd>,
    /// Their file offsets.
    pub pages: Range<u64>,
}

impl AskingPages {
    pub fn of(text: &Range<u64>, questions: &[u64], read: &Read<'_>) -> Option<Self> {
        let pages = pages(text, questions)?;
        let mut bytes = read(pages.clone())?;
        replace(&mut bytes, pages.start, questions);
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("text", flags).ok()?;
        write_at(&fd, &bytes, 0)?;
        seal(&fd)?;
        Some(Self { fd: Arc::new(fd), pages })
    }
}

/// The pages with all of `questions`, if they are not too many.
fn pages(text: &Range<u64>, questions: &[u64]) -> Option<Range<u64>> {
    let first = questions.iter().min()? & !(PAGE_SIZE - 1);
    let end = questions.iter().max()?.checked_add(LEN)?.checked_next_multiple_of(PAGE_SIZE)?;
    let is_inside = first >= text.start && end <= text.end;
    (is_inside && end - first <= MOST_PAGES * PAGE_SIZE).then_some(first..end)
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
    fn bytes_of_questions_are_found_wherever_they_are() {
        let mut bytes = [0xa2; 200];
        for at in [0, 62, 63, 64, 127, 198] {
            bytes[at] = 0x0f;
        }
        // The second of two in a row has no room.
        assert_eq!(candidates(&bytes, 0, CPUID).collect::<Vec<_>>(), [0, 64, 127, 198]);
        assert_eq!(candidates(&bytes, 65, CPUID).collect::<Vec<_>>(), [64, 127, 198]);
        assert_eq!(candidates(&[0x0f], 0, CPUID).count(), 0);
    }

    #[test]
    fn pages_reach_from_the_first_to_the_last() {
        let text = 0x1000..0x9000;
        assert_eq!(pages(&text, &[0x4ffe, 0x2345]), Some(0x2000..0x5000));
        assert_eq!(pages(&text, &[0x4fff]), Some(0x4000..0x6000));
        assert_eq!(pages(&text, &[0x8fff]), None);
        assert_eq!(pages(&text, &[]), None);
        assert_eq!(pages(&(0..1 << 20), &[0, 0x20000]), None);
    }

    #[test]
    fn without_an_unwind_table_nothing_is_found() {
        let read = |range: Range<u64>| Some(vec![0x0f; (range.end - range.start) as usize]);
        assert!(find(None, &(0..64), &read).is_empty());
    }

    #[test]
    fn a_loader_asks_in_few_pages_and_nothing_else_of_them_is_changed() {
        let Ok(bytes) = std::fs::read("/lib64/ld-linux-x86-64.so.2") else { return };
        let read = |range: Range<u64>| {
            let end = (range.end as usize).min(bytes.len());
            bytes.get(range.start as usize..end).map(<[u8]>::to_vec)
        };
        let functions = Functions::parse(&read);
        let text = 0x1000..(bytes.len() as u64 & !(PAGE_SIZE - 1)).min(MOST_SEARCHED);
        let found = find(functions.as_ref(), &text, &read);
        assert!(found.len() > 10, "{found:x?}");
        let asking = AskingPages::of(&text, &found, &read).expect("they are close together");
        let mut now = vec![0; (asking.pages.end - asking.pages.start) as usize];
        rustix::io::pread(&asking.fd, &mut now, 0).expect("it can be read");
        for question in &found {
            let at = (question - asking.pages.start) as usize;
            assert_eq!(now[at..at + 2], ASKS_PROCESSOR);
            now[at..at + 2].copy_from_slice(&CPUID);
        }
        assert_eq!(Some(now), read(asking.pages));
        assert!(rustix::io::pwrite(&asking.fd, b"x", 0).is_err());
    }
}
