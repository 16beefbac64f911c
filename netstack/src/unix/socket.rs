//! The socket: creation, names, connections, options.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use abi::poll::PollEvents;
use abi::socket::Ucred;
use abi::{Errno, Result};
use base::WaitQueue;
use base::lock::Mutex;

use super::address::{Address, Key};
use super::names::Names;
use super::stream::{EVERYTHING, Link};
use super::{Inbox, Shutdown};
use crate::channel::Channel;
use crate::inbox::{Sender, tell};
use crate::lock_order;

/// net.core.wmem_default.
const DEFAULT_BUFFER: usize = 212_992;
/// Bounds of SO_SNDBUF and SO_RCVBUF after doubling; see socket(7).
const MIN_SEND_BUFFER: usize = 4608;
const MIN_RECEIVE_BUFFER: usize = 2304;
/// net.core.wmem_max.
const MAX_BUFFER: usize = 212_992;

/// Type of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Stream,
    Datagram,
    SeqPacket,
}

/// Options that mean nothing in here: the layer above acts on them.
#[derive(Debug, Default)]
pub struct Options {
    /// SO_PASSCRED.
    pub passes_cred: AtomicBool,
}

/// A connect that has to wait for room in the listener's queue.
pub enum Connecting {
    Done,
    /// Told when there may be room.
    Wait(WaitQueue),
}

/// A unix socket.
pub struct UnixSocket {
    kind: Kind,
    this: Weak<Self>,
    queue: WaitQueue,
    names: Arc<Names>,
    pub options: Options,
    /// SO_SNDBUF and SO_RCVBUF in effect, in bytes. Read without any order to other state.
    send_buffer: AtomicUsize,
    receive_buffer: AtomicUsize,
    /// Connection of a stream or seqpacket socket.
    link: OnceLock<Link>,
    /// Inbox of a datagram socket.
    inbox: Option<Inbox>,
    state: Mutex<State, lock_order::UnixSockets>,
}

#[derive(Default)]
struct State {
    address: Address,
    key: Option<Key>,
    role: Role,
    /// Where datagrams go.
    peer: Option<Peer>,
    is_shut_for_writing: bool,
}

struct Peer {
    socket: Weak<UnixSocket>,
    address: Address,
    cred: Option<Ucred>,
}

#[derive(Default)]
enum Role {
    #[default]
    None,
    /// A connect is under way.
    Connecting,
    Connected,
    Listening(Listener),
}

struct Listener {
    backlog: usize,
    pending: VecDeque<Arc<UnixSocket>>,
    cred: Ucred,
    is_closed: bool,
}

impl UnixSocket {
    #[must_use]
    pub fn new(kind: Kind, names: &Arc<Names>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            kind,
            this: Weak::clone(this),
            queue: WaitQueue::new(),
            names: Arc::clone(names),
            options: Options::default(),
            send_buffer: AtomicUsize::new(DEFAULT_BUFFER),
            receive_buffer: AtomicUsize::new(DEFAULT_BUFFER),
            link: OnceLock::new(),
            inbox: (kind == Kind::Datagram).then(Inbox::new),
            state: Mutex::default(),
        })
    }

    /// Two sockets that are connected to each other.
    #[must_use]
    pub fn pair(kind: Kind, names: &Arc<Names>, cred: Ucred) -> (Arc<Self>, Arc<Self>) {
        let (a, b) = (Self::new(kind, names), Self::new(kind, names));
        if kind == Kind::Datagram {
            for (from, to) in [(&a, &b), (&b, &a)] {
                let peer = Peer {
                    socket: Arc::downgrade(to),
                    address: Address::Unnamed,
                    cred: Some(cred),
                };
                from.state.lock().peer = Some(peer);
            }
        } else {
            Self::join(&a, (cred, Address::Unnamed), &b, (cred, Address::Unnamed));
        }
        (a, b)
    }

    /// Connects two ends; with each, what the other learns about it.
    fn join(a: &Self, a_is: (Ucred, Address), b: &Self, b_is: (Ucred, Address)) {
        let to_b = Arc::new(Channel::new(a.send_buffer()));
        let to_a = Arc::new(Channel::new(b.send_buffer()));
        for (end, other, (cred, address), incoming, outgoing) in
            [(a, b, b_is, &to_a, &to_b), (b, a, a_is, &to_b, &to_a)]
        {
            // A socket is joined once: its role says so.
            let _ = end.link.set(Link {
                incoming: Arc::clone(incoming),
                outgoing: Arc::clone(outgoing),
                peer_queue: other.queue.clone(),
                peer_cred: cred,
                peer_address: address,
            });
            end.state.lock().role = Role::Connected;
        }
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
        Sender {
            identity: std::ptr::from_ref(self).addr(),
            queue: &self.queue,
            limit: self.send_buffer(),
        }
    }

    pub(super) fn link(&self) -> Option<&Link> {
        self.link.get()
    }

    pub(super) const fn inbox(&self) -> Option<&Inbox> {
        self.inbox.as_ref()
    }

    /// Whether connections wait, when this is a listener.
    pub(super) fn listening(&self) -> Option<bool> {
        match &self.state.lock().role {
            Role::Listening(listener) => Some(!listener.pending.is_empty()),
            Role::None | Role::Connecting | Role::Connected => None,
        }
    }

    // Names.

    /// Own address, for getsockname(2).
    #[must_use]
    pub fn address(&self) -> Address {
        self.state.lock().address.clone()
    }

    /// The other end's address, for getpeername(2).
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn peer_address(&self) -> Result<Address> {
        if let Some(link) = self.link() {
            return Ok(link.peer_address.clone());
        }
        let state = self.state.lock();
        state.peer.as_ref().map(|peer| peer.address.clone()).ok_or(Errno::ENOTCONN)
    }

    /// Who was at the other end when the connection was made, for SO_PEERCRED.
    #[must_use]
    pub fn peer_cred(&self) -> Option<Ucred> {
        if let Some(link) = self.link() {
            return Some(link.peer_cred);
        }
        self.state.lock().peer.as_ref().and_then(|peer| peer.cred)
    }

    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.state.lock().address != Address::Unnamed
    }

    /// Binds to `address`, to be found by `key`. For a path, the caller has just made the inode.
    ///
    /// # Errors
    /// `EINVAL` when it is bound already, `EADDRINUSE` for an abstract name.
    pub fn bind(&self, address: Address, key: Key) -> Result<()> {
        let mut state = self.state.lock();
        if state.address != Address::Unnamed {
            return Err(Errno::EINVAL);
        }
        self.names.bind(key.clone(), &self.this)?;
        state.address = address;
        state.key = Some(key);
        Ok(())
    }

    /// Binds to a free abstract name, unless it is bound already.
    ///
    /// # Errors
    /// `ENOSPC` when there is none.
    pub fn bind_auto(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.address != Address::Unnamed {
            return Ok(());
        }
        let name = self.names.bind_auto(&self.this)?;
        state.address = Address::Abstract(name.clone());
        state.key = Some(Key::Abstract(name));
        Ok(())
    }

    // Connections.

    /// listen(2).
    ///
    /// # Errors
    /// `EOPNOTSUPP` for datagrams, `EINVAL` when it has no name or is connected.
    pub fn listen(&self, backlog: usize, cred: Ucred) -> Result<()> {
        if self.kind == Kind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let grew = {
            let mut state = self.state.lock();
            if state.address == Address::Unnamed {
                return Err(Errno::EINVAL);
            }
            match &mut state.role {
                Role::Listening(listener) => {
                    let grew = backlog > listener.backlog;
                    listener.backlog = backlog;
                    listener.cred = cred;
                    grew
                }
                Role::Connecting | Role::Connected => return Err(Errno::EINVAL),
                role @ Role::None => {
                    let pending = VecDeque::new();
                    *role = Role::Listening(Listener { backlog, pending, cred, is_closed: false });
                    false
                }
            }
        };
        if grew {
            self.queue.notify(PollEvents::OUT);
        }
        Ok(())
    }

    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.listening().is_some()
    }

    /// accept(2): the next connection.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for datagrams, `EINVAL` when it does not listen or was shut down, `EAGAIN`.
    pub fn accept(&self) -> Result<Arc<Self>> {
        if self.kind == Kind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let accepted = {
            let mut state = self.state.lock();
            let Role::Listening(listener) = &mut state.role else { return Err(Errno::EINVAL) };
            match listener.pending.pop_front() {
                Some(accepted) => accepted,
                None if listener.is_closed => return Err(Errno::EINVAL),
                None => return Err(Errno::EAGAIN),
            }
        };
        // Connects wait on this queue too.
        self.queue.notify(PollEvents::OUT);
        Ok(accepted)
    }

    /// connect(2) of a stream or seqpacket socket to a listener.
    ///
    /// # Errors
    /// `EISCONN`, `EINVAL` when this one listens, `EALREADY`, `EPROTOTYPE`, `ECONNREFUSED`.
    pub fn connect(&self, listener: &Arc<Self>, cred: Ucred) -> Result<Connecting> {
        {
            let mut state = self.state.lock();
            match state.role {
                Role::None => {}
                Role::Connected => return Err(Errno::EISCONN),
                Role::Connecting => return Err(Errno::EALREADY),
                Role::Listening(_) => return Err(Errno::EINVAL),
            }
            if listener.kind != self.kind {
                return Err(Errno::EPROTOTYPE);
            }
            state.role = Role::Connecting;
        }
        let outcome = self.queue_at(listener, cred);
        if !matches!(outcome, Ok(Connecting::Done)) {
            self.state.lock().role = Role::None;
        }
        outcome
    }

    fn queue_at(&self, listener: &Arc<Self>, cred: Ucred) -> Result<Connecting> {
        let own_address = self.address();
        let accepted = Self::new(self.kind, &self.names);
        accepted.set_passes_cred(listener.passes_cred());
        {
            let mut state = listener.state.lock();
            let address = state.address.clone();
            let Role::Listening(queue) = &mut state.role else { return Err(Errno::ECONNREFUSED) };
            if queue.is_closed {
                return Err(Errno::ECONNREFUSED);
            }
            if queue.pending.len() > queue.backlog {
                return Ok(Connecting::Wait(listener.queue.clone()));
            }
            let listener_cred = queue.cred;
            // Before anybody can accept it the new end is complete; nobody else has its lock, or will wait for it here.
            accepted.state.lock_nested().address = address.clone();
            self.link_with(&accepted, (cred, own_address), (listener_cred, address));
            queue.pending.push_back(accepted);
        }
        self.state.lock().role = Role::Connected;
        listener.queue.notify(PollEvents::IN | PollEvents::RDNORM);
        self.queue.notify(EVERYTHING);
        Ok(Connecting::Done)
    }

    /// As [`Self::join`], with a fresh socket nobody knows yet; takes no lock of ours.
    fn link_with(&self, fresh: &Arc<Self>, own: (Ucred, Address), other: (Ucred, Address)) {
        let outgoing = Arc::new(Channel::new(self.send_buffer()));
        let incoming = Arc::new(Channel::new(fresh.send_buffer()));
        // Set once: the role was taken for this connect alone.
        let _ = fresh.link.set(Link {
            incoming: Arc::clone(&outgoing),
            outgoing: Arc::clone(&incoming),
            peer_queue: self.queue.clone(),
            peer_cred: own.0,
            peer_address: own.1,
        });
        fresh.state.lock_nested().role = Role::Connected;
        let _ = self.link.set(Link {
            incoming,
            outgoing,
            peer_queue: fresh.queue.clone(),
            peer_cred: other.0,
            peer_address: other.1,
        });
    }

    /// connect(2) of a datagram socket; `None` dissolves the association.
    ///
    /// # Errors
    /// `EPROTOTYPE` when `to` is of another type, `EPERM` when it listens to another socket.
    pub fn set_peer(&self, to: Option<&Arc<Self>>) -> Result<()> {
        let peer = match to {
            None => None,
            Some(to) if to.kind != Kind::Datagram => return Err(Errno::EPROTOTYPE),
            Some(to) if !to.listens_to(self) => return Err(Errno::EPERM),
            Some(to) => {
                Some(Peer { socket: Arc::downgrade(to), address: to.address(), cred: None })
            }
        };
        self.state.lock().peer = peer;
        self.queue.notify(PollEvents::OUT | PollEvents::WRNORM);
        Ok(())
    }

    pub(super) fn living_peer(&self) -> Option<Arc<Self>> {
        self.state.lock().peer.as_ref()?.socket.upgrade()
    }

    /// Where datagrams go that name no receiver. A peer that is gone is told once, then forgotten.
    pub(super) fn datagram_peer(&self) -> Result<Arc<Self>> {
        let mut state = self.state.lock();
        let peer = state.peer.as_ref().ok_or(Errno::ENOTCONN)?;
        if let Some(socket) = peer.socket.upgrade() {
            return Ok(socket);
        }
        state.peer = None;
        Err(Errno::ECONNREFUSED)
    }

    /// A datagram socket with a peer takes datagrams from that one only.
    pub(super) fn listens_to(&self, sender: &Self) -> bool {
        let state = self.state.lock();
        state.peer.as_ref().is_none_or(|peer| std::ptr::eq(peer.socket.as_ptr(), sender))
    }

    // The end.

    /// shutdown(2).
    ///
    /// # Errors
    /// None so far: an unconnected socket may be shut down too.
    pub fn shut_down(&self, how: Shutdown) -> Result<()> {
        if let Some(link) = self.link() {
            link.shut_down(how);
        } else if let Some(inbox) = &self.inbox {
            if how.reads() {
                tell(&inbox.close());
            }
            if how.writes() {
                self.state.lock().is_shut_for_writing = true;
            }
        } else if let Role::Listening(listener) = &mut self.state.lock().role
            && how.reads()
        {
            listener.is_closed = true;
        }
        self.queue.notify(EVERYTHING);
        Ok(())
    }

    pub(super) fn is_shut_for_writing(&self) -> bool {
        self.state.lock().is_shut_for_writing
    }

    // Options.

    /// The pending error, which is then forgotten, for SO_ERROR.
    #[must_use]
    pub fn take_error(&self) -> Option<Errno> {
        let was_reset = self.link().is_some_and(|link| link.incoming.take_reset());
        was_reset.then_some(Errno::ECONNRESET)
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
        let size = bytes.min(MAX_BUFFER).saturating_mul(2).max(MIN_SEND_BUFFER);
        self.send_buffer.store(size, Ordering::Relaxed);
        if let Some(link) = self.link() {
            link.outgoing.set_capacity(size);
            self.queue.notify(PollEvents::OUT | PollEvents::WRNORM);
        }
    }

    /// SO_RCVBUF: told back, but unix sockets are limited by what senders may send.
    pub fn set_receive_buffer(&self, bytes: usize) {
        let size = bytes.min(MAX_BUFFER).saturating_mul(2).max(MIN_RECEIVE_BUFFER);
        self.receive_buffer.store(size, Ordering::Relaxed);
    }

    #[must_use]
    pub fn passes_cred(&self) -> bool {
        self.options.passes_cred.load(Ordering::Relaxed)
    }

    pub fn set_passes_cred(&self, passes: bool) {
        self.options.passes_cred.store(passes, Ordering::Relaxed);
    }

    /// Bytes that one read would give at most, for FIONREAD.
    #[must_use]
    pub fn unread(&self) -> usize {
        match (self.link(), &self.inbox) {
            (Some(link), _) if self.kind == Kind::SeqPacket => link.incoming.status().first,
            (Some(link), _) => link.incoming.status().bytes,
            (None, Some(inbox)) => inbox.next_len(),
            (None, None) => 0,
        }
    }

    /// Bytes sent and not yet read, for SIOCOUTQ.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.link().map_or(0, |link| link.outgoing.status().bytes)
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if let Some(key) = self.state.get_mut().key.take() {
            self.names.unbind(&key, self);
        }
        if let Some(link) = self.link.get() {
            link.leave();
        }
        if let Some(inbox) = &self.inbox {
            inbox.abandon();
        }
        // Connections nobody accepted go here too; their drop resets the other end.
        let role = std::mem::take(&mut self.state.get_mut().role);
        if let Role::Listening(listener) = role {
            for pending in listener.pending {
                if let Some(link) = pending.link.get() {
                    link.outgoing.reset();
                }
            }
        }
        // Whoever waits for room in our queue must see that we are gone.
        self.queue.notify(EVERYTHING);
    }
}

impl std::fmt::Debug for UnixSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UnixSocket({:?})", self.kind)
    }
}
