//! Making sockets, naming and connecting them.

use std::sync::Arc;

use abi::ids::Fd;
use abi::poll::PollEvents;
use abi::socket::{
    AF_INET, AF_INET6, AF_UNIX, SHUT_RD, SHUT_RDWR, SHUT_WR, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET,
    SOCK_STREAM, SOCK_TYPE_MASK, SOMAXCONN, SocketFlags,
};
use abi::stat::{FileType, S_IFSOCK};
use abi::{Errno, Result, UserAddr};
use base::cred::Access;
use netstack::unix::{Address, Connecting, Key, Kind, Shutdown, UnixSocket};
use vfs::ops;
use vfs::path::LookupFlags;

use crate::cx::Cx;
use crate::error::SysResult;
use crate::io_wait::{on_queue, until_ready};
use crate::mm::UserRef;
use crate::socket::{
    SocketAddress, Timeout, install, peer_cred, read_address, socket_of, write_address,
};
use crate::strict_flags_arg;
use crate::syscalls::fd::close;

strict_flags_arg!(SocketFlags as "SOCK_");

/// Type and flags of socket(2)'s second argument.
fn split_type(word: u32) -> Result<(u32, SocketFlags)> {
    let flags = SocketFlags::from_bits(word & !SOCK_TYPE_MASK).ok_or(Errno::EINVAL)?;
    Ok((word & SOCK_TYPE_MASK, flags))
}

/// The kind of a unix socket; the only family there is so far.
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
    let kind = unix_kind(domain, kind, protocol)?;
    let fd = install(cx, UnixSocket::new(kind, &cx.kernel.unix_names), flags)?;
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
    if [AF_INET, AF_INET6].map(u32::from).contains(&domain) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let kind = unix_kind(domain, kind, protocol)?;
    let (a, b) = UnixSocket::pair(kind, &cx.kernel.unix_names, peer_cred(cx));
    let first = install(cx, a, flags)?;
    let told = install(cx, b, flags).and_then(|second| {
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
    let socket = &socket_of(&file)?.unix;
    let SocketAddress::Unix(address) = read_address(&cx.mm(), address, length)? else {
        return Err(Errno::EINVAL.into());
    };
    let key = match &address {
        Address::Unnamed => {
            socket.bind_auto()?;
            return Ok(0);
        }
        Address::Abstract(name) => Key::Abstract(name.clone()),
        Address::Path(path) => make_inode(cx, path)?,
    };
    let made = match &address {
        Address::Path(path) => Some(path.clone()),
        Address::Unnamed | Address::Abstract(_) => None,
    };
    if let Err(errno) = socket.bind(address, key) {
        // Linux, too, makes the inode before it looks whether the socket has a name.
        if let Some(path) = made {
            let _ = cx.with_vfs(|vfs| ops::unlink(vfs, None, &path));
        }
        return Err(errno.into());
    }
    Ok(0)
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
    let socket = Arc::clone(&socket_file.unix);
    let address = match read_address(&cx.mm(), address, length)? {
        SocketAddress::Unix(address) => address,
        SocketAddress::Unspecified if socket.kind() == Kind::Datagram => {
            socket.set_peer(None)?;
            return Ok(0);
        }
        SocketAddress::Unspecified | SocketAddress::Foreign(_) => return Err(Errno::EINVAL.into()),
    };
    if socket.passes_cred() {
        socket.bind_auto()?;
    }
    let key = key_at(cx, address)?;
    let names = Arc::clone(&cx.kernel.unix_names);
    if socket.kind() == Kind::Datagram {
        socket.set_peer(Some(&names.find(&key)?))?;
        return Ok(0);
    }
    let timeout = socket_file.timeout(Timeout::Send);
    let deadline = timeout.map(|timeout| cx.deadline_after(timeout));
    let cred = peer_cred(cx);
    // The listener is looked up each time: one that is waited for must not be kept alive by that.
    let full = match socket.connect(&names.find(&key)?, cred)? {
        Connecting::Done => return Ok(0),
        Connecting::Wait(_) if file.is_nonblocking() => return Err(Errno::EAGAIN.into()),
        Connecting::Wait(queue) => queue,
    };
    let attempt = |_: &mut Cx<'_>| match socket.connect(&names.find(&key)?, cred)? {
        Connecting::Done => Ok(0),
        Connecting::Wait(_) => Err(Errno::EAGAIN),
    };
    on_queue(cx, &full, PollEvents::OUT, deadline, attempt).await
}

/// listen. See [listen(2)](https://man7.org/linux/man-pages/man2/listen.2.html).
pub fn listen(cx: &mut Cx<'_>, fd: Fd, backlog: u32) -> SysResult {
    let file = cx.file(fd)?;
    let backlog = usize::try_from(backlog.min(SOMAXCONN)).unwrap_or(0);
    socket_of(&file)?.unix.listen(backlog, peer_cred(cx))?;
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
    let deadline = socket_file.timeout(Timeout::Receive).map(|time| cx.deadline_after(time));
    let attempt = |_: &mut Cx<'_>| socket_file.unix.accept();
    let accepted = until_ready(cx, &file, PollEvents::IN, deadline, attempt).await?;
    if !address.is_null() {
        let peer = accepted.peer_address().unwrap_or_default();
        write_address(&cx.mm(), Some(&peer), address, length)?;
    }
    Ok(install(cx, accepted, flags)?.0.cast_unsigned().into())
}

/// getsockname. See [getsockname(2)](https://man7.org/linux/man-pages/man2/getsockname.2.html).
pub fn getsockname(cx: &mut Cx<'_>, fd: Fd, address: UserAddr, length: UserRef<i32>) -> SysResult {
    let file = cx.file(fd)?;
    let own = socket_of(&file)?.unix.address();
    write_address(&cx.mm(), Some(&own), address, length)?;
    Ok(0)
}

/// getpeername. See [getpeername(2)](https://man7.org/linux/man-pages/man2/getpeername.2.html).
pub fn getpeername(cx: &mut Cx<'_>, fd: Fd, address: UserAddr, length: UserRef<i32>) -> SysResult {
    let file = cx.file(fd)?;
    let peer = socket_of(&file)?.unix.peer_address()?;
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
    socket.unix.shut_down(how)?;
    Ok(0)
}
