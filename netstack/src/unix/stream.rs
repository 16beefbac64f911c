//! Sending and receiving over a connection: stream and seqpacket sockets.

use std::sync::Arc;

use abi::poll::PollEvents;
use abi::socket::Ucred;
use abi::{Errno, Result};
use base::{Sink, Source, WaitQueue};

use super::address::Address;
use super::socket::{Kind, UnixSocket};
use super::{Control, Mode, Received, Shutdown};
use crate::channel::Channel;

const READABLE: PollEvents = PollEvents::IN.union(PollEvents::RDNORM);
const WRITABLE: PollEvents = PollEvents::OUT.union(PollEvents::WRNORM);
/// For a change that concerns whoever waits for anything.
pub const EVERYTHING: PollEvents =
    READABLE.union(WRITABLE).union(PollEvents::HUP).union(PollEvents::RDHUP);

/// One end of a connection. Never changes.
pub struct Link {
    pub incoming: Arc<Channel>,
    pub outgoing: Arc<Channel>,
    pub peer_queue: WaitQueue,
    /// Who was at the other end when it was made.
    pub peer_cred: Ucred,
    pub peer_address: Address,
}

impl Link {
    /// This end shuts `how` down, for both.
    pub fn shut_down(&self, how: Shutdown) {
        if how.reads() {
            self.incoming.close();
        }
        if how.writes() {
            self.outgoing.close();
        }
        self.peer_queue.notify(EVERYTHING);
    }

    /// This end is gone.
    pub fn leave(&self) {
        if self.incoming.abandon() {
            self.outgoing.reset();
        }
        self.outgoing.close();
        self.peer_queue.notify(EVERYTHING | PollEvents::ERR);
    }
}

impl UnixSocket {
    /// Sends over the connection; what `control` carries goes with the first byte.
    ///
    /// # Errors
    /// `ENOTCONN`, `EPIPE` (a stream's sender then gets SIGPIPE), `EAGAIN`, `EMSGSIZE`, `EFAULT`.
    pub fn send(&self, source: &mut dyn Source, control: &mut Control) -> Result<usize> {
        let link = self.link().ok_or(Errno::ENOTCONN)?;
        let count = match self.kind() {
            Kind::Stream if source.remaining() == 0 => {
                if link.outgoing.status().is_closed {
                    return Err(Errno::EPIPE);
                }
                return Ok(0);
            }
            Kind::Stream => link.outgoing.push_bytes(source, control)?,
            Kind::SeqPacket | Kind::Datagram => {
                let control = Control { cred: control.cred, rights: control.rights.clone() };
                link.outgoing.push_packet(source, control)?
            }
        };
        link.peer_queue.notify(READABLE);
        Ok(count)
    }

    /// Receives over the connection.
    ///
    /// # Errors
    /// `EINVAL` or `ENOTCONN` without one, `EAGAIN`, `ECONNRESET`, `EFAULT`.
    pub fn receive(&self, sink: &mut dyn Sink, mode: Mode) -> Result<Received> {
        let Some(link) = self.link() else {
            // As Linux: only the other types say what is missing.
            return Err(if self.kind() == Kind::Stream { Errno::EINVAL } else { Errno::ENOTCONN });
        };
        let received = match self.kind() {
            Kind::Stream => link.incoming.pop_bytes(sink, mode)?,
            Kind::SeqPacket | Kind::Datagram => link.incoming.pop_packet(sink, mode)?,
        };
        if mode == Mode::Take && received.control.is_some() && link.incoming.status().has_room {
            link.peer_queue.notify(WRITABLE);
        }
        Ok(received)
    }
}
