//! Files that lie ready for a guest's shim to open on its own (`shim/src/ready.rs`).
//!
//! One that was not opened yet ends by an exchange of its state, which says whether the shim was faster: then it has a descriptor of which
//! the sentry does not know, and keeps its place until the note about that comes. From then on it is as a file that was brought
//! along: its position is in the word of its descriptor.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};

use abi::dirent::{Records, dirent64_len};
use base::lent::{Lent, Taken};
use parking_lot::Mutex;
use shim_abi::{Loans as Words, Ready as Shared};

use super::descriptors;
use super::loans::{self, Loans};
use super::path_stats::padded_words;
use super::region::ReadyRef;
use crate::{Contents, Descriptor, Ready, ReadyLoan, STAT_BYTES, Watched};

/// What lies ready, or was opened since.
#[derive(Debug)]
pub struct ReadyFile {
    loans: Arc<Loans>,
    at: ReadyRef,
    place: usize,
    generation: u64,
    /// So many bytes are there.
    len: usize,
    /// Of a directory: its listing, which says after how many bytes the position is what. Our own copy, for guest code may change
    /// the other.
    records: Box<[u8]>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Its descriptor, once that is known.
    number: Option<u32>,
    /// It ended when the shim had opened it and the sentry did not know.
    was_opened: bool,
    is_over: bool,
    /// The sentry has the position.
    is_taken: bool,
    /// Guest code has closed it.
    is_closed: bool,
    at: u64,
}

impl ReadyFile {
    /// Lays it there. `None`: there is no such place, or its bytes cannot be read.
    pub fn new(loans: &Arc<Loans>, ready: Ready<'_>) -> Option<Arc<Self>> {
        let Ready { place, dir, name, names, attr, flags, own, contents } = ready;
        let index = loans.slot()?.ready_index();
        let at = loans.slot()?.ready(place)?;
        let words: [u64; Shared::WORDS] = padded_words(name).filter(|_| !name.is_empty())?;
        let shared = at.get();
        shared.state.store(0, SeqCst);
        let (len, is_whole, is_dir, records) = match contents {
            Contents::File(file, most) => {
                let most = most.min(at.most());
                let len = at.fill(most, file)?;
                (len, len < most, false, Box::default())
            }
            Contents::Listing(records) => {
                at.copy_in(&records)?;
                (records.len(), true, true, records)
            }
        };
        let front = &shared.file;
        write(&front.stat, attr);
        front.len.store(len as u64, Relaxed);
        front.is_whole.store(is_whole.into(), Relaxed);
        front.is_dir.store(is_dir.into(), Relaxed);
        front.is_over.store(0, Relaxed);
        shared.names.store(names, Relaxed);
        shared.dir.store(dir.into(), Relaxed);
        for (to, word) in shared.name.iter().zip(words) {
            to.store(word, Relaxed);
        }
        let generation = loans.new_generation();
        let word = Words::word(generation, Words::FIRST_READY + place as u32, 0);
        shared.loan.store(word, Relaxed);
        let state = Descriptor {
            flags,
            cloexec: false,
            is_own: true,
            device: None,
            dir: own,
            is_epoll: false,
            watched: Watched::Unknown,
        };
        shared.descriptor.store(descriptors::word(state), Relaxed);
        index.tags.get(place)?.store(Shared::tag(dir.into(), &words), Release);
        shared.state.store(generation << Shared::GENERATION_SHIFT | Shared::CLOSED, SeqCst);
        let (loans, state) = (Arc::clone(loans), Mutex::default());
        Some(Arc::new(Self { loans, at, place, generation, len, records, state }))
    }

    fn word(&self, state: &State) -> Option<&AtomicU64> {
        self.loans.slot()?.loan(state.number?)
    }

    fn own_word(&self, at: u64) -> u64 {
        Words::word(self.generation, Words::FIRST_READY + self.place as u32, at)
    }

    fn is_with_guest(state: &State) -> bool {
        state.number.is_some() && !state.is_over && !state.is_taken && !state.is_closed
    }

    /// What guest code says as a position.
    fn position(&self, claim: u64) -> u64 {
        if self.records.is_empty() {
            return claim;
        }
        let before = self.ends().take_while(|(end, _)| *end <= claim);
        before.last().map_or(0, |(_, position)| position)
    }

    /// After how many bytes of a listing the position is what.
    fn ends(&self) -> impl Iterator<Item = (u64, u64)> {
        let records = Records::new(&self.records);
        records.map(|(at, record)| ((at + dirent64_len(record.name.len())) as u64, record.next))
    }

    /// The opposite; `None`: guest code could not find it.
    fn claim(&self, position: u64) -> Option<u64> {
        if position == 0 || self.records.is_empty() {
            return Some(position).filter(|at| *at <= Words::MOST_POSITION);
        }
        self.ends().find(|(_, known)| *known == position).map(|(end, _)| end)
    }

    fn revoke(&self, state: &State) -> u64 {
        let claim = self.word(state).and_then(|word| loans::take_back(word, self.own_word(0)));
        self.position(claim.unwrap_or(0))
    }

    fn finish(&self, state: &mut State) {
        if state.is_over {
            return;
        }
        if Self::is_with_guest(state) {
            state.at = self.revoke(state);
        }
        state.is_over = true;
        let shared = self.at.get();
        shared.file.is_over.store(1, SeqCst);
        let before = shared.state.swap(0, SeqCst);
        state.was_opened = before & Shared::OPENED != 0 && state.number.is_none();
        if state.number.is_none() && !state.was_opened {
            // Nobody has asked for it, and the process may be about to lose the right to.
            self.at.wipe(self.len);
        }
    }
}

impl Lent for ReadyFile {
    fn take(&self) -> Taken {
        let mut state = self.state.lock();
        if Self::is_with_guest(&state) {
            state.at = self.revoke(&state);
        }
        state.is_taken = true;
        Taken { at: state.at, is_over: state.is_over }
    }

    fn give(&self, at: u64) -> bool {
        let mut state = self.state.lock();
        state.at = at;
        let Some(claim) = self.claim(at) else {
            self.finish(&mut state);
            return false;
        };
        if state.is_over {
            return false;
        }
        let is_given = !state.is_closed
            && self.word(&state).is_some_and(|word| loans::give_back(word, self.own_word(claim)));
        state.is_taken = !is_given;
        true
    }

    fn end(&self) {
        self.finish(&mut self.state.lock());
    }

    fn left(&self, at: u64) {
        let mut state = self.state.lock();
        if !state.is_over {
            (state.is_closed, state.at) = (true, self.position(at));
        }
    }

    fn is_over(&self) -> bool {
        self.state.lock().is_over
    }
}

impl ReadyLoan for ReadyFile {
    fn opened(&self, number: u32) {
        let mut state = self.state.lock();
        state.number = Some(number);
        state.was_opened = false;
        let is_there = self
            .word(&state)
            .is_some_and(|word| Words::are_one(word.load(SeqCst), self.own_word(0)));
        if !is_there {
            // The note about that says where it stood.
            state.is_closed = true;
        } else if state.is_over {
            state.at = self.revoke(&state);
        }
    }

    fn is_gone(&self) -> bool {
        let state = self.state.lock();
        state.is_over && !state.was_opened
    }

    fn was_opened(&self) -> bool {
        self.at.get().state.load(SeqCst) & Shared::OPENED != 0
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        self.end();
    }
}

/// Tells guest code how many lie ready, and with how few left it is to make a call.
pub fn tell_count(loans: &Loans, left: usize, low: usize) {
    if let Some(slot) = loans.slot() {
        let index = slot.ready_index();
        index.low.store(low as u32, Relaxed);
        index.left.store(left as u32, Relaxed);
    }
}

fn write(to: &[AtomicU64; STAT_BYTES / 8], bytes: &[u8; STAT_BYTES]) {
    for (to, bytes) in to.iter().zip(bytes.as_chunks().0) {
        to.store(u64::from_le_bytes(*bytes), Relaxed);
    }
}
