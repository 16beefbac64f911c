//! Sending and receiving on sockets.

use std::sync::Arc;

use abi::ids::Fd;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use abi::socket::{MmsgHdr, MsgFlags, MsgHdr};
use abi::time::Timespec;
use abi::uio::{IOV_MAX, Iovec, MAX_RW_COUNT};
use abi::{Errno, Result, UserAddr};
use base::clock::Nanos;
use base::{Sink, Source};
use netstack::message::{Control, Mode};
use netstack::unix::Kind;
use vfs::File;

use crate::cx::Cx;
use crate::error::{SysError, SysResult};
use crate::io_wait::{READABLE, WRITABLE, until_ready};
use crate::loose_flags_arg;
use crate::mm::{UserRef, UserSink, UserSlice, UserSource};
use crate::signal::send_to_thread;
use crate::socket::{
    Destination, Received, Socket, SocketAddress, read_address, read_control, sender_cred,
    socket_of, write_address, write_control,
};
use crate::syscalls::args::OutSlice;
use crate::syscalls::read_write::read_vector;
use crate::syscalls::socket::key_at;

loose_flags_arg!(MsgFlags as "MSG_");

/// Most messages in one sendmmsg or recvmmsg.
const MAX_MESSAGES: usize = 1024;

/// sendto. See [sendto(2)](https://man7.org/linux/man-pages/man2/sendto.2.html).
pub async fn sendto(
    cx: &mut Cx<'_>,
    fd: Fd,
    buf: UserSlice,
    flags: MsgFlags,
    address: UserAddr,
    length: i32,
) -> SysResult {
    let file = cx.file(fd)?;
    socket_of(&file)?;
    let to = if address.is_null() { None } else { destination(cx, address, length)? };
    let control = Control { cred: sender_cred(cx), rights: Vec::new() };
    let ranges = [clipped(buf)];
    send(cx, &file, &Message { ranges: &ranges, to, control, flags }).await
}

/// sendmsg. See [sendmsg(2)](https://man7.org/linux/man-pages/man2/sendmsg.2.html).
pub async fn sendmsg(
    cx: &mut Cx<'_>,
    fd: Fd,
    header: UserRef<MsgHdr>,
    flags: MsgFlags,
) -> SysResult {
    let file = cx.file(fd)?;
    send_header(cx, &file, header, flags).await
}

/// sendmmsg. See [sendmmsg(2)](https://man7.org/linux/man-pages/man2/sendmmsg.2.html).
pub async fn sendmmsg(
    cx: &mut Cx<'_>,
    fd: Fd,
    headers: UserRef<MmsgHdr>,
    count: u32,
    flags: MsgFlags,
) -> SysResult {
    let file = cx.file(fd)?;
    let count = usize::try_from(count).unwrap_or(MAX_MESSAGES).min(MAX_MESSAGES);
    let mut done = 0;
    while done < count {
        let at = headers.at(done)?;
        // The header of a message is the first field of its entry.
        let sent = match send_header(cx, &file, UserRef::new(at.addr), flags).await {
            Ok(sent) => sent,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        };
        write_length(cx, at, sent)?;
        done += 1;
    }
    Ok(done as u64)
}

/// recvfrom. See [recvfrom(2)](https://man7.org/linux/man-pages/man2/recvfrom.2.html).
pub async fn recvfrom(
    cx: &mut Cx<'_>,
    fd: Fd,
    buf: OutSlice,
    flags: MsgFlags,
    address: UserAddr,
    length: UserRef<i32>,
) -> SysResult {
    let file = cx.file(fd)?;
    socket_of(&file)?;
    let ranges = [clipped(buf.0)];
    let received = receive(cx, &file, &ranges, flags, None).await?;
    if !address.is_null() {
        write_address(&cx.mm(), received.from.as_ref(), address, length)?;
    }
    Ok(returned(&received, flags))
}

/// recvmsg. See [recvmsg(2)](https://man7.org/linux/man-pages/man2/recvmsg.2.html).
pub async fn recvmsg(
    cx: &mut Cx<'_>,
    fd: Fd,
    header: UserRef<MsgHdr>,
    flags: MsgFlags,
) -> SysResult {
    let file = cx.file(fd)?;
    receive_header(cx, &file, header, flags, None).await
}

/// recvmmsg. See [recvmmsg(2)](https://man7.org/linux/man-pages/man2/recvmmsg.2.html).
pub async fn recvmmsg(
    cx: &mut Cx<'_>,
    fd: Fd,
    headers: UserRef<MmsgHdr>,
    count: u32,
    mut flags: MsgFlags,
    timeout: UserRef<Timespec>,
) -> SysResult {
    let file = cx.file(fd)?;
    let deadline = match timeout.optional() {
        None => None,
        Some(timeout) => {
            let timeout = timeout.read(&cx.mm())?;
            if !timeout.is_valid() {
                return Err(Errno::EINVAL.into());
            }
            Some(cx.deadline_after(timeout.to_nanos()))
        }
    };
    let count = usize::try_from(count).unwrap_or(MAX_MESSAGES).min(MAX_MESSAGES);
    let mut done = 0;
    while done < count {
        let at = headers.at(done)?;
        let header = UserRef::new(at.addr);
        let length = match receive_header(cx, &file, header, flags, deadline).await {
            Ok(length) => length,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        };
        write_length(cx, at, length)?;
        done += 1;
        if flags.contains(MsgFlags::WAITFORONE) {
            flags |= MsgFlags::DONTWAIT;
        }
    }
    Ok(done as u64)
}

fn write_length(cx: &Cx<'_>, entry: UserRef<MmsgHdr>, length: u64) -> Result<()> {
    let field = std::mem::offset_of!(MmsgHdr, len) as u64;
    let at = entry.addr.checked_add(field).ok_or(Errno::EFAULT)?;
    UserRef::new(at).write(&cx.mm(), &u32::try_from(length).unwrap_or(u32::MAX))
}

fn clipped(buf: UserSlice) -> UserSlice {
    UserSlice { addr: buf.addr, len: buf.len.min(MAX_RW_COUNT) }
}

// Sending.

/// What a send call asks for.
struct Message<'a> {
    ranges: &'a [UserSlice],
    to: Option<Destination>,
    control: Control,
    flags: MsgFlags,
}

fn destination(cx: &Cx<'_>, at: UserAddr, length: i32) -> Result<Option<Destination>> {
    if length == 0 {
        return Ok(None);
    }
    match read_address(&cx.mm(), at, length)? {
        SocketAddress::Unspecified => Ok(None),
        SocketAddress::Foreign(_) => Err(Errno::EINVAL),
        SocketAddress::Inet(to) => Ok(Some(Destination::Inet(to))),
        SocketAddress::Unix(address) => {
            let key = key_at(cx, address)?;
            Ok(Some(Destination::Unix(cx.kernel.unix_names.find(&key)?)))
        }
    }
}

/// The buffers of a message header.
fn vector_of(cx: &Cx<'_>, header: &MsgHdr) -> Result<smallvec::SmallVec<[UserSlice; 4]>> {
    let count = usize::try_from(header.iov_len).unwrap_or(usize::MAX);
    if count > IOV_MAX {
        return Err(Errno::EMSGSIZE);
    }
    read_vector(cx, UserRef::<Iovec>::new(UserAddr(header.iov)), count)
}

async fn send_header(
    cx: &mut Cx<'_>,
    file: &Arc<File>,
    header: UserRef<MsgHdr>,
    flags: MsgFlags,
) -> SysResult {
    socket_of(file)?;
    let header = header.read(&cx.mm())?;
    let ranges = vector_of(cx, &header)?;
    let to = match header.name {
        0 => None,
        name => destination(cx, UserAddr(name), header.name_len)?,
    };
    let control = read_control(cx, UserAddr(header.control), header.control_len)?;
    send(cx, file, &Message { ranges: &ranges, to, control, flags }).await
}

async fn send(cx: &mut Cx<'_>, file: &Arc<File>, message: &Message<'_>) -> SysResult {
    let socket = &socket_of(file)?.socket;
    check_send(socket, message)?;
    if let Socket::Unix(unix) = socket
        && unix.passes_cred()
        && unix.kind() == Kind::Datagram
    {
        unix.bind_auto()?;
    }
    let may_wait = !message.flags.contains(MsgFlags::DONTWAIT);
    let mm = cx.mm();
    let mut source = UserSource::new(&mm, message.ranges);
    let mut control = message.control.clone();
    let mut done = 0;
    loop {
        let mut attempt =
            |_: &mut Cx<'_>| socket.send(&mut source, &mut control, message.to.as_ref());
        let step = if may_wait {
            until_ready(cx, file, WRITABLE, None, attempt).await
        } else {
            attempt(cx).map_err(SysError::from)
        };
        match step {
            Ok(count) => done += count,
            Err(error) => {
                if error == SysError::Errno(Errno::EPIPE) {
                    broken_pipe(cx, socket, message.flags);
                }
                return if done > 0 { Ok(done as u64) } else { Err(error) };
            }
        }
        if !socket.is_stream() || source.remaining() == 0 {
            return Ok(done as u64);
        }
    }
}

fn check_send(socket: &Socket, message: &Message<'_>) -> Result<()> {
    if message.flags.contains(MsgFlags::OOB) {
        return Err(Errno::EOPNOTSUPP);
    }
    let Socket::Unix(unix) = socket else {
        let has_rights = !message.control.rights.is_empty();
        return if has_rights { Err(Errno::EINVAL) } else { Ok(()) };
    };
    if message.to.is_some() && unix.kind() != Kind::Datagram {
        let is_connected = unix.peer_address().is_ok();
        return Err(match unix.kind() {
            Kind::Stream if !is_connected => Errno::EOPNOTSUPP,
            _ if is_connected => Errno::EISCONN,
            _ => Errno::ENOTCONN,
        });
    }
    Ok(())
}

/// Only streams raise SIGPIPE, and not when the caller says so.
fn broken_pipe(cx: &Cx<'_>, socket: &Socket, flags: MsgFlags) {
    if socket.is_stream() && !flags.contains(MsgFlags::NOSIGNAL) {
        let uid = cx.cred().ruid;
        let info = SigInfo::user(Signal::SIGPIPE, abi::siginfo::SI_USER, cx.thread.tgid(), uid);
        // A signal that cannot be queued is lost, as on Linux.
        let _ = send_to_thread(cx.thread, info);
    }
}

// Receiving.

async fn receive_header(
    cx: &mut Cx<'_>,
    file: &Arc<File>,
    at: UserRef<MsgHdr>,
    flags: MsgFlags,
    deadline: Option<Nanos>,
) -> SysResult {
    let socket = &socket_of(file)?.socket;
    let mut header = at.read(&cx.mm())?;
    if header.name_len < 0 {
        return Err(Errno::EINVAL.into());
    }
    let ranges = vector_of(cx, &header)?;
    let received = receive(cx, file, &ranges, flags, deadline).await?;
    let mut told = flags & MsgFlags::CMSG_CLOEXEC;
    if received.full > received.bytes {
        told |= MsgFlags::TRUNC;
    }
    if header.name != 0 {
        let name_len = std::mem::offset_of!(MsgHdr, name_len) as u64;
        let length = at.addr.checked_add(name_len).ok_or(Errno::EFAULT)?;
        let from = received.from.as_ref();
        write_address(&cx.mm(), from, UserAddr(header.name), UserRef::new(length))?;
        header.name_len = UserRef::new(length).read(&cx.mm())?;
    }
    let mut used = 0;
    if let (Socket::Unix(_), Some(control)) = (socket, &received.control) {
        let place = UserAddr(header.control);
        let passes = socket.passes_cred();
        let outcome = write_control(cx, control, passes, place, header.control_len, flags)?;
        used = outcome.0;
        told |= outcome.1;
    }
    header.control_len = used as u64;
    header.flags = told.bits();
    at.write(&cx.mm(), &header)?;
    Ok(returned(&received, flags))
}

/// What the call returns: with `MSG_TRUNC` the length of the whole packet.
fn returned(received: &Received, flags: MsgFlags) -> u64 {
    let whole = flags.contains(MsgFlags::TRUNC);
    (if whole { received.full.max(received.bytes) } else { received.bytes }) as u64
}

async fn receive(
    cx: &mut Cx<'_>,
    file: &Arc<File>,
    ranges: &[UserSlice],
    flags: MsgFlags,
    deadline: Option<Nanos>,
) -> std::result::Result<Received, SysError> {
    if flags.intersects(MsgFlags::OOB) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if flags.contains(MsgFlags::ERRQUEUE) {
        return Err(Errno::EAGAIN.into());
    }
    let socket = &socket_of(file)?.socket;
    let mode = if flags.contains(MsgFlags::PEEK) { Mode::Peek } else { Mode::Take };
    let may_wait = !flags.contains(MsgFlags::DONTWAIT);
    let wants_all =
        flags.contains(MsgFlags::WAITALL) && may_wait && mode == Mode::Take && socket.is_stream();
    let mm = cx.mm();
    let mut sink = UserSink::new(&mm, ranges);
    let mut total = Received::default();
    loop {
        let mut attempt = |_: &mut Cx<'_>| socket.receive(&mut sink, mode);
        let step = if may_wait {
            until_ready(cx, file, READABLE, deadline, attempt).await
        } else {
            attempt(cx).map_err(SysError::from)
        };
        let received = match step {
            Ok(received) => received,
            Err(_) if total.bytes > 0 => return Ok(total),
            Err(error) => return Err(error),
        };
        if !wants_all {
            return Ok(received);
        }
        let is_end = received.control.is_none();
        let has_rights =
            received.control.as_ref().is_some_and(|control| !control.rights.is_empty());
        total.bytes += received.bytes;
        total.full = total.bytes;
        total.from = received.from;
        total.control = received.control.or(total.control);
        if is_end || has_rights || sink.remaining() == 0 {
            return Ok(total);
        }
    }
}
