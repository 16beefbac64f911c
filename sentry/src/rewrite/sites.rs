//! What is known of call sites in one address space.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base::lock::Mutex;

use super::file_text::Learned;
use super::{LEARN_HERE_AFTER, PATCH_AFTER};
use crate::lock_order;

/// Sites whose traps are counted at once; then counting begins anew.
const MOST_COUNTED: usize = 4096;

/// Part of an address space's state.
#[derive(Debug, Clone, Default)]
pub struct Sites {
    /// Traps by the instruction's address, with the call's number. A child counts for itself.
    hits: HashMap<u64, (u32, u64)>,
    /// Traps since sites were rewritten, without the first one of each site.
    repeats: u32,
    /// Windows that were rewritten here while threads could stand in them, by their start. Shared with forked children
    /// until one of them changes it.
    windows: Arc<BTreeMap<u64, Window>>,
    /// What forked children met, for this address space to rewrite before it makes more of them; and its parent's.
    wishes: Arc<Wishes>,
    parent: Option<Arc<Wishes>>,
}

/// Sites with their call's number, and how many children met them.
type Wishes = Mutex<HashMap<u64, (u64, u32)>, lock_order::Leaf>;

#[derive(Debug, Clone)]
struct Window {
    learned: Arc<Learned>,
    trampoline: u64,
}

/// What a trap means for its site.
#[derive(Debug, PartialEq, Eq)]
pub enum Hit {
    First,
    Again,
    /// Time to rewrite these sites, with their numbers, and whether they are worth being looked into.
    Due(Vec<(u64, u64, bool)>),
}

impl Sites {
    /// Counts a trap.
    pub fn hit(&mut self, site: u64, number: u64) -> Hit {
        if self.hits.len() >= MOST_COUNTED {
            self.hits.clear();
        }
        let (hits, last_number) = self.hits.entry(site).or_insert((0, number));
        *hits = hits.saturating_add(1);
        *last_number = number;
        let hits = *hits;
        if hits == 1 {
            return Hit::First;
        }
        self.repeats = self.repeats.saturating_add(1);
        if hits != PATCH_AFTER && self.repeats < PATCH_AFTER {
            return Hit::Again;
        }
        self.repeats = 0;
        let again = self.hits.iter().filter(|(_, (hits, _))| *hits > 1);
        let due = again.map(|(site, (hits, number))| (*site, *number, *hits >= LEARN_HERE_AFTER));
        Hit::Due(due.collect())
    }

    /// For a copy of the address space.
    #[must_use]
    pub fn forked(&self) -> Self {
        Self {
            hits: HashMap::new(),
            repeats: 0,
            windows: Arc::clone(&self.windows),
            wishes: Arc::default(),
            parent: Some(Arc::clone(&self.wishes)),
        }
    }

    /// Tells the parent that a site trapped here.
    pub fn wish(&self, site: u64, number: u64) {
        let Some(parent) = &self.parent else { return };
        let mut wishes = parent.lock();
        if wishes.len() < MOST_COUNTED {
            wishes.entry(site).or_insert((number, 0)).1 += 1;
        }
    }

    /// Sites that `least` children met, with their numbers; each is told once.
    pub fn take_wishes(&self, least: u32) -> Vec<(u64, u64)> {
        let mut wishes = self.wishes.lock();
        let due = wishes.extract_if(|_, (_, count)| *count >= least);
        due.map(|(site, (number, _))| (site, number)).collect()
    }

    /// A window at `start` is about to be rewritten.
    pub(super) fn add(&mut self, start: u64, learned: &Arc<Learned>, trampoline: u64) {
        let window = Window { learned: Arc::clone(learned), trampoline };
        Arc::make_mut(&mut self.windows).insert(start, window);
    }

    /// Where a thread goes on that stood inside a window.
    #[must_use]
    pub fn moved(&self, rip: u64) -> Option<u64> {
        let (start, window) = self.windows.range(..rip).next_back()?;
        let patch = &window.learned.patch;
        let inside = rip.wrapping_sub(*start);
        if inside >= patch.original.len() as u64 {
            return None;
        }
        let offset = patch.to_trampoline(patch.at.wrapping_add(inside))?;
        Some(window.trampoline.wrapping_add(offset as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_tell_their_parent_once_enough_met_a_site() {
        let parent = Sites::default();
        for _ in 0..3 {
            let child = parent.forked();
            child.wish(0x1000, 60);
        }
        parent.forked().wish(0x2000, 3);
        assert_eq!(parent.take_wishes(3), [(0x1000, 60)]);
        assert_eq!(parent.take_wishes(3), []);
        // Without a parent it goes nowhere.
        parent.wish(0x3000, 1);
        assert_eq!(parent.take_wishes(1), [(0x2000, 3)]);
    }

    #[test]
    fn traps_are_counted_per_process() {
        let mut sites = Sites::default();
        assert_eq!(sites.hit(8, 1), Hit::First);
        assert_eq!(sites.hit(8, 1), Hit::Again);
        assert_eq!(sites.forked().hit(8, 1), Hit::First);
    }

    #[test]
    fn sites_are_due_one_by_one_or_together() {
        let mut sites = Sites::default();
        for _ in 1..PATCH_AFTER {
            assert!(!matches!(sites.hit(8, 1), Hit::Due(_)));
        }
        assert_eq!(sites.hit(8, 1), Hit::Due(vec![(8, 1, true)]));
        let mut sites = Sites::default();
        sites.hit(100, 3);
        let mut hits = (0..).map(|turn| sites.hit(turn % 8, 2));
        let due = hits.find(|hit| matches!(hit, Hit::Due(_)));
        let Some(Hit::Due(mut due)) = due else { unreachable!() };
        due.sort_unstable();
        // Not what trapped but once, and of what trapped twice only what is known.
        let all: Vec<_> = (0..8).map(|site| (site, 2, site < 4)).collect();
        assert_eq!(due, all);
    }
}
