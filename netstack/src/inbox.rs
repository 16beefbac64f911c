//! Datagrams that have come to a socket, and the senders that wait for room.

use std::collections::VecDeque;

use abi::poll::PollEvents;
use abi::{Errno, Result};
use base::lock::Mutex;
use base::{Sink, Source, WaitQueue};

use crate::channel::{put, take_packet};
use crate::lock_order;
use crate::message::{Control, Mode, Received};

/// Datagrams that may wait: net.unix.max_dgram_qlen as systemd sets it.
const MAX_QUEUED: usize = 512;

/// Datagrams that have come.
pub struct Inbox<A>(Mutex<State<A>, lock_order::Channels>);

/// Who sends, as far as an inbox cares.
pub struct Sender<'a> {
    /// Tells senders apart.
    pub identity: usize,
    /// Told when there is room again.
    pub queue: &'a WaitQueue,
    /// Bytes that may wait, and bytes of the longest datagram.
    pub limit: usize,
}

struct State<A> {
    queue: VecDeque<Datagram<A>>,
    bytes: usize,
    is_closed: bool,
    /// Senders that found no room, by the address of their socket, and the queues to tell.
    waiting: Waiting,
}

impl<A> State<A> {
    fn await_room(&mut self, sender: &Sender<'_>) {
        if self.waiting.iter().all(|(held, _)| *held != sender.identity) {
            self.waiting.push((sender.identity, sender.queue.clone()));
        }
    }
}

struct Datagram<A> {
    data: Vec<u8>,
    from: A,
    control: Control,
}

impl<A: Clone> Inbox<A> {
    pub fn new() -> Self {
        let (queue, waiting) = (VecDeque::new(), Vec::new());
        Self(Mutex::new(State { queue, bytes: 0, is_closed: false, waiting }))
    }

    pub fn has_data(&self) -> bool {
        !self.0.lock().queue.is_empty()
    }

    /// Bytes of the datagram that comes next, for FIONREAD.
    pub fn next_len(&self) -> usize {
        self.0.lock().queue.front().map_or(0, |first| first.data.len())
    }

    pub fn is_closed(&self) -> bool {
        self.0.lock().is_closed
    }

    /// True when a sender need not wait; else `sender` is told when that changes.
    pub fn has_room(&self, sender: &Sender<'_>) -> bool {
        let mut state = self.0.lock();
        let has_room = state.queue.len() < MAX_QUEUED;
        if !has_room {
            state.await_room(sender);
        }
        has_room
    }

    /// No more datagrams are taken; returns the senders to tell.
    pub fn close(&self) -> Waiting {
        let mut state = self.0.lock();
        state.is_closed = true;
        std::mem::take(&mut state.waiting)
    }

    /// Drops what has come and tells senders that there is nobody any more.
    pub fn abandon(&self) {
        let (dropped, waiting) = {
            let mut state = self.0.lock();
            state.is_closed = true;
            (std::mem::take(&mut state.queue), std::mem::take(&mut state.waiting))
        };
        drop(dropped);
        tell(&waiting);
    }

    /// Puts one datagram in; `EPIPE` when none are taken any more.
    pub fn push(
        &self,
        source: &mut dyn Source,
        from: A,
        control: Control,
        sender: &Sender<'_>,
    ) -> Result<usize> {
        let limit = sender.limit;
        let length = source.remaining();
        if length > limit {
            return Err(Errno::EMSGSIZE);
        }
        {
            let mut state = self.0.lock();
            if state.is_closed {
                return Err(Errno::EPIPE);
            }
            let is_full = state.queue.len() >= MAX_QUEUED
                || (!state.queue.is_empty() && state.bytes + length > limit);
            if is_full {
                state.await_room(sender);
                return Err(Errno::EAGAIN);
            }
        }
        let data = take_packet(source)?;
        let mut state = self.0.lock();
        if state.is_closed {
            return Err(Errno::EPIPE);
        }
        state.bytes += length;
        state.queue.push_back(Datagram { data, from, control });
        Ok(length)
    }

    /// Takes the next one, cutting off what does not fit; nothing, without control, when closed and empty.
    pub fn pop(&self, sink: &mut dyn Sink, mode: Mode) -> Result<Received<A>> {
        let (received, waiting) = {
            let mut state = self.0.lock();
            let is_closed = state.is_closed;
            let Some(first) = state.queue.front_mut() else {
                return if is_closed { Ok(Received::default()) } else { Err(Errno::EAGAIN) };
            };
            let bytes = put(sink, &first.data)?;
            let full = first.data.len();
            if mode == Mode::Peek {
                let control = Some(first.control.clone());
                return Ok(Received { bytes, full, from: Some(first.from.clone()), control });
            }
            let taken = state.queue.pop_front();
            state.bytes -= full;
            let (from, control) = taken.map(|taken| (taken.from, taken.control)).unzip();
            (Received { bytes, full, from, control }, std::mem::take(&mut state.waiting))
        };
        tell(&waiting);
        Ok(received)
    }
}

pub type Waiting = Vec<(usize, WaitQueue)>;

pub fn tell(waiting: &Waiting) {
    for (_, queue) in waiting {
        queue.notify(PollEvents::OUT | PollEvents::WRNORM);
    }
}
