//! What is asked for before anybody wants it; only in read-only trees, where answers stay true.
//!
//! A round trip costs tens of microseconds, what the gofer does in it about one per object. So a listing carries
//! attributes while programs use them (ls, git and tar do, find does not: then only those of directories, through
//! which the walk goes on); a directory in which several names were looked up is listed, which also tells what is not
//! there; and files that are opened in the order of the listing (grep, tar, cp) are opened ahead, more and more of them
//! as long as they are used. So are directories that are listed in the order of a walk; once that pays, the next ones are asked for
//! while the last ones are used (see `subtree`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use gofer_protocol::Plus;

/// Attributes that came unasked before it is judged whether they are used.
const SAMPLE: u32 = 1024;
/// Fewer than one in so many used: not worth it.
const WORTH: u32 = 16;
/// Lookups of listed names without attributes before listings carry them again.
const MISSED: u32 = 16;

/// What paid off so far; measures only, so relaxed.
#[derive(Default)]
pub struct Foresight {
    is_spare: AtomicBool,
    /// Attributes of other than directories that came with listings.
    brought: AtomicU32,
    /// Of these, the ones that were wanted, by somebody who did not open the file right away.
    used: AtomicU32,
    /// Entries that were wanted and had come without.
    missed: AtomicU32,
    /// Files opened, and directories listed, ahead.
    pub files: Gauge,
    pub dirs: Gauge,
}

impl Foresight {
    pub fn plus(&self) -> Plus {
        if self.is_spare.load(Ordering::Relaxed) { Plus::Directories } else { Plus::Everything }
    }

    pub fn brought(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let brought = self.brought.fetch_add(count, Ordering::Relaxed).saturating_add(count);
        if brought < SAMPLE {
            return;
        }
        // What came last was not to be used yet: it is for the next judgement.
        let used = self.used.swap(0, Ordering::Relaxed);
        self.brought.store(count, Ordering::Relaxed);
        if used.saturating_mul(WORTH) < brought.saturating_sub(count) {
            self.missed.store(0, Ordering::Relaxed);
            self.is_spare.store(true, Ordering::Relaxed);
        }
    }

    pub fn used(&self) {
        self.used.fetch_add(1, Ordering::Relaxed);
    }

    pub fn missed(&self) {
        if self.missed.fetch_add(1, Ordering::Relaxed) + 1 >= MISSED {
            self.brought.store(0, Ordering::Relaxed);
            self.is_spare.store(false, Ordering::Relaxed);
        }
    }
}

/// How many of the things that were had before anybody wanted them were wanted.
#[derive(Default)]
pub struct Gauge {
    had: AtomicU32,
    /// Each of them counts itself.
    used: Arc<AtomicU32>,
}

impl Gauge {
    /// `count` more were had; where to count the ones that are used.
    pub fn had(&self, count: usize) -> Arc<AtomicU32> {
        /// Older experience counts half.
        const MEMORY: u32 = 512;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let had = self.had.fetch_add(count, Ordering::Relaxed).saturating_add(count);
        if had > MEMORY {
            self.had.store(had / 2, Ordering::Relaxed);
            let used = self.used.load(Ordering::Relaxed);
            self.used.store(used / 2, Ordering::Relaxed);
        }
        Arc::clone(&self.used)
    }

    /// Requests in order that a directory has to see before anything is had ahead in it.
    pub fn sure_after(&self) -> u32 {
        let had = self.had.load(Ordering::Relaxed);
        let used = self.used.load(Ordering::Relaxed);
        // A batch or two may be waiting for its use.
        if used >= 16 && used.saturating_mul(2).saturating_add(64) >= had {
            0
        } else if used.saturating_mul(4).saturating_add(64) >= had {
            2
        } else {
            8
        }
    }
}

/// How far files of one directory are opened, or directories in it listed, ahead.
#[derive(Debug, Default, Clone, Copy)]
pub struct OpenAhead {
    /// Place in the listing after the entry that was asked for last.
    at: usize,
    /// Requests in order, without one out of it.
    run: u32,
}

impl OpenAhead {
    /// Requests this far from the expected place are in order: some entries are skipped (by name, say).
    pub const WINDOW: usize = 64;
    /// Files opened, and directories listed, ahead at a time.
    pub const MOST: usize = gofer_protocol::MAX_OPEN - 1;

    /// Where the one that is wanted next is expected.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// One was wanted that was not had ahead, `place` entries from the expected one (`None`: elsewhere). Answers how many
    /// to have along with it.
    pub fn next(&mut self, place: Option<usize>, sure_after: u32) -> usize {
        let Some(place) = place else {
            self.run = 0;
            return 0;
        };
        self.at = self.at.saturating_add(place + 1);
        self.run = self.run.saturating_add(1);
        if self.run <= sure_after {
            0
        } else {
            (8 << (self.run - sure_after).min(3)).min(Self::MOST)
        }
    }

    /// One was wanted out of order; `after` is the place after it.
    pub fn resume(&mut self, after: usize) {
        (self.at, self.run) = (after, 0);
    }

    /// The ones from `at` on will have been had ahead.
    pub fn go_to(&mut self, at: usize) {
        self.at = at;
    }

    /// The directory is walked anew.
    pub fn rewind(&mut self) {
        self.at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_spared_while_nobody_wants_them() {
        let foresight = Foresight::default();
        for _ in 0..20 {
            foresight.brought(100);
        }
        assert_eq!(foresight.plus(), Plus::Directories);
        for _ in 0..MISSED {
            foresight.missed();
        }
        assert_eq!(foresight.plus(), Plus::Everything);
        for _ in 0..20 {
            (0..50).for_each(|_| foresight.used());
            foresight.brought(100);
        }
        assert_eq!(foresight.plus(), Plus::Everything);
    }

    #[test]
    fn files_are_opened_ahead_while_that_pays() {
        let foresight = Foresight::default();
        let mut dir = OpenAhead::default();
        let mut next = |place| dir.next(place, foresight.files.sure_after());
        assert_eq!([next(Some(0)), next(Some(3))], [0, 0]);
        let count = next(Some(0));
        assert!(count > 1, "the third in order");
        foresight.files.had(count).fetch_add(u32::try_from(count).unwrap(), Ordering::Relaxed);
        assert!(next(Some(count)) > count, "all were used");
        assert_eq!(next(None), 0);
        let mut another = OpenAhead::default();
        assert!(another.next(Some(0), foresight.files.sure_after()) > 1, "experience counts");
        (0..20).for_each(|_| drop(foresight.files.had(31)));
        assert_eq!(
            OpenAhead::default().next(Some(0), foresight.files.sure_after()),
            0,
            "none was used"
        );
    }
}
