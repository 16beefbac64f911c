//! Host descriptors lent to a guest process, whose shim then reads by itself (`shim/src/loans.rs`).
//!
//! A loan is of one descriptor number of the guest. It begins with a *place*, a number for the host descriptor; this is installed
//! with the next reply to the thread that asked for it, and only then the loan's word says so. From then on the position is in
//! that word: what the guest writes there is a claim, within the bounds of a position.
//!
//! A loan that has ended leaves its host descriptor behind. It is *stale* until a thread of the process is given leave to go on,
//! with the order to close it, *closing* until that thread comes back, and free then. A stale place may be lent again: the host
//! replaces the descriptor. That is no harm to a thread that reads just now, for it looks at the word again before it believes
//! what it has read.
//!
//! Of files that are *brought along* there is no descriptor: attributes and first bytes lie in the words' own slot, and are written
//! while the only thread of the process stands still.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use base::lent::{Lent, Taken};
use parking_lot::Mutex;
use shim_abi::{Brought, LOANS_SLOT, Loans as Words};

use super::listener::Listener;
use super::region::{Region, SlotRef};
use crate::{Loan, STAT_BYTES};

/// What a process has on loan.
#[derive(Debug)]
pub struct Loans {
    words: Option<SlotRef>,
    has_stale: AtomicBool,
    places: Mutex<Places>,
    brought: Mutex<BroughtPlaces>,
}

/// Who has the places of files that are brought along.
#[derive(Debug, Default)]
struct BroughtPlaces {
    holders: [Weak<Held>; Brought::COUNT as usize],
    /// When all are in use, this one goes.
    oldest: usize,
}

impl BroughtPlaces {
    /// A place, and whose it is: the first free one, for its memory has been in use.
    fn take_place(&mut self) -> (usize, Option<Arc<Held>>) {
        let is_free = |holder: &Weak<Held>| holder.upgrade().is_none_or(|held| held.is_over());
        let free = self.holders.iter().position(is_free);
        let index = free.unwrap_or(self.oldest);
        if free.is_none() {
            self.oldest = (index + 1) % self.holders.len();
        }
        let former =
            self.holders.get_mut(index).and_then(|holder| std::mem::take(holder).upgrade());
        (index, former)
    }

    fn give(&mut self, index: usize, held: &Arc<Held>) {
        if let Some(holder) = self.holders.get_mut(index) {
            *holder = Arc::downgrade(held);
        }
    }
}

/// The places of descriptors.
const WITH_DESCRIPTOR: u32 = (1 << Words::FIRST_BROUGHT) - 1;

/// Sets of places, a bit each.
#[derive(Debug, Default)]
struct Places {
    used: u32,
    stale: u32,
    closing: u32,
    /// All that were ever given out.
    ever: u32,
    generation: u64,
}

impl Loans {
    pub fn new(region: &Arc<Region>) -> Arc<Self> {
        Arc::new(Self {
            words: SlotRef::new(region, LOANS_SLOT),
            has_stale: AtomicBool::new(false),
            places: Mutex::default(),
            brought: Mutex::default(),
        })
    }

    /// The slot of what is lent.
    pub fn slot(&self) -> Option<&SlotRef> {
        self.words.as_ref()
    }

    /// A loan of the file's attributes and its first bytes, its position taken. The oldest of those ends for it.
    pub fn bring(
        self: &Arc<Self>,
        number: u32,
        file: BorrowedFd<'_>,
        attr: &[u8; STAT_BYTES],
        most: usize,
    ) -> Option<Arc<dyn Lent>> {
        let slot = self.words.as_ref()?;
        slot.loan(number)?;
        let (index, former) = self.brought.lock().take_place();
        // Nobody reads there from now on; the only thread stands still.
        if let Some(former) = former {
            former.end();
        }
        slot.write_brought(index, file, attr, most)?;
        let place = Words::FIRST_BROUGHT + index as u32;
        let generation = self.next_generation(&mut self.places.lock());
        let state = State { is_installed: true, is_over: false, is_taken: true, at: 0 };
        let loans = Arc::clone(self);
        let held = Held { loans, number, place, generation, state: Mutex::new(state) };
        let held = Arc::new(held);
        self.brought.lock().give(index, &held);
        Some(held)
    }

    /// Tells a loan from all others of the process.
    pub fn new_generation(&self) -> u64 {
        self.next_generation(&mut self.places.lock())
    }

    fn next_generation(&self, places: &mut Places) -> u64 {
        places.generation = places.generation % Words::MOST_GENERATION + 1;
        places.generation
    }

    /// A loan that has yet to be installed, its position taken; `None` when there is no place.
    pub fn begin(self: &Arc<Self>, number: u32) -> Option<Arc<dyn Loan>> {
        self.words.as_ref()?.loan(number)?;
        let mut places = self.places.lock();
        let fresh = WITH_DESCRIPTOR & !(places.used | places.stale | places.closing);
        let place = if fresh != 0 { fresh } else { places.stale }.trailing_zeros();
        let bit = 1u32.checked_shl(place)?;
        places.stale &= !bit;
        places.used |= bit;
        places.ever |= bit;
        let generation = self.next_generation(&mut places);
        drop(places);
        let state = State { is_installed: false, is_over: false, is_taken: true, at: 0 };
        let loans = Arc::clone(self);
        Some(Arc::new(Held { loans, number, place, generation, state: Mutex::new(state) }))
    }

    /// Places whose descriptors are to be closed by who is told this now; see [`Loans::closed`].
    pub fn take_stale(&self) -> u32 {
        if !self.has_stale.load(Ordering::Relaxed) {
            return 0;
        }
        let mut places = self.places.lock();
        self.has_stale.store(false, Ordering::Relaxed);
        let stale = std::mem::take(&mut places.stale);
        places.closing |= stale;
        stale
    }

    /// That was done.
    pub fn closed(&self, closed: u32) {
        self.places.lock().closing &= !closed;
    }

    /// A copy of the process has all descriptors, and none of them on loan.
    pub fn inherit(&self, parent: &Self) {
        let ever = parent.places.lock().ever;
        if ever != 0 {
            let mut places = self.places.lock();
            (places.ever, places.stale) = (ever, ever);
            self.has_stale.store(true, Ordering::Relaxed);
        }
    }

    fn leave(&self, place: u32, is_installed: bool) {
        if place >= Words::FIRST_BROUGHT {
            return;
        }
        let bit = 1 << place;
        let mut places = self.places.lock();
        places.used &= !bit;
        if is_installed {
            places.stale |= bit;
            self.has_stale.store(true, Ordering::Relaxed);
        }
    }
}

/// A file to install in the guest for a loan.
#[derive(Debug)]
pub struct Lending {
    pub file: Arc<OwnedFd>,
    pub loan: Arc<dyn Loan>,
}

impl Lending {
    /// Begins it, in a thread that waits in its doorbell.
    pub fn install(&self, listener: &Listener, notification: u64) {
        let fd = self.file.as_raw_fd();
        match listener.add_fd_as(notification, fd, self.loan.descriptor()) {
            Ok(()) => self.loan.installed(),
            // It is dead, or has no room: no loan then.
            Err(errno) => {
                tracing::debug!(errno = errno.text(), "nothing lent");
                self.loan.end();
            }
        }
    }
}

/// Ends what a descriptor's word says, if it is of the loan that `own` is of: the position, as guest code says. Else guest code has closed
/// that descriptor, and perhaps opened another file as the same number.
pub fn take_back(word: &AtomicU64, own: u64) -> Option<u64> {
    let update = |now| Words::are_one(now, own).then_some(0);
    let before = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, update);
    before.ok().map(Words::position)
}

/// Has guest code have the position again; false when it has closed that descriptor and opened another file.
pub fn give_back(word: &AtomicU64, own: u64) -> bool {
    word.compare_exchange(0, own, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

/// One loan.
#[derive(Debug)]
struct Held {
    loans: Arc<Loans>,
    /// The guest's descriptor.
    number: u32,
    place: u32,
    generation: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    is_installed: bool,
    is_over: bool,
    /// The sentry has the position.
    is_taken: bool,
    /// The position, unless somebody else has it: the sentry, or the guest.
    at: u64,
}

impl Held {
    fn word(&self) -> Option<&AtomicU64> {
        self.loans.words.as_ref()?.loan(self.number)
    }

    fn is_with_guest(state: &State) -> bool {
        state.is_installed && !state.is_over && !state.is_taken
    }

    /// False: guest code has closed the descriptor, so the position stays with the sentry.
    fn lend(&self, at: u64) -> bool {
        let own = Words::word(self.generation, self.place, at);
        self.word().is_some_and(|word| give_back(word, own))
    }

    fn revoke(&self) -> u64 {
        let own = Words::word(self.generation, self.place, 0);
        self.word().and_then(|word| take_back(word, own)).unwrap_or(0)
    }

    fn finish(&self, state: &mut State) {
        if state.is_over {
            return;
        }
        if Self::is_with_guest(state) {
            state.at = self.revoke();
        }
        state.is_over = true;
        // What is still to be installed is left then.
        if state.is_installed {
            self.loans.leave(self.place, true);
        }
    }
}

impl Lent for Held {
    fn take(&self) -> Taken {
        let mut state = self.state.lock();
        if Self::is_with_guest(&state) {
            state.at = self.revoke();
        }
        state.is_taken = true;
        Taken { at: state.at, is_over: state.is_over }
    }

    fn give(&self, at: u64) -> bool {
        let mut state = self.state.lock();
        if at > Words::MOST_POSITION {
            self.finish(&mut state);
        }
        if state.is_over {
            return false;
        }
        state.at = at;
        state.is_taken = state.is_installed && !self.lend(at);
        true
    }

    fn end(&self) {
        self.finish(&mut self.state.lock());
    }

    fn is_over(&self) -> bool {
        self.state.lock().is_over
    }
}

impl Loan for Held {
    fn descriptor(&self) -> u32 {
        Words::FIRST_FD + self.place
    }

    fn installed(&self) {
        let mut state = self.state.lock();
        state.is_installed = true;
        if state.is_over {
            self.loans.leave(self.place, true);
        } else if !state.is_taken {
            state.is_taken = !self.lend(state.at);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let is_installed = state.is_installed;
        if !is_installed {
            self.loans.leave(self.place, false);
        } else if !state.is_over {
            // Nobody who could tell is left.
            self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_another_loan_are_left_alone() {
        let (own, other) = (Words::word(7, 3, 0), Words::word(8, 40, 99));
        let word = AtomicU64::new(Words::word(7, 3, 500));
        assert_eq!(take_back(&word, own), Some(500));
        assert_eq!(word.load(Ordering::SeqCst), 0);
        assert_eq!(take_back(&word, own), None, "closed");
        assert!(give_back(&word, Words::word(7, 3, 501)));
        // Guest code has closed it, and opened another file by the same number.
        word.store(other, Ordering::SeqCst);
        assert_eq!(take_back(&word, own), None);
        assert!(!give_back(&word, own));
        assert_eq!(word.load(Ordering::SeqCst), other);
        assert_eq!(Words::ready(other), Some(8));
        assert_eq!((Words::ready(own), Words::brought(own)), (None, None));
    }
}
