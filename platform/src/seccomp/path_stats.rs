//! What a guest's shim is told of paths (`shim/src/path_stats.rs`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use base::lent::{Lent, Taken};
use parking_lot::Mutex;
use shim_abi::PathStat;

use super::region::SlotRef;
use crate::STAT_BYTES;

/// The answers of an address space.
#[derive(Debug, Default)]
pub struct PathStats(Mutex<[Weak<ToldStat>; PathStat::COUNT]>);

/// One answer, as long as it is there.
#[derive(Debug)]
struct ToldStat {
    slot: SlotRef,
    place: usize,
    is_over: AtomicBool,
}

impl PathStats {
    /// Writes one down, while the only thread of the process stands still. `slot` is that of the loans. Ends the answer that was
    /// there.
    pub fn tell(
        &self,
        slot: &SlotRef,
        names: u64,
        (path, follows): (&[u8], bool),
        attr: &[u8; STAT_BYTES],
    ) -> Option<Arc<dyn Lent>> {
        let (what, words) = key(path, follows)?;
        let place = PathStat::place(what, &words);
        let known = slot.path_stat(place)?;
        let told = ToldStat { slot: slot.clone(), place, is_over: AtomicBool::new(false) };
        let told = Arc::new(told);
        let former = std::mem::replace(self.0.lock().get_mut(place)?, Arc::downgrade(&told));
        if let Some(former) = former.upgrade() {
            former.end();
        }
        known.is_valid.store(0, Ordering::SeqCst);
        known.names.store(names, Ordering::Relaxed);
        known.what.store(what, Ordering::Relaxed);
        for (to, word) in known.path.iter().zip(words) {
            to.store(word, Ordering::Relaxed);
        }
        for (to, bytes) in known.stat.iter().zip(attr.as_chunks().0) {
            to.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        known.is_valid.store(1, Ordering::SeqCst);
        Some(told)
    }
}

impl Lent for ToldStat {
    fn take(&self) -> Taken {
        Taken { at: 0, is_over: self.is_over() }
    }

    fn give(&self, _at: u64) -> bool {
        !self.is_over()
    }

    fn end(&self) {
        if !self.is_over.swap(true, Ordering::SeqCst)
            && let Some(known) = self.slot.path_stat(self.place)
        {
            known.is_valid.store(0, Ordering::SeqCst);
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

impl Drop for ToldStat {
    fn drop(&mut self) {
        self.end();
    }
}

/// `None`: too long.
fn key(path: &[u8], follows: bool) -> Option<(u64, [u64; PathStat::WORDS])> {
    let what = path.len() as u64 | if follows { PathStat::FOLLOWS } else { 0 };
    Some((what, padded_words(path)?))
}

/// Text in words, filled up with zeros; `None`: there is no room for it and its end.
pub fn padded_words<const N: usize>(text: &[u8]) -> Option<[u64; N]> {
    if text.len() >= 8 * N {
        return None;
    }
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(text.chunks(8)) {
        let mut padded = [0; 8];
        padded.get_mut(..bytes.len())?.copy_from_slice(bytes);
        *word = u64::from_le_bytes(padded);
    }
    Some(words)
}
