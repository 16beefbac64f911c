//! Rings of pipes that guests write and read by themselves (`shim/src/pipes.rs`).
//!
//! The bytes lie in memory that the writer's process has mapped to write, and the reader's, once it was sealed against that, to read.
//! How far the writer is it says behind them, where the reader sees it; how far the reader is this says in its own process's channel, which
//! nobody else sees but the sentry. How far each may go the sentry says in that end's channel. What they say is checked against it:
//!
//! * `read <= written <= may_write <= read + capacity`, and `read <= may_read`, of which `read` and `written` only rise. Who says something else
//!   ends the ring, and nothing of it is believed.
//! * A limit is raised by a store. It is lowered by a store, and a change of the end's word after it: a transfer that began under the old
//!   limit is either in the word by then, or fails. The same takes a ring back for good.
//! * A place is used again when its ring is over, in a call of the process's only thread, and a ring that is over is never begun again.

use std::any::Any;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use base::lent::{Lent, Taken};
use base::shared_ring::{Progress, SharedRing};
use parking_lot::Mutex;
use shim_abi::{MOST_STREAM, Streams};

use super::region::SlotRef;
use super::stream_memory::StreamMemory;
use crate::HostOp;

/// Rings of all guests.
const MOST_RINGS: usize = 16;
static RINGS: AtomicUsize = AtomicUsize::new(0);

/// Which rings have the places of a process.
#[derive(Debug, Default)]
pub struct StreamPlaces(Mutex<[Option<Weak<dyn SharedRing>>; Streams::COUNT]>);

impl StreamPlaces {
    /// See [`crate::AddressSpace::join_ring`]. `slot` has the process's [`Streams`].
    pub fn join(
        &self,
        slot: &SlotRef,
        ring: &Arc<dyn SharedRing>,
        number: u32,
        writes: bool,
    ) -> Option<HostOp> {
        let known: &dyn Any = &**ring;
        let own = known.downcast_ref::<Ring>()?;
        let is_free = |holder: &Option<Weak<dyn SharedRing>>| {
            let ring = holder.as_ref().and_then(Weak::upgrade);
            ring.is_none_or(|ring| ring.is_over())
        };
        let mut places = self.0.lock();
        let place = places.iter().position(is_free)?;
        let op = own.join(slot, place, number, writes)?;
        *places.get_mut(place)? = Some(Arc::downgrade(ring));
        Some(op)
    }
}

/// A pipe's bytes.
#[derive(Debug)]
pub struct Ring {
    memory: Arc<StreamMemory>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    writer: End,
    reader: End,
    is_sealed: bool,
    /// Changes of words by us.
    changes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Joining,
    Begun,
    Over,
}

/// What we know of an end.
#[derive(Debug, Default)]
struct End {
    seat: Option<Seat>,
    at: u64,
    limit: u64,
}

/// Its place among the [`Streams`] of its process.
#[derive(Debug)]
struct Seat {
    slot: SlotRef,
    place: usize,
    /// Where the writer's word is.
    head: Option<Arc<StreamMemory>>,
}

impl Seat {
    fn word(&self) -> Option<&AtomicU64> {
        match &self.head {
            Some(memory) => Some(memory.head()),
            None => self.slot.streams().words.get(self.place),
        }
    }

    fn limit(&self) -> Option<&AtomicU64> {
        self.slot.streams().limits.get(self.place)
    }
}

impl End {
    /// Where it is, by its word; `None`: it says what cannot be.
    fn check(&mut self, word: u64) -> Option<()> {
        let at = Streams::position(word);
        let is_possible = word & Streams::LENT != 0 && (self.at..=self.limit).contains(&at);
        self.at = if is_possible { at } else { return None };
        Some(())
    }

    fn look(&mut self) -> Option<()> {
        let word = self.seat.as_ref()?.word()?.load(Ordering::Acquire);
        self.check(word)
    }

    /// Until it is given back its guest makes calls.
    fn take(&mut self) -> Option<()> {
        let word = self.seat.as_ref()?.word()?.swap(0, Ordering::SeqCst);
        self.check(word)
    }

    fn give(&self, changes: u64) -> Option<()> {
        let word = Streams::word(changes, self.at);
        self.seat.as_ref()?.word()?.store(word, Ordering::SeqCst);
        Some(())
    }

    fn raise(&mut self, limit: u64) -> Option<()> {
        self.limit = limit;
        self.seat.as_ref()?.limit()?.store(limit, Ordering::SeqCst);
        Some(())
    }

    /// Guest code does not find it any more.
    fn leave(&self) {
        let ends = self.seat.as_ref().map(|seat| (&seat.slot.streams().ends, seat.place));
        if let Some(end) = ends.and_then(|(ends, place)| ends.get(place)) {
            end.store(0, Ordering::SeqCst);
        }
    }

    /// Where it is when the limit is `limit`, or where it is if that is further.
    fn lower(&mut self, limit: u64, changes: u64) -> Option<()> {
        self.take()?;
        self.raise(limit.max(self.at))?;
        self.give(changes)
    }
}

impl State {
    fn progress(&self) -> Progress {
        Progress { read: self.reader.at, written: self.writer.at }
    }

    /// Looks where both are.
    fn look(&mut self) -> Option<Progress> {
        if self.phase != Phase::Begun {
            return None;
        }
        // In this order: what is read is written by then.
        let looked = self.reader.look().and_then(|()| self.writer.look());
        let is_possible = looked.is_some() && self.reader.at <= self.writer.at;
        if !is_possible || self.writer.at > Streams::MOST_POSITION / 2 {
            self.end();
            return None;
        }
        Some(self.progress())
    }

    /// Both may go on as far as there is something to do.
    fn open(&mut self, capacity: usize) -> Option<()> {
        self.writer.raise(self.reader.at + capacity as u64)?;
        self.reader.raise(Streams::MOST_POSITION)
    }

    fn next_change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    /// What is done to an end may show that its guest says what cannot be.
    fn expect<T>(&mut self, done: Option<T>) -> Option<T> {
        if done.is_none() {
            self.end();
        }
        done
    }

    fn end(&mut self) {
        if self.phase == Phase::Over {
            return;
        }
        if self.phase == Phase::Begun {
            // Both, whatever the first one says.
            let (reader, writer) = (self.reader.take(), self.writer.take());
            if reader.and(writer).is_none() || self.reader.at > self.writer.at {
                tracing::warn!("a guest broke the ring of its pipe, whose bytes are lost");
                self.reader.at = self.writer.at;
            }
        }
        self.reader.leave();
        self.writer.leave();
        self.phase = Phase::Over;
    }
}

impl Ring {
    pub fn new(capacity: usize) -> Option<Arc<Self>> {
        if !capacity.is_power_of_two() || capacity as u64 > MOST_STREAM {
            return None;
        }
        let more = |rings: usize| (rings < MOST_RINGS).then_some(rings + 1);
        RINGS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        let Ok(memory) = StreamMemory::new(capacity) else {
            RINGS.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        let state = State {
            phase: Phase::Joining,
            writer: End::default(),
            reader: End::default(),
            is_sealed: false,
            changes: 0,
        };
        Some(Arc::new(Self { memory: Arc::new(memory), state: Mutex::new(state) }))
    }

    fn join(&self, slot: &SlotRef, place: usize, number: u32, writes: bool) -> Option<HostOp> {
        let mut state = self.state.lock();
        let is_due = state.phase == Phase::Joining && state.is_sealed != writes;
        let end = if writes { &mut state.writer } else { &mut state.reader };
        if !is_due || end.seat.is_some() {
            return None;
        }
        let head = writes.then(|| Arc::clone(&self.memory));
        let seat = Seat { slot: slot.clone(), place, head };
        let streams = slot.streams();
        // Nothing is there yet, whatever the guest has written.
        seat.word()?.store(0, Ordering::SeqCst);
        streams.sizes.get(place)?.store(self.memory.len() as u64, Ordering::Relaxed);
        streams.ends.get(place)?.store(Streams::end(number, writes), Ordering::Relaxed);
        end.seat = Some(seat);
        let (fd, len) = (Arc::clone(self.memory.fd()), self.memory.len_with_head());
        Some(HostOp::MapRing { fd, place, len, writes })
    }

    fn hold(&self, writes: bool, most: usize) -> Option<Progress> {
        let mut state = self.state.lock();
        let now = state.look()?;
        let most = most.min(self.memory.len()) as u64;
        let changes = state.next_change();
        let held = if writes {
            state.writer.lower(now.read + most, changes)
        } else {
            state.reader.lower(now.read + most, changes)
        };
        state.expect(held)?;
        // Those that the other end has got ready meanwhile, too.
        state.look()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.state.get_mut().end();
        RINGS.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lent for Ring {
    fn take(&self) -> Taken {
        Taken { at: 0, is_over: self.is_over() }
    }

    fn give(&self, _: u64) -> bool {
        !self.is_over()
    }

    fn end(&self) {
        self.state.lock().end();
    }

    fn is_over(&self) -> bool {
        self.state.lock().phase == Phase::Over
    }
}

impl SharedRing for Ring {
    fn capacity(&self) -> usize {
        self.memory.len()
    }

    fn begin(&self, bytes: &[u8]) -> bool {
        let mut state = self.state.lock();
        let has_room = bytes.len() <= self.memory.len();
        let are_joined = state.writer.seat.is_some() && state.reader.seat.is_some();
        if state.phase != Phase::Joining || !has_room || !are_joined {
            return false;
        }
        self.memory.copy_in(0, bytes);
        state.writer.at = bytes.len() as u64;
        let changes = state.next_change();
        let opened = state.open(self.memory.len());
        let begun = opened.and(state.writer.give(changes)).and(state.reader.give(changes));
        state.phase = Phase::Begun;
        state.expect(begun).is_some()
    }

    fn seal(&self) -> bool {
        let mut state = self.state.lock();
        state.is_sealed = state.phase == Phase::Joining
            && state.writer.seat.is_some()
            && self.memory.seal().is_ok();
        state.is_sealed
    }

    fn progress(&self) -> Option<Progress> {
        self.state.lock().look()
    }

    fn put(&self, bytes: &[u8]) -> bool {
        let mut state = self.state.lock();
        let put = |state: &mut State| {
            state.look()?;
            state.writer.take()?;
            let left = self.memory.len().checked_sub(state.progress().len() + bytes.len());
            left?;
            self.memory.copy_in(state.writer.at, bytes);
            state.writer.at += bytes.len() as u64;
            let changes = state.next_change();
            state.open(self.memory.len())?;
            state.writer.give(changes)
        };
        let done = put(&mut state);
        state.expect(done).is_some()
    }

    fn peek(&self, most: usize) -> Option<Vec<u8>> {
        let mut state = self.state.lock();
        let now = state.look()?;
        let mut bytes = vec![0; now.len().min(most)];
        self.memory.copy_out(now.read, &mut bytes);
        Some(bytes)
    }

    fn advance(&self, count: usize) -> bool {
        let mut state = self.state.lock();
        let advance = |state: &mut State| {
            state.look()?;
            state.reader.take()?;
            state.progress().len().checked_sub(count)?;
            state.reader.at += count as u64;
            let changes = state.next_change();
            state.open(self.memory.len())?;
            state.reader.give(changes)
        };
        let done = advance(&mut state);
        state.expect(done).is_some()
    }

    fn hold_writer(&self, most: usize) -> Option<Progress> {
        self.hold(true, most)
    }

    fn hold_reader(&self, most: usize) -> Option<Progress> {
        self.hold(false, most)
    }

    fn rest(&self) -> Vec<u8> {
        let state = self.state.lock();
        if state.phase != Phase::Over {
            return Vec::new();
        }
        let mut bytes = vec![0; state.progress().len().min(self.memory.len())];
        self.memory.copy_out(state.reader.at, &mut bytes);
        bytes
    }
}
