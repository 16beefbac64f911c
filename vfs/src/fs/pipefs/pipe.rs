//! A pipe and its ends. See pipe(7).

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use abi::ioctl::FIONREAD;
use abi::open::OpenFlags;
use abi::poll::PollEvents;
use abi::{Errno, Result, UserAddr};
use base::lock::{Mutex, MutexGuard};
use base::{Sink, Source, WaitQueue};

use super::fifo;
use super::lent::{Lending, READABLE, Shared, Tried, WRITABLE};
use super::ring::{Ring, SLOT_SIZE};
use crate::context::VfsCx;
use crate::file::{File, FileOps, UserMemory};
use crate::lock_order;

/// Slots of a new pipe: 64 KiB.
const DEFAULT_SLOTS: usize = 16;

/// `/proc/sys/fs/pipe-max-size`: the most that F_SETPIPE_SZ gives, to anyone.
pub const PIPE_MAX_SIZE: usize = 1 << 20;

/// `/proc/sys/fs/pipe-user-pages-soft`: beyond so many slots in all pipes together new ones are small and none grows.
const SOFT_LIMIT: usize = 16_384;
const SMALL_SLOTS: usize = 2;

/// Slots of all pipes; its own counter, nothing depends on its order.
static ALL_SLOTS: AtomicUsize = AtomicUsize::new(0);

/// Counts slots in, unless that would break the soft limit.
fn reserve(slots: usize) -> bool {
    let more = |all: usize| all.checked_add(slots).filter(|all| *all <= SOFT_LIMIT);
    ALL_SLOTS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

/// What both ends share.
#[derive(Debug)]
pub struct Pipe {
    pub(super) state: Mutex<State, lock_order::FileState>,
    pub(super) queue: WaitQueue,
    pub(super) lending: Lending,
    /// Device and inode of the FIFO this pipe belongs to.
    fifo: Option<(u64, u64)>,
}

#[derive(Debug)]
pub(super) struct State {
    /// All bytes, unless guest code has them: see [`super::lent`].
    pub(super) ring: Ring,
    pub(super) shared: Shared,
    pub(super) readers: u32,
    pub(super) writers: u32,
    /// How many ever were: a FIFO's opener waits for a change, so that a peer that came and went counts.
    pub(super) readers_ever: u32,
    pub(super) writers_ever: u32,
    pub(super) pace: Pace,
}

/// How writes follow each other. Those of so many bytes that come so quickly make a stream: its reader is told a little later, when there
/// is more to be read, for to wake it costs more than to write.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last_large: Option<Instant>,
    /// [`WaitQueue::hurries`] as of the last write; and so many more are told at once, because somebody had to wait.
    hurries: u32,
    at_once: u32,
}

const LARGE: usize = 2048;
const STREAM_GAP: Duration = Duration::from_millis(1);
/// For so many writes, as they came, the reader may wait, within these bounds. When what it serves blocks, the sentry tells it anyway.
const WRITES_LATER: u32 = 8;
const LEAST_PATIENCE: Duration = Duration::from_micros(100);
const MOST_PATIENCE: Duration = Duration::from_millis(2);
const AT_ONCE: u32 = 64;

impl Pace {
    /// Whether nobody had to wait for what was put off lately.
    pub(super) fn is_calm(&self, hurries: u32) -> bool {
        self.at_once == 0 && self.hurries == hurries
    }

    /// `count` bytes were written: for how long their reader may wait to be told of them, if they are part of a stream. Not where writer and
    /// reader take turns: then somebody waits in a `hurry`.
    pub(super) fn note(&mut self, count: usize, now: Instant, hurries: u32) -> Option<Duration> {
        let is_large = count >= LARGE;
        let last = std::mem::replace(&mut self.last_large, is_large.then_some(now));
        if std::mem::replace(&mut self.hurries, hurries) != hurries {
            self.at_once = AT_ONCE;
        }
        self.at_once = self.at_once.saturating_sub(1);
        let gap = now.saturating_duration_since(last.filter(|_| is_large)?);
        (gap < STREAM_GAP && self.at_once == 0)
            .then(|| (gap * WRITES_LATER).clamp(LEAST_PATIENCE, MOST_PATIENCE))
    }
}

impl State {
    /// How much later those who wait for `count` bytes that were written now may be told of them: not when the writer will soon have to wait
    /// for them.
    fn patience(&mut self, count: usize, hurries: u32) -> Option<Duration> {
        let is_early = self.ring.used_slots() <= self.ring.max_slots() / 2;
        self.patience_if(is_early, count, hurries)
    }

    pub(super) fn patience_if(
        &mut self,
        is_early: bool,
        count: usize,
        hurries: u32,
    ) -> Option<Duration> {
        let patience = self.pace.note(count, Instant::now(), hurries);
        patience.filter(|_| is_early)
    }
}

impl Pipe {
    /// A pipe without ends; `fifo` names the FIFO it stands for.
    pub(super) fn new(fifo: Option<(u64, u64)>) -> Arc<Self> {
        let slots = if reserve(DEFAULT_SLOTS) {
            DEFAULT_SLOTS
        } else {
            ALL_SLOTS.fetch_add(SMALL_SLOTS, Ordering::Relaxed);
            SMALL_SLOTS
        };
        let state = State {
            ring: Ring::new(slots),
            shared: Shared::default(),
            readers: 0,
            writers: 0,
            readers_ever: 0,
            writers_ever: 0,
            pace: Pace::default(),
        };
        let lending = Lending::new(fifo.is_none());
        Arc::new(Self { state: Mutex::new(state), queue: WaitQueue::new(), lending, fifo })
    }

    /// The state with all bytes in it: guest code makes calls from now on.
    fn recalled(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        self.lending.recall(&mut state);
        state
    }

    fn read(&self, sink: &mut dyn Sink) -> Result<usize> {
        if sink.remaining() == 0 {
            return Ok(0);
        }
        let count = {
            let mut state = self.state.lock();
            if let Some(ring) = self.lending.ring(&state) {
                match self.read_shared(&mut state, &*ring, sink) {
                    Tried::Done(result) => {
                        drop(state);
                        self.queue.notify(WRITABLE);
                        return result;
                    }
                    Tried::WouldBlock => return Err(Errno::EAGAIN),
                    Tried::LookLater => {
                        drop(state);
                        return Err(self.look_later(READABLE));
                    }
                    Tried::Over => {}
                }
            }
            if state.ring.is_empty() {
                return if state.writers == 0 { Ok(0) } else { Err(Errno::EAGAIN) };
            }
            let count = state.ring.pop(sink)?;
            if state.ring.is_empty() {
                self.queue.take_back(READABLE);
            }
            count
        };
        self.queue.notify(WRITABLE);
        Ok(count)
    }

    fn write(&self, source: &mut dyn Source, as_packets: bool) -> Result<usize> {
        if source.remaining() == 0 {
            return Ok(0);
        }
        let (count, patience) = {
            let mut state = self.state.lock();
            if state.readers == 0 {
                return Err(Errno::EPIPE);
            }
            let ring = self.lending.ring(&state);
            let tried = ring.map(|ring| self.write_shared(&mut state, &*ring, source));
            let hurries = self.queue.hurries();
            match tried.unwrap_or((Tried::Over, false)) {
                (Tried::Done(count), is_early) => {
                    let count = count?;
                    let patience = state.patience_if(is_early, count, hurries);
                    if patience.is_some() && self.queue.is_awaited(READABLE) {
                        self.lending.hold_writer(&state);
                    }
                    (count, patience)
                }
                (Tried::WouldBlock, _) => return Err(Errno::EAGAIN),
                (Tried::LookLater, _) => {
                    drop(state);
                    return Err(self.look_later(WRITABLE));
                }
                (Tried::Over, _) => match state.ring.push(source, as_packets)? {
                    0 => return Err(Errno::EAGAIN),
                    count => {
                        self.lending.count(&mut state, count);
                        (count, state.patience(count, hurries))
                    }
                },
            }
        };
        match patience {
            Some(patience) => self.queue.notify_later(READABLE, patience),
            None => self.queue.notify(READABLE),
        }
        Ok(count)
    }

    /// tee(2), one try: copies up to `len` bytes to `target` and leaves them here too.
    fn tee(&self, target: &Self, len: usize) -> Result<usize> {
        let bytes = {
            let state = self.recalled();
            if state.ring.is_empty() {
                return if state.writers == 0 { Ok(0) } else { Err(Errno::EAGAIN) };
            }
            state.ring.peek(len)
        };
        target.write(&mut &*bytes, false)
    }

    /// See [`FileOps::pipe_size`].
    fn resize(&self, new: Option<usize>) -> Result<usize> {
        let mut state = self.recalled();
        let Some(new) = new else { return Ok(state.ring.max_slots() * SLOT_SIZE) };
        if new == 0 {
            return Err(Errno::EINVAL);
        }
        if new > PIPE_MAX_SIZE {
            return Err(Errno::EPERM);
        }
        let slots = new.div_ceil(SLOT_SIZE).next_power_of_two();
        if slots < state.ring.used_slots() {
            return Err(Errno::EBUSY);
        }
        let before = state.ring.max_slots();
        match slots.checked_sub(before) {
            Some(more) if !reserve(more) => return Err(Errno::EPERM),
            Some(_) => {}
            None => drop(ALL_SLOTS.fetch_sub(before - slots, Ordering::Relaxed)),
        }
        state.ring.set_max_slots(slots);
        drop(state);
        self.queue.notify(WRITABLE);
        Ok(slots * SLOT_SIZE)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        ALL_SLOTS.fetch_sub(self.state.get_mut().ring.max_slots(), Ordering::Relaxed);
        if let Some(key) = self.fifo {
            fifo::forget(key);
        }
    }
}

/// One open description of a pipe: a read end, a write end, or both (a FIFO opened with `O_RDWR`).
#[derive(Debug)]
pub struct PipeEnd {
    pub(super) pipe: Arc<Pipe>,
    reads: bool,
    pub(super) writes: bool,
    /// Opened without a writer: no POLLHUP until one has come, which changes `writers_ever` from this.
    pub(super) quiet_until: Option<u32>,
}

impl PipeEnd {
    /// Counts itself into the pipe.
    pub(super) fn new(pipe: Arc<Pipe>, reads: bool, writes: bool) -> Self {
        {
            let mut state = pipe.recalled();
            state.readers += u32::from(reads);
            state.writers += u32::from(writes);
            state.readers_ever = state.readers_ever.wrapping_add(u32::from(reads));
            state.writers_ever = state.writers_ever.wrapping_add(u32::from(writes));
        }
        Self { pipe, reads, writes, quiet_until: None }
    }
}

impl PipeEnd {
    /// tee(2), one try: duplicates up to `len` bytes of this pipe into `target`'s.
    ///
    /// # Errors
    /// `EINVAL` for one and the same pipe; `EAGAIN` when this is empty or that is full; `EPIPE`.
    pub fn tee(&self, target: &Self, len: usize) -> Result<usize> {
        if Arc::ptr_eq(&self.pipe, &target.pipe) {
            return Err(Errno::EINVAL);
        }
        self.pipe.tee(&target.pipe, len)
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        {
            let mut state = self.pipe.recalled();
            state.readers -= u32::from(self.reads);
            state.writers -= u32::from(self.writes);
        }
        // Readers may have reached the end, writers may have lost their readers.
        let events = PollEvents::IN | PollEvents::OUT | PollEvents::HUP | PollEvents::ERR;
        self.pipe.queue.notify(events);
    }
}

impl FileOps for PipeEnd {
    fn read(&self, _: &VfsCx<'_>, _: &File, sink: &mut dyn Sink, _pos: u64) -> Result<usize> {
        self.pipe.read(sink)
    }

    fn write(&self, _: &VfsCx<'_>, file: &File, src: &mut dyn Source, _pos: u64) -> Result<usize> {
        self.pipe.write(src, file.flags().contains(OpenFlags::DIRECT))
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: &VfsCx<'_>, _: &File) -> PollEvents {
        let mut state = self.pipe.state.lock();
        self.pipe.lending.forbid(&mut state);
        let mut events = PollEvents::empty();
        if self.reads {
            if !state.ring.is_empty() {
                events |= READABLE;
            }
            if state.writers == 0 && self.quiet_until != Some(state.writers_ever) {
                events |= PollEvents::HUP;
            }
        }
        if self.writes {
            if !state.ring.is_full() {
                events |= WRITABLE;
            }
            if state.readers == 0 {
                events |= PollEvents::ERR;
            }
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.pipe.queue)
    }

    fn ioctl(
        &self,
        _: &VfsCx<'_>,
        _: &File,
        command: u32,
        arg: u64,
        memory: &dyn UserMemory,
    ) -> Result<u64> {
        if command != FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let len = self.pipe.recalled().ring.len() as u32;
        memory.write(UserAddr(arg), &len.to_ne_bytes())?;
        Ok(0)
    }

    fn pipe_size(&self, new: Option<usize>) -> Result<usize> {
        self.pipe.resize(new)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
