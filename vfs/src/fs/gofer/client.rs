//! The connections to a gofer. A request takes its processor's, or any idle one; each carries one request at a time.
//! Of some nobody waits for the answer: see [`later`].

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use abi::{Errno, Result};
use base::lock::{Mutex, MutexGuard};
use gofer_protocol::wire::{Decoded, Reader};
use gofer_protocol::{
    MAX_MESSAGE, NO_CPU, Op, ReplyHead, Request, TreeInfo, TreePath, VERSION, Welcome, transport,
};

use super::errno;
use super::explored::{self, Explored};
use crate::lock_order;

pub mod later;

use self::later::{Late, Patience};

/// Told once, with the reason, when the gofer does not answer any more.
pub type OnBroken = Box<dyn Fn(&str) + Send + Sync>;

/// Why a gofer could not be greeted.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no connection to a gofer was given")]
    NoSocket,
    #[error("the gofer does not answer; it may have failed to start")]
    Silent,
    #[error("the gofer refused the greeting: {0}; its version differs from the sentry's")]
    Refused(Errno),
}

/// What became of one exchange.
enum Failure {
    /// The gofer said no.
    Refused(Errno),
    /// It is gone, or talks nonsense.
    Broken(String),
}

struct Connection {
    socket: OwnedFd,
    seq: u32,
    request: Vec<u8>,
    reply: Vec<u8>,
    /// Numbers of the requests whose answers are left for later, as they will come.
    owed: VecDeque<u32>,
    /// Such answers that had to be heard because of another request.
    late: VecDeque<Late>,
}

type Slot = Mutex<Connection, lock_order::GoferConnection>;

/// A gofer, as the sentry's filesystems see it.
pub struct Client {
    connections: Box<[Slot]>,
    /// Where those queue who find every connection busy.
    turn: AtomicUsize,
    is_broken: AtomicBool,
    on_broken: OnBroken,
    trees: Vec<TreeInfo>,
    /// Processors that the gofer may work on for us.
    cpus: Box<[u16]>,
    /// What the greeting asked for, until the filesystem of tree 0 takes it.
    explored: Mutex<Vec<Explored>, lock_order::GoferCaches>,
    /// Only a measure, so relaxed.
    requests: AtomicU64,
}

impl Client {
    /// Says hello on the first socket, without waiting for the answer: the gofer may not even be there yet. It then
    /// looks ahead on the way to `paths` of tree 0, each ended by NUL, so that they need no round trip later.
    ///
    /// # Errors
    /// Of sendmsg(2).
    pub fn greet(socket: &OwnedFd, paths: &[u8]) -> io::Result<()> {
        let mut request = Vec::new();
        let path = TreePath::ROOT;
        for (seq, op) in [(1, Op::Hello { version: VERSION }), (2, Op::Explore { paths })] {
            Request { seq, cpu: NO_CPU, tree: 0, path, op }.encode(&mut request);
            transport::send(socket, &request, &[])?;
        }
        Ok(())
    }

    /// Greets the gofer at the other end of `sockets`.
    ///
    /// # Errors
    /// When there is none, or one of another version.
    pub fn connect(
        sockets: Vec<OwnedFd>,
        on_broken: OnBroken,
    ) -> std::result::Result<Arc<Self>, ConnectError> {
        let first = sockets.first().ok_or(ConnectError::NoSocket)?;
        Self::greet(first, b"").map_err(|_| ConnectError::Silent)?;
        Self::meet(sockets, on_broken)
    }

    /// Hears the answer to [`Client::greet`] on the first of `sockets`.
    ///
    /// # Errors
    /// When there is none, or one of another version.
    pub fn meet(
        sockets: Vec<OwnedFd>,
        on_broken: OnBroken,
    ) -> std::result::Result<Arc<Self>, ConnectError> {
        let connections: Box<[Slot]> =
            sockets.into_iter().map(|socket| Mutex::new(Connection::new(socket))).collect();
        let first = connections.first().ok_or(ConnectError::NoSocket)?;
        let mut first = first.lock();
        first.seq = 1;
        let welcome =
            first.hear(|fields, _| Welcome::decode(fields)).map_err(|failure| match failure {
                Failure::Refused(errno) => ConnectError::Refused(errno),
                Failure::Broken(_) => ConnectError::Silent,
            })?;
        first.seq = 2;
        let explored = match first.hear(explored::decode) {
            Ok(explored) => explored,
            // It can be asked for when it is wanted.
            Err(Failure::Refused(_)) => Vec::new(),
            Err(Failure::Broken(_)) => return Err(ConnectError::Silent),
        };
        drop(first);
        Ok(Arc::new(Self {
            connections,
            turn: AtomicUsize::new(0),
            is_broken: AtomicBool::new(false),
            on_broken,
            trees: welcome.trees,
            cpus: transport::allowed_cpus().into(),
            explored: Mutex::new(explored),
            requests: AtomicU64::new(0),
        }))
    }

    /// The trees it serves, by index.
    #[must_use]
    pub fn trees(&self) -> &[TreeInfo] {
        &self.trees
    }

    /// What the greeting found in tree 0; once.
    pub(super) fn take_explored(&self) -> Vec<Explored> {
        std::mem::take(&mut *self.explored.lock())
    }

    /// Round trips so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// One round trip; `read` takes the answer's fields and descriptors.
    pub(super) fn call<T>(
        &self,
        tree: u16,
        path: &[u8],
        op: Op<'_>,
        read: impl FnOnce(Reader<'_>, Vec<OwnedFd>) -> Decoded<T>,
    ) -> Result<T> {
        let path = TreePath::new(path)?;
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(Errno::EIO);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let outcome = self.idle().exchange(tree, path, op, read);
        self.judge(outcome)
    }

    fn judge<T>(&self, outcome: std::result::Result<T, Failure>) -> Result<T> {
        match outcome {
            Ok(value) => Ok(value),
            Err(Failure::Refused(errno)) => Err(errno),
            Err(Failure::Broken(reason)) => {
                // Relaxed: the flag guards nothing but itself; swap makes the one caller.
                if !self.is_broken.swap(true, Ordering::Relaxed) {
                    tracing::error!(reason, "the gofer is gone");
                    (self.on_broken)(&reason);
                }
                Err(Errno::EIO)
            }
        }
    }

    /// The caller's processor has its own connection, so that the gofer's thread of that one stays there, too: a round
    /// trip between two processors takes several times as long.
    fn idle(&self) -> MutexGuard<'_, Connection> {
        let cpu = transport::current_cpu().map_or(0, usize::from);
        let (others, own) = self.connections.split_at(cpu % self.connections.len());
        let idle = |slot| Mutex::try_lock(slot).and_then(Connection::idle);
        if let Some(connection) = own.iter().chain(others).find_map(idle) {
            return connection;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        self.connections[turn].lock()
    }
}

impl Connection {
    fn new(socket: OwnedFd) -> Self {
        let (request, reply) = (Vec::with_capacity(512), gofer_protocol::room());
        Self { socket, seq: 0, request, reply, owed: VecDeque::new(), late: VecDeque::new() }
    }

    fn exchange<T>(
        &mut self,
        tree: u16,
        path: TreePath<'_>,
        op: Op<'_>,
        read: impl FnOnce(Reader<'_>, Vec<OwnedFd>) -> Decoded<T>,
    ) -> std::result::Result<T, Failure> {
        self.put_by(Patience::Wait);
        self.ask(transport::current_cpu().unwrap_or(NO_CPU), tree, path, op)?;
        self.hear(read)
    }

    /// Sends a request, to be worked on by `cpu`.
    fn ask(
        &mut self,
        cpu: u16,
        tree: u16,
        path: TreePath<'_>,
        op: Op<'_>,
    ) -> std::result::Result<(), Failure> {
        self.seq = self.seq.wrapping_add(1);
        Request { seq: self.seq, cpu, tree, path, op }.encode(&mut self.request);
        if self.request.len() > MAX_MESSAGE {
            return Err(Failure::Refused(Errno::E2BIG));
        }
        transport::send(&self.socket, &self.request, &[])
            .map_err(|reason| Failure::Broken(format!("cannot ask it: {reason}")))
    }

    /// The answer to request number `seq`.
    fn hear<T>(
        &mut self,
        read: impl FnOnce(Reader<'_>, Vec<OwnedFd>) -> Decoded<T>,
    ) -> std::result::Result<T, Failure> {
        let reply = self.reply.get_mut(..MAX_MESSAGE).unwrap_or_default();
        let (length, fds) = transport::receive(&self.socket, reply).map_err(unheard)?;
        decode(reply.get(..length).unwrap_or_default(), self.seq, fds, read)
    }
}

/// Why nothing was received.
fn unheard(reason: rustix::io::Errno) -> Failure {
    match errno(reason) {
        // The reply was heard; only its descriptors had no place.
        Errno::EMFILE => Failure::Refused(Errno::ENFILE),
        _ => Failure::Broken(format!("cannot hear it: {reason}")),
    }
}

/// Reads a reply to request number `seq`.
fn decode<T>(
    message: &[u8],
    seq: u32,
    fds: Vec<OwnedFd>,
    read: impl FnOnce(Reader<'_>, Vec<OwnedFd>) -> Decoded<T>,
) -> std::result::Result<T, Failure> {
    if message.is_empty() {
        return Err(Failure::Broken("it ended".to_owned()));
    }
    let malformed = |reason| Failure::Broken(format!("malformed reply: {reason}"));
    let (head, fields) = ReplyHead::decode(message).map_err(malformed)?;
    if head.seq != seq {
        return Err(Failure::Broken("a reply to another request".to_owned()));
    }
    match head.error {
        Some(errno) => Err(Failure::Refused(errno)),
        None => read(fields, fds).map_err(malformed),
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({} connections, {} trees)", self.connections.len(), self.trees.len())
    }
}
