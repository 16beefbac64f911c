//! Datagrams: every socket has an inbox, and senders put into it.

use std::collections::VecDeque;
use std::sync::Arc;

use abi::poll::PollEvents;
use abi::{Errno, Result};
use base::lock::Mutex;
use base::{Sink, Source, WaitQueue};

use super::address::Address;
use super::channel::{put, take_packet};
use super::socket::UnixSocket;
use super::{Control, Mode, Received};
use crate::lock_order;

/// Datagrams that may wait: net.unix.max_dgram_qlen as systemd sets it.
const MAX_QUEUED: usize = 512;

/// Datagrams that have come.
pub struct Inbox(Mutex<State, lock_order::UnixChannels>);

#[derive(Default)]
struct State {
    queue: VecDeque<Datagram>,
    bytes: usize,
    is_closed: bool,
    /// Senders that found no room, by the address of their socket, and the queues to tell.
    waiting: Waiting,
}

impl State {
    fn await_room(&mut self, sender: &UnixSocket) {
        let identity = std::ptr::from_ref(sender).addr();
        if self.waiting.iter().all(|(held, _)| *held != identity) {
            self.waiting.push((identity, sender.wait_queue().clone()));
        }
    }
}

struct Datagram {
    data: Vec<u8>,
    from: Address,
    control: Control,
}

impl Inbox {
    pub fn new() -> Self {
        Self(Mutex::default())
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
    pub fn has_room(&self, sender: &UnixSocket) -> bool {
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

    fn push(
        &self,
        source: &mut dyn Source,
        from: Address,
        control: Control,
        sender: &UnixSocket,
    ) -> Result<usize> {
        let limit = sender.send_buffer();
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

    fn pop(&self, sink: &mut dyn Sink, mode: Mode) -> Result<Received> {
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
            let control = Some(std::mem::take(&mut first.control));
            let from = Some(std::mem::take(&mut first.from));
            state.queue.pop_front();
            state.bytes -= full;
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

impl UnixSocket {
    /// Sends one datagram to `to`, or to the peer.
    ///
    /// # Errors
    /// `ENOTCONN`, `ECONNREFUSED` when the peer is gone, `EPERM` when it listens to another one, `EPIPE`,
    /// `EPROTOTYPE`, `EAGAIN`, `EMSGSIZE`, `EFAULT`.
    pub fn send_to(
        &self,
        source: &mut dyn Source,
        control: &Control,
        to: Option<&Arc<Self>>,
    ) -> Result<usize> {
        if self.is_shut_for_writing() {
            return Err(Errno::EPIPE);
        }
        let peer = match to {
            Some(to) => Arc::clone(to),
            None => self.datagram_peer()?,
        };
        let inbox = peer.inbox().ok_or(Errno::EPROTOTYPE)?;
        if !peer.listens_to(self) {
            return Err(Errno::EPERM);
        }
        let count = inbox.push(source, self.address(), control.clone(), self)?;
        peer.wait_queue().notify(PollEvents::IN | PollEvents::RDNORM);
        Ok(count)
    }

    /// Receives one datagram.
    ///
    /// # Errors
    /// `EAGAIN`, `EFAULT`.
    pub fn receive_from(&self, sink: &mut dyn Sink, mode: Mode) -> Result<Received> {
        self.inbox().ok_or(Errno::EOPNOTSUPP)?.pop(sink, mode)
    }
}
