//! The socket: creation, names, connections, the end.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use abi::poll::PollEvents;
use abi::{Errno, Result};
use base::WaitQueue;
use base::lock::Mutex;

use super::ports::{Binding, Ports};
use super::transfer::EVERYTHING;
use crate::channel::Channel;
use crate::inbox::{Inbox, Sender, tell};
use crate::lock_order;
use crate::message::Shutdown;

/// Sizes of net.ipv4.tcp_wmem and tcp_rmem once a connection has warmed up, and the bounds of what may be asked for.
const DEFAULT_SEND: usize = 2_626_560;
const DEFAULT_RECEIVE: usize = 131_072;
const DEFAULT_DATAGRAM: usize = 212_992;
const MIN_BUFFER: usize = 4608;
const MAX_BUFFER: usize = 212_992;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    V6,
}

/// Transport of a socket: TCP or UDP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    Stream,
    Datagram,
}

/// A connect that has to wait for room in the listener's queue.
pub enum Connecting {
    Done,
    /// Told when there may be room.
    Wait(WaitQueue),
}

/// A TCP or UDP socket.
pub struct InetSocket {
    family: Family,
    kind: Kind,
    this: Weak<Self>,
    pub(super) queue: WaitQueue,
    pub(super) ports: Arc<Ports>,
    // Options; each is read alone and orders nothing.
    reuses_address: AtomicBool,
    reuses_port: AtomicBool,
    is_v6_only: AtomicBool,
    send_buffer: AtomicUsize,
    receive_buffer: AtomicUsize,
    pub(super) link: OnceLock<Link>,
    pub(super) inbox: Option<Inbox<SocketAddr>>,
    pub(super) state: Mutex<State, lock_order::InetSockets>,
}

/// One end of a connection. Never changes.
pub(super) struct Link {
    pub incoming: Arc<Channel>,
    pub outgoing: Arc<Channel>,
    pub peer_queue: WaitQueue,
    pub peer: SocketAddr,
}

#[derive(Default)]
pub(super) struct State {
    /// Canonical: an IPv4 address is never written as IPv6 in here.
    pub local: Option<SocketAddr>,
    /// True when `local`'s port is ours in the table.
    holds_port: bool,
    pub role: Role,
    /// Where a UDP socket's datagrams go, and whence alone it takes them.
    pub peer: Option<SocketAddr>,
    pub is_shut_for_reading: bool,
    pub is_shut_for_writing: bool,
    /// Told by the next call, once.
    pub error: Option<Errno>,
}

#[derive(Default)]
pub(super) enum Role {
    #[default]
    None,
    Connecting,
    Connected,
    Listening(Listener),
}

pub(super) struct Listener {
    backlog: usize,
    pub pending: VecDeque<Arc<InetSocket>>,
}

impl InetSocket {
    #[must_use]
    pub fn new(family: Family, kind: Kind, ports: &Arc<Ports>) -> Arc<Self> {
        let (send, receive) = match kind {
            Kind::Stream => (DEFAULT_SEND, DEFAULT_RECEIVE),
            Kind::Datagram => (DEFAULT_DATAGRAM, DEFAULT_DATAGRAM),
        };
        Arc::new_cyclic(|this| Self {
            family,
            kind,
            this: Weak::clone(this),
            queue: WaitQueue::new(),
            ports: Arc::clone(ports),
            reuses_address: AtomicBool::new(false),
            reuses_port: AtomicBool::new(false),
            is_v6_only: AtomicBool::new(false),
            send_buffer: AtomicUsize::new(send),
            receive_buffer: AtomicUsize::new(receive),
            link: OnceLock::new(),
            inbox: (kind == Kind::Datagram).then(Inbox::new),
            state: Mutex::default(),
        })
    }

    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    #[must_use]
    pub const fn wait_queue(&self) -> &WaitQueue {
        &self.queue
    }

    pub(super) fn sender(&self) -> Sender<'_> {
        let identity = std::ptr::from_ref(self).addr();
        Sender { identity, queue: &self.queue, limit: self.send_buffer() }
    }

    // Names.

    /// An address as this socket's family writes it.
    pub(super) fn written(&self, address: SocketAddr) -> SocketAddr {
        match (self.family, address.ip()) {
            (Family::V6, IpAddr::V4(ip)) => {
                SocketAddr::new(IpAddr::V6(ip.to_ipv6_mapped()), address.port())
            }
            _ => address,
        }
    }

    /// The address as everybody here writes it, when this socket's family can have it.
    fn canonical(&self, address: SocketAddr) -> Result<SocketAddr> {
        let ip = address.ip().to_canonical();
        let is_v6_only = self.is_v6_only.load(Ordering::Relaxed);
        match (self.family, address.ip(), ip) {
            (Family::V4, IpAddr::V6(_), _) => Err(Errno::EAFNOSUPPORT),
            (Family::V6, _, IpAddr::V4(_)) if is_v6_only => Err(Errno::ENETUNREACH),
            _ => Ok(SocketAddr::new(ip, address.port())),
        }
    }

    const fn any_ip(&self) -> IpAddr {
        match self.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    /// Own address, for getsockname(2).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let local = self.state.lock().local;
        self.written(local.unwrap_or_else(|| SocketAddr::new(self.any_ip(), 0)))
    }

    /// The other end's address, for getpeername(2).
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn peer_address(&self) -> Result<SocketAddr> {
        let linked = self.link.get().map(|link| link.peer);
        let peer = linked.or_else(|| self.state.lock().peer);
        peer.map(|peer| self.written(peer)).ok_or(Errno::ENOTCONN)
    }

    /// bind(2); port 0 takes a free one.
    ///
    /// # Errors
    /// `EINVAL` when it is bound already, `EADDRNOTAVAIL` for an address that is not of this host, `EADDRINUSE`,
    /// `EAFNOSUPPORT`.
    pub fn bind(&self, address: SocketAddr) -> Result<()> {
        let address = self.canonical(address)?;
        let ip = address.ip();
        if !ip.is_loopback() && !ip.is_unspecified() {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if self.state.lock().local.is_some() {
            return Err(Errno::EINVAL);
        }
        let binding = Binding {
            ip,
            is_v6_only: self.is_v6_only.load(Ordering::Relaxed),
            is_shared: self.reuses_address.load(Ordering::Relaxed) || self.shares_port(),
            socket: Weak::clone(&self.this),
        };
        let port = self.ports.bind(self.kind, address.port(), &binding)?;
        let mut state = self.state.lock();
        if state.local.is_some() {
            drop(state);
            self.ports.release(self.kind, port, self);
            return Err(Errno::EINVAL);
        }
        state.local = Some(SocketAddr::new(ip, port));
        state.holds_port = true;
        Ok(())
    }

    /// Binds to any free port unless it is bound.
    pub(super) fn bind_auto(&self) -> Result<()> {
        if self.state.lock().local.is_some() {
            return Ok(());
        }
        match self.bind(SocketAddr::new(self.any_ip(), 0)) {
            // Somebody else bound it meanwhile.
            Err(Errno::EINVAL) | Ok(()) => Ok(()),
            Err(_) => Err(Errno::EAGAIN),
        }
    }

    /// Where a packet to `to` goes, which must be on this host.
    pub(super) fn route(&self, to: SocketAddr) -> Result<SocketAddr> {
        let to = self.canonical(to)?;
        let ip = match to.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip if ip.is_loopback() => ip,
            _ => return Err(Errno::ENETUNREACH),
        };
        Ok(SocketAddr::new(ip, to.port()))
    }

    /// The address that a packet to `to` comes from.
    pub(super) fn source_for(&self, to: SocketAddr) -> SocketAddr {
        let local = self.state.lock().local;
        let port = local.map_or(0, |local| local.port());
        let ip = local.map(|local| local.ip()).filter(|ip| !ip.is_unspecified());
        let default = match to.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        SocketAddr::new(ip.unwrap_or(default), port)
    }

    // Connections.

    /// listen(2); binds to a free port first when it has none.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for UDP, `EINVAL` when it is connected, `EADDRINUSE`.
    pub fn listen(&self, backlog: usize) -> Result<()> {
        if self.kind == Kind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        self.bind_auto()?;
        let mut state = self.state.lock();
        match &mut state.role {
            Role::Listening(listener) => listener.backlog = backlog,
            Role::Connecting | Role::Connected => return Err(Errno::EINVAL),
            role @ Role::None => {
                *role = Role::Listening(Listener { backlog, pending: VecDeque::new() });
            }
        }
        Ok(())
    }

    #[must_use]
    pub fn is_listening(&self) -> bool {
        matches!(self.state.lock().role, Role::Listening(_))
    }

    /// accept(2): the next connection.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for UDP, `EINVAL` when it does not listen, `EAGAIN`.
    pub fn accept(&self) -> Result<Arc<Self>> {
        if self.kind == Kind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let accepted = {
            let mut state = self.state.lock();
            let Role::Listening(listener) = &mut state.role else { return Err(Errno::EINVAL) };
            listener.pending.pop_front().ok_or(Errno::EAGAIN)?
        };
        // Connects wait on this queue too.
        self.queue.notify(PollEvents::OUT);
        Ok(accepted)
    }

    /// connect(2) of a TCP socket.
    ///
    /// # Errors
    /// `EISCONN`, `EALREADY`, `ECONNREFUSED`, `ENETUNREACH`, `EAFNOSUPPORT`, `EAGAIN` without a free port.
    pub fn connect(&self, to: SocketAddr) -> Result<Connecting> {
        let to = self.route(to)?;
        {
            let mut state = self.state.lock();
            match state.role {
                Role::None => state.role = Role::Connecting,
                Role::Connected | Role::Listening(_) => return Err(Errno::EISCONN),
                Role::Connecting => return Err(Errno::EALREADY),
            }
        }
        let outcome = self.bind_auto().and_then(|()| self.queue_at(to));
        if !matches!(outcome, Ok(Connecting::Done)) {
            self.state.lock().role = Role::None;
        }
        outcome
    }

    fn queue_at(&self, to: SocketAddr) -> Result<Connecting> {
        let found = self.ports.find(Kind::Stream, to);
        let listener = found.iter().find(|socket| socket.is_listening());
        let listener = listener.ok_or(Errno::ECONNREFUSED)?;
        let source = self.source_for(to);
        let accepted = Self::new(listener.family, self.kind, &self.ports);
        let outgoing = Arc::new(Channel::new(self.send_buffer()));
        let incoming = Arc::new(Channel::new(accepted.send_buffer()));
        {
            let mut fresh = accepted.state.lock();
            fresh.local = Some(to);
            fresh.role = Role::Connected;
        }
        // Set once: nobody else knows that socket, and our role was taken for this connect alone.
        let _ = accepted.link.set(Link {
            incoming: Arc::clone(&outgoing),
            outgoing: Arc::clone(&incoming),
            peer_queue: self.queue.clone(),
            peer: source,
        });
        let peer_queue = accepted.queue.clone();
        {
            let mut state = listener.state.lock();
            let Role::Listening(queue) = &mut state.role else { return Err(Errno::ECONNREFUSED) };
            if queue.pending.len() > queue.backlog {
                return Ok(Connecting::Wait(listener.queue.clone()));
            }
            let _ = self.link.set(Link { incoming, outgoing, peer_queue, peer: to });
            queue.pending.push_back(accepted);
        }
        {
            let mut state = self.state.lock();
            state.role = Role::Connected;
            state.local = Some(source);
        }
        listener.queue.notify(PollEvents::IN | PollEvents::RDNORM);
        self.queue.notify(EVERYTHING);
        Ok(Connecting::Done)
    }

    /// connect(2) of a UDP socket; `None` dissolves the association.
    ///
    /// # Errors
    /// `ENETUNREACH`, `EAFNOSUPPORT`, `EAGAIN` without a free port.
    pub fn set_peer(&self, to: Option<SocketAddr>) -> Result<()> {
        let Some(to) = to else {
            self.state.lock().peer = None;
            return Ok(());
        };
        let to = self.route(to)?;
        self.bind_auto()?;
        let source = self.source_for(to);
        let mut state = self.state.lock();
        state.peer = Some(to);
        state.local = Some(source);
        Ok(())
    }

    // The end.

    /// shutdown(2).
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn shut_down(&self, how: Shutdown) -> Result<()> {
        let dropped = {
            let mut state = self.state.lock();
            let is_connected = self.link.get().is_some() || state.peer.is_some();
            let dropped = match &mut state.role {
                // Shutting a listener down for reading ends it.
                Role::Listening(listener) if how.reads() => {
                    let pending = std::mem::take(&mut listener.pending);
                    state.role = Role::None;
                    Some(pending)
                }
                Role::Listening(_) => None,
                _ if !is_connected => return Err(Errno::ENOTCONN),
                _ => None,
            };
            state.is_shut_for_reading |= how.reads();
            state.is_shut_for_writing |= how.writes();
            dropped
        };
        drop(dropped);
        if let Some(link) = self.link.get()
            && how.writes()
        {
            link.outgoing.close();
            link.peer_queue.notify(EVERYTHING);
        }
        if let Some(inbox) = &self.inbox
            && how.reads()
        {
            tell(&inbox.close());
        }
        self.queue.notify(EVERYTHING);
        Ok(())
    }

    // Options.

    /// The pending error, which is then forgotten, for SO_ERROR.
    #[must_use]
    pub fn take_error(&self) -> Option<Errno> {
        let was_reset = self.link.get().is_some_and(|link| link.incoming.take_reset());
        let pending = self.state.lock().error.take();
        if was_reset { Some(Errno::ECONNRESET) } else { pending }
    }

    pub fn set_reuses_address(&self, reuses: bool) {
        self.reuses_address.store(reuses, Ordering::Relaxed);
    }

    #[must_use]
    pub fn reuses_address(&self) -> bool {
        self.reuses_address.load(Ordering::Relaxed)
    }

    pub fn set_shares_port(&self, shares: bool) {
        self.reuses_port.store(shares, Ordering::Relaxed);
    }

    /// SO_REUSEPORT.
    #[must_use]
    pub fn shares_port(&self) -> bool {
        self.reuses_port.load(Ordering::Relaxed)
    }

    pub fn set_v6_only(&self, is_v6_only: bool) {
        self.is_v6_only.store(is_v6_only, Ordering::Relaxed);
    }

    #[must_use]
    pub fn is_v6_only(&self) -> bool {
        self.is_v6_only.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn send_buffer(&self) -> usize {
        self.send_buffer.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn receive_buffer(&self) -> usize {
        self.receive_buffer.load(Ordering::Relaxed)
    }

    /// SO_SNDBUF: what is asked for is doubled, within bounds; see socket(7).
    pub fn set_send_buffer(&self, bytes: usize) {
        let size = bytes.min(MAX_BUFFER).saturating_mul(2).max(MIN_BUFFER);
        self.send_buffer.store(size, Ordering::Relaxed);
        if let Some(link) = self.link.get() {
            link.outgoing.set_capacity(size);
        }
    }

    /// SO_RCVBUF: told back; what is under way is bounded by the sender.
    pub fn set_receive_buffer(&self, bytes: usize) {
        let size = bytes.min(MAX_BUFFER).saturating_mul(2).max(MIN_BUFFER);
        self.receive_buffer.store(size, Ordering::Relaxed);
    }
}

impl Drop for InetSocket {
    fn drop(&mut self) {
        let this: *const Self = self;
        let state = self.state.get_mut();
        if state.holds_port
            && let Some(local) = state.local
        {
            self.ports.release(self.kind, local.port(), this);
        }
        if let Some(link) = self.link.get() {
            if link.incoming.abandon() {
                link.outgoing.reset();
            }
            link.outgoing.close();
            link.peer_queue.notify(EVERYTHING | PollEvents::ERR);
        }
        if let Some(inbox) = &self.inbox {
            inbox.abandon();
        }
        if let Role::Listening(listener) = std::mem::take(&mut state.role) {
            for pending in listener.pending {
                if let Some(link) = pending.link.get() {
                    link.outgoing.reset();
                }
            }
        }
        self.queue.notify(EVERYTHING);
    }
}

impl std::fmt::Debug for InetSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InetSocket({:?}, {:?})", self.family, self.kind)
    }
}
