//! Making sockets, naming and connecting them.

use std::sync::Arc;

use abi::ids::Fd;
use abi::poll::PollEvents;
use abi::socket::{
    AF_INET, AF_INET6, AF_UNIX, IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, SHUT_RD, SHUT_RDWR,
    SHUT_WR, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM, SOCK_TYPE_MASK, SOMAXCONN,
    SocketFlags,
};
use abi::stat::{FileType, S_IFSOCK};
use abi::{Errno, Result, UserAddr};
use base::WaitQueue;
use base::cred::{Access, Caps};
use netstack::inet::{self, InetSocket};
use netstack::message::Shutdown;
use netstack::unix::{Address, Connecting, Key, Kind, UnixSocket};
use vfs::ops;
use vfs::path::LookupFlags;

use crate::cx::Cx;
use crate::error::SysResult;
use crate::io_wait::{on_queue, until_ready};
use crate::mm::UserRef;
use crate::socket::{
    Socket, SocketAddress, Timeout, install, peer_cred, read_address, socket_of, write_address,
};
use crate::strict_flags_arg;
use crate::syscalls::fd::close;

strict_flags_arg!(SocketFlags as "SOCK_");

/// Type and flags of socket(2)'s second argument.
fn split_type(word: u32) -> Result<(u32, SocketFlags)> {
    let flags = SocketFlags::from_bits(word & !SOCK_TYPE_MASK).ok_or(Errno::EINVAL)?;
    Ok((word & SOCK_TYPE_MASK, flags))
}

fn inet_family(domain: u32) -> Option<inet::Family> {
    match u16::try_from(domain) {
        Ok(AF_INET) => Some(inet::Family::V4),
        Ok(AF_INET6) => Some(inet::Family::V6),
        _ => None,
    }
}

fn inet_kind(cx: &Cx<'_>, kind: u32, protocol: u32) -> Result<inet::Kind> {
    match (kind, protocol) {
        (SOCK_STREAM, 0 | IPPROTO_TCP) => Ok(inet::Kind::Stream),
        (SOCK_DGRAM, 0 | IPPROTO_UDP) => Ok(inet::Kind::Datagram),
        // As with the default of net.ipv4.ping_group_range.
        (SOCK_DGRAM, IPPROTO_ICMP) => Err(Errno::EACCES),
        (SOCK_STREAM | SOCK_DGRAM, _) => Err(Errno::EPROTONOSUPPORT),
        (SOCK_RAW, _) if !cx.cred().has(Caps::NET_RAW) => Err(Errno::EPERM),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

/// The kind of a unix socket.
fn unix_kind(domain: u32, kind: u32, protocol: u32) -> Result<Kind> {
    if domain != u32::from(AF_UNIX) {
        return Err(Errno::EAFNOSUPPORT);
    }
    if protocol != 0 && protocol != u32::from(AF_UNIX) {
        return Err(Errno::EPROTONOSUPPORT);
    }
    match kind {
        SOCK_STREAM => Ok(Kind::Stream),
        // Linux believes that BSD had SOCK_RAW here and takes it for datagrams.
        SOCK_DGRAM | SOCK_RAW => Ok(Kind::Datagram),
        SOCK_SEQPACKET => Ok(Kind::SeqPacket),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

/// socket. See [socket(2)](https://man7.org/linux/man-pages/man2/socket.2.html).
pub fn socket(cx: &mut Cx<'_>, domain: u32, kind: u32, protocol: u32) -> SysResult {
    let (kind, flags) = split_type(kind)?;
    let socket = if let Some(family) = inet_family(domain) {
        let kind = inet_kind(cx, kind, protocol)?;
        Socket::Inet(InetSocket::new(family, kind, &cx.kernel.ports))
    } else {
        let kind = unix_kind(domain, kind, protocol)?;
        Socket::Unix(UnixSocket::new(kind, &cx.kernel.unix_names))
    };
    let fd = install(cx, socket, flags)?;
    Ok(fd.0.cast_unsigned().into())
}

/// socketpair. See [socketpair(2)](https://man7.org/linux/man-pages/man2/socketpair.2.html).
pub fn socketpair(
    cx: &mut Cx<'_>,
    domain: u32,
    kind: u32,
    protocol: u32,
    out: UserRef<[i32; 2]>,
) -> SysResult {
    let (kind, flags) = split_type(kind)?;
    if inet_family(domain).is_some() {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let kind = unix_kind(domain, kind, protocol)?;
    let (a, b) = UnixSocket::pair(kind, &cx.kernel.unix_names, peer_cred(cx));
    let first = install(cx, Socket::Unix(a), flags)?;
    let told = install(cx, Socket::Unix(b), flags).and_then(|second| {
        let told = out.write(&cx.mm(), &[first.0, second.0]);
        told.inspect_err(|_| {
            let _ = close(cx, second);
        })
    });
    if let Err(errno) = told {
        let _ = close(cx, first);
        return Err(errno.into());
    }
    Ok(0)
}

/// bind. See [bind(2)](https://man7.org/linux/man-pages/man2/bind.2.html).
pub fn bind(cx: &mut Cx<'_>, fd: Fd, address: UserAddr, length: i32) -> SysResult {
    let file = cx.file(fd)?;
    let address = read_address(&cx.mm(), address, length)?;
    match (&socket_of(&file)?.socket, address) {
        (Socket::Unix(socket), SocketAddress::Unix(address)) => bind_unix(cx, socket, address)?,
        (Socket::Unix(_), _) => return Err(Errno::EINVAL.into()),
        (Socket::Inet(socket), SocketAddress::Inet(address)) => {
            let is_privileged = (1..1024).contains(&address.port());
            if is_privileged && !cx.cred().has(Caps::NET_BIND_SERVICE) {
                return Err(Errno::EACCES.into());
            }
            socket.bind(address)?;
        }
        (Socket::Inet(_), _) => return Err(Errno::EAFNOSUPPORT.into()),
    }
    Ok(0)
}

fn bind_unix(cx: &Cx<'_>, socket: &UnixSocket, address: Address) -> Result<()> {
    let (key, made) = match &address {
        Address::Unnamed => return socket.bind_auto(),
        Address::Abstract(name) => (Key::Abstract(name.clone()), None),
        Address::Path(path) => (make_inode(cx, path)?, Some(path.clone())),
    };
    let bound = socket.bind(address, key);
    // Linux, too, makes the inode before it looks whether the socket has a name.
    if let (Err(_), Some(path)) = (bound, made) {
        let _ = cx.with_vfs(|vfs| ops::unlink(vfs, None, &path));
    }
    bound
}

fn make_inode(cx: &Cx<'_>, path: &[u8]) -> Result<Key> {
    cx.with_vfs(|vfs| {
        let umask = vfs.fs.state.lock().umask;
        let mode = S_IFSOCK | (0o777 & !umask);
        match ops::mknod(vfs, None, path, mode, 0) {
            Err(Errno::EEXIST) => Err(Errno::EADDRINUSE),
            Err(errno) => Err(errno),
            Ok(made) => key_of(&made),
        }
    })
}

fn key_of(path: &vfs::Path) -> Result<Key> {
    let attr = path.inode().attr()?;
    Ok(Key::Inode { dev: attr.dev, ino: attr.ino })
}

/// What a socket address leads to.
///
/// # Errors
/// Those of the path walk, `EACCES` without the right to write, `ECONNREFUSED` for what is no socket.
pub fn key_at(cx: &Cx<'_>, address: Address) -> Result<Key> {
    match address {
        Address::Unnamed => Err(Errno::EINVAL),
        Address::Abstract(name) => Ok(Key::Abstract(name)),
        Address::Path(path) => cx.with_vfs(|vfs| {
            let at = vfs::path::resolve(vfs, None, &path, LookupFlags::FOLLOW)?;
            at.inode().permission(vfs.cred, Access::WRITE)?;
            if at.inode().file_type() != FileType::Socket {
                return Err(Errno::ECONNREFUSED);
            }
            key_of(&at)
        }),
    }
}

/// connect. See [connect(2)](https://man7.org/linux/man-pages/man2/connect.2.html).
pub async fn connect(cx: &mut Cx<'_>, fd: Fd, address: UserAddr, length: i32) -> SysResult {
    let file = cx.file(fd)?;
    let socket_file = socket_of(&file)?;
    let address = read_address(&cx.mm(), address, length)?;
    let mut attempt: Box<dyn FnMut() -> Result<Option<WaitQueue>> + Send> =
        match (socket_file.socket.clone(), address) {
            (Socket::Unix(socket), SocketAddress::Unspecified)
                if socket.kind() == Kind::Datagram =>
            {
                socket.set_peer(None)?;
                return Ok(0);
            }
            (Socket::Unix(socket), SocketAddress::Unix(address)) => {
                connect_unix(cx, socket, address)?
            }
            (Socket::Unix(_), _) => return Err(Errno::EINVAL.into()),
            (Socket::Inet(socket), SocketAddress::Unspecified)
                if socket.kind() == inet::Kind::Datagram =>
            {
                socket.set_peer(None)?;
                return Ok(0);
            }
            (Socket::Inet(socket), SocketAddress::Inet(to)) => Box::new(move || {
                if socket.kind() == inet::Kind::Datagram {
                    return socket.set_peer(Some(to)).map(|()| None);
                }
                Ok(match socket.connect(to)? {
                    inet::Connecting::Done => None,
                    inet::Connecting::Wait(queue) => Some(queue),
                })
            }),
            (Socket::Inet(_), _) => return Err(Errno::EAFNOSUPPORT.into()),
        };
    let Some(full) = attempt()? else { return Ok(0) };
    if file.is_nonblocking() {
        return Err(Errno::EAGAIN.into());
    }
    let deadline = socket_file.timeout(Timeout::Send).map(|timeout| cx.deadline_after(timeout));
    let attempt = move |_: &mut Cx<'_>| match attempt()? {
        None => Ok(0),
        Some(_) => Err(Errno::EAGAIN),
    };
    on_queue(cx, &full, PollEvents::OUT, deadline, attempt).await
}

/// What tries to connect a unix socket; it answers the queue to wait at while there is no room.
fn connect_unix(
    cx: &Cx<'_>,
    socket: Arc<UnixSocket>,
    address: Address,
) -> Result<Box<dyn FnMut() -> Result<Option<WaitQueue>> + Send>> {
    if socket.passes_cred() {
        socket.bind_auto()?;
    }
    let key = key_at(cx, address)?;
    let names = Arc::clone(&cx.kernel.unix_names);
    let cred = peer_cred(cx);
    Ok(Box::new(move || {
        // The listener is looked up each time: one that is waited for must not be kept alive by that.
        let found = names.find(&key)?;
        if socket.kind() == Kind::Datagram {
            return socket.set_peer(Some(&found)).map(|()| None);
        }
        Ok(match socket.connect(&found, cred)? {
            Connecting::Done => None,
            Connecting::Wait(queue) => Some(queue),
        })
    }))
}

/// listen. See [listen(2)](https://man7.org/linux/man-pages/man2/listen.2.html).
pub fn listen(cx: &mut Cx<'_>, fd: Fd, backlog: u32) -> SysResult {
    let file = cx.file(fd)?;
    let backlog = usize::try_from(backlog.min(SOMAXCONN)).unwrap_or(0);
    match &socket_of(&file)?.socket {
        Socket::Unix(socket) => socket.listen(backlog, peer_cred(cx))?,
        Socket::Inet(socket) => socket.listen(backlog)?,
    }
    Ok(0)
}

/// accept. See [accept(2)](https://man7.org/linux/man-pages/man2/accept.2.html).
pub async fn accept(cx: &mut Cx<'_>, fd: Fd, address: UserAddr, length: UserRef<i32>) -> SysResult {
    accept4(cx, fd, address, length, SocketFlags::empty()).await
}

/// accept4. See [accept4(2)](https://man7.org/linux/man-pages/man2/accept4.2.html).
pub async fn accept4(
    cx: &mut Cx<'_>,
    fd: Fd,
    address: UserAddr,
    length: UserRef<i32>,
    flags: SocketFlags,
) -> SysResult {
    let file = cx.file(fd)?;
    let socket_file = socket_of(&file)?;
    let attempt = |_: &mut Cx<'_>| socket_file.socket.accept();
    let accepted = until_ready(cx, &file, PollEvents::IN, None, attempt).await?;
    if !address.is_null() {
        let peer = accepted.peer_address()?;
        write_address(&cx.mm(), Some(&peer), address, length)?;
    }
    Ok(install(cx, accepted, flags)?.0.cast_unsigned().into())
}

/// getsockname. See [getsockname(2)](https://man7.org/linux/man-pages/man2/getsockname.2.html).
pub fn getsockname(cx: &mut Cx<'_>, fd: Fd, address: UserAddr, length: UserRef<i32>) -> SysResult {
    let file = cx.file(fd)?;
    let own = socket_of(&file)?.socket.address();
    write_address(&cx.mm(), Some(&own), address, length)?;
    Ok(0)
}

/// getpeername. See [getpeername(2)](https://man7.org/linux/man-pages/man2/getpeername.2.html).
pub fn getpeername(cx: &mut Cx<'_>, fd: Fd, address: UserAddr, length: UserRef<i32>) -> SysResult {
    let file = cx.file(fd)?;
    let peer = socket_of(&file)?.socket.peer_address()?;
    write_address(&cx.mm(), Some(&peer), address, length)?;
    Ok(0)
}

/// shutdown. See [shutdown(2)](https://man7.org/linux/man-pages/man2/shutdown.2.html).
pub fn shutdown(cx: &mut Cx<'_>, fd: Fd, how: u32) -> SysResult {
    let file = cx.file(fd)?;
    let socket = socket_of(&file)?;
    let how = match how {
        SHUT_RD => Shutdown::Read,
        SHUT_WR => Shutdown::Write,
        SHUT_RDWR => Shutdown::Both,
        _ => return Err(Errno::EINVAL.into()),
    };
    socket.socket.shut_down(how)?;
    Ok(0)
}
