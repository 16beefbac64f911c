//! Descriptor tables. See open(2), dup(2), close_range(2).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use abi::epoll::EPOLLEXCLUSIVE;
use abi::ids::Fd;
use abi::open::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};
use base::Lent;
use base::lock::Mutex;

use crate::anon::epoll;
use crate::file::File;
use crate::fs::devfs::MemDevice;
use crate::loans::Loan;
use crate::{lock_order, notify};

/// Descriptors of a process (or of several, CLONE_FILES).
pub struct FdTable {
    /// Never that of another.
    id: u64,
    inner: Mutex<Slots, lock_order::FileTable>,
    /// Descriptors that may be something else than [`FdTable::look`] said; a bit each, for the lowest.
    changed: AtomicU64,
    /// A lock was asked for through this table: closing any descriptor may let others go on.
    has_locks: AtomicBool,
    /// Descriptors are watched by an epoll that may be in the table.
    has_epolls: AtomicBool,
}

/// What a descriptor is to its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Status flags.
    pub flags: OpenFlags,
    pub cloexec: bool,
    /// Nobody but this table refers to the file description, and nobody notices when it goes.
    pub is_own: bool,
    /// It is one of memory's devices.
    pub device: Option<MemDevice>,
    /// The directory that it is, as [`Path::key`](crate::Path::key) says.
    pub dir: Option<(usize, usize)>,
    /// It is an epoll that nobody but this table refers to, and nobody watches or waits for.
    pub is_epoll: bool,
    pub watch: Watch,
}

/// Which of a table's epolls watch one of its descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Not looked for, several, or one by which the descriptor is watched exclusively; or it cannot be watched.
    Unknown,
    Nowhere,
    By(Fd),
}

struct Slot {
    file: Arc<File>,
    cloexec: bool,
    /// Guest code reads it by itself; ends with the slot.
    loan: Option<Loan>,
}

impl Slot {
    fn new(file: Arc<File>, cloexec: bool) -> Self {
        Self { file, cloexec, loan: None }
    }

    /// What was in the slot, once it is out of it.
    fn into_file(self) -> Arc<File> {
        drop(self.loan);
        self.file
    }

    fn is_lent(&self) -> bool {
        self.loan.as_ref().is_some_and(|loan| !loan.is_over())
    }
}

/// A table that is too long to look through all of it.
const LONG: usize = 64;

/// Where a descriptor is among [`FdTable::take_changed`].
fn bit(at: usize) -> u64 {
    u32::try_from(at).ok().and_then(|at| 1u64.checked_shl(at)).unwrap_or(0)
}

#[derive(Default)]
struct Slots {
    list: Vec<Option<Slot>>,
    /// No slot below is free.
    lowest_free: usize,
}

impl Slots {
    fn get(&self, fd: Fd) -> Result<&Slot> {
        let at = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        self.list.get(at).and_then(Option::as_ref).ok_or(Errno::EBADF)
    }

    fn get_mut(&mut self, fd: Fd) -> Result<&mut Slot> {
        let at = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        self.list.get_mut(at).and_then(Option::as_mut).ok_or(Errno::EBADF)
    }

    fn find_free(&self, from: usize) -> usize {
        let from = from.max(self.lowest_free);
        let tail = self.list.get(from..).unwrap_or_default();
        tail.iter().position(Option::is_none).map_or(self.list.len().max(from), |at| from + at)
    }

    fn put(&mut self, at: usize, slot: Slot) -> Option<Slot> {
        if at >= self.list.len() {
            self.list.resize_with(at + 1, || None);
        }
        let old = self.list[at].replace(slot);
        if at == self.lowest_free {
            self.lowest_free = at + 1;
        }
        old
    }

    /// The file gets another descriptor.
    fn share(&mut self, fd: Fd) -> Result<Arc<File>> {
        let slot = self.get_mut(fd)?;
        slot.loan = None;
        Ok(Arc::clone(&slot.file))
    }

    fn end_loans(&mut self) {
        self.list.iter_mut().flatten().for_each(|slot| slot.loan = None);
    }

    /// An independent copy: of what is in it, too, so that nothing stays lent.
    fn duplicate(&mut self) -> Self {
        self.end_loans();
        let copy = |slot: &Slot| Slot::new(Arc::clone(&slot.file), slot.cloexec);
        let list = self.list.iter().map(|slot| slot.as_ref().map(copy)).collect();
        Self { list, lowest_free: self.lowest_free }
    }

    /// Whether nobody else refers to a file that is in the table.
    fn are_all(&self, file: &Arc<File>) -> bool {
        let users = Arc::strong_count(file);
        // Mostly it is the one; more are not worth a long search.
        users == 1
            || self.list.len() <= LONG
                && self.list.iter().flatten().filter(|slot| Arc::ptr_eq(&slot.file, file)).count()
                    == users
    }

    /// Who watches a descriptor, as far as the epolls are in the table.
    fn watch(&self, fd: Fd, file: &Arc<File>) -> Watch {
        if self.list.len() > LONG || file.ops().wait_queue().is_none() {
            return Watch::Unknown;
        }
        let mut watch = Watch::Nowhere;
        for (at, slot) in self.list.iter().enumerate() {
            let epoll = slot.as_ref().and_then(|slot| epoll::of(&slot.file));
            let Some(interest) = epoll.and_then(|epoll| epoll.interest_in(fd, file)) else {
                continue;
            };
            let is_simple = watch == Watch::Nowhere && interest.events & EPOLLEXCLUSIVE == 0;
            match i32::try_from(at) {
                Ok(at) if is_simple => watch = Watch::By(Fd(at)),
                _ => return Watch::Unknown,
            }
        }
        watch
    }

    fn take(&mut self, at: usize) -> Option<Slot> {
        let old = self.list.get_mut(at)?.take();
        if old.is_some() {
            self.lowest_free = self.lowest_free.min(at);
        }
        old
    }
}

impl FdTable {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with(Slots::default())
    }

    fn with(slots: Slots) -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            id,
            inner: Mutex::new(slots),
            changed: AtomicU64::new(0),
            has_locks: AtomicBool::new(false),
            has_epolls: AtomicBool::new(false),
        })
    }

    /// Tells it from all others there ever are; not 0.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Lends the file of a descriptor, of which the caller has one reference: true when it is its file, nobody else has a
    /// reference, and nothing speaks against it.
    pub fn lend(&self, fd: Fd, file: &Arc<File>, lent: &Arc<dyn Lent>) -> bool {
        self.lend_while(fd, file, lent, false, |file| file.ops().lendable().is_some())
    }

    /// The same of an end of a pipe, which guest code has joined to a ring: `lent` ends that.
    pub fn lend_stream(&self, fd: Fd, file: &Arc<File>, lent: &Arc<dyn Lent>) -> bool {
        self.lend_while(fd, file, lent, false, |file| !file.ops().is_seekable())
    }

    /// The same of a file whose front and attributes guest code has got.
    pub fn bring(&self, fd: Fd, file: &Arc<File>, lent: &Arc<dyn Lent>) -> bool {
        self.lend_while(fd, file, lent, true, |file| file.inode().is_settled())
    }

    fn lend_while(
        &self,
        fd: Fd,
        file: &Arc<File>,
        lent: &Arc<dyn Lent>,
        is_brought: bool,
        may: impl Fn(&File) -> bool,
    ) -> bool {
        let mut position = file.position();
        let mut slots = self.inner.lock();
        let Ok(slot) = slots.get_mut(fd) else { return false };
        if !Arc::ptr_eq(&slot.file, file) || Arc::strong_count(file) != 2 || slot.is_lent() {
            return false;
        }
        slot.loan = Some(Loan::new(file.inode(), Arc::clone(lent)));
        // Now, for who makes such a reason looks for loans then.
        if notify::is_watched() || !may(file) {
            slot.loan = None;
            return false;
        }
        file.note_loan(is_brought);
        position.lend(Arc::clone(lent));
        true
    }

    /// Has `lent` end with the slot, of which guest code is to be entrusted with the file: false when something speaks against it.
    pub fn entrust(&self, fd: Fd, file: &Arc<File>, lent: Arc<dyn Lent>) -> bool {
        let mut slots = self.inner.lock();
        let Ok(slot) = slots.get_mut(fd) else { return false };
        if !Arc::ptr_eq(&slot.file, file) || slot.is_lent() {
            return false;
        }
        slot.loan = Some(Loan::new(file.inode(), lent));
        // Now, for who begins to watch looks for loans then.
        if notify::is_watched() {
            slot.loan = None;
        }
        slot.loan.is_some()
    }

    /// Takes up a file that guest code has opened on its own, at that number: false when that is in use, which a guest tells that did
    /// something else. `loan` is of `lent`, and that has the position.
    pub fn adopt(
        &self,
        file: &Arc<File>,
        cloexec: bool,
        fd: Fd,
        (loan, lent): (Loan, Arc<dyn Lent>),
    ) -> bool {
        let Ok(at) = usize::try_from(fd.0) else { return false };
        let mut position = file.position();
        let mut slots = self.inner.lock();
        if slots.get(fd).is_ok() {
            return false;
        }
        let mut slot = Slot::new(Arc::clone(file), cloexec);
        let taken = lent.take();
        *position = taken.at;
        if !taken.is_over {
            slot.loan = Some(loan);
            file.note_loan(true);
            position.lend(lent);
        }
        slots.put(at, slot);
        drop(slots);
        self.note_change(at);
        true
    }

    /// What guest code has done on its own: `new` is what `old` is. False as for [`FdTable::adopt`].
    pub fn follow_copy(&self, old: Fd, new: Fd, cloexec: bool) -> bool {
        let Ok(at) = usize::try_from(new.0) else { return false };
        let mut slots = self.inner.lock();
        let Ok(file) = slots.get(old).map(|slot| Arc::clone(&slot.file)) else { return false };
        if slots.get(new).is_ok() {
            return false;
        }
        slots.put(at, Slot::new(file, cloexec));
        drop(slots);
        self.note_change(at);
        true
    }

    /// As [`FdTable::close`], of a descriptor that guest code has closed on its own, its file read up to `read` as it counts.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn follow_close(&self, fd: Fd, read: u64) -> Result<Arc<File>> {
        let at = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        self.note_change(at);
        let mut slots = self.inner.lock();
        let slot = slots.take(at).ok_or(Errno::EBADF)?;
        if let Some(loan) = &slot.loan {
            loan.left(read);
        }
        Ok(slot.into_file())
    }

    /// What guest code was told of a descriptor is to be told anew.
    pub fn look_again_at(&self, fd: Fd) {
        if let Ok(at) = usize::try_from(fd.0) {
            self.note_change(at);
        }
    }

    /// Whether guest code reads that file by itself.
    #[must_use]
    pub fn is_lent(&self, fd: Fd) -> bool {
        self.inner.lock().get(fd).is_ok_and(Slot::is_lent)
    }

    /// Descriptors that changed since this was asked last, or whose files did: bit n stands for descriptor n, as far as they go.
    #[must_use]
    pub fn take_changed(&self) -> u64 {
        if self.changed.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.changed.swap(0, Ordering::Relaxed)
    }

    fn note_change(&self, at: usize) {
        self.changed.fetch_or(bit(at), Ordering::Relaxed);
    }

    /// Who remembers what [`FdTable::look`] said is to ask anew: files got other flags, or other users.
    pub fn look_again(&self) {
        self.changed.store(u64::MAX, Ordering::Relaxed);
    }

    /// From now on processes may wait for the end of a descriptor: a lock is about to be taken.
    pub fn note_lock(&self) {
        // Once: programs take and release locks by the thousand, and a look at all descriptors costs more than that.
        if !self.has_locks.swap(true, Ordering::Relaxed) {
            self.look_again();
        }
    }

    /// What epolls watch of a descriptor has changed, by a call of its own process.
    pub fn note_watch(&self, fd: Fd, is_epoll: bool) {
        if !self.has_epolls.swap(true, Ordering::Relaxed) || is_epoll {
            self.look_again();
        }
        self.note_change(fd.0.cast_unsigned() as usize);
    }

    /// A file has lost a descriptor.
    fn note_gone(&self, file: &File) {
        if epoll::of(file).is_some() {
            self.look_again();
        }
    }

    /// What a descriptor is; `None`: not in use.
    #[must_use]
    pub fn look(&self, fd: Fd) -> Option<Seen> {
        let slots = self.inner.lock();
        let slot = slots.get(fd).ok()?;
        let may_go = !self.has_locks.load(Ordering::Relaxed) && slot.file.goes_unnoticed();
        let is_own = may_go && !notify::is_watched() && slots.are_all(&slot.file);
        let device = slot.file.ops().as_any().downcast_ref().copied();
        let is_dir = slot.file.inode().file_type() == FileType::Directory;
        let dir = is_dir.then(|| slot.file.path().key());
        let (is_epoll, watch) = match epoll::of(&slot.file) {
            _ if !self.has_epolls.load(Ordering::Relaxed) => (false, Watch::Unknown),
            Some(epoll) => (!epoll.is_watched() && slots.are_all(&slot.file), Watch::Unknown),
            None => (false, slots.watch(fd, &slot.file)),
        };
        let (flags, cloexec) = (slot.file.flags(), slot.cloexec);
        Some(Seen { flags, cloexec, is_own, device, dir, is_epoll, watch })
    }

    /// Ends all loans: another program is to begin.
    pub fn end_loans(&self) {
        self.inner.lock().end_loans();
    }

    /// Puts `file` at the lowest free descriptor that is at least `lowest` and below `limit` (RLIMIT_NOFILE).
    ///
    /// # Errors
    /// `EMFILE`; `EINVAL` when `lowest` itself is out of bounds, as F_DUPFD says.
    pub fn install(&self, file: Arc<File>, cloexec: bool, lowest: Fd, limit: u64) -> Result<Fd> {
        // Perhaps it has another descriptor already.
        file.end_loan();
        let limit = usize::try_from(limit.min(i32::MAX as u64)).map_err(|_| Errno::EMFILE)?;
        let from = usize::try_from(lowest.0).map_err(|_| Errno::EINVAL)?;
        if from > 0 && from >= limit {
            return Err(Errno::EINVAL);
        }
        let mut slots = self.inner.lock();
        let at = slots.find_free(from);
        if at >= limit {
            // The file goes after the lock: its end may call anything.
            drop(slots);
            return Err(Errno::EMFILE);
        }
        slots.put(at, Slot::new(file, cloexec));
        drop(slots);
        self.note_change(at);
        i32::try_from(at).map(Fd).map_err(|_| Errno::EMFILE)
    }

    /// The open file; `EBADF` also for a descriptor made with `O_PATH`, which only some calls accept.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn get(&self, fd: Fd) -> Result<Arc<File>> {
        let file = self.get_path_ok(fd)?;
        if file.flags().contains(OpenFlags::PATH) { Err(Errno::EBADF) } else { Ok(file) }
    }

    /// As [`Self::get`], also for `O_PATH` descriptors (fstat, fchdir, dup, the *at calls...).
    ///
    /// # Errors
    /// `EBADF`.
    pub fn get_path_ok(&self, fd: Fd) -> Result<Arc<File>> {
        self.inner.lock().get(fd).map(|slot| Arc::clone(&slot.file))
    }

    /// Takes the descriptor away and returns its file: the caller drops POSIX record locks, then the file.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn close(&self, fd: Fd) -> Result<Arc<File>> {
        let at = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        self.note_change(at);
        // Under the lock: the number may be given out anew right after.
        let mut slots = self.inner.lock();
        let file = slots.take(at).map(Slot::into_file).ok_or(Errno::EBADF)?;
        self.note_gone(&file);
        Ok(file)
    }

    /// Makes `new` the same file as `old`; returns what `new` was before. With `old == new` only checks `old`
    /// (dup2(2); dup3(2)'s EINVAL is the caller's).
    ///
    /// # Errors
    /// `EBADF` when `old` is closed or `new` is out of `limit`.
    pub fn dup_to(&self, old: Fd, new: Fd, cloexec: bool, limit: u64) -> Result<Option<Arc<File>>> {
        let at = usize::try_from(new.0).map_err(|_| Errno::EBADF)?;
        let mut slots = self.inner.lock();
        slots.get(old)?;
        if at as u64 >= limit {
            return Err(Errno::EBADF);
        }
        if old == new {
            return Ok(None);
        }
        let file = slots.share(old)?;
        self.note_change(at);
        let former = slots.put(at, Slot::new(file, cloexec)).map(Slot::into_file);
        former.iter().for_each(|file| self.note_gone(file));
        Ok(former)
    }

    /// Closes `first..=last` and returns the files.
    #[must_use]
    pub fn close_range(&self, first: u32, last: u32) -> Vec<Arc<File>> {
        self.look_again();
        let mut slots = self.inner.lock();
        let end = slots.list.len().min(last as usize + 1);
        (first as usize..end).filter_map(|at| slots.take(at)).map(Slot::into_file).collect()
    }

    /// CLOSE_RANGE_CLOEXEC.
    pub fn set_cloexec_range(&self, first: u32, last: u32) {
        self.look_again();
        let mut slots = self.inner.lock();
        let end = slots.list.len().min(last as usize + 1);
        for slot in slots.list.get_mut(first as usize..end).into_iter().flatten().flatten() {
            slot.cloexec = true;
        }
    }

    /// # Errors
    /// `EBADF`.
    pub fn is_cloexec(&self, fd: Fd) -> Result<bool> {
        self.inner.lock().get(fd).map(|slot| slot.cloexec)
    }

    /// # Errors
    /// `EBADF`.
    pub fn set_cloexec(&self, fd: Fd, cloexec: bool) -> Result<()> {
        self.inner.lock().get_mut(fd)?.cloexec = cloexec;
        self.note_change(fd.0.cast_unsigned() as usize);
        Ok(())
    }

    /// For execve: closes what is marked and returns the files.
    #[must_use]
    pub fn close_on_exec(&self) -> Vec<Arc<File>> {
        self.take_where(|slot| slot.cloexec)
    }

    /// For exit: empties the table.
    #[must_use]
    pub fn close_all(&self) -> Vec<Arc<File>> {
        self.take_where(|_| true)
    }

    fn take_where(&self, wanted: impl Fn(&Slot) -> bool) -> Vec<Arc<File>> {
        self.look_again();
        let mut slots = self.inner.lock();
        let mut taken = Vec::new();
        for at in 0..slots.list.len() {
            if slots.list[at].as_ref().is_some_and(&wanted) {
                taken.extend(slots.take(at).map(Slot::into_file));
            }
        }
        taken
    }

    /// An independent copy, for fork and CLOSE_RANGE_UNSHARE.
    #[must_use]
    pub fn duplicate(&self) -> Arc<Self> {
        let copy = self.inner.lock().duplicate();
        // All files have another user now.
        self.look_again();
        Self::with(copy)
    }

    /// The open descriptors in rising order, for /proc/PID/fd.
    #[must_use]
    pub fn list(&self) -> Vec<(Fd, Arc<File>)> {
        let slots = self.inner.lock();
        let open = slots.list.iter().enumerate();
        open.filter_map(|(at, slot)| {
            let fd = Fd(i32::try_from(at).ok()?);
            slot.as_ref().map(|slot| (fd, Arc::clone(&slot.file)))
        })
        .collect()
    }

    /// Slots in use at most: FDSize of /proc/PID/status.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.inner.lock().list.len().next_multiple_of(64).max(64)
    }
}

#[cfg(test)]
mod tests;
