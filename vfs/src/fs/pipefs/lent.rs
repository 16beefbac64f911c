//! Pipes whose bytes guest code writes and reads by itself (`base::shared_ring`).
//!
//! A pipe that has streamed for a while, with one end here and one end there, is lent in steps, each in a call that has moved bytes: the
//! writer joins a ring; when it comes back it has mapped that, and the ring is sealed; the reader joins; when that comes back, all bytes move
//! into the ring. From then on both make calls only for what the ring cannot take or give, and these are carried out here, on the ring.
//! Everything else that is asked of the pipe takes the bytes back first, and so does whatever ends the loan of one of the descriptors.
//!
//! Whoever waits has the other end make calls again: at once, or, in a stream, only when half of the ring is full (or free); then it looks
//! itself a little later, and if nothing has happened by then, the next transfer of the other end is a call.
//!
//! As Linux counts pages, and this counts bytes, writes that fill pages badly find more room while a pipe is lent. Bytes that fit a ring fit
//! the pages of its pipe.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use abi::poll::PollEvents;
use abi::{Errno, Result};
use base::shared_ring::{Progress, SharedRing};
use base::{Sink, Source};

use super::pipe::{Pipe, PipeEnd, State};
use super::ring::SLOT_SIZE;

/// So many bytes make a stream, at first, and after each loan that has ended.
const FIRST_STREAM: u64 = 256 << 10;
const MORE: u64 = 4;
const MOST_STREAM: u64 = 1 << 30;
/// Smaller rings would not spare calls.
const LEAST_SLOTS: usize = 16;
/// When who waits looks itself.
const PATIENCE: Duration = Duration::from_millis(1);

/// What who reads waits for, and who writes.
pub(super) const READABLE: PollEvents = PollEvents::IN.union(PollEvents::RDNORM);
pub(super) const WRITABLE: PollEvents = PollEvents::OUT.union(PollEvents::WRNORM);

/// Values of [`Lending::stage`].
mod stage {
    pub const NEVER: u8 = 0;
    pub const COUNTING: u8 = 1;
    pub const WANTED: u8 = 2;
    pub const OFFERED: u8 = 3;
    pub const SEALED: u8 = 4;
    pub const JOINED: u8 = 5;
    pub const BEGUN: u8 = 6;
}

/// How far a pipe is on the way to being lent.
#[derive(Debug)]
pub(super) struct Lending {
    /// Changed under the pipe's lock; without it a hint.
    stage: AtomicU8,
}

/// The same, under the pipe's lock.
#[derive(Debug, Default)]
pub(super) struct Shared {
    ring: Option<Arc<dyn SharedRing>>,
    streamed: u64,
    /// Loans that have ended, or came to nothing.
    ended: u32,
    /// Where the ring was when somebody began to wait that it goes on.
    awaited_write: Option<u64>,
    awaited_read: Option<u64>,
}

/// What is next to be done to lend a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LendingStep {
    /// The writer is to join a ring of so many bytes: [`PipeEnd::offer`].
    Offer,
    /// The writer has joined: [`PipeEnd::seal`].
    Seal,
    /// The reader is to join: [`PipeEnd::joined`].
    Join,
    /// It has: [`PipeEnd::begin`].
    Begin,
}

impl Lending {
    pub fn new(may: bool) -> Self {
        Self { stage: AtomicU8::new(if may { stage::COUNTING } else { stage::NEVER }) }
    }

    fn stage(&self) -> u8 {
        self.stage.load(Ordering::Relaxed)
    }

    fn set(&self, stage: u8) {
        self.stage.store(stage, Ordering::Relaxed);
    }

    /// Bytes were written by a call.
    pub fn count(&self, state: &mut State, bytes: usize) {
        if self.stage() != stage::COUNTING {
            return;
        }
        let shared = &mut state.shared;
        shared.streamed = shared.streamed.saturating_add(bytes as u64);
        let enough = FIRST_STREAM.saturating_mul(MORE.saturating_pow(shared.ended));
        if shared.streamed >= enough.min(MOST_STREAM) && state.is_simple() {
            self.set(stage::WANTED);
        }
    }

    /// It is to be polled: who does that wants to be told more than transfers by guest code tell.
    pub fn forbid(&self, state: &mut State) {
        self.recall(state);
        self.set(stage::NEVER);
    }

    /// Ends a loan, or the preparations for one, and takes the bytes back.
    pub fn recall(&self, state: &mut State) {
        if self.stage() <= stage::COUNTING {
            return;
        }
        let was_begun = self.stage() == stage::BEGUN;
        self.set(stage::COUNTING);
        let ring = state.shared.ring.take();
        state.shared = Shared { ended: state.shared.ended.saturating_add(1), ..Shared::default() };
        let Some(ring) = ring else { return };
        ring.end();
        if was_begun {
            // There was nothing else in it, so that all find room; and they are ours.
            let _ = state.ring.push(&mut &*ring.rest(), false);
        }
    }

    /// The reader is told later, but when half of the ring is full: the writer is to make a call for that.
    pub fn hold_writer(&self, state: &State) {
        if let Some(ring) = self.ring(state) {
            // What is over has calls anyway.
            let _ = ring.hold_writer(ring.capacity() / 2);
        }
    }

    /// The ring that has the bytes now.
    pub fn ring(&self, state: &State) -> Option<Arc<dyn SharedRing>> {
        (self.stage() == stage::BEGUN).then(|| state.shared.ring.clone())?
    }
}

impl State {
    /// One end reads, one writes, and it is large enough.
    fn is_simple(&self) -> bool {
        self.readers == 1 && self.writers == 1 && self.ring.max_slots() >= LEAST_SLOTS
    }

    fn capacity(&self) -> usize {
        self.ring.max_slots() * SLOT_SIZE
    }
}

/// What came of a try on a shared ring.
pub(super) enum Tried {
    Done(Result<usize>),
    /// The ring is over, and its bytes are where they belong.
    Over,
    /// Nothing; the caller, if it waits, looks later in any case.
    LookLater,
    /// Nothing; who waits is told.
    WouldBlock,
}

impl Pipe {
    /// [`Pipe::read`], of bytes that are in a shared ring.
    pub(super) fn read_shared(
        &self,
        state: &mut State,
        ring: &dyn SharedRing,
        sink: &mut dyn Sink,
    ) -> Tried {
        while let Some(bytes) = ring.peek(sink.remaining()) {
            if !bytes.is_empty() {
                let put = sink.put(&bytes);
                let count = *put.as_ref().unwrap_or(&0);
                if !ring.advance(count) {
                    self.lending.recall(state);
                    state.ring.skip(count);
                }
                return Tried::Done(put);
            }
            if !self.queue.is_awaited(READABLE) {
                return Tried::WouldBlock;
            }
            let Some(Progress { written, .. }) = ring.progress() else { break };
            let is_first = state.shared.awaited_write.replace(written) != Some(written);
            let is_later = is_first && state.pace.is_calm(self.queue.hurries());
            let most = if is_later { ring.capacity() / 2 } else { 0 };
            let Some(held) = ring.hold_writer(most) else { break };
            if held.is_empty() {
                return if is_later { Tried::LookLater } else { Tried::WouldBlock };
            }
        }
        self.lending.recall(state);
        Tried::Over
    }

    /// [`Pipe::write`], into a shared ring; `Done` has how many bytes are in it then, and how many came.
    pub(super) fn write_shared(
        &self,
        state: &mut State,
        ring: &dyn SharedRing,
        source: &mut dyn Source,
    ) -> (Tried, bool) {
        let total = source.remaining();
        while let Some(now) = ring.progress() {
            let room = ring.capacity().saturating_sub(now.len());
            if total <= room || total > SLOT_SIZE && room >= SLOT_SIZE {
                let bytes = match take_all(source, total.min(room)) {
                    Ok(bytes) => bytes,
                    Err(errno) => return (Tried::Done(Err(errno)), false),
                };
                if !ring.put(&bytes) {
                    self.lending.recall(state);
                    // Of a ring that a guest broke perhaps not all find room, and are lost with it.
                    let _ = state.ring.push(&mut &*bytes, false);
                }
                let is_early = now.len() + bytes.len() <= ring.capacity() / 2;
                return (Tried::Done(Ok(bytes.len())), is_early);
            }
            if !self.queue.is_awaited(WRITABLE) {
                return (Tried::WouldBlock, false);
            }
            let is_first = state.shared.awaited_read.replace(now.read) != Some(now.read);
            let is_later = is_first && state.pace.is_calm(self.queue.hurries());
            let most = if is_later { ring.capacity() / 2 } else { 0 };
            let Some(held) = ring.hold_reader(most) else { break };
            if held.len() >= now.len() {
                return (if is_later { Tried::LookLater } else { Tried::WouldBlock }, false);
            }
        }
        self.lending.recall(state);
        (Tried::Over, false)
    }

    /// For who waits without being told of each transfer.
    pub(super) fn look_later(&self, events: PollEvents) -> Errno {
        self.queue.look_later(events, PATIENCE);
        Errno::EAGAIN
    }
}

/// `count` bytes of a source, or those before one that cannot be taken.
fn take_all(source: &mut dyn Source, count: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match source.take(rest) {
            Ok(0) => break,
            Ok(got) => done += got,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

impl PipeEnd {
    /// What this end is to do next, when it has moved bytes by a call.
    #[must_use]
    pub fn lending_step(&self) -> Option<LendingStep> {
        match (self.pipe.lending.stage(), self.writes) {
            (stage::WANTED, true) => Some(LendingStep::Offer),
            (stage::OFFERED, true) => Some(LendingStep::Seal),
            (stage::SEALED, false) => Some(LendingStep::Join),
            (stage::JOINED, false) => Some(LendingStep::Begin),
            _ => None,
        }
    }

    /// Bytes of a ring for the pipe.
    #[must_use]
    pub fn ring_size(&self) -> usize {
        self.pipe.state.lock().capacity()
    }

    /// The writer is to join this ring; `None`: it cannot.
    pub fn offer(&self, ring: Option<Arc<dyn SharedRing>>) {
        let lending = &self.pipe.lending;
        let mut state = self.pipe.state.lock();
        if lending.stage() != stage::WANTED || ring.is_none() {
            lending.recall(&mut state);
        } else {
            state.shared.ring = ring;
            lending.set(stage::OFFERED);
        }
    }

    /// The writer has mapped the ring: nobody else is to write it.
    pub fn seal(&self) {
        self.step(stage::OFFERED, stage::SEALED, |_, ring| ring.seal());
    }

    /// The ring that the reader is to join.
    #[must_use]
    pub fn offered(&self) -> Option<Arc<dyn SharedRing>> {
        let state = self.pipe.state.lock();
        (self.pipe.lending.stage() == stage::SEALED).then(|| state.shared.ring.clone())?
    }

    /// It is about to map it, or cannot.
    pub fn joined(&self, has_joined: bool) {
        self.step(stage::SEALED, stage::JOINED, |_, _| has_joined);
    }

    /// It has mapped it.
    pub fn begin(&self) {
        self.step(stage::JOINED, stage::BEGUN, |state, ring| {
            let is_fit = state.is_simple()
                && state.capacity() == ring.capacity()
                && !state.ring.has_packets();
            let has_begun = is_fit && ring.begin(&state.ring.peek(usize::MAX));
            if has_begun {
                state.ring.skip(state.ring.len());
            }
            has_begun
        });
    }

    /// One step on, or the end of it.
    fn step(&self, from: u8, to: u8, does: impl FnOnce(&mut State, &Arc<dyn SharedRing>) -> bool) {
        let lending = &self.pipe.lending;
        let mut state = self.pipe.state.lock();
        if lending.stage() != from {
            return;
        }
        let ring = state.shared.ring.clone();
        if ring.is_some_and(|ring| does(&mut state, &ring)) {
            lending.set(to);
        } else {
            lending.recall(&mut state);
        }
    }
}
