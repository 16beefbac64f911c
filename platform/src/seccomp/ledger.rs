//! The sentry's side of the ledger of a guest process (`shim-abi/src/ledger.rs`, `shim/src/entries.rs`).
//!
//! What lies there is the guest's word: each entry is copied once and then checked. Generations come from here, so that an entry
//! under one that has ended is never counted; a guest that writes another one itself deceives nobody but itself, for what it may do
//! with which descriptor is looked up again by who carries it out.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use base::ledger::{Act, Entry, Ledger, Lock, Rights};
use parking_lot::Mutex;
use shim_abi::{Entry as RawEntry, Ledger as Shared, entry, trust};

use super::region::SlotRef;

/// See the module.
#[derive(Debug)]
pub struct GuestLedger {
    slot: SlotRef,
    /// The last one.
    generation: AtomicU64,
    taking: Mutex<()>,
}

impl GuestLedger {
    /// `slot` is that of [`shim_abi::LEDGER_SLOT`].
    pub fn new(slot: SlotRef) -> Self {
        Self { slot, generation: AtomicU64::new(0), taking: Mutex::new(()) }
    }

    fn next_state(&self, count: u64) -> u64 {
        Shared::state(self.generation.fetch_add(1, Relaxed) + 1, count)
    }
}

impl Ledger for GuestLedger {
    fn trust(&self, descriptor: u32, rights: Rights) {
        let shared = self.slot.ledger();
        let Some(word) = shared.trust.get(descriptor as usize) else { return };
        let bit = |has: bool, bit: u64| if has { bit } else { 0 };
        let rights = bit(rights.locks, trust::LOCKS)
            | bit(rights.reads, trust::READS)
            | bit(rights.writes, trust::WRITES);
        word.store(rights, SeqCst);
        // The first time: it is shut. Who takes just now opens it afterwards.
        let _taking = self.taking.lock();
        let open = |state| (state == 0).then(|| self.next_state(0));
        let _ = shared.state.fetch_update(SeqCst, SeqCst, open);
    }

    fn distrust(&self, descriptor: u32) {
        let shared = self.slot.ledger();
        let Some(word) = shared.trust.get(descriptor as usize) else { return };
        word.store(0, SeqCst);
        let next = |state| (state != 0).then(|| self.next_state(state & Shared::COUNT));
        let _ = shared.state.fetch_update(SeqCst, SeqCst, next);
    }

    fn take(&self, each: &mut dyn FnMut(Entry)) {
        let shared = self.slot.ledger();
        let _taking = self.taking.lock();
        if shared.state.load(SeqCst) & Shared::COUNT == 0 {
            return;
        }
        let count = shared.state.swap(0, SeqCst) & Shared::COUNT;
        for raw in shared.entries.iter().take(count as usize) {
            if let Some(entry) = read(raw) {
                each(entry);
            }
        }
        shared.state.store(self.next_state(0), SeqCst);
    }

    fn descriptors(&self) -> u32 {
        shim_abi::Descriptors::COUNT as u32
    }
}

/// `None`: no shim of ours wrote that.
fn read(raw: &RawEntry) -> Option<Entry> {
    let [first, start, len, _] = raw.0.each_ref().map(|word| word.load(Relaxed));
    let kind = match first & entry::KIND {
        entry::SHARED_LOCK => Lock::Shared,
        entry::EXCLUSIVE_LOCK => Lock::Exclusive,
        entry::UNLOCK => Lock::None,
        _ => return None,
    };
    let descriptor = (first >> RawEntry::DESCRIPTOR_SHIFT & RawEntry::DESCRIPTOR) as u32;
    Some(Entry { descriptor, act: Act::Locked { kind, start, len } })
}
