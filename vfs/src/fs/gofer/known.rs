//! What a directory knows about its entries, and how much of that a filesystem may keep: counted in bytes.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use abi::stat::{Attr, FileType};
use base::lock::Mutex;
use gofer_protocol::Plus;

use super::dir::{Brought, Piece};
use super::foresight::OpenAhead;
use super::inode::GoferInode;
use super::open_files::Kept;
use crate::lock_order;
use crate::name_hash::NameHasher;

use self::unread::Unread;

mod unread;

/// Bytes that the read-only directories of one filesystem may know together.
const LIMIT: usize = 16 << 20;
/// Entries of one listing whose attributes are asked for along with it.
pub const PLUS_LIMIT: usize = 8_192;
/// Bytes an entry takes beside its name: its place in the map and in the orders, the name's count of users, and
/// attributes on the heap whether it has some or not.
const ENTRY_BYTES: usize = size_of::<(Arc<[u8]>, Entry)>() * 3 / 2
    + size_of::<Arc<[u8]>>()
    + size_of::<(Arc<[u8]>, FileType)>()
    + size_of::<[usize; 2]>()
    + size_of::<Listed>();

/// What a listing told about an entry.
#[derive(Clone)]
pub struct Listed {
    pub attr: Attr,
    /// The file, opened ahead.
    pub opened: Weak<Kept>,
}

impl Listed {
    pub fn new(attr: Attr) -> Box<Self> {
        Box::new(Self { attr, opened: Weak::new() })
    }
}

/// An entry of a directory.
pub enum Entry {
    /// It exists, but nobody has looked it up yet: a listing or a walk said so.
    Listed(Box<Listed>),
    /// It exists, but of its attributes only the type was told.
    Named(FileType),
    /// Somebody may hold it.
    Inode(Weak<GoferInode>),
    /// Looked up and not there.
    Absent,
}

/// The entries a directory knows.
#[derive(Default)]
pub struct Known {
    /// To be [read](Known::read) before anything below is looked at but the listing.
    unread: Option<Unread>,
    entries: HashMap<Arc<[u8]>, Entry, NameHasher>,
    /// Bytes of all names.
    name_bytes: usize,
    /// Every name is in `entries`.
    is_complete: bool,
    /// Cursor up to which a listing was learnt from its start, without a gap.
    run: u64,
    /// The listing itself, when it came in one piece.
    listing: Option<Arc<Piece>>,
    /// The listing came before anybody wanted it: where its first use counts.
    ahead_count: Option<Arc<AtomicU32>>,
    /// Regular files in the order of the listing.
    files: Vec<Arc<[u8]>>,
    ahead: OpenAhead,
    /// Directories in the same order.
    dirs: Vec<Arc<[u8]>>,
    /// Both in the same order.
    order: Vec<(Arc<[u8]>, FileType)>,
    /// The place that [`Known::following`] answered last.
    followed: usize,
    dirs_ahead: OpenAhead,
    /// Opens that had to be asked for.
    opens: u32,
    /// Lookups that had to be asked for: of names nothing was known about, and of listed ones.
    lookups: u32,
    lookups_of_named: u32,
    /// A walk went on in here, since that was [asked](Known::take_walked) last.
    was_walked: bool,
    /// For writable trees: forget dead inodes when there are this many entries.
    prune_at: usize,
}

impl Known {
    /// Bytes it takes, as the budget counts them.
    pub fn bytes(&self) -> usize {
        let listing = self.listing.as_ref().map_or(0, |piece| piece.bytes());
        // As if it were read, which may be at any time.
        let unread = self.unread.as_ref().map_or((0, 0), |unread| (unread.rows, unread.name_bytes));
        (self.entries.len() + unread.0) * ENTRY_BYTES + self.name_bytes + unread.1 + listing
    }

    pub fn get(&mut self, name: &[u8]) -> Option<&Entry> {
        self.read();
        self.entries.get(name)
    }

    pub fn get_mut(&mut self, name: &[u8]) -> Option<&mut Entry> {
        self.read();
        self.entries.get_mut(name)
    }

    /// Replaces what was known about `name`.
    pub fn insert(&mut self, name: &[u8], entry: Entry) {
        self.read();
        if let Some(known) = self.entries.get_mut(name) {
            *known = entry;
            return;
        }
        self.name_bytes += name.len();
        self.entries.insert(name.into(), entry);
    }

    /// Adds a piece of the listing, and what came with its rows.
    pub fn learn(&mut self, piece: &Arc<Piece>, brought: &[Brought]) {
        let is_start = piece.from == 0 && self.entries.is_empty();
        let is_next = piece.from == self.run;
        match &mut self.unread {
            None if is_start => self.unread.insert(Unread::default()).push(piece, brought),
            Some(unread) if is_next && piece.from != 0 => unread.push(piece, brought),
            _ => {
                self.read();
                self.learn_rows(piece, brought, is_next);
            }
        }
        self.learnt(piece);
    }

    fn read(&mut self) {
        let Some(Unread { pieces, .. }) = self.unread.take() else { return };
        for (piece, brought) in pieces {
            self.learn_rows(&piece, &brought, true);
        }
    }

    /// With `is_next`, it begins where the last one ended.
    fn learn_rows(&mut self, piece: &Piece, brought: &[Brought], is_next: bool) {
        if piece.from == 0 {
            self.files.clear();
            self.dirs.clear();
            self.order.clear();
        }
        let mut brought = brought.iter().peekable();
        for (at, name, kind) in piece.entries() {
            while brought.next_if(|told| told.row < at).is_some() {}
            let entry = match brought.next_if(|told| told.row == at) {
                Some(told) => Entry::Listed(Listed::new(told.attr)),
                None => Entry::Named(kind),
            };
            let name = self.learn_one(name, entry);
            if is_next || piece.from == 0 {
                self.put_in_order(name, kind);
            }
        }
    }

    /// Adds what a listing says: less than what somebody found out about the name.
    fn learn_one(&mut self, name: &[u8], entry: Entry) -> Arc<[u8]> {
        let Some((known, _)) = self.entries.get_key_value(name) else {
            let name: Arc<[u8]> = name.into();
            self.name_bytes += name.len();
            self.entries.insert(Arc::clone(&name), entry);
            return name;
        };
        let known = Arc::clone(known);
        if let Some(known @ Entry::Named(_)) = self.entries.get_mut(name) {
            *known = entry;
        }
        known
    }

    /// The next one of the listing.
    fn put_in_order(&mut self, name: Arc<[u8]>, kind: FileType) {
        match kind {
            FileType::Regular => self.files.push(Arc::clone(&name)),
            FileType::Directory => self.dirs.push(Arc::clone(&name)),
            _ => return,
        }
        self.order.push((name, kind));
    }

    /// Nobody has found out anything about `name`: it is not there.
    pub fn learn_absent(&mut self, name: &[u8]) {
        self.read();
        if !self.entries.contains_key(name) {
            self.insert(name, Entry::Absent);
        }
    }

    /// A piece of the listing was learnt whole.
    fn learnt(&mut self, piece: &Arc<Piece>) {
        if piece.from == 0 {
            self.rewind();
            self.listing = piece.is_last.then(|| Arc::clone(piece));
        }
        if piece.from == 0 || piece.from == self.run {
            self.run = piece.end();
            self.is_complete |= piece.is_last;
        }
    }

    /// The whole listing, for somebody who begins to read it.
    pub fn listing(&mut self) -> Option<Arc<Piece>> {
        let listing = self.listing.clone()?;
        self.rewind();
        if let Some(count) = self.ahead_count.take() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Some(listing)
    }

    pub fn has_listing(&self) -> bool {
        self.listing.is_some()
    }

    pub fn was_listed_ahead(&mut self, count: Arc<AtomicU32>) {
        self.ahead_count = Some(count);
    }

    fn rewind(&mut self) {
        self.ahead.rewind();
        self.dirs_ahead.rewind();
    }

    /// There are no other names than the known ones.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    pub fn remove(&mut self, name: &[u8]) -> bool {
        self.read();
        let is_known = self.entries.remove(name).is_some();
        if is_known {
            self.name_bytes -= name.len();
        }
        is_known
    }

    /// Counts a lookup that is going to be asked for. Answers how to list the directory before, when it is time to: its
    /// names, which also tells the ones that are not there, and the attributes once that many were asked for one by
    /// one that having them all costs no more (few programs look at more than some files of a large directory). `size`
    /// is the directory's own in bytes: all that is known about how many entries there are.
    pub fn worth_listing(&mut self, name: &[u8], size: u64) -> Option<Plus> {
        /// Attributes that cost what one request does.
        const PER_LOOKUP: usize = 12;
        /// Names of a listing that cost what one request does, in bytes of a directory.
        const BYTES_PER_LOOKUP: u64 = 4096;
        /// A piece of the listing would be no more than a piece.
        const MOST: usize = 1024;
        self.read();
        if matches!(self.entries.get(name), Some(Entry::Named(_))) {
            self.lookups_of_named = self.lookups_of_named.saturating_add(1);
            let enough = (self.entries.len() / PER_LOOKUP).max(1);
            let is_time = usize::try_from(self.lookups_of_named) == Ok(enough);
            return (is_time && self.entries.len() <= MOST).then_some(Plus::Everything);
        }
        self.lookups = self.lookups.saturating_add(1);
        let is_time = u64::from(self.lookups) == 1 + (size / BYTES_PER_LOOKUP).max(1);
        (is_time && self.run == 0).then_some(Plus::Few)
    }

    /// Whether a walk went on in here since this was asked last.
    pub fn take_walked(&mut self) -> bool {
        std::mem::take(&mut self.was_walked)
    }

    /// Drops entries of inodes that nobody holds.
    pub fn prune(&mut self) {
        if self.entries.len() < self.prune_at.max(64) {
            return;
        }
        self.entries
            .retain(|_, entry| matches!(entry, Entry::Inode(inode) if inode.strong_count() > 0));
        self.name_bytes = self.entries.keys().map(|name| name.len()).sum();
        self.prune_at = self.entries.len() * 2;
    }

    /// The file `name` is to be opened. Answers the files to open along with it, those that are likely to be next.
    pub fn open_ahead(&mut self, name: &[u8], sure_after: u32) -> Vec<Arc<[u8]>> {
        self.read();
        self.opens = self.opens.saturating_add(1);
        if self.is_worth_opening_whole(sure_after) {
            let others = self.files.iter().filter(|file| ***file != *name);
            return others.filter(|file| self.is_to_open(file)).cloned().collect();
        }
        let rest = self.files.get(self.ahead.at()..).unwrap_or_default();
        let place = rest.iter().take(OpenAhead::WINDOW).position(|file| **file == *name);
        let count = self.ahead.next(place, sure_after);
        let Some(place) = place.filter(|_| count > 0) else { return Vec::new() };
        let rest = rest.iter().skip(place + 1).take(count);
        rest.filter(|file| self.is_to_open(file)).cloned().collect()
    }

    /// The directory `name` is to be listed. Answers how many to list along with it, when there is reason to, and the ones
    /// beside it that come next.
    pub fn list_ahead(&mut self, name: &[u8], sure_after: u32) -> Option<(usize, Vec<Arc<[u8]>>)> {
        self.read();
        self.was_walked = true;
        let rest = self.dirs.get(self.dirs_ahead.at()..).unwrap_or_default();
        let place = rest.iter().take(OpenAhead::WINDOW).position(|dir| **dir == *name);
        let Some(place) = place else {
            // Who goes on from there, does so in order.
            self.dirs_ahead.resume(self.place_of_dir(name)? + 1);
            return None;
        };
        let count = self.dirs_ahead.next(Some(place), sure_after);
        if count == 0 {
            return None;
        }
        Some((count, rest.iter().skip(place + 1).take(count).cloned().collect()))
    }

    /// The first directories of the listing, at most `count`; `None` where there may be others.
    pub fn first_dirs(&self, count: usize) -> Option<Vec<Arc<[u8]>>> {
        let unread = self.unread.as_ref().map(|unread| unread.dirs().take(count).collect());
        let all = || self.dirs.iter().take(count).cloned().collect();
        self.is_complete.then(|| unread.unwrap_or_else(all))
    }

    /// As [`first_dirs`](Self::first_dirs), after `name`. A walk will go on after these.
    pub fn dirs_after(&mut self, name: &[u8], count: usize) -> Option<Vec<Arc<[u8]>>> {
        self.read();
        self.was_walked = true;
        let place = self.place_of_dir(name)? + 1;
        self.dirs_ahead.go_to(place);
        let after: Vec<_> = self.dirs.iter().skip(place).take(count).cloned().collect();
        (self.is_complete || after.len() == count).then_some(after)
    }

    /// The place of a directory that is near the one that was expected.
    fn place_of_dir(&self, name: &[u8]) -> Option<usize> {
        const NEAR: usize = 1024;
        let from = |start: usize| {
            let near = self.dirs.iter().skip(start).take(NEAR);
            near.map(|dir| &**dir).position(|dir| *dir == *name).map(|place| start + place)
        };
        let at = self.dirs_ahead.at();
        from(at.saturating_sub(1)).or_else(|| from(at.saturating_sub(NEAR)))
    }

    /// See [`Inode::following`](crate::inode::Inode::following).
    pub fn following(
        &mut self,
        name: Option<&[u8]>,
        is_dir: bool,
    ) -> Option<(Arc<[u8]>, FileType)> {
        self.was_walked = true;
        if let Some(unread) = self.unread.as_mut().filter(|_| is_dir) {
            // Most have none, and then nobody will ask for a name here.
            return unread.dir_after(name);
        }
        self.read();
        let place = match (name, is_dir) {
            (None, _) => 0,
            (Some(name), true) => self.place_after(name, &self.dirs, |dir| dir)?,
            (Some(name), false) => self.place_after(name, &self.order, |(thing, _)| thing)?,
        };
        self.followed = place;
        if is_dir {
            self.dirs.get(place).map(|dir| (Arc::clone(dir), FileType::Directory))
        } else {
            self.order.get(place).cloned()
        }
    }

    /// The place after `name`, if that is near the last one that was asked for, or near the start.
    fn place_after<T>(
        &self,
        name: &[u8],
        all: &[T],
        name_of: fn(&T) -> &Arc<[u8]>,
    ) -> Option<usize> {
        const NEAR: usize = 512;
        let from = |start: usize| {
            let near = all.get(start..).unwrap_or_default().iter().take(NEAR);
            near.map(name_of).position(|other| **other == *name).map(|at| start + at + 1)
        };
        from(self.followed.saturating_sub(1)).or_else(|| from(0))
    }

    /// A few files of which two were opened in whatever order: a locale's, the parts of a small package.
    fn is_worth_opening_whole(&self, sure_after: u32) -> bool {
        const FEW: usize = 16;
        self.is_complete && self.files.len() <= FEW && self.opens == 2 && sure_after <= 2
    }

    fn is_to_open(&self, name: &[u8]) -> bool {
        match self.entries.get(name) {
            Some(Entry::Listed(listed)) => listed.opened.strong_count() == 0,
            Some(Entry::Named(_)) => true,
            // Whoever holds it may have its descriptor, too; asking would need its lock.
            Some(Entry::Inode(inode)) => inode.strong_count() > 0,
            Some(Entry::Absent) | None => false,
        }
    }
}

/// Bounds what the directories of a read-only tree know: the ones that began to learn first forget first.
#[derive(Default)]
pub struct KnownBudget {
    /// Bytes that all of them take. Only a measure, so relaxed.
    total: AtomicUsize,
    dirs: Mutex<VecDeque<Weak<GoferInode>>, lock_order::GoferCaches>,
}

impl KnownBudget {
    /// `dir` learnt its first entry.
    pub fn enrol(&self, dir: Weak<GoferInode>) {
        self.dirs.lock().push_back(dir);
    }

    /// A directory that took `before` bytes takes `after` now.
    pub fn changed(&self, before: usize, after: usize) {
        self.total.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    pub fn forgot(&self, bytes: usize) {
        self.changed(bytes, 0);
    }

    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Lets the oldest directories forget until the bound holds, but for a few in which a walk is underway: it will come back to
    /// them from below. Called with no inode's state locked.
    pub fn enforce(&self) {
        let mut chances = 64;
        while self.bytes() > LIMIT {
            let Some(oldest) = self.dirs.lock().pop_front() else { return };
            let Some(dir) = oldest.upgrade() else { continue };
            if chances > 0 && dir.take_walked() {
                chances -= 1;
                self.dirs.lock().push_back(oldest);
            } else {
                dir.forget_known();
            }
        }
    }
}

#[cfg(test)]
mod tests;
