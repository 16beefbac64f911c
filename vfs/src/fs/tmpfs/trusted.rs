//! Files to which guest code writes on its own ([`crate::ledger`]): what it has done so far is carried out before anybody looks.
//!
//! It can be while the bytes are on the heap, for a mapping would show at once what is written. Room for all that guest code can write
//! before it is heard of is kept free meanwhile.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use abi::Result;
use abi::statbuf::Stat;
use abi::time::Timespec;
use base::Lent;
use base::lock::MutexGuard;
use zerocopy::IntoBytes;

use super::inode::{SET_ID, State, TmpInode};
use super::quota::Reserve;
use crate::inode::Inode;
use crate::ledger::{Ledger, Trust};

/// Who writes.
pub(super) struct Trusted {
    ledger: Weak<Ledger>,
    trust: Arc<Trust>,
    /// It knows its attributes.
    is_told: bool,
}

impl TmpInode {
    /// The state, with all that guest code has done.
    pub(super) fn settled(&self) -> MutexGuard<'_, State> {
        if self.has_trusted.load(Ordering::SeqCst)
            && let Some((ledger, _)) = self.ledger()
        {
            ledger.settle();
        }
        self.state.lock()
    }

    /// The same, for who is about to change it.
    pub(super) fn changing(&self) -> MutexGuard<'_, State> {
        let mut state = self.settled();
        self.note_change(&mut state);
        state
    }

    /// What guest code was told of it is so no more.
    fn note_change(&self, state: &mut State) {
        state.changes = state.changes.wrapping_add(1);
        if let Some(trusted) = &mut state.trusted
            && std::mem::take(&mut trusted.is_told)
        {
            trusted.trust.untell();
        }
    }

    /// Tells guest code that writes to it on its own what fstat(2) says.
    pub(crate) fn tell(&self, trust: &Trust, inode: &Arc<dyn Inode>) {
        let changes = self.state.lock().changes;
        let Ok(attr) = inode.attr() else { return };
        let stat = Stat::from(&attr);
        let Ok(stat) = stat.as_bytes().try_into() else { return };
        let mut state = self.state.lock();
        if state.changes == changes
            && let Some(trusted) = &mut state.trusted
            && std::ptr::eq(&raw const *trusted.trust, trust)
        {
            trusted.is_told = true;
            trust.tell(stat);
        }
    }

    /// The same, and guest code does nothing more on its own.
    pub(super) fn untrusted(&self) -> MutexGuard<'_, State> {
        while self.has_trusted.load(Ordering::SeqCst)
            && let Some((ledger, trust)) = self.ledger()
        {
            trust.end();
            ledger.settle();
            let mut state = self.state.lock();
            if self.forget(&mut state, &trust) {
                return state;
            }
        }
        self.state.lock()
    }

    /// Guest code does nothing more on its own.
    pub(crate) fn end_trust(&self) {
        drop(self.untrusted());
    }

    /// What is over and settled is forgotten; whether nobody writes on his own then.
    fn forget(&self, state: &mut State, trust: &Arc<Trust>) -> bool {
        let _ = state.trusted.take_if(|trusted| Arc::ptr_eq(&trusted.trust, trust));
        let is_nobody = state.trusted.is_none();
        if is_nobody {
            self.has_trusted.store(false, Ordering::SeqCst);
        }
        is_nobody
    }

    fn ledger(&self) -> Option<(Arc<Ledger>, Arc<Trust>)> {
        let state = self.state.lock();
        let trusted = state.trusted.as_ref()?;
        Some((trusted.ledger.upgrade()?, Arc::clone(&trusted.trust)))
    }

    /// Whether guest code may be [entrusted](TmpInode::entrust) with it.
    pub(crate) fn may_be_trusted(&self) -> bool {
        if self.has_trusted.load(Ordering::SeqCst)
            && let Some((ledger, trust)) = self.ledger()
        {
            if !trust.is_over() {
                return false;
            }
            ledger.settle();
            self.forget(&mut self.state.lock(), &trust);
        }
        let mut state = self.state.lock();
        state.mode & SET_ID == 0 && state.contents().is_ok_and(|contents| contents.is_plain())
    }

    /// Guest code writes to it from now on, if nothing speaks against it: then the caller tells it.
    pub(crate) fn entrust(&self, ledger: &Arc<Ledger>, trust: &Arc<Trust>) -> Option<Reserve> {
        let mut state = self.state.lock();
        // One of a process that is gone has nothing to carry out.
        let is_free =
            state.trusted.as_ref().is_none_or(|trusted| trusted.ledger.strong_count() == 0);
        if !is_free || state.mode & SET_ID != 0 {
            return None;
        }
        let reserve = state.contents().ok()?.reserve_pages(ledger.most_pages())?;
        let ledger = Arc::downgrade(ledger);
        state.trusted = Some(Trusted { ledger, trust: Arc::clone(trust), is_told: false });
        self.has_trusted.store(true, Ordering::SeqCst);
        Some(reserve)
    }

    /// Guest code has written this, so long ago.
    pub(crate) fn follow_write(&self, pos: u64, bytes: &[u8], age_ns: u64) -> Result<()> {
        let then = Timespec::from_nanos(self.shared.clock.realtime().saturating_sub(age_ns));
        let mut state = self.state.lock();
        self.note_change(&mut state);
        state.contents()?.follow_write(pos, bytes)?;
        state.mtime = then;
        state.ctime = state.ctime.max(then);
        Ok(())
    }
}
