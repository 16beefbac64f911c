//! Files that guest code was entrusted with: it locks them on its own, and enters that in a ledger (`base::ledger`).
//!
//! What was entered is done, as far as its process can tell; here it is carried out. Its process's own calls come after that
//! ([`Ledger::settle`] with each event), and so does whoever else looks at what may have changed: he finds the ledger where he looks
//! (a file's locks), and settles it first.
//!
//! * The trust is in one descriptor of one table, and ends as a loan does (`crate::loans`): when the slot comes to mean something else, or
//!   somebody watches.
//! * It is given under the lock of [`Ledger::trusted`], with the reason (that nobody else has locks) looked at under it. Who is about
//!   to become such a reason ends the trust under the same lock, settles, and goes on then.
//! * What guest code says is checked against what it was trusted with, not against what lies in its own memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use abi::ids::{Fd, Tid};
use base::Lent;
use base::ledger::{Act, Entry, Lock, Rights};
use base::lent::Taken;
use base::lock::Mutex;
use smallvec::SmallVec;

use crate::description::File;
use crate::file_table::FdTable;
use crate::inode::Inode;
use crate::lock_order;
use crate::record_lock::{self, LockKind, Owner, Range};

/// What the guest code of one address space was entrusted with.
pub struct Ledger {
    guest: Arc<dyn base::Ledger>,
    /// By descriptor.
    trusted: Mutex<Vec<Option<Trusted>>, lock_order::Ledgers>,
}

struct Trusted {
    file: Weak<File>,
    inode: usize,
    process: Tid,
    rights: Rights,
    trust: Arc<Trust>,
}

/// What a descriptor's slot has.
struct Trust {
    guest: Arc<dyn base::Ledger>,
    descriptor: u32,
    is_over: AtomicBool,
}

impl Ledger {
    #[must_use]
    pub fn new(guest: Arc<dyn base::Ledger>) -> Arc<Self> {
        Arc::new(Self { guest, trusted: Mutex::default() })
    }

    /// Has guest code lock the descriptor's file from now on, if only its process does, and often. In a call of the only thread.
    pub fn entrust_locks(
        self: &Arc<Self>,
        (files, fd): (&FdTable, Fd),
        file: &Arc<File>,
        process: Tid,
    ) {
        let owner = Owner::Process(process);
        let Some(descriptor) = self.descriptor(fd) else { return };
        if !record_lock::is_worth_trust(file, owner) {
            return;
        }
        let trust = Arc::new(Trust {
            guest: Arc::clone(&self.guest),
            descriptor,
            is_over: AtomicBool::new(false),
        });
        let lent: Arc<dyn Lent> = Arc::clone(&trust) as Arc<dyn Lent>;
        if !files.entrust(fd, file, lent) {
            return;
        }
        let mut trusted = self.trusted.lock();
        let at = descriptor as usize;
        if trusted.len() <= at {
            trusted.resize_with(at + 1, || None);
        }
        if !record_lock::entrust(file, owner, self) {
            trust.end();
            return;
        }
        let (reads, writes) = (file.flags().reads(), file.flags().writes());
        let rights = Rights { locks: true, reads, writes };
        self.guest.trust(descriptor, rights);
        // Now, for who ended it before came too early.
        if trust.is_over() {
            self.guest.distrust(descriptor);
        }
        let (file, inode) = (Arc::downgrade(file), key(file.inode()));
        if let Some(place) = trusted.get_mut(at) {
            *place = Some(Trusted { file, inode, process, rights, trust });
        }
    }

    fn descriptor(&self, fd: Fd) -> Option<u32> {
        u32::try_from(fd.0).ok().filter(|number| *number < self.guest.descriptors())
    }

    /// Carries out what was entered.
    pub fn settle(&self) {
        let trusted = self.trusted.lock();
        let changed = self.carry_out(&trusted);
        drop(trusted);
        tell(&changed);
    }

    /// Guest code locks this file by calls only; what was entered before is carried out.
    pub(crate) fn end_locks(&self, inode: &Arc<dyn Inode>) {
        let trusted = self.trusted.lock();
        let of_it = trusted.iter().flatten().filter(|trusted| trusted.inode == key(inode));
        of_it.for_each(|trusted| trusted.trust.end());
        let changed = self.carry_out(&trusted);
        drop(trusted);
        tell(&changed);
    }

    /// The files whose locks were changed: that is to be told without the lock, and perhaps nobody else has them any more.
    fn carry_out(&self, trusted: &[Option<Trusted>]) -> Files {
        let mut changed = Files::new();
        self.guest.take(&mut |entry: Entry| {
            let known = trusted.get(entry.descriptor as usize).and_then(Option::as_ref);
            let Some(known) = known.filter(|known| known.rights.locks) else { return };
            let Some(file) = known.file.upgrade() else { return };
            let Act::Locked { kind, start, len } = entry.act;
            let kind = match kind {
                Lock::None => None,
                Lock::Shared if known.rights.reads => Some(LockKind::Shared),
                Lock::Exclusive if known.rights.writes => Some(LockKind::Exclusive),
                Lock::Shared | Lock::Exclusive => return,
            };
            let (Ok(start), Ok(len)) = (i64::try_from(start), i64::try_from(len)) else { return };
            let Ok(range) = Range::new(start, len) else { return };
            if !record_lock::follow(&file, Owner::Process(known.process), kind, range) {
                // There are so many that the next ones may have to be refused.
                known.trust.end();
            }
            if !changed.iter().any(|other| Arc::ptr_eq(other, &file)) {
                changed.push(file);
            }
        });
        changed
    }
}

type Files = SmallVec<[Arc<File>; 2]>;

fn tell(changed: &Files) {
    changed.iter().for_each(|file| record_lock::tell(file));
}

fn key(inode: &Arc<dyn Inode>) -> usize {
    Arc::as_ptr(inode).cast::<()>() as usize
}

impl Lent for Trust {
    fn take(&self) -> Taken {
        Taken { at: 0, is_over: self.is_over() }
    }

    fn give(&self, _at: u64) -> bool {
        !self.is_over()
    }

    fn end(&self) {
        if !self.is_over.swap(true, Ordering::SeqCst) {
            self.guest.distrust(self.descriptor);
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}
