//! The open file of a socket.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use abi::ids::Fd;
use abi::ioctl::{FIONREAD, TIOCOUTQ};
use abi::open::OpenFlags;
use abi::poll::PollEvents;
use abi::socket::{SocketFlags, Ucred};
use abi::{Errno, Result, UserAddr};
use base::clock::Nanos;
use base::lock::Mutex;
use base::{Sink, Source, WaitQueue};
use netstack::inet::{self, InetSocket};
use netstack::message::{Control, Mode, Shutdown};
use netstack::unix::{self, UnixSocket};
use vfs::file::UserMemory;
use vfs::fs::sockfs;
use vfs::{File, FileOps, VfsCx};

use super::{Named, Received};
use crate::cx::Cx;
use crate::lock_order;

/// What a descriptor of a socket refers to.
pub struct SocketFile {
    pub socket: Socket,
    options: Mutex<Options, lock_order::Leaf>,
}

/// A socket of some family.
#[derive(Clone)]
pub enum Socket {
    Unix(Arc<UnixSocket>),
    Inet(Arc<InetSocket>),
}

/// Where a datagram is to go.
pub enum Destination {
    Unix(Arc<UnixSocket>),
    Inet(SocketAddr),
}

impl Socket {
    /// Bytes without bounds: a send may be taken in part, and breaking raises SIGPIPE.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        match self {
            Self::Unix(unix) => unix.kind() == unix::Kind::Stream,
            Self::Inet(inet) => inet.kind() == inet::Kind::Stream,
        }
    }

    #[must_use]
    pub fn is_datagram(&self) -> bool {
        match self {
            Self::Unix(unix) => unix.kind() == unix::Kind::Datagram,
            Self::Inet(inet) => inet.kind() == inet::Kind::Datagram,
        }
    }

    /// # Errors
    /// Those of the family's sockets.
    pub fn send(
        &self,
        source: &mut dyn Source,
        control: &mut Control,
        to: Option<&Destination>,
    ) -> Result<usize> {
        match (self, to) {
            (Self::Unix(unix), to) if unix.kind() == unix::Kind::Datagram => {
                let to = match to {
                    None => None,
                    Some(Destination::Unix(to)) => Some(to),
                    Some(Destination::Inet(_)) => return Err(Errno::EINVAL),
                };
                unix.send_to(source, control, to)
            }
            (Self::Unix(unix), _) => unix.send(source, control),
            (Self::Inet(_), Some(Destination::Unix(_))) => Err(Errno::EAFNOSUPPORT),
            (Self::Inet(inet), Some(Destination::Inet(to))) => inet.send(source, Some(*to)),
            (Self::Inet(inet), None) => inet.send(source, None),
        }
    }

    /// # Errors
    /// Those of the family's sockets.
    pub fn receive(&self, sink: &mut dyn Sink, mode: Mode) -> Result<Received> {
        match self {
            Self::Unix(unix) => {
                let got = match unix.kind() {
                    unix::Kind::Datagram => unix.receive_from(sink, mode)?,
                    unix::Kind::Stream | unix::Kind::SeqPacket => unix.receive(sink, mode)?,
                };
                let sender = match unix.kind() {
                    unix::Kind::Stream => unix.peer_address().ok(),
                    unix::Kind::Datagram | unix::Kind::SeqPacket => got.from,
                };
                let from = sender.filter(|from| *from != unix::Address::Unnamed).map(Named::Unix);
                Ok(Received { bytes: got.bytes, full: got.full, from, control: got.control })
            }
            Self::Inet(inet) => {
                let got = inet.receive(sink, mode)?;
                let from = got.from.map(Named::Inet);
                Ok(Received { bytes: got.bytes, full: got.full, from, control: got.control })
            }
        }
    }

    #[must_use]
    pub fn poll(&self) -> PollEvents {
        match self {
            Self::Unix(unix) => unix.poll(),
            Self::Inet(inet) => inet.poll(),
        }
    }

    #[must_use]
    pub fn wait_queue(&self) -> &WaitQueue {
        match self {
            Self::Unix(unix) => unix.wait_queue(),
            Self::Inet(inet) => inet.wait_queue(),
        }
    }

    /// SO_PASSCRED; internet sockets pass none.
    #[must_use]
    pub fn passes_cred(&self) -> bool {
        matches!(self, Self::Unix(unix) if unix.passes_cred())
    }

    #[must_use]
    pub fn is_listening(&self) -> bool {
        match self {
            Self::Unix(unix) => unix.is_listening(),
            Self::Inet(inet) => inet.is_listening(),
        }
    }

    #[must_use]
    pub fn address(&self) -> Named {
        match self {
            Self::Unix(unix) => Named::Unix(unix.address()),
            Self::Inet(inet) => Named::Inet(inet.address()),
        }
    }

    /// # Errors
    /// `ENOTCONN`.
    pub fn peer_address(&self) -> Result<Named> {
        match self {
            Self::Unix(unix) => unix.peer_address().map(Named::Unix),
            Self::Inet(inet) => inet.peer_address().map(Named::Inet),
        }
    }

    /// # Errors
    /// `EAGAIN`, and those of accept(2).
    pub fn accept(&self) -> Result<Self> {
        match self {
            Self::Unix(unix) => unix.accept().map(Self::Unix),
            Self::Inet(inet) => inet.accept().map(Self::Inet),
        }
    }

    /// # Errors
    /// Those of shutdown(2).
    pub fn shut_down(&self, how: Shutdown) -> Result<()> {
        match self {
            Self::Unix(unix) => unix.shut_down(how),
            Self::Inet(inet) => inet.shut_down(how),
        }
    }

    fn unread(&self) -> usize {
        match self {
            Self::Unix(unix) => unix.unread(),
            Self::Inet(inet) => inet.unread(),
        }
    }

    fn unsent(&self) -> usize {
        match self {
            Self::Unix(unix) => unix.unsent(),
            Self::Inet(inet) => inet.unsent(),
        }
    }
}

#[derive(Default)]
struct Options {
    /// Values that are told back and mean nothing for these sockets (SO_KEEPALIVE...).
    stored: BTreeMap<(i32, i32), i32>,
    receive_timeout: Option<Nanos>,
    send_timeout: Option<Nanos>,
}

/// SO_RCVTIMEO or SO_SNDTIMEO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    Receive,
    Send,
}

impl SocketFile {
    /// The value of an option that has no effect, if it was set.
    #[must_use]
    pub fn stored(&self, level: i32, option: i32) -> Option<i32> {
        self.options.lock().stored.get(&(level, option)).copied()
    }

    pub fn store(&self, level: i32, option: i32, value: i32) {
        self.options.lock().stored.insert((level, option), value);
    }

    /// Nanoseconds; `None` waits for ever.
    #[must_use]
    pub fn timeout(&self, which: Timeout) -> Option<Nanos> {
        let options = self.options.lock();
        match which {
            Timeout::Receive => options.receive_timeout,
            Timeout::Send => options.send_timeout,
        }
    }

    pub fn set_timeout(&self, which: Timeout, timeout: Option<Nanos>) {
        let mut options = self.options.lock();
        match which {
            Timeout::Receive => options.receive_timeout = timeout,
            Timeout::Send => options.send_timeout = timeout,
        }
    }
}

/// Puts a socket into the caller's table.
///
/// # Errors
/// `EMFILE`.
pub fn install(cx: &Cx<'_>, socket: Socket, flags: SocketFlags) -> Result<Fd> {
    let mut open = OpenFlags::RDWR;
    open.set(OpenFlags::NONBLOCK, flags.contains(SocketFlags::NONBLOCK));
    let ops = Arc::new(SocketFile { socket, options: Mutex::default() });
    let file = cx.with_vfs(|vfs| sockfs::open_socket(ops, vfs, open));
    let mut cloexec = OpenFlags::empty();
    cloexec.set(OpenFlags::CLOEXEC, flags.contains(SocketFlags::CLOEXEC));
    cx.install(file, cloexec)
}

/// The socket behind a file.
///
/// # Errors
/// `ENOTSOCK`.
pub fn socket_of(file: &File) -> Result<&SocketFile> {
    file.ops().as_any().downcast_ref().ok_or(Errno::ENOTSOCK)
}

impl FileOps for SocketFile {
    fn read(&self, _cx: &VfsCx<'_>, _file: &File, sink: &mut dyn Sink, _pos: u64) -> Result<usize> {
        Ok(self.socket.receive(sink, Mode::Take)?.bytes)
    }

    fn write(
        &self,
        cx: &VfsCx<'_>,
        _file: &File,
        source: &mut dyn Source,
        _pos: u64,
    ) -> Result<usize> {
        let (uid, gid) = (cx.cred.ruid.0, cx.cred.rgid.0);
        let cred = Ucred { pid: cx.caller.tgid.0, uid, gid };
        let mut control = Control { cred, rights: Vec::new() };
        self.socket.send(source, &mut control, None)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _cx: &VfsCx<'_>, _file: &File) -> PollEvents {
        self.socket.poll()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.socket.wait_queue())
    }

    fn wait_limit(&self, events: PollEvents) -> Option<u64> {
        let sends = events.contains(PollEvents::OUT);
        self.timeout(if sends { Timeout::Send } else { Timeout::Receive })
    }

    fn ioctl(
        &self,
        _cx: &VfsCx<'_>,
        _file: &File,
        command: u32,
        arg: u64,
        memory: &dyn UserMemory,
    ) -> Result<u64> {
        let bytes = match command {
            FIONREAD if self.socket.is_listening() => return Err(Errno::EINVAL),
            FIONREAD => self.socket.unread(),
            TIOCOUTQ => self.socket.unsent(),
            _ => return Err(Errno::ENOTTY),
        };
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        memory.write(UserAddr(arg), &bytes.to_ne_bytes())?;
        Ok(0)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
