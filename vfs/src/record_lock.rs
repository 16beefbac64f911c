//! flock(2), POSIX record locks and open-file-description locks (fcntl(2)). Nothing here waits: a conflict is
//! `EAGAIN`, and the wait queue of the file's locks tells when to try again.
//!
//! Where only one process has record locks of a file its guest code may take and release them on its own (`crate::ledger`): whoever
//! else asks for one ends that first, for good.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};

use abi::ids::Tid;
use abi::poll::PollEvents;
use abi::{Errno, Result};
use base::WaitQueue;
use base::lock::{Mutex, MutexGuard};

use crate::file::File;
use crate::inode::Inode;
use crate::ledger::Ledger;
use crate::lock_order;

/// Ranges that may be locked in one file: they are the sentry's memory.
const RECORD_LIMIT: usize = 8192;
/// From so many on each is counted: guest code cannot.
const MANY_RECORDS: usize = RECORD_LIMIT / 2;

/// Who holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A process (POSIX locks); the thread group's id.
    Process(Tid),
    /// A file description (flock and OFD locks), by identity.
    Description(usize),
}

impl Owner {
    #[must_use]
    pub fn of_file(file: &Arc<File>) -> Self {
        Self::Description(Arc::as_ptr(file) as usize)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    Shared,
    Exclusive,
}

/// Bytes `start..end`; `end` is `u64::MAX` for "to the end, however far that grows".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub start: u64,
    pub end: u64,
}

impl Range {
    pub const ALL: Self = Self { start: 0, end: u64::MAX };

    /// From `struct flock`'s start (made absolute by the caller) and length; a negative length reaches backwards.
    ///
    /// # Errors
    /// `EINVAL` before the beginning of the file, `EOVERFLOW` beyond its largest offset.
    pub fn new(start: i64, len: i64) -> Result<Self> {
        let (start, end) = match len {
            0 => (start, None),
            1.. => (start, Some(start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?)),
            _ => (start.checked_add(len).ok_or(Errno::EINVAL)?, Some(start - 1)),
        };
        let begin = u64::try_from(start).map_err(|_| Errno::EINVAL)?;
        let end = match end {
            None => u64::MAX,
            Some(last) => u64::try_from(last).map_err(|_| Errno::EINVAL)? + 1,
        };
        Ok(Self { start: begin, end })
    }

    const fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// One lock that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub owner: Owner,
    pub kind: LockKind,
    pub range: Range,
}

#[derive(Default)]
struct State {
    flocks: Vec<(Owner, LockKind)>,
    /// Sorted by start for each owner; ranges of one owner never overlap.
    records: Vec<Held>,
    /// How often they were changed by calls.
    calls: u32,
    /// Whose guest code changes them, too.
    trusted: Option<(Owner, Weak<Ledger>)>,
    /// Somebody else has asked.
    is_contested: bool,
}

/// The locks of one inode.
pub struct InodeLocks {
    /// Keeps the inode, and so its address, for as long as there are locks.
    inode: Arc<dyn Inode>,
    state: Mutex<State, lock_order::RecordLocks>,
    queue: WaitQueue,
}

type Table = HashMap<usize, Weak<InodeLocks>>;

static TABLE: LazyLock<parking_lot::Mutex<Table>> = LazyLock::new(parking_lot::Mutex::default);

fn key(inode: &Arc<dyn Inode>) -> usize {
    Arc::as_ptr(inode).cast::<()>() as usize
}

impl InodeLocks {
    fn find(inode: &Arc<dyn Inode>) -> Option<Arc<Self>> {
        TABLE.lock().get(&key(inode)).and_then(Weak::upgrade)
    }

    fn of(inode: &Arc<dyn Inode>) -> Arc<Self> {
        let mut table = TABLE.lock();
        if let Some(locks) = table.get(&key(inode)).and_then(Weak::upgrade) {
            return locks;
        }
        let locks = Arc::new(Self {
            inode: Arc::clone(inode),
            state: Mutex::default(),
            queue: WaitQueue::new(),
        });
        table.insert(key(inode), Arc::downgrade(&locks));
        locks
    }

    fn told(&self) {
        self.queue.notify(PollEvents::all());
    }

    /// The state, with what `owner`'s guest code alone may change at this time: if that is another one's it is his no more.
    fn state_for(&self, owner: Option<Owner>) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        if let Some((trusted, ledger)) = &state.trusted
            && Some(*trusted) != owner
        {
            let ledger = ledger.upgrade();
            state.is_contested = true;
            drop(state);
            if let Some(ledger) = ledger {
                ledger.end_locks(&self.inode);
            }
            state = self.state.lock();
            // Nobody was entrusted with a contested file meanwhile.
            state.trusted = None;
        }
        state
    }
}

impl Drop for InodeLocks {
    fn drop(&mut self) {
        let mut table = TABLE.lock();
        if table.get(&key(&self.inode)).is_some_and(|locks| locks.strong_count() == 0) {
            table.remove(&key(&self.inode));
        }
    }
}

/// Told when a lock of the file's inode was released: then try again. Register before trying.
#[must_use]
pub fn wait_queue(file: &File) -> WaitQueue {
    file.locks(|| InodeLocks::of(file.inode())).queue.clone()
}

/// Takes or converts (`Some`) or releases (`None`) the flock(2) lock of a description. A conversion first gives the
/// old lock up, as Linux does.
///
/// # Errors
/// `EAGAIN` when others hold it.
pub fn flock(file: &Arc<File>, kind: Option<LockKind>) -> Result<()> {
    let owner = Owner::of_file(file);
    let locks = file.locks(|| InodeLocks::of(file.inode()));
    let (result, released) = {
        let mut state = locks.state.lock();
        let held = state.flocks.iter().find(|(other, _)| *other == owner).map(|(_, kind)| *kind);
        if held == kind {
            return Ok(());
        }
        state.flocks.retain(|(other, _)| *other != owner);
        let result = match kind {
            None => Ok(()),
            Some(kind) => {
                let exclusive = |kind| kind == LockKind::Exclusive;
                let conflict =
                    state.flocks.iter().any(|(_, other)| exclusive(kind) || exclusive(*other));
                if conflict {
                    Err(Errno::EAGAIN)
                } else {
                    state.flocks.push((owner, kind));
                    Ok(())
                }
            }
        };
        (result, held.is_some())
    };
    if released {
        locks.told();
    }
    result
}

/// F_GETLK: the first lock that stands in the way of this one.
#[must_use]
pub fn test(file: &File, owner: Owner, kind: LockKind, range: Range) -> Option<Held> {
    let locks = InodeLocks::find(file.inode())?;
    let state = locks.state_for(Some(owner));
    conflict(&state, owner, kind, range)
}

fn conflict(state: &State, owner: Owner, kind: LockKind, range: Range) -> Option<Held> {
    let exclusive = |kind| kind == LockKind::Exclusive;
    state
        .records
        .iter()
        .filter(|held| held.owner != owner && held.range.overlaps(&range))
        .find(|held| exclusive(kind) || exclusive(held.kind))
        .copied()
}

/// F_SETLK: takes (`Some`) or releases (`None`) `range`; splits and joins the owner's locks as needed.
///
/// # Errors
/// `EAGAIN` when another owner's lock is in the way; see [`test`] for which (deadlock detection is the caller's).
/// `ENOLCK` when there are too many.
pub fn set(file: &File, owner: Owner, kind: Option<LockKind>, range: Range) -> Result<()> {
    let locks = file.locks(|| InodeLocks::of(file.inode()));
    {
        let mut state = locks.state_for(Some(owner));
        state.calls = state.calls.saturating_add(1);
        if let Some(kind) = kind
            && conflict(&state, owner, kind, range).is_some()
        {
            return Err(Errno::EAGAIN);
        }
        if state.records.len() >= RECORD_LIMIT && kind.is_some() {
            return Err(Errno::ENOLCK);
        }
        replace(&mut state.records, owner, kind, range);
    }
    // A downgrade or a release lets others in; a new lock costs them one useless look.
    locks.told();
    Ok(())
}

fn replace(records: &mut Vec<Held>, owner: Owner, kind: Option<LockKind>, range: Range) {
    let mut added = Vec::new();
    let mut joined = range;
    records.retain(|held| {
        let touches = held.range.start <= joined.end && joined.start <= held.range.end;
        if held.owner != owner || !touches {
            return true;
        }
        if Some(held.kind) == kind {
            joined.start = joined.start.min(held.range.start);
            joined.end = joined.end.max(held.range.end);
            return false;
        }
        if !held.range.overlaps(&range) {
            return true;
        }
        let before = Range { start: held.range.start, end: range.start };
        let after = Range { start: range.end, end: held.range.end };
        for part in [before, after] {
            if part.start < part.end {
                added.push(Held { range: part, ..*held });
            }
        }
        false
    });
    records.extend(added);
    if let Some(kind) = kind {
        records.push(Held { owner, kind, range: joined });
    }
    records.sort_by_key(|held| held.range.start);
}

/// Changes by calls after which guest code may make the next ones.
const ENOUGH_CALLS: u32 = 3;

/// Whether a process that has just changed its record locks may be [entrusted](entrust) with the next changes.
pub(crate) fn is_worth_trust(file: &File, owner: Owner) -> bool {
    let locks = file.locks(|| InodeLocks::of(file.inode()));
    may_trust(&locks.state.lock(), owner)
}

fn may_trust(state: &State, owner: Owner) -> bool {
    state.calls >= ENOUGH_CALLS
        && !state.is_contested
        && state.trusted.as_ref().is_none_or(|(trusted, _)| *trusted == owner)
        && state.records.len() < MANY_RECORDS
        && state.records.iter().all(|held| held.owner == owner)
}

/// From now on `owner`'s guest code changes its record locks, and `ledger` has what it did: false when it may not.
pub(crate) fn entrust(file: &File, owner: Owner, ledger: &Arc<Ledger>) -> bool {
    let mut state = file.locks(|| InodeLocks::of(file.inode())).state.lock();
    if !may_trust(&state, owner) {
        return false;
    }
    state.trusted = Some((owner, Arc::downgrade(ledger)));
    true
}

/// Others may go on, where guest code has changed the locks.
pub(crate) fn tell(file: &File) {
    file.locks(|| InodeLocks::of(file.inode())).told();
}

/// Guest code has done what [`set`] does. False: with so many locks the next ones may have to be refused.
pub(crate) fn follow(file: &File, owner: Owner, kind: Option<LockKind>, range: Range) -> bool {
    let mut state = file.locks(|| InodeLocks::of(file.inode())).state.lock();
    let is_its = state.trusted.as_ref().is_some_and(|(trusted, _)| *trusted == owner);
    if !is_its || state.records.len() >= RECORD_LIMIT {
        return false;
    }
    replace(&mut state.records, owner, kind, range);
    state.records.len() < MANY_RECORDS
}

/// A process closed some descriptor of the file: all its POSIX locks on the inode go. See fcntl(2).
pub fn release_process(file: &File, process: Tid) {
    release(file.inode(), Owner::Process(process));
}

/// A description came to its end.
pub(crate) fn release_description(file: &File, locks: &InodeLocks) {
    drop_owner(locks, Owner::Description(std::ptr::from_ref(file) as usize));
}

fn release(inode: &Arc<dyn Inode>, owner: Owner) {
    if let Some(locks) = InodeLocks::find(inode) {
        drop_owner(&locks, owner);
    }
}

fn drop_owner(locks: &InodeLocks, owner: Owner) {
    let changed = {
        let mut state = locks.state.lock();
        let before = state.flocks.len() + state.records.len();
        state.flocks.retain(|(other, _)| *other != owner);
        state.records.retain(|held| held.owner != owner);
        before != state.flocks.len() + state.records.len()
    };
    if changed {
        locks.told();
    }
}

/// Every lock that is held, for /proc/locks: the inode, whether it is a flock, the lock.
#[must_use]
pub fn list() -> Vec<(Arc<dyn Inode>, bool, Held)> {
    let all: Vec<_> = TABLE.lock().values().filter_map(Weak::upgrade).collect();
    let mut held = Vec::new();
    for locks in all {
        let state = locks.state_for(None);
        let inode = || Arc::clone(&locks.inode);
        for (owner, kind) in &state.flocks {
            held.push((inode(), true, Held { owner: *owner, kind: *kind, range: Range::ALL }));
        }
        held.extend(state.records.iter().map(|record| (inode(), false, *record)));
    }
    held
}

#[cfg(test)]
mod tests;
