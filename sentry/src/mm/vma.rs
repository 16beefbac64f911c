//! The VMA tree: which ranges are mapped, with what rights, to what. Pure data: no host, no locks.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use abi::addr::PAGE_SIZE;
use platform::Prot;
use vfs::File;

bitflags::bitflags! {
    /// Properties of a VMA beside its protection.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct VmaFlags: u32 {
        const SHARED = 1 << 0;
        const GROWSDOWN = 1 << 1;
        const LOCKED = 1 << 2;
        const LOCK_ON_FAULT = 1 << 3;
        const DONT_FORK = 1 << 4;
        const WIPE_ON_FORK = 1 << 5;
        const DONT_DUMP = 1 << 6;
        const NO_RESERVE = 1 << 7;
        const HUGE = 1 << 8;
        const NO_HUGE = 1 << 9;
        const SEQUENTIAL = 1 << 10;
        const RANDOM = 1 << 11;
        /// Where rewritten call sites go by, see `rewrite`.
        const TRAMPOLINES = 1 << 12;
    }
}

/// What a VMA shows.
#[derive(Clone, Debug)]
pub enum Content {
    /// Private anonymous memory.
    Anonymous,
    /// Memory shared over fork; `object` names it, `offset` is the VMA's start in it.
    SharedAnonymous { object: u64, offset: u64 },
    /// A file; `offset` is the file offset of the VMA's start.
    File { file: Arc<File>, offset: u64 },
}

impl Content {
    /// The same content, `bytes` further on.
    #[must_use]
    pub fn advanced(&self, bytes: u64) -> Self {
        match self {
            Self::Anonymous => Self::Anonymous,
            Self::SharedAnonymous { object, offset } => {
                Self::SharedAnonymous { object: *object, offset: offset.wrapping_add(bytes) }
            }
            Self::File { file, offset } => {
                Self::File { file: Arc::clone(file), offset: offset.wrapping_add(bytes) }
            }
        }
    }

    /// True when `next` goes on where this ends after `bytes`.
    fn continues(&self, bytes: u64, next: &Self) -> bool {
        match (self, next) {
            (Self::Anonymous, Self::Anonymous) => true,
            (
                Self::SharedAnonymous { object: a, offset: at },
                Self::SharedAnonymous { object: b, offset: next_at },
            ) => a == b && at.wrapping_add(bytes) == *next_at,
            (Self::File { file: a, offset: at }, Self::File { file: b, offset: next_at }) => {
                Arc::ptr_eq(a, b) && at.wrapping_add(bytes) == *next_at
            }
            _ => false,
        }
    }
}

/// A mapped range, but for its start, which is its key in the tree.
#[derive(Clone, Debug)]
pub struct Vma {
    pub end: u64,
    pub prot: Prot,
    /// The most that mprotect(2) may ask for (Linux' VM_MAY*).
    pub max_prot: Prot,
    pub flags: VmaFlags,
    pub content: Content,
}

impl Vma {
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.flags.contains(VmaFlags::SHARED)
    }

    /// Counts against RLIMIT_DATA (the kernel's `is_data_mapping`).
    #[must_use]
    pub fn is_data(&self) -> bool {
        is_data(self.prot, self.flags)
    }

    /// Room for trampolines (see `rewrite`) that nobody needed yet: there is nothing on the host.
    #[must_use]
    pub fn is_reserved_area(&self) -> bool {
        self.flags.contains(VmaFlags::TRAMPOLINES) && self.prot.is_empty()
    }

    fn can_merge(&self, start: u64, next: &Self) -> bool {
        self.prot == next.prot
            && self.max_prot == next.max_prot
            && self.flags == next.flags
            && self.content.continues(self.end - start, &next.content)
    }
}

/// See [`Vma::is_data`].
#[must_use]
pub fn is_data(prot: Prot, flags: VmaFlags) -> bool {
    prot.contains(Prot::WRITE) && !flags.intersects(VmaFlags::SHARED | VmaFlags::GROWSDOWN)
}

/// Sums over a tree, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub mapped: u64,
    pub data: u64,
    /// Of `data`: what counts against the sandbox's memory.
    pub committed: u64,
    pub stack: u64,
    pub exec: u64,
    pub locked: u64,
}

impl Totals {
    fn change(&mut self, start: u64, vma: &Vma, apply: fn(u64, u64) -> u64) {
        let bytes = vma.end - start;
        let count = |total: &mut u64, wanted: bool| {
            if wanted {
                *total = apply(*total, bytes);
            }
        };
        count(&mut self.mapped, true);
        count(&mut self.data, vma.is_data());
        count(&mut self.committed, vma.is_data() && !vma.flags.contains(VmaFlags::NO_RESERVE));
        count(&mut self.stack, vma.flags.contains(VmaFlags::GROWSDOWN));
        count(&mut self.exec, vma.prot.contains(Prot::EXEC) && !vma.prot.contains(Prot::WRITE));
        count(&mut self.locked, vma.flags.contains(VmaFlags::LOCKED));
    }
}

/// Where the last search for a free range got to: no gap between `top` and the search's limit is larger than
/// `largest`. Spares long trees the walk from the top at every mmap.
#[derive(Clone, Copy, Debug)]
struct SearchCache {
    limit: u64,
    top: u64,
    largest: u64,
}

/// All mapped ranges of an address space; never overlapping, page aligned, merged where they can be.
#[derive(Clone, Debug, Default)]
pub struct VmaTree {
    map: BTreeMap<u64, Vma>,
    totals: Totals,
    search: Option<SearchCache>,
    /// Where changes are noticed, and whether there was one.
    watched: [Range<u64>; 2],
    is_touched: bool,
}

impl VmaTree {
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// All VMAs, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Vma)> {
        self.map.iter().map(|(start, vma)| (*start, vma))
    }

    /// The VMA that holds `addr`.
    #[must_use]
    pub fn find(&self, addr: u64) -> Option<(u64, &Vma)> {
        let (start, vma) = self.map.range(..=addr).next_back()?;
        (addr < vma.end).then_some((*start, vma))
    }

    /// The first VMA that starts at or after `addr`.
    #[must_use]
    pub fn next_from(&self, addr: u64) -> Option<(u64, &Vma)> {
        self.map.range(addr..).next().map(|(start, vma)| (*start, vma))
    }

    /// The last VMA that ends at or below `addr`.
    #[must_use]
    pub fn last_below(&self, addr: u64) -> Option<(u64, &Vma)> {
        self.map
            .range(..addr)
            .rev()
            .map(|(start, vma)| (*start, vma))
            .find(|(_, vma)| vma.end <= addr)
    }

    /// VMAs that share a page with `range`, lowest first, uncut.
    pub fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &Vma)> {
        let first = self.find(range.start).map_or(range.start, |(start, _)| start);
        self.map
            .range(first..range.end.max(first))
            .map(|(start, vma)| (*start, vma))
            .filter(move |(_, vma)| vma.end > range.start)
    }

    #[must_use]
    pub fn is_free(&self, range: Range<u64>) -> bool {
        self.overlapping(range).next().is_none()
    }

    /// The first address of `range` that is not mapped; `None` when all of it is.
    #[must_use]
    pub fn first_hole(&self, range: Range<u64>) -> Option<u64> {
        let mut at = range.start;
        for (start, vma) in self.overlapping(range.clone()) {
            if start > at {
                return Some(at);
            }
            at = vma.end;
        }
        (at < range.end).then_some(at)
    }

    /// Bytes of `range` that are mapped.
    #[must_use]
    pub fn mapped_in(&self, range: &Range<u64>) -> u64 {
        self.overlapping(range.clone())
            .map(|(start, vma)| vma.end.min(range.end) - start.max(range.start))
            .sum()
    }

    /// Puts a VMA at `start`, where nothing is mapped, and merges it with its neighbours.
    pub fn insert(&mut self, start: u64, vma: Vma) {
        debug_assert!(start < vma.end && self.is_free(start..vma.end), "range is taken");
        let end = vma.end;
        self.put(start, vma);
        self.merge_at(end);
        self.merge_at(start);
    }

    /// Unmaps `range` and returns what was there, cut to it.
    pub fn remove(&mut self, range: Range<u64>) -> Vec<(u64, Vma)> {
        self.split(range.start);
        self.split(range.end);
        let starts: Vec<u64> = self.map.range(range.clone()).map(|(start, _)| *start).collect();
        let removed: Vec<(u64, Vma)> =
            starts.into_iter().filter_map(|start| Some((start, self.take(start)?))).collect();
        self.gap_opened(range.end);
        removed
    }

    /// Copies what is in `range`, cut to it.
    #[must_use]
    pub fn copy(&self, range: &Range<u64>) -> Vec<(u64, Vma)> {
        self.overlapping(range.clone())
            .map(|(start, vma)| {
                let cut = start.max(range.start);
                let mut vma = vma.clone();
                vma.content = vma.content.advanced(cut - start);
                vma.end = vma.end.min(range.end);
                (cut, vma)
            })
            .collect()
    }

    /// Changes every VMA in `range`, which is split off at its edges first, and merges afterwards.
    pub fn update(&mut self, range: Range<u64>, mut change: impl FnMut(&mut Vma)) {
        self.split(range.start);
        self.split(range.end);
        let starts: Vec<u64> = self.map.range(range.clone()).map(|(start, _)| *start).collect();
        for start in &starts {
            if let Some(mut vma) = self.take(*start) {
                change(&mut vma);
                self.put(*start, vma);
            }
        }
        self.merge_at(range.end);
        for start in starts.into_iter().rev() {
            self.merge_at(start);
        }
    }

    /// The highest free range of `len` bytes between `floor` and `limit`. A VMA that grows down keeps `guard`
    /// bytes free below it.
    pub fn find_free_top_down(
        &mut self,
        floor: u64,
        limit: u64,
        len: u64,
        guard: u64,
    ) -> Option<u64> {
        let cached = self.search.filter(|cache| cache.limit == limit && cache.largest < len);
        let (mut end, mut largest) = cached.map_or((limit, 0), |cache| (cache.top, cache.largest));
        let mut found = None;
        for (start, vma) in self.map.range(..end).rev() {
            let gap_start = vma.end.max(floor);
            if gap_start < end {
                if end - gap_start >= len {
                    found = Some(end - len);
                    break;
                }
                largest = largest.max(end - gap_start);
            }
            let kept_free = if vma.flags.contains(VmaFlags::GROWSDOWN) { guard } else { 0 };
            end = end.min(start.saturating_sub(kept_free));
            if end < floor.saturating_add(len) {
                break;
            }
        }
        if found.is_none() && end >= floor.saturating_add(len) {
            let below = self.map.range(..end).next_back().map_or(floor, |(_, vma)| vma.end);
            found = (below.max(floor) + len <= end).then(|| end - len);
        }
        let addr = found?;
        self.search = Some(SearchCache { limit, top: addr, largest });
        Some(addr)
    }

    /// As [`VmaTree::find_free_top_down`], at a multiple of `align`.
    pub fn find_free_aligned(
        &mut self,
        floor: u64,
        limit: u64,
        len: u64,
        guard: u64,
        align: u64,
    ) -> Option<u64> {
        // The slack of an aligned range is a gap above what was found, so the cache must not learn of it.
        let cache = self.search;
        let padded = len.checked_add(align - PAGE_SIZE)?;
        let found = self.find_free_top_down(floor, limit, padded, guard);
        self.search = cache;
        found.map(|addr| addr.next_multiple_of(align))
    }

    /// The lowest free range of `len` bytes between `floor` and `limit`.
    #[must_use]
    pub fn find_free_bottom_up(&self, floor: u64, limit: u64, len: u64) -> Option<u64> {
        let mut at = floor;
        for (start, vma) in self.overlapping(floor..limit) {
            if start.saturating_sub(at) >= len {
                break;
            }
            at = at.max(vma.end);
        }
        (at.checked_add(len)? <= limit).then_some(at)
    }

    /// From now on notices changes in these ranges.
    pub fn watch(&mut self, ranges: [Range<u64>; 2]) {
        self.watched = ranges;
        self.is_touched = false;
    }

    /// Of the range with this index only that part.
    pub fn watch_less(&mut self, index: usize, part: Range<u64>) {
        if let Some(range) = self.watched.get_mut(index) {
            *range = part;
        }
    }

    /// Where what lies below an address ends.
    pub fn end_below(&self, addr: u64) -> u64 {
        self.map.range(..addr).next_back().map_or(0, |(_, vma)| vma.end)
    }

    /// Whether anything in the watched range has changed since this was asked, or may have.
    pub fn take_touched(&mut self) -> bool {
        std::mem::take(&mut self.is_touched)
    }

    fn touch(&mut self, start: u64, end: u64) {
        let is_in = |range: &Range<u64>| start < range.end && end > range.start;
        self.is_touched |= self.watched.iter().any(is_in);
    }

    fn put(&mut self, start: u64, vma: Vma) {
        self.touch(start, vma.end);
        self.totals.change(start, &vma, u64::wrapping_add);
        self.map.insert(start, vma);
    }

    fn take(&mut self, start: u64) -> Option<Vma> {
        let vma = self.map.remove(&start)?;
        self.touch(start, vma.end);
        self.totals.change(start, &vma, u64::wrapping_sub);
        Some(vma)
    }

    /// Makes `addr` a border when it lies inside a VMA.
    fn split(&mut self, addr: u64) {
        let Some((start, _)) = self.find(addr).filter(|(start, _)| *start < addr) else { return };
        let Some(mut low) = self.take(start) else { return };
        let mut high = low.clone();
        high.content = low.content.advanced(addr - start);
        low.end = addr;
        self.put(start, low);
        self.put(addr, high);
    }

    /// Joins the VMA that starts at `addr` to the one that ends there, when they are alike.
    fn merge_at(&mut self, addr: u64) {
        let Some((low_start, low)) = self.map.range(..addr).next_back() else { return };
        let (low_start, Some(high)) = (*low_start, self.map.get(&addr)) else { return };
        if low.end != addr || !low.can_merge(low_start, high) {
            return;
        }
        let (Some(mut low), Some(high)) = (self.take(low_start), self.take(addr)) else { return };
        low.end = high.end;
        self.put(low_start, low);
    }

    fn gap_opened(&mut self, end: u64) {
        let gap_end = self.map.range(end..).next().map_or(u64::MAX, |(start, _)| *start);
        if let Some(cache) = &mut self.search
            && end > cache.top
        {
            cache.top = gap_end.min(cache.limit);
        }
    }
}

/// Rounds up to whole pages and keeps the address where it is: `None` on wrap-around or an empty range.
#[must_use]
pub fn page_range(addr: u64, len: u64) -> Option<Range<u64>> {
    let end = addr.checked_add(abi::addr::page_up(len)?)?;
    (addr < end && addr.is_multiple_of(PAGE_SIZE)).then_some(addr..end)
}

#[cfg(test)]
mod tests;
