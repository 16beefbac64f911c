//! Files that guest code was entrusted with: it locks them and writes to them on its own, and enters that in a ledger (`base::ledger`).
//!
//! What was entered is done, as far as its process can tell; here it is carried out. Its process's own calls come after that
//! ([`Ledger::settle`] with each event), and so does whoever else looks at what may have changed: he finds the ledger where he looks (a
//! file's locks, an inode of memory), and settles it first.
//!
//! * The trust is in one descriptor of one table, and ends as a loan does (`crate::loans`): when the slot comes to mean something else, or
//!   somebody watches.
//! * It is given under the lock of [`Ledger::trusted`], with the reasons (that nobody else has locks, or has mapped the file) looked at
//!   under it. Who is about to become a reason against it ends the trust, settles under the same lock, and goes on then.
//! * What guest code says is checked against what it was trusted with, not against what lies in its own memory.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use abi::ids::{Fd, Tid};
use abi::open::OpenFlags;
use base::Lent;
use base::ledger::{Act, Entry, Lock, Rights, STAT_BYTES};
use base::lent::Taken;
use base::lock::Mutex;
use smallvec::SmallVec;

use crate::description::File;
use crate::file_table::FdTable;
use crate::fs::tmpfs::{Reserve, TmpInode};
use crate::inode::Inode;
use crate::lock_order;
use crate::record_lock::{self, LockKind, Owner, Range};

/// Files to which one process writes on its own, at most: each keeps room for all that it may write.
const MOST_STORES: usize = 4;
/// As much of a habit is remembered, and so much is enough.
const MOST_HABIT: u32 = 8;
const ENOUGH_HABIT: u32 = 4;
/// Files of these flags are written by calls.
const ODD: OpenFlags =
    OpenFlags::APPEND.union(OpenFlags::DIRECT).union(OpenFlags::PATH).union(OpenFlags::ASYNC);

/// What the guest code of one address space was entrusted with.
pub struct Ledger {
    guest: Arc<dyn base::Ledger>,
    /// By descriptor.
    trusted: Mutex<Vec<Option<Trusted>>, lock_order::Ledgers>,
    /// Goes up with what is written, down with each file that is trusted before.
    habit: AtomicU32,
}

/// A descriptor's file.
struct Trusted {
    file: Weak<File>,
    inode: usize,
    process: Tid,
    rights: Rights,
    /// For what is written.
    reserve: Option<Reserve>,
    trust: Arc<Trust>,
}

/// What a descriptor's slot has.
pub(crate) struct Trust {
    guest: Weak<dyn base::Ledger>,
    descriptor: u32,
    is_over: AtomicBool,
}

/// What a process's next calls are likely to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Locks(Owner),
    Stores,
}

/// An open file of a process.
#[derive(Clone, Copy)]
pub struct OwnFile<'a> {
    pub files: &'a FdTable,
    pub fd: Fd,
    pub file: &'a Arc<File>,
    pub process: Tid,
}

impl Ledger {
    #[must_use]
    pub fn new(guest: Arc<dyn base::Ledger>) -> Arc<Self> {
        Arc::new(Self { guest, trusted: Mutex::default(), habit: AtomicU32::new(0) })
    }

    /// Has guest code lock the file from now on, if only its process does, and often. In a call of the only thread.
    pub fn entrust_locks(self: &Arc<Self>, own: OwnFile<'_>) {
        let owner = Owner::Process(own.process);
        if record_lock::is_worth_trust(own.file, owner) {
            self.entrust(own, Wish::Locks(owner));
        }
    }

    /// Has guest code write to the file from now on, if it is one in memory, and nothing bounds its size. In a call of the only thread,
    /// which has just written.
    pub fn entrust_stores(self: &Arc<Self>, own: OwnFile<'_>) {
        let flags = own.file.flags();
        if flags.writes()
            && !flags.intersects(ODD)
            && memory_of(own.file).is_some_and(|inode| inode.may_be_trusted())
        {
            self.entrust(own, Wish::Stores);
        }
    }

    /// The same of a file that was just opened, if that is what its process does with those.
    pub fn entrust_opened(self: &Arc<Self>, own: OwnFile<'_>) {
        let habit = self.habit.load(Ordering::Relaxed);
        if habit >= ENOUGH_HABIT {
            self.habit.store(habit - 1, Ordering::Relaxed);
            self.entrust_stores(own);
        }
    }

    /// Its own process has looked at a file by a call, which may have changed it: guest code is told, if it writes to the file.
    pub fn tell_again(&self, own: OwnFile<'_>) {
        let Ok(at) = usize::try_from(own.fd.0) else { return };
        let Some(memory) = memory_of(own.file) else { return };
        let known = self.trusted.lock().get(at).and_then(|known| known.as_ref()?.of(own.file));
        if let Some(trust) = known {
            memory.tell(&trust, own.file.inode());
        }
    }

    fn entrust(self: &Arc<Self>, own: OwnFile<'_>, wish: Wish) {
        let Ok(at) = usize::try_from(own.fd.0) else { return };
        let Some(descriptor) = u32::try_from(at).ok().filter(|at| *at < self.guest.descriptors())
        else {
            return;
        };
        let known = self.trusted.lock().get(at).and_then(|known| known.as_ref()?.of(own.file));
        let trust = match known {
            Some(trust) => trust,
            None => {
                let guest = Arc::downgrade(&self.guest);
                let trust = Arc::new(Trust { guest, descriptor, is_over: AtomicBool::new(false) });
                if !own.files.entrust(own.fd, own.file, Arc::clone(&trust) as Arc<dyn Lent>) {
                    return;
                }
                trust
            }
        };
        let mut trusted = self.trusted.lock();
        let gone = self.give(&mut trusted, own, &trust, wish);
        drop(trusted);
        drop(gone);
        if let Some(memory) = memory_of(own.file) {
            memory.tell(&trust, own.file.inode());
        }
    }

    /// What is over and goes, without the lock.
    fn give(
        self: &Arc<Self>,
        trusted: &mut Vec<Option<Trusted>>,
        own: OwnFile<'_>,
        trust: &Arc<Trust>,
        wish: Wish,
    ) -> SmallVec<[Trusted; 1]> {
        let is_over = |place: &mut Option<Trusted>| {
            place.take_if(|known| known.trust.is_over() && !Arc::ptr_eq(&known.trust, trust))
        };
        let gone = trusted.iter_mut().filter_map(is_over).collect();
        let at = trust.descriptor as usize;
        if trusted.len() <= at {
            trusted.resize_with(at + 1, || None);
        }
        let stores = trusted.iter().flatten().filter(|known| known.reserve.is_some()).count();
        let Some(place) = trusted.get_mut(at) else { return gone };
        let known = place.get_or_insert_with(|| Trusted {
            file: Arc::downgrade(own.file),
            inode: key(own.file.inode()),
            process: own.process,
            rights: Rights::default(),
            reserve: None,
            trust: Arc::clone(trust),
        });
        match wish {
            Wish::Locks(owner) => known.rights.locks = record_lock::entrust(own.file, owner, self),
            Wish::Stores if known.reserve.is_none() && stores < MOST_STORES => {
                let inode = memory_of(own.file);
                known.reserve = inode.and_then(|inode| inode.entrust(self, trust));
                known.rights.stores = known.reserve.is_some();
            }
            Wish::Stores => {}
        }
        let flags = own.file.flags();
        (known.rights.reads, known.rights.writes) = (flags.reads(), flags.writes());
        if known.rights.locks || known.rights.stores {
            self.guest.trust(trust.descriptor, known.rights);
        } else {
            trust.end();
        }
        // Now, for who ended it before came too early.
        if trust.is_over() {
            self.guest.distrust(trust.descriptor);
        }
        gone
    }

    /// Pages that all that can be entered takes.
    pub(crate) fn most_pages(&self) -> u64 {
        self.guest.most_pages()
    }

    /// Carries out what was entered, for its process, whose guest code stands still: that is likely to ask next what the files are then.
    pub fn settle_own(&self) {
        if self.guest.is_empty() {
            return;
        }
        let trusted = self.trusted.lock();
        let changed = self.carry_out(&trusted);
        let is_stored = |known: &&Trusted| known.rights.stores && !known.trust.is_over();
        let known: SmallVec<[_; MOST_STORES]> = trusted
            .iter()
            .flatten()
            .filter(is_stored)
            .filter_map(|known| Some((known.file.upgrade()?, Arc::clone(&known.trust))))
            .collect();
        drop(trusted);
        tell(&changed);
        for (file, trust) in known {
            let is_changed = changed.iter().any(|(other, _)| Arc::ptr_eq(other, &file));
            if is_changed && let Some(memory) = memory_of(&file) {
                memory.tell(&trust, file.inode());
            }
        }
    }

    /// Carries out what was entered.
    pub fn settle(&self) {
        if !self.guest.is_empty() {
            let trusted = self.trusted.lock();
            let changed = self.carry_out(&trusted);
            drop(trusted);
            tell(&changed);
        }
    }

    /// Guest code locks this file by calls only; what was entered before is carried out.
    pub(crate) fn end_locks(&self, inode: &Arc<dyn Inode>) {
        let trusted = self.trusted.lock();
        let of_it = trusted.iter().flatten().filter(|known| known.inode == key(inode));
        of_it.for_each(|known| known.trust.end());
        let changed = self.carry_out(&trusted);
        drop(trusted);
        tell(&changed);
    }

    /// The files that were changed: whose locks were is to be told without the lock, and perhaps nobody else has them any more.
    fn carry_out(&self, trusted: &[Option<Trusted>]) -> Files {
        let mut changed = Files::new();
        self.guest.take(&mut |entry: Entry<'_>| {
            let Some(known) = trusted.get(entry.descriptor as usize).and_then(Option::as_ref)
            else {
                return;
            };
            let Some(file) = known.file.upgrade() else { return };
            let has_room = match entry.act {
                Act::Locked { kind, start, len } => known.follow_lock(&file, kind, (start, len)),
                Act::Stored { pos, bytes, age_ns } => known.follow_write(&file, pos, bytes, age_ns),
            };
            if has_room == Some(false) {
                // The next ones may have to be refused.
                known.trust.end();
            }
            let locks = matches!(entry.act, Act::Locked { .. });
            if !locks {
                let habit = self.habit.load(Ordering::Relaxed);
                self.habit.store((habit + 1).min(MOST_HABIT), Ordering::Relaxed);
            }
            match changed.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &file)) {
                Some((_, has_locked)) => *has_locked |= locks,
                None => changed.push((file, locks)),
            }
        });
        changed
    }
}

impl Trusted {
    /// Its trust, if it still holds and is in that file.
    fn of(&self, file: &Arc<File>) -> Option<Arc<Trust>> {
        let is_it = std::ptr::eq(self.file.as_ptr(), Arc::as_ptr(file)) && !self.trust.is_over();
        is_it.then(|| Arc::clone(&self.trust))
    }

    /// Whether there is room for more of these; `None`: it may not do that, so it has not.
    fn follow_lock(&self, file: &Arc<File>, kind: Lock, (start, len): (u64, u64)) -> Option<bool> {
        let kind = match kind {
            _ if !self.rights.locks => return None,
            Lock::None => None,
            Lock::Shared if self.rights.reads => Some(LockKind::Shared),
            Lock::Exclusive if self.rights.writes => Some(LockKind::Exclusive),
            Lock::Shared | Lock::Exclusive => return None,
        };
        let range = Range::new(i64::try_from(start).ok()?, i64::try_from(len).ok()?).ok()?;
        Some(record_lock::follow(file, Owner::Process(self.process), kind, range))
    }

    /// The same.
    fn follow_write(&self, file: &File, pos: u64, bytes: &[u8], age_ns: u64) -> Option<bool> {
        let reserve = self.reserve.as_ref().filter(|_| self.rights.stores)?;
        pos.checked_add(bytes.len() as u64).filter(|end| *end <= i64::MAX as u64)?;
        memory_of(file)?.follow_write(pos, bytes, age_ns).ok()?;
        Some(reserve.is_there())
    }
}

type Files = SmallVec<[(Arc<File>, bool); 2]>;

fn tell(changed: &Files) {
    changed.iter().filter(|(_, locks)| *locks).for_each(|(file, _)| record_lock::tell(file));
}

fn memory_of(file: &File) -> Option<&TmpInode> {
    file.ops().as_any().downcast_ref()
}

fn key(inode: &Arc<dyn Inode>) -> usize {
    Arc::as_ptr(inode).cast::<()>() as usize
}

impl Trust {
    /// What fstat(2) says of the descriptor.
    pub(crate) fn tell(&self, stat: &[u8; STAT_BYTES]) {
        let Some(guest) = self.guest.upgrade() else { return };
        guest.tell(self.descriptor, stat);
        // Now, for who ended it before came too early.
        if self.is_over() {
            guest.untell(self.descriptor);
        }
    }

    /// That is not so any more.
    pub(crate) fn untell(&self) {
        if let Some(guest) = self.guest.upgrade() {
            guest.untell(self.descriptor);
        }
    }
}

impl Lent for Trust {
    fn take(&self) -> Taken {
        Taken { at: 0, is_over: self.is_over() }
    }

    fn give(&self, _at: u64) -> bool {
        !self.is_over()
    }

    fn end(&self) {
        if !self.is_over.swap(true, Ordering::SeqCst)
            && let Some(guest) = self.guest.upgrade()
        {
            guest.distrust(self.descriptor);
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests;
