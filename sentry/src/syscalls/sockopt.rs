//! Options of sockets. See socket(7), unix(7).

use abi::ids::Fd;
use abi::socket::*;
use abi::time::Timeval;
use abi::{Errno, Result, UserAddr};
use netstack::unix::Kind;
use zerocopy::IntoBytes;

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::UserRef;
use crate::socket::{SocketFile, Timeout, socket_of};

/// Options that are remembered and told back, because they mean nothing for unix sockets.
const STORED: &[i32] = &[
    SO_DEBUG,
    SO_REUSEADDR,
    SO_DONTROUTE,
    SO_BROADCAST,
    SO_KEEPALIVE,
    SO_OOBINLINE,
    SO_PRIORITY,
    SO_REUSEPORT,
    SO_RCVLOWAT,
    SO_TIMESTAMP,
    SO_PASSSEC,
];

/// Of those, the ones that are not truth values.
const STORED_NUMBERS: &[i32] = &[SO_PRIORITY, SO_RCVLOWAT];

/// setsockopt. See [setsockopt(2)](https://man7.org/linux/man-pages/man2/setsockopt.2.html).
pub fn setsockopt(
    cx: &mut Cx<'_>,
    fd: Fd,
    level: i32,
    option: i32,
    value: UserAddr,
    length: i32,
) -> SysResult {
    let file = cx.file(fd)?;
    let socket = socket_of(&file)?;
    if length < 0 {
        return Err(Errno::EINVAL.into());
    }
    if level != SOL_SOCKET {
        return Err(Errno::EOPNOTSUPP.into());
    }
    match option {
        SO_RCVTIMEO => socket.set_timeout(Timeout::Receive, read_timeout(cx, value, length)?),
        SO_SNDTIMEO => socket.set_timeout(Timeout::Send, read_timeout(cx, value, length)?),
        SO_LINGER => {
            if usize::try_from(length).unwrap_or(0) < size_of::<Linger>() {
                return Err(Errno::EINVAL.into());
            }
            let linger = UserRef::<Linger>::new(value).read(&cx.mm())?;
            let seconds = if linger.on == 0 { -1 } else { linger.seconds.max(0) };
            socket.store(SO_LINGER, seconds.wrapping_add(1));
        }
        _ => set_int(cx, socket, option, value, length)?,
    }
    Ok(0)
}

fn set_int(
    cx: &Cx<'_>,
    socket: &SocketFile,
    option: i32,
    value: UserAddr,
    length: i32,
) -> Result<()> {
    if length < 4 {
        return Err(Errno::EINVAL);
    }
    let value = UserRef::<i32>::new(value).read(&cx.mm())?;
    let size = || usize::try_from(value).unwrap_or(0);
    match option {
        SO_PASSCRED => socket.unix.set_passes_cred(value != 0),
        SO_SNDBUF => socket.unix.set_send_buffer(size()),
        SO_RCVBUF => socket.unix.set_receive_buffer(size()),
        SO_SNDBUFFORCE | SO_RCVBUFFORCE => return Err(Errno::EPERM),
        SO_RCVLOWAT => socket.store(option, value.max(1)),
        _ if STORED_NUMBERS.contains(&option) => socket.store(option, value),
        _ if STORED.contains(&option) => socket.store(option, i32::from(value != 0)),
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(())
}

/// Nanoseconds; zero waits for ever.
fn read_timeout(cx: &Cx<'_>, at: UserAddr, length: i32) -> Result<Option<u64>> {
    if usize::try_from(length).unwrap_or(0) < size_of::<Timeval>() {
        return Err(Errno::EINVAL);
    }
    let time = UserRef::<Timeval>::new(at).read(&cx.mm())?;
    let micros = u64::try_from(time.usec).ok().filter(|micros| *micros < 1_000_000);
    let micros = micros.ok_or(Errno::EDOM)?;
    // A negative time is none at all: the call does not wait.
    let Ok(seconds) = u64::try_from(time.sec) else { return Ok(Some(0)) };
    let nanos = seconds.saturating_mul(1_000_000_000).saturating_add(micros * 1000);
    Ok((nanos != 0).then_some(nanos))
}

/// getsockopt. See [getsockopt(2)](https://man7.org/linux/man-pages/man2/getsockopt.2.html).
pub fn getsockopt(
    cx: &mut Cx<'_>,
    fd: Fd,
    level: i32,
    option: i32,
    value: UserAddr,
    length: UserRef<i32>,
) -> SysResult {
    let file = cx.file(fd)?;
    let socket = socket_of(&file)?;
    let mm = cx.mm();
    let room = usize::try_from(length.read(&mm)?).map_err(|_| Errno::EINVAL)?;
    if level != SOL_SOCKET {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let bytes = value_of(cx, socket, option)?;
    if option == SO_PEERGROUPS && room < bytes.len() {
        length.write(&mm, &i32::try_from(bytes.len()).unwrap_or(i32::MAX))?;
        return Err(Errno::ERANGE.into());
    }
    let told = bytes.get(..room).unwrap_or(&bytes);
    mm.write(value, told)?;
    length.write(&mm, &i32::try_from(told.len()).unwrap_or(i32::MAX))?;
    Ok(0)
}

fn value_of(cx: &Cx<'_>, socket: &SocketFile, option: i32) -> Result<Vec<u8>> {
    let unix = &socket.unix;
    let size = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
    let number = match option {
        SO_TYPE => match unix.kind() {
            Kind::Stream => SOCK_STREAM.cast_signed(),
            Kind::Datagram => SOCK_DGRAM.cast_signed(),
            Kind::SeqPacket => SOCK_SEQPACKET.cast_signed(),
        },
        SO_DOMAIN => AF_UNIX.into(),
        SO_PROTOCOL => 0,
        SO_ERROR => unix.take_error().map_or(0, Errno::raw),
        SO_ACCEPTCONN => unix.is_listening().into(),
        SO_PASSCRED => unix.passes_cred().into(),
        SO_SNDBUF => size(unix.send_buffer()),
        SO_RCVBUF => size(unix.receive_buffer()),
        SO_RCVLOWAT => socket.stored(SO_RCVLOWAT).max(1),
        SO_SNDLOWAT => 1,
        SO_PEERCRED => {
            // Without a peer Linux tells these.
            let none = Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
            return Ok(unix.peer_cred().unwrap_or(none).as_bytes().to_vec());
        }
        SO_PEERGROUPS => return peer_groups(cx, socket),
        SO_RCVTIMEO => return Ok(timeval(socket.timeout(Timeout::Receive))),
        SO_SNDTIMEO => return Ok(timeval(socket.timeout(Timeout::Send))),
        SO_LINGER => {
            let stored = socket.stored(SO_LINGER);
            let linger =
                Linger { on: i32::from(stored > 0), seconds: stored.saturating_sub(1).max(0) };
            return Ok(linger.as_bytes().to_vec());
        }
        _ if STORED.contains(&option) => socket.stored(option),
        _ => return Err(Errno::ENOPROTOOPT),
    };
    Ok(number.to_ne_bytes().to_vec())
}

fn timeval(timeout: Option<u64>) -> Vec<u8> {
    let nanos = timeout.unwrap_or(0);
    let part = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let time = Timeval { sec: part(nanos / 1_000_000_000), usec: part(nanos / 1000 % 1_000_000) };
    time.as_bytes().to_vec()
}

/// Supplementary groups of the peer, while it lives.
fn peer_groups(cx: &Cx<'_>, socket: &SocketFile) -> Result<Vec<u8>> {
    let peer = socket.unix.peer_cred().ok_or(Errno::ENODATA)?;
    let thread = cx.kernel.tasks.thread(abi::ids::Tid(peer.pid)).ok_or(Errno::ENODATA)?;
    Ok(thread.cred().groups.iter().flat_map(|gid| gid.0.to_ne_bytes()).collect())
}
