//! What all shims are told of paths (`shim/src/known_paths.rs`).

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, fence};

use base::lent::{Lent, Taken};
use parking_lot::Mutex;
use shim_abi::KnownPath;

use super::path_stats::padded_words;
use super::region::GlobalPage;
use crate::{PathAttributes, PathFact};

/// The table, written under a lock that nobody holds while he waits.
#[derive(Debug)]
pub struct KnownPaths {
    global: Arc<GlobalPage>,
    /// Which of a full set goes next.
    turn: Mutex<usize>,
}

/// That a path has these attributes, as long as they are there.
#[derive(Debug)]
struct ToldPath {
    table: Arc<KnownPaths>,
    place: usize,
    version: u64,
    is_over: AtomicBool,
}

impl KnownPaths {
    pub fn new(global: Arc<GlobalPage>) -> Arc<Self> {
        Arc::new(Self { global, turn: Mutex::default() })
    }

    /// Writes down what a path is, in place of what was said of it before. Something to end for what may end on its own.
    pub fn tell(
        self: &Arc<Self>,
        names: u64,
        path: &[u8],
        fact: PathFact<'_>,
    ) -> Option<Arc<dyn Lent>> {
        let words = padded_words(path)?;
        let (bits, stat) = match fact {
            PathFact::Absent => (KnownPath::ABSENT, None),
            PathFact::Plain => (KnownPath::PLAIN, None),
            PathFact::Attributes(of) => (bits_of(of), Some(of.stat)),
        };
        let len = path.len() as u64;
        let mut turn = self.turn.lock();
        let place = self.choose(names, len, &words, &mut turn);
        let known = self.global.known_path(place)?;
        let version = write(known, |known| {
            known.names.store(names, Relaxed);
            known.what.store(len | bits, Relaxed);
            for (to, word) in known.path.iter().zip(words) {
                to.store(word, Relaxed);
            }
            for (to, bytes) in
                known.stat.iter().zip(stat.iter().flat_map(|stat| stat.as_chunks().0))
            {
                to.store(u64::from_le_bytes(*bytes), Relaxed);
            }
        });
        drop(turn);
        stat?;
        let is_over = AtomicBool::new(false);
        Some(Arc::new(ToldPath { table: Arc::clone(self), place, version, is_over }))
    }

    /// The place that has the path; else one that says nothing, or nothing that holds; else the next one.
    fn choose(
        &self,
        names: u64,
        len: u64,
        words: &[u64; KnownPath::WORDS],
        turn: &mut usize,
    ) -> usize {
        let first = KnownPath::first_place(words);
        let places = first..first + KnownPath::WAYS;
        let find = |is_it: &dyn Fn(&KnownPath) -> bool| {
            places.clone().find(|place| self.global.known_path(*place).is_some_and(is_it))
        };
        let has_path = |known: &KnownPath| {
            known.what.load(Relaxed) & KnownPath::LEN == len
                && known.path.iter().zip(words).all(|(known, word)| known.load(Relaxed) == *word)
        };
        let is_empty =
            |known: &KnownPath| known.what.load(Relaxed) == 0 || known.names.load(Relaxed) < names;
        find(&has_path).or_else(|| find(&is_empty)).unwrap_or_else(|| {
            *turn = turn.wrapping_add(1);
            first + *turn % KnownPath::WAYS
        })
    }
}

fn bits_of(of: PathAttributes<'_>) -> u64 {
    const R_OK: u64 = 4 << KnownPath::RIGHTS_SHIFT;
    const X_OK: u64 = 1 << KnownPath::RIGHTS_SHIFT;
    let bits = [(!of.is_linked, KnownPath::PLAIN), (of.is_readable, R_OK), (of.is_runnable, X_OK)];
    let bits = bits.into_iter().filter(|(is_so, _)| *is_so).map(|(_, bit)| bit);
    bits.fold(KnownPath::HAS_STAT, |all, bit| all | bit)
}

/// Who reads meanwhile finds that out; the version after it.
fn write(known: &KnownPath, change: impl FnOnce(&KnownPath)) -> u64 {
    let version = known.version.load(Relaxed);
    known.version.store(version.wrapping_add(1), SeqCst);
    fence(SeqCst);
    change(known);
    let after = version.wrapping_add(2);
    known.version.store(after, SeqCst);
    after
}

impl Lent for ToldPath {
    fn take(&self) -> Taken {
        Taken { at: 0, is_over: self.is_over() }
    }

    fn give(&self, _at: u64) -> bool {
        !self.is_over()
    }

    fn end(&self) {
        if self.is_over.swap(true, SeqCst) {
            return;
        }
        let _turn = self.table.turn.lock();
        let known = self.table.global.known_path(self.place);
        if let Some(known) = known.filter(|known| known.version.load(Relaxed) == self.version) {
            write(known, |known| {
                known.what.fetch_and(!KnownPath::OF_FILE, Relaxed);
            });
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(SeqCst)
    }
}

impl Drop for ToldPath {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::STAT_BYTES;

    fn table() -> Arc<KnownPaths> {
        KnownPaths::new(Arc::new(GlobalPage::new().unwrap()))
    }

    fn bits(table: &KnownPaths, names: u64, path: &str) -> u64 {
        let words = padded_words(path.as_bytes()).unwrap();
        let first = KnownPath::first_place(&words);
        let all = (first..first + KnownPath::WAYS).filter_map(|at| table.global.known_path(at));
        let is_it = |known: &&KnownPath| {
            known.names.load(Relaxed) == names
                && known.what.load(Relaxed) & KnownPath::LEN == path.len() as u64
                && known.path.iter().zip(words).all(|(known, word)| known.load(Relaxed) == word)
        };
        let mut found = all.filter(is_it);
        let what = found.next().map_or(0, |known| {
            assert_eq!(known.version.load(Relaxed) % 2, 0);
            known.what.load(Relaxed) & !KnownPath::LEN
        });
        assert!(found.next().is_none());
        what
    }

    #[test]
    fn of_each_path_the_last_word_is_there() {
        let table = table();
        assert!(table.tell(1, b"/a", PathFact::Absent).is_none());
        assert!(table.tell(1, b"/b", PathFact::Plain).is_none());
        assert_eq!(bits(&table, 1, "/a"), KnownPath::ABSENT);
        assert_eq!(bits(&table, 1, "/b"), KnownPath::PLAIN);
        table.tell(2, b"/a", PathFact::Plain);
        assert_eq!((bits(&table, 1, "/a"), bits(&table, 2, "/a")), (0, KnownPath::PLAIN));
        assert!(table.tell(2, &[b'/'; 8 * KnownPath::WORDS], PathFact::Plain).is_none());
    }

    #[test]
    fn attributes_end_and_the_rest_stays() {
        let table = table();
        let of = PathAttributes {
            stat: &[7; STAT_BYTES],
            is_linked: false,
            is_readable: true,
            is_runnable: true,
        };
        let first = table.tell(1, b"/a", PathFact::Attributes(of)).unwrap();
        let all = KnownPath::PLAIN | KnownPath::HAS_STAT | KnownPath::RIGHTS;
        assert_eq!(bits(&table, 1, "/a"), all);
        let second = table.tell(1, b"/a", PathFact::Attributes(of)).unwrap();
        // That was of what was said before.
        drop(first);
        assert_eq!(bits(&table, 1, "/a"), all);
        second.end();
        assert_eq!(bits(&table, 1, "/a"), KnownPath::PLAIN);
        let linked = PathAttributes { is_linked: true, is_readable: false, ..of };
        let third = table.tell(1, b"/a", PathFact::Attributes(linked)).unwrap();
        let some = KnownPath::HAS_STAT | 1 << KnownPath::RIGHTS_SHIFT;
        assert_eq!(bits(&table, 1, "/a"), some);
        third.end();
        assert_eq!(bits(&table, 1, "/a"), 0);
    }

    #[test]
    fn many_paths_leave_each_other_some_room() {
        let table = table();
        let path = |number: usize| format!("/usr/include/file-{number}.h");
        for number in 0..KnownPath::COUNT / 4 {
            table.tell(1, path(number).as_bytes(), PathFact::Plain);
        }
        let there = (0..KnownPath::COUNT / 4).filter(|number| bits(&table, 1, &path(*number)) != 0);
        assert!(there.count() > KnownPath::COUNT / 5);
        for number in 0..10 * KnownPath::COUNT {
            table.tell(2, path(number).as_bytes(), PathFact::Absent);
            assert_ne!(bits(&table, 2, &path(number)), 0);
        }
    }
}
