//! The sentry's side of the ledger of a guest process (`shim-abi/src/ledger.rs`, `shim/src/entries.rs`).
//!
//! What lies there is the guest's word: each entry is copied once and then checked. Generations come from here, so that an entry
//! under one that has ended is never counted; a guest that writes another one itself deceives nobody but itself, for what it may do
//! with which descriptor is looked up again by who carries it out.

use std::arch::x86_64::_rdtsc;
use std::ops::RangeInclusive;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Instant;

use base::ledger::{Act, Entry, Ledger, Lock, Rights};
use parking_lot::Mutex;
use shim_abi::{Entry as RawEntry, Ledger as Shared, entry, trust};

use super::region::SlotRef;
use crate::STAT_BYTES;

/// See the module.
#[derive(Debug)]
pub struct GuestLedger {
    slot: SlotRef,
    /// The last one.
    generation: AtomicU64,
    taking: Mutex<Taking>,
}

#[derive(Debug, Default)]
struct Taking {
    /// The time stamp when that was last done.
    last: u64,
    bytes: Vec<u8>,
}

/// A time stamp of the processor, and when that was.
static FIRST: LazyLock<(u64, Instant)> = LazyLock::new(|| (time_stamp(), Instant::now()));

/// What was entered less than so many cycles ago was so now.
const NOW: u64 = 1 << 21;

fn time_stamp() -> u64 {
    // SAFETY: only asks the processor.
    unsafe { _rdtsc() }
}

/// How long ago a time stamp was.
fn age_ns(stamp: u64, now: u64) -> u64 {
    if now.saturating_sub(stamp) < NOW {
        return 0;
    }
    let (first, since) = *FIRST;
    let elapsed = since.elapsed().as_nanos();
    let (part, whole) = (now.saturating_sub(stamp), now.saturating_sub(first).max(1));
    u64::try_from(elapsed * u128::from(part) / u128::from(whole)).unwrap_or(0)
}

impl GuestLedger {
    /// `slot` is that of [`shim_abi::LEDGER_SLOT`].
    pub fn new(slot: SlotRef) -> Self {
        Self { slot, generation: AtomicU64::new(0), taking: Mutex::default() }
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
            | bit(rights.writes, trust::WRITES)
            | bit(rights.stores, trust::STORES);
        word.store(rights, SeqCst);
        // The first time: it is shut. Who takes just now opens it afterwards.
        let mut taking = self.taking.lock();
        if taking.last == 0 {
            taking.last = FIRST.0;
        }
        let open = |state| (state == 0).then(|| self.next_state(0));
        let _ = shared.state.fetch_update(SeqCst, SeqCst, open);
    }

    fn tell(&self, descriptor: u32, stat: &[u8; STAT_BYTES]) {
        let Some(told) = self.slot.ledger().told.get(descriptor as usize) else { return };
        told.version.store(0, SeqCst);
        for (to, bytes) in told.stat.iter().zip(stat.as_chunks().0) {
            to.store(u64::from_le_bytes(*bytes), Relaxed);
        }
        told.version.store(self.generation.fetch_add(1, Relaxed) + 1, SeqCst);
    }

    fn untell(&self, descriptor: u32) {
        if let Some(told) = self.slot.ledger().told.get(descriptor as usize) {
            told.version.store(0, SeqCst);
        }
    }

    fn distrust(&self, descriptor: u32) {
        self.untell(descriptor);
        let shared = self.slot.ledger();
        let Some(word) = shared.trust.get(descriptor as usize) else { return };
        word.store(0, SeqCst);
        let next = |state| (state != 0).then(|| self.next_state(state & Shared::COUNT));
        let _ = shared.state.fetch_update(SeqCst, SeqCst, next);
    }

    fn take(&self, each: &mut dyn FnMut(Entry<'_>)) {
        let shared = self.slot.ledger();
        let mut taking = self.taking.lock();
        if shared.state.load(SeqCst) & Shared::COUNT == 0 {
            return;
        }
        let count = shared.state.swap(0, SeqCst) & Shared::COUNT;
        let now = time_stamp();
        let last = std::mem::replace(&mut taking.last, now);
        for raw in shared.entries.iter().take(count as usize) {
            if let Some(entry) = self.read(raw, last..=now, &mut taking.bytes) {
                each(entry);
            }
        }
        shared.state.store(self.next_state(0), SeqCst);
    }

    fn is_empty(&self) -> bool {
        let state = self.slot.ledger().state.load(SeqCst);
        state != 0 && state & Shared::COUNT == 0
    }

    fn descriptors(&self) -> u32 {
        shim_abi::Descriptors::COUNT as u32
    }

    fn most_pages(&self) -> u64 {
        // Each begins and ends within one.
        Shared::BYTES / abi::addr::PAGE_SIZE + 2 * Shared::ENTRIES as u64
    }
}

impl GuestLedger {
    /// `None`: no shim of ours wrote that. It was entered between these two time stamps.
    fn read<'a>(
        &self,
        raw: &RawEntry,
        times: RangeInclusive<u64>,
        buffer: &'a mut Vec<u8>,
    ) -> Option<Entry<'a>> {
        let [first, second, third, stamp] = raw.0.each_ref().map(|word| word.load(Relaxed));
        let lock = |kind| Some(Act::Locked { kind, start: second, len: third });
        let act = match first & entry::KIND {
            entry::SHARED_LOCK => lock(Lock::Shared),
            entry::EXCLUSIVE_LOCK => lock(Lock::Exclusive),
            entry::UNLOCK => lock(Lock::None),
            entry::STORE => {
                let len = first >> RawEntry::LEN_SHIFT;
                let bytes = self.bytes(third, len, buffer)?;
                let stamp = stamp.max(*times.start());
                Some(Act::Stored { pos: second, bytes, age_ns: age_ns(stamp, *times.end()) })
            }
            _ => None,
        };
        let descriptor = (first >> RawEntry::DESCRIPTOR_SHIFT & RawEntry::DESCRIPTOR) as u32;
        Some(Entry { descriptor, act: act? })
    }

    fn bytes<'a>(&self, place: u64, len: u64, buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        if len == 0 || len > Shared::MOST || place > Shared::BYTES {
            return None;
        }
        let len = len as usize;
        if buffer.len() < len {
            buffer.resize(Shared::MOST as usize, 0);
        }
        let into = buffer.get_mut(..len)?;
        self.slot.copy_out(Shared::BYTES_OFFSET + place, into)?;
        Some(into)
    }
}
