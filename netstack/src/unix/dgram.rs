//! Datagrams: every socket has an inbox, and senders put into it.

use std::sync::Arc;

use abi::poll::PollEvents;
use abi::{Errno, Result};
use base::{Sink, Source};

use super::socket::UnixSocket;
use super::{Control, Mode, Received};

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
        let count = inbox.push(source, self.address(), control.clone(), &self.sender())?;
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
