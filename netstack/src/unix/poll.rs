//! Readiness, as unix_poll of Linux tells it.

use abi::poll::PollEvents;

use super::socket::{Kind, UnixSocket};

const READABLE: PollEvents = PollEvents::IN.union(PollEvents::RDNORM);
const WRITABLE: PollEvents = PollEvents::OUT.union(PollEvents::WRNORM).union(PollEvents::WRBAND);

impl UnixSocket {
    /// What would not block now.
    #[must_use]
    pub fn poll(&self) -> PollEvents {
        match self.kind() {
            Kind::Datagram => self.poll_datagram(),
            Kind::Stream | Kind::SeqPacket => self.poll_connection(),
        }
    }

    fn poll_connection(&self) -> PollEvents {
        let mut events = PollEvents::empty();
        let Some(link) = self.link() else {
            if let Some(has_pending) = self.listening() {
                return if has_pending { READABLE } else { events };
            }
            // Neither connected nor listening.
            return PollEvents::HUP | WRITABLE;
        };
        let (incoming, outgoing) = (link.incoming.status(), link.outgoing.status());
        if incoming.is_reset {
            events |= PollEvents::ERR;
        }
        if incoming.is_closed && outgoing.is_closed {
            events |= PollEvents::HUP;
        }
        if incoming.is_closed {
            events |= PollEvents::RDHUP | READABLE;
        }
        if incoming.has_data {
            events |= READABLE;
        }
        if outgoing.has_room {
            events |= WRITABLE;
        }
        events
    }

    fn poll_datagram(&self) -> PollEvents {
        let mut events = PollEvents::empty();
        let Some(inbox) = self.inbox() else { return events };
        if inbox.has_data() {
            events |= READABLE;
        }
        if inbox.is_closed() {
            events |= PollEvents::RDHUP | READABLE;
            if self.is_shut_for_writing() {
                events |= PollEvents::HUP;
            }
        }
        let peer = self.living_peer();
        let is_blocked = peer
            .as_ref()
            .and_then(|peer| peer.inbox())
            .is_some_and(|inbox| !inbox.has_room(&self.sender()));
        if !is_blocked {
            events |= WRITABLE;
        }
        events
    }
}
