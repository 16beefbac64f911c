//! What the shim has carried out on its own and the sentry is to hear of with the next event, before it or anybody else looks.

use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{self, ALL_NOTES, Fast, MAX_NOTES, MORE_NOTES, Note, kind};

/// Whether one more can be written down.
pub fn have_room(fast: &Fast) -> bool {
    fast.note_count.load(Relaxed) < ALL_NOTES as u64
}

/// Writes one down; to be asked for room first.
pub fn write(fast: &Fast, words: [u64; 3]) {
    let count = fast.note_count.load(Relaxed) as usize;
    let note = fast.notes.get(count).or_else(|| more().get(count.wrapping_sub(MAX_NOTES)));
    let Some(note) = note else { return };
    for (to, from) in note.0.iter().zip(words) {
        to.store(from, Relaxed);
    }
    fast.note_count.store(count as u64 + 1, Relaxed);
    mark(fast, kind::NOTED);
}

/// What is posted next says that there is something of this kind.
pub fn mark(fast: &Fast, kind: u32) {
    fast.noted.store(fast.noted.load(Relaxed) | kind, Relaxed);
}

/// The last one.
pub fn last(fast: &Fast) -> Option<&Note> {
    let at = (fast.note_count.load(Relaxed) as usize).checked_sub(1)?;
    fast.notes.get(at).or_else(|| more().get(at.wrapping_sub(MAX_NOTES)))
}

/// There is but one thread that writes notes.
fn more() -> &'static [Note; MORE_NOTES] {
    // SAFETY: a part of the channel, all fields atomic.
    unsafe { &*((abi::LOANS_ADDR + abi::MORE_NOTES_OFFSET) as *const [Note; MORE_NOTES]) }
}
