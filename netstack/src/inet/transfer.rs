//! Sending, receiving, readiness.

use std::net::SocketAddr;

use abi::poll::PollEvents;
use abi::{Errno, Result};
use base::{Sink, Source};

use super::Received;
use super::socket::{InetSocket, Kind, Role};
use crate::message::{Control, Mode};

const READABLE: PollEvents = PollEvents::IN.union(PollEvents::RDNORM);
const WRITABLE: PollEvents = PollEvents::OUT.union(PollEvents::WRNORM);
/// For a change that concerns whoever waits for anything.
pub(super) const EVERYTHING: PollEvents =
    READABLE.union(WRITABLE).union(PollEvents::HUP).union(PollEvents::RDHUP);
/// Bytes of the longest UDP datagram over IPv4.
const MAX_DATAGRAM: usize = 65_507;

impl InetSocket {
    /// Sends: over the connection, or one datagram to `to` or the peer.
    ///
    /// # Errors
    /// `EPIPE` (a stream's sender then gets SIGPIPE), `EAGAIN`, `EDESTADDRREQ`, `EMSGSIZE`, `ENETUNREACH`,
    /// `ECONNREFUSED` when the datagram before found nobody, `EFAULT`.
    pub fn send(&self, source: &mut dyn Source, to: Option<SocketAddr>) -> Result<usize> {
        match self.kind() {
            Kind::Stream => self.send_bytes(source),
            Kind::Datagram => self.send_datagram(source, to),
        }
    }

    fn send_bytes(&self, source: &mut dyn Source) -> Result<usize> {
        let link = self.link.get().ok_or(Errno::EPIPE)?;
        if source.remaining() == 0 {
            return if link.outgoing.status().is_closed { Err(Errno::EPIPE) } else { Ok(0) };
        }
        let count = link.outgoing.push_bytes(source, &mut Control::default())?;
        link.peer_queue.notify(READABLE);
        Ok(count)
    }

    fn send_datagram(&self, source: &mut dyn Source, to: Option<SocketAddr>) -> Result<usize> {
        let peer = {
            let mut state = self.state.lock();
            if let Some(error) = state.error.take() {
                return Err(error);
            }
            if state.is_shut_for_writing {
                return Err(Errno::EPIPE);
            }
            state.peer
        };
        let to = match to {
            Some(to) => self.route(to)?,
            None => peer.ok_or(Errno::EDESTADDRREQ)?,
        };
        let length = source.remaining();
        if length > MAX_DATAGRAM {
            return Err(Errno::EMSGSIZE);
        }
        self.bind_auto()?;
        let from = self.source_for(to);
        for receiver in self.ports.find(Kind::Datagram, to) {
            let Some(inbox) = &receiver.inbox else { continue };
            if receiver.state.lock().peer.is_some_and(|peer| peer != from) {
                continue;
            }
            // What finds no room is lost, as is what comes to a socket that does not listen any more.
            return match inbox.push(source, from, Control::default(), &self.sender()) {
                Ok(count) => {
                    receiver.queue.notify(READABLE);
                    Ok(count)
                }
                Err(Errno::EAGAIN | Errno::EPIPE) => Ok(length),
                Err(error) => Err(error),
            };
        }
        // Nobody there: only a socket with a peer hears of it.
        if peer.is_some() {
            self.state.lock().error = Some(Errno::ECONNREFUSED);
            self.queue.notify(PollEvents::ERR);
        }
        Ok(length)
    }

    /// Receives: over the connection, or one datagram.
    ///
    /// # Errors
    /// `ENOTCONN`, `EAGAIN`, `ECONNRESET`, `ECONNREFUSED`, `EFAULT`.
    pub fn receive(&self, sink: &mut dyn Sink, mode: Mode) -> Result<Received> {
        if let Some(inbox) = &self.inbox {
            if let Some(error) = self.state.lock().error.take() {
                return Err(error);
            }
            let mut received = inbox.pop(sink, mode)?;
            received.from = received.from.map(|from| self.written(from));
            return Ok(received);
        }
        let link = self.link.get().ok_or(Errno::ENOTCONN)?;
        let received: Received = match link.incoming.pop_bytes(sink, mode) {
            Err(Errno::EAGAIN) if self.state.lock().is_shut_for_reading => Received::default(),
            other => other?,
        };
        if mode == Mode::Take && received.control.is_some() && link.incoming.status().has_room {
            link.peer_queue.notify(WRITABLE);
        }
        Ok(received)
    }

    /// What would not block now, as tcp_poll and udp_poll of Linux tell it.
    #[must_use]
    pub fn poll(&self) -> PollEvents {
        let mut events = PollEvents::empty();
        let (is_read_shut, is_write_shut) = {
            let state = self.state.lock();
            if state.error.is_some() {
                events |= PollEvents::ERR;
            }
            if let Role::Listening(listener) = &state.role {
                return if listener.pending.is_empty() { events } else { events | READABLE };
            }
            (state.is_shut_for_reading, state.is_shut_for_writing)
        };
        if let Some(inbox) = &self.inbox {
            if inbox.has_data() {
                events |= READABLE;
            }
            if is_read_shut {
                events |= READABLE | PollEvents::RDHUP;
            }
            if is_read_shut && is_write_shut {
                events |= PollEvents::HUP;
            }
            return events | WRITABLE;
        }
        let Some(link) = self.link.get() else { return events | PollEvents::HUP | WRITABLE };
        let (incoming, outgoing) = (link.incoming.status(), link.outgoing.status());
        if incoming.is_reset {
            events |= PollEvents::ERR;
        }
        let is_read_end = incoming.is_closed || is_read_shut;
        if is_read_end {
            events |= READABLE | PollEvents::RDHUP;
        }
        if is_read_end && outgoing.is_closed {
            events |= PollEvents::HUP;
        }
        if incoming.has_data {
            events |= READABLE;
        }
        if outgoing.has_room || outgoing.is_closed {
            events |= WRITABLE;
        }
        events
    }

    /// Bytes that one read would give at most, for FIONREAD.
    #[must_use]
    pub fn unread(&self) -> usize {
        match (self.link.get(), &self.inbox) {
            (Some(link), _) => link.incoming.status().bytes,
            (None, Some(inbox)) => inbox.next_len(),
            (None, None) => 0,
        }
    }

    /// Bytes sent and not yet read, for SIOCOUTQ.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.link.get().map_or(0, |link| link.outgoing.status().bytes)
    }
}
