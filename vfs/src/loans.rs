//! Files that are lent to guest code, which reads them without a call: who has the position, and when that ends.
//!
//! The platform lends (`base::lent`), the layer above decides when. Here is what keeps it true:
//!
//! * Whoever looks at or moves a position has a [`Position`], which takes it back for that time.
//! * A loan is of one descriptor of one table, and lies in its slot: whatever changes the slot ends it, under the table's lock,
//!   so before the number can mean something else. A description that gets a second descriptor is lent no more, and only one
//!   that nobody else refers to is lent.
//! * A list of all has it end where its file is not what is to be read any more (an overlay's copy-up), or where somebody wants to
//!   hear of reads (a watch). Who lends enters the list first and looks for these reasons then; who has one looks at the list after
//!   that can be seen.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use base::Lent;
use base::lock::{Mutex, MutexGuard};

use crate::inode::Inode;
use crate::lock_order;

/// Where a file description stands, or who knows.
#[derive(Default)]
pub(crate) struct Place {
    at: u64,
    lent: Option<Arc<dyn Lent>>,
}

/// The position of a file description, held as Linux holds its f_pos_lock.
pub struct Position<'a>(MutexGuard<'a, Place>);

impl<'a> Position<'a> {
    pub(crate) fn of(place: &'a Mutex<Place, lock_order::FilePosition>) -> Self {
        let mut place = place.lock();
        if let Some(lent) = &place.lent {
            let taken = lent.take();
            place.at = taken.at;
            if taken.is_over {
                place.lent = None;
            }
        }
        Self(place)
    }

    /// From its end on the position is with `lent`.
    pub(crate) fn lend(&mut self, lent: Arc<dyn Lent>) {
        self.0.lent = Some(lent);
    }

    pub(crate) fn end_loan(&mut self) {
        if let Some(lent) = self.0.lent.take() {
            lent.end();
        }
    }
}

impl Drop for Position<'_> {
    fn drop(&mut self) {
        let place = &mut *self.0;
        if place.lent.as_ref().is_some_and(|lent| !lent.give(place.at)) {
            place.lent = None;
        }
    }
}

impl Deref for Position<'_> {
    type Target = u64;

    fn deref(&self) -> &u64 {
        &self.0.at
    }
}

impl DerefMut for Position<'_> {
    fn deref_mut(&mut self) -> &mut u64 {
        &mut self.0.at
    }
}

/// How a description was read so far: whether it is time to lend it.
#[derive(Default)]
pub(crate) struct Habit {
    /// Points for reads, or one of the values below.
    score: AtomicU32,
    /// How often it was lent.
    loans: AtomicU32,
}

/// The file was brought along when it was opened.
const BROUGHT: u32 = u32::MAX - 2;
const LENT: u32 = u32::MAX - 1;
const NEVER: u32 = u32::MAX;
/// A read of so many bytes is worth several small ones.
const LARGE: usize = 32 << 10;
const LARGE_POINTS: u32 = 4;
/// Points for the first loan; twice as many for each further one.
const ENOUGH: u32 = 8;
const MOST_DOUBLINGS: u32 = 8;

impl Habit {
    /// One more read by a call. True: it is to be looked whether the file can be lent, or is.
    pub fn note(&self, count: usize) -> bool {
        let before = self.score.load(Ordering::Relaxed);
        if before >= BROUGHT {
            return before != NEVER;
        }
        let points = if count >= LARGE { LARGE_POINTS } else { 1 };
        let after = before.saturating_add(points).min(BROUGHT - 1);
        self.score.store(after, Ordering::Relaxed);
        let enough = ENOUGH << self.loans.load(Ordering::Relaxed).min(MOST_DOUBLINGS);
        before / enough != after / enough
    }

    pub fn score(&self) -> u32 {
        self.score.load(Ordering::Relaxed)
    }

    /// Or brought.
    pub fn is_lent(&self) -> bool {
        matches!(self.score(), LENT | BROUGHT)
    }

    pub fn is_brought(&self) -> bool {
        self.score() == BROUGHT
    }

    pub fn brought(&self) {
        self.score.store(BROUGHT, Ordering::Relaxed);
    }

    pub fn lent(&self) {
        self.loans.fetch_add(1, Ordering::Relaxed);
        self.score.store(LENT, Ordering::Relaxed);
    }

    pub fn ended(&self) {
        self.score.store(0, Ordering::Relaxed);
    }

    pub fn never(&self) {
        self.score.store(NEVER, Ordering::Relaxed);
    }
}

/// What a descriptor's slot has while its file is lent; its end is the loan's. Or who has told something of a settled inode.
pub struct Loan {
    id: u64,
    inode: usize,
    lent: Arc<dyn Lent>,
}

/// By inode, for every change of one asks here.
type Table = HashMap<usize, Vec<(u64, Weak<dyn Lent>)>>;

static ALL: LazyLock<Mutex<Table, lock_order::Loans>> = LazyLock::new(Mutex::default);
/// How many there are, for a look without the lock.
static COUNT: AtomicUsize = AtomicUsize::new(0);

impl Loan {
    /// Ends when the inode changes; to be looked for reasons against it right after.
    #[must_use]
    pub fn new(inode: &Arc<dyn Inode>, lent: Arc<dyn Lent>) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let inode = Arc::as_ptr(inode).cast::<()>() as usize;
        COUNT.fetch_add(1, Ordering::SeqCst);
        ALL.lock().entry(inode).or_default().push((id, Arc::downgrade(&lent)));
        Self { id, inode, lent }
    }

    /// See [`Lent::left`].
    pub(crate) fn left(&self, at: u64) {
        self.lent.left(at);
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.lent.is_over()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.lent.end();
        let mut all = ALL.lock();
        if let Some(same) = all.get_mut(&self.inode) {
            same.retain(|(id, _)| *id != self.id);
            if same.is_empty() {
                all.remove(&self.inode);
            }
        }
        drop(all);
        COUNT.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Ends all loans.
pub(crate) fn end_all() {
    if COUNT.load(Ordering::SeqCst) != 0 {
        ALL.lock().values().for_each(|same| end_each(same));
    }
}

/// Ends the loans of an inode.
pub(crate) fn end_of<T: Inode>(inode: &T) {
    if COUNT.load(Ordering::SeqCst) != 0
        && let Some(same) = ALL.lock().get(&std::ptr::from_ref(inode).addr())
    {
        end_each(same);
    }
}

fn end_each(loans: &[(u64, Weak<dyn Lent>)]) {
    loans.iter().filter_map(|(_, lent)| lent.upgrade()).for_each(|lent| lent.end());
}

#[cfg(test)]
mod tests;
