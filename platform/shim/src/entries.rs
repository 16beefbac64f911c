//! Acts on files that the process was entrusted with, of a thread that is alone with its descriptors: they are entered in the ledger
//! ([`abi::Ledger`]), and done. The sentry carries them out with the next event, or when somebody else looks at the file before.
//!
//! The exchange of the ledger's state is the act. It fails when the sentry has taken back a right meanwhile, or takes what was
//! entered: then the call is made.

use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use crate::abi::{self, Entry, Fast, Ledger, Note, Slot, TASK_SIZE, entry, trust};
use crate::descriptors::FCNTL;
use crate::loans::STAT_BYTES;
use crate::{guest_memory, notes, words};

pub const F_SETLK: u64 = 6;
pub const F_SETLKW: u64 = 7;
const F_RDLCK: u64 = 0;
const F_WRLCK: u64 = 1;
const F_UNLCK: u64 = 2;
const SEEK_SET: u64 = 0;

/// fcntl(2) with F_SETLK or F_SETLKW: there is nobody to wait for.
pub fn lock(slot: &Slot, fast: &Fast) -> Option<u64> {
    let open = Open::find(fast, slot.argument(0))?;
    if !open.may(trust::LOCKS) {
        return None;
    }
    // `struct flock`: two numbers of 16 bits, first byte, how many.
    let [what, start, len] = words::read::<3>(fast, slot.argument(2))?;
    let kind = match (what & 0xffff, what >> 16 & 0xffff) {
        (F_RDLCK, SEEK_SET) if open.may(trust::READS) => entry::SHARED_LOCK,
        (F_WRLCK, SEEK_SET) if open.may(trust::WRITES) => entry::EXCLUSIVE_LOCK,
        (F_UNLCK, SEEK_SET) => entry::UNLOCK,
        _ => return None,
    };
    // What is refused is the sentry's to refuse.
    let end = start.checked_add(len)?;
    if start > i64::MAX as u64 || len > i64::MAX as u64 || end > i64::MAX as u64 {
        return None;
    }
    let is_first = open.state & Ledger::COUNT == 0;
    let bytes = if is_first { 0 } else { open.ledger.bytes.load(Relaxed) };
    open.enter(fast, kind, [start, len, 0], bytes).then_some(0)
}

/// pwrite64(2).
pub fn store(slot: &Slot, fast: &Fast) -> Option<u64> {
    let open = Open::find(fast, slot.argument(0))?;
    let (addr, len, pos) = (slot.argument(1), slot.argument(2), slot.argument(3));
    let is_plain = len != 0
        && len <= Ledger::MOST
        && addr <= TASK_SIZE - len
        && pos <= i64::MAX as u64 - len;
    if !open.may(trust::STORES) || !is_plain {
        return None;
    }
    let is_first = open.state & Ledger::COUNT == 0;
    let place = if is_first { 0 } else { open.ledger.bytes.load(Relaxed) };
    // Whole lines, for who copies them.
    let next = (place + len + 63) & !63;
    if next > Ledger::BYTES {
        return None;
    }
    let to = abi::LEDGER_ADDR + Ledger::BYTES_OFFSET + place;
    if guest_memory::copy(to, addr, len) != 0 {
        return None;
    }
    // SAFETY: only asks the processor.
    let now = unsafe { core::arch::x86_64::_rdtsc() };
    let kind = entry::STORE | len << Entry::LEN_SHIFT;
    open.enter(fast, kind, [pos, place, now], next).then_some(len)
}

/// What fstat(2) says of a descriptor's file; the guest has room at `addr`.
pub fn stat(fast: &Fast, descriptor: u64, addr: u64) -> Option<u64> {
    let open = Open::find(fast, descriptor)?;
    let told = open.ledger.told.get(open.descriptor as usize)?;
    let version = told.version.load(Acquire);
    let is_written = open.state & Ledger::COUNT != 0 && open.ledger.bytes.load(Relaxed) != 0;
    let is_told = version != 0
        && !is_written
        && addr <= TASK_SIZE - STAT_BYTES
        && guest_memory::copy(addr, &raw const told.stat as u64, STAT_BYTES) == 0;
    // Now, for it may have changed meanwhile.
    (is_told && told.version.load(Acquire) == version).then_some(0)
}

/// A ledger that is not shut, and a descriptor with rights.
struct Open {
    ledger: &'static Ledger,
    state: u64,
    descriptor: u64,
    rights: u64,
}

impl Open {
    /// The state before the rights: who takes one back changes the state after that.
    fn find(fast: &Fast, descriptor: u64) -> Option<Self> {
        let descriptor = descriptor & 0xffff_ffff;
        if fast.knows.load(Relaxed) == 0 {
            return None;
        }
        let ledger = ledger();
        let state = ledger.state.load(Acquire);
        let rights = ledger.trust.get(descriptor as usize)?.load(Acquire);
        (state != 0 && rights != 0).then_some(Self { ledger, state, descriptor, rights })
    }

    fn may(&self, right: u64) -> bool {
        self.rights & right != 0
    }

    /// Whether it is done. `bytes`: how much of the room for bytes is in use then.
    fn enter(&self, fast: &Fast, kind: u64, rest: [u64; Entry::WORDS - 1], bytes: u64) -> bool {
        let count = self.state & Ledger::COUNT;
        let Some(entry) = self.ledger.entries.get(count as usize) else { return false };
        if count == 0 && !notes::have_room(fast) {
            return false;
        }
        let first = kind | self.descriptor << Entry::DESCRIPTOR_SHIFT;
        for (to, word) in entry.0.iter().zip(core::iter::once(first).chain(rest)) {
            to.store(word, Relaxed);
        }
        self.ledger.bytes.store(bytes, Relaxed);
        let is_done =
            self.ledger.state.compare_exchange(self.state, self.state + 1, SeqCst, Relaxed).is_ok();
        if is_done && count == 0 {
            notes::write(fast, [FCNTL | F_SETLK << Note::COMMAND_SHIFT, 0, 0]);
        }
        is_done
    }
}

fn ledger() -> &'static Ledger {
    // SAFETY: a part of the channel, all fields atomic.
    unsafe { &*(abi::LEDGER_ADDR as *const Ledger) }
}
