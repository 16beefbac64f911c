//! The open file of a socket.

use std::any::Any;
use std::collections::BTreeMap;
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
use netstack::unix::{Control, Kind, Mode, UnixSocket};
use vfs::file::UserMemory;
use vfs::fs::sockfs;
use vfs::{File, FileOps, VfsCx};

use crate::cx::Cx;
use crate::lock_order;

/// What a descriptor of a socket refers to.
pub struct SocketFile {
    pub unix: Arc<UnixSocket>,
    options: Mutex<Options, lock_order::Leaf>,
}

#[derive(Default)]
struct Options {
    /// Values that are told back and mean nothing for these sockets (SO_KEEPALIVE...).
    stored: BTreeMap<i32, i32>,
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
    /// The value of an option that has no effect; 0 before it was set.
    #[must_use]
    pub fn stored(&self, option: i32) -> i32 {
        self.options.lock().stored.get(&option).copied().unwrap_or(0)
    }

    pub fn store(&self, option: i32, value: i32) {
        self.options.lock().stored.insert(option, value);
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
pub fn install(cx: &Cx<'_>, unix: Arc<UnixSocket>, flags: SocketFlags) -> Result<Fd> {
    let mut open = OpenFlags::RDWR;
    open.set(OpenFlags::NONBLOCK, flags.contains(SocketFlags::NONBLOCK));
    let ops = Arc::new(SocketFile { unix, options: Mutex::default() });
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
        let received = match self.unix.kind() {
            Kind::Datagram => self.unix.receive_from(sink, Mode::Take)?,
            Kind::Stream | Kind::SeqPacket => self.unix.receive(sink, Mode::Take)?,
        };
        Ok(received.bytes)
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
        match self.unix.kind() {
            Kind::Datagram => self.unix.send_to(source, &control, None),
            Kind::Stream | Kind::SeqPacket => self.unix.send(source, &mut control),
        }
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _cx: &VfsCx<'_>, _file: &File) -> PollEvents {
        self.unix.poll()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.unix.wait_queue())
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
            FIONREAD if self.unix.is_listening() => return Err(Errno::EINVAL),
            FIONREAD => self.unix.unread(),
            TIOCOUTQ => self.unix.unsent(),
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
