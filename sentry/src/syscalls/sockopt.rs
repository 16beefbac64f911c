//! Options of sockets. See socket(7), unix(7), ip(7), ipv6(7), tcp(7).

use abi::ids::Fd;
use abi::socket::*;
use abi::time::Timeval;
use abi::{Errno, Result, UserAddr};
use netstack::inet;
use netstack::unix::{Kind, UnixSocket};
use zerocopy::IntoBytes;

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::UserRef;
use crate::socket::{Socket, SocketFile, Timeout, socket_of};

/// Options that are remembered and told back, because they change nothing for sockets of one host.
const STORED: &[i32] = &[
    SO_DEBUG,
    SO_DONTROUTE,
    SO_BROADCAST,
    SO_KEEPALIVE,
    SO_OOBINLINE,
    SO_PRIORITY,
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
        let Socket::Inet(inet) = &socket.socket else { return Err(Errno::EOPNOTSUPP.into()) };
        set_inet(cx, socket, inet, (level, option), value, length)?;
        return Ok(0);
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
            socket.store(SOL_SOCKET, SO_LINGER, seconds.wrapping_add(1));
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
    let store = |value| socket.store(SOL_SOCKET, option, value);
    match (option, &socket.socket) {
        (SO_PASSCRED, Socket::Unix(unix)) => unix.set_passes_cred(value != 0),
        (SO_SNDBUF, Socket::Unix(unix)) => unix.set_send_buffer(size()),
        (SO_SNDBUF, Socket::Inet(inet)) => inet.set_send_buffer(size()),
        (SO_RCVBUF, Socket::Unix(unix)) => unix.set_receive_buffer(size()),
        (SO_RCVBUF, Socket::Inet(inet)) => inet.set_receive_buffer(size()),
        (SO_REUSEADDR, Socket::Inet(inet)) => inet.set_reuses_address(value != 0),
        (SO_REUSEPORT, Socket::Inet(inet)) => inet.set_shares_port(value != 0),
        (SO_REUSEADDR | SO_REUSEPORT, Socket::Unix(_)) => store(i32::from(value != 0)),
        (SO_SNDBUFFORCE | SO_RCVBUFFORCE, _) => return Err(Errno::EPERM),
        (SO_RCVLOWAT, _) => store(value.max(1)),
        _ if STORED_NUMBERS.contains(&option) => store(value),
        _ if STORED.contains(&option) => store(i32::from(value != 0)),
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(())
}

/// Options of the protocols below a socket, and their values before they are set. They are told back: on a loopback
/// without packets there is nothing they could change, but IPV6_V6ONLY.
const PROTOCOL_OPTIONS: &[(i32, &[(i32, i32)])] = &[
    // IP_TOS, IP_TTL, IP_RECVOPTS, IP_PKTINFO, IP_MTU_DISCOVER, IP_RECVERR, IP_RECVTTL, IP_RECVTOS, IP_FREEBIND,
    // IP_MULTICAST_TTL, IP_MULTICAST_LOOP, IP_BIND_ADDRESS_NO_PORT
    (
        0,
        &[
            (1, 0),
            (2, 64),
            (6, 0),
            (8, 0),
            (10, 1),
            (11, 0),
            (12, 0),
            (13, 0),
            (15, 0),
            (24, 0),
            (33, 1),
            (34, 1),
        ],
    ),
    // TCP_NODELAY, TCP_MAXSEG, TCP_CORK, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_SYNCNT, TCP_LINGER2,
    // TCP_DEFER_ACCEPT, TCP_QUICKACK, TCP_USER_TIMEOUT, TCP_FASTOPEN, TCP_NOTSENT_LOWAT
    (
        6,
        &[
            (1, 0),
            (2, 65483),
            (3, 0),
            (4, 7200),
            (5, 75),
            (6, 9),
            (7, 6),
            (8, 60),
            (9, 0),
            (12, 1),
            (18, 0),
            (23, 0),
            (25, -1),
        ],
    ),
    // IPV6_UNICAST_HOPS, IPV6_MULTICAST_HOPS, IPV6_MULTICAST_LOOP, IPV6_MTU_DISCOVER, IPV6_RECVERR, IPV6_RECVPKTINFO,
    // IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS, IPV6_TCLASS
    (41, &[(16, 64), (18, 1), (19, 1), (23, 1), (25, 0), (49, 0), (51, 0), (66, 0), (67, 0)]),
];

const IPV6_LEVEL: i32 = 41;
const IPV6_V6ONLY: i32 = 26;

/// The value an option has before it is set; `None` when the socket does not know it.
fn protocol_default(inet: &inet::InetSocket, (level, option): (i32, i32)) -> Option<i32> {
    let applies = match level {
        6 => inet.kind() == inet::Kind::Stream,
        IPV6_LEVEL => inet.family() == inet::Family::V6,
        _ => true,
    };
    let (_, options) = PROTOCOL_OPTIONS.iter().find(|(known, _)| applies && *known == level)?;
    options.iter().find(|(known, _)| *known == option).map(|(_, default)| *default)
}

fn set_inet(
    cx: &Cx<'_>,
    socket: &SocketFile,
    inet: &inet::InetSocket,
    (level, option): (i32, i32),
    value: UserAddr,
    length: i32,
) -> Result<()> {
    let value = match length {
        0 => return Err(Errno::EINVAL),
        // Single bytes are taken where Linux takes them: everywhere at the IP level.
        1..4 => {
            let mut byte = [0];
            cx.mm().read(value, &mut byte)?;
            i32::from(byte[0])
        }
        _ => UserRef::<i32>::new(value).read(&cx.mm())?,
    };
    if (level, option) == (IPV6_LEVEL, IPV6_V6ONLY) && inet.family() == inet::Family::V6 {
        inet.set_v6_only(value != 0);
        return Ok(());
    }
    protocol_default(inet, (level, option)).ok_or(Errno::ENOPROTOOPT)?;
    socket.store(level, option, value);
    Ok(())
}

fn inet_value(socket: &SocketFile, inet: &inet::InetSocket, at: (i32, i32)) -> Result<i32> {
    if at == (IPV6_LEVEL, IPV6_V6ONLY) && inet.family() == inet::Family::V6 {
        return Ok(inet.is_v6_only().into());
    }
    let default = protocol_default(inet, at).ok_or(Errno::ENOPROTOOPT)?;
    Ok(socket.stored(at.0, at.1).unwrap_or(default))
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
    let bytes = match &socket.socket {
        Socket::Inet(inet) if level != SOL_SOCKET => {
            inet_value(socket, inet, (level, option))?.to_ne_bytes().to_vec()
        }
        Socket::Unix(_) if level != SOL_SOCKET => return Err(Errno::EOPNOTSUPP.into()),
        Socket::Unix(_) | Socket::Inet(_) => value_of(cx, socket, option)?,
    };
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
    let number = match option {
        SO_ACCEPTCONN => socket.socket.is_listening().into(),
        SO_PASSCRED => socket.socket.passes_cred().into(),
        SO_RCVLOWAT => stored(socket, SO_RCVLOWAT).max(1),
        SO_SNDLOWAT => 1,
        SO_PEERCRED => {
            let Socket::Unix(unix) = &socket.socket else { return Err(Errno::ENOPROTOOPT) };
            // Without a peer Linux tells these.
            let none = Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
            return Ok(unix.peer_cred().unwrap_or(none).as_bytes().to_vec());
        }
        SO_PEERGROUPS => return peer_groups(cx, socket),
        SO_RCVTIMEO => return Ok(timeval(socket.timeout(Timeout::Receive))),
        SO_SNDTIMEO => return Ok(timeval(socket.timeout(Timeout::Send))),
        SO_LINGER => {
            let stored = stored(socket, SO_LINGER);
            let linger =
                Linger { on: i32::from(stored > 0), seconds: stored.saturating_sub(1).max(0) };
            return Ok(linger.as_bytes().to_vec());
        }
        _ if STORED.contains(&option) => stored(socket, option),
        _ => match &socket.socket {
            Socket::Unix(unix) => unix_number(socket, unix, option)?,
            Socket::Inet(inet) => inet_number(inet, option)?,
        },
    };
    Ok(number.to_ne_bytes().to_vec())
}

fn stored(socket: &SocketFile, option: i32) -> i32 {
    socket.stored(SOL_SOCKET, option).unwrap_or(0)
}

fn int(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

fn unix_number(socket: &SocketFile, unix: &UnixSocket, option: i32) -> Result<i32> {
    Ok(match option {
        SO_TYPE => match unix.kind() {
            Kind::Stream => SOCK_STREAM.cast_signed(),
            Kind::Datagram => SOCK_DGRAM.cast_signed(),
            Kind::SeqPacket => SOCK_SEQPACKET.cast_signed(),
        },
        SO_DOMAIN => AF_UNIX.into(),
        SO_PROTOCOL => 0,
        SO_ERROR => unix.take_error().map_or(0, Errno::raw),
        SO_SNDBUF => int(unix.send_buffer()),
        SO_RCVBUF => int(unix.receive_buffer()),
        SO_REUSEADDR | SO_REUSEPORT => stored(socket, option),
        _ => return Err(Errno::ENOPROTOOPT),
    })
}

fn inet_number(inet: &inet::InetSocket, option: i32) -> Result<i32> {
    let is_stream = inet.kind() == inet::Kind::Stream;
    Ok(match option {
        SO_TYPE => (if is_stream { SOCK_STREAM } else { SOCK_DGRAM }).cast_signed(),
        SO_DOMAIN => match inet.family() {
            inet::Family::V4 => AF_INET.into(),
            inet::Family::V6 => AF_INET6.into(),
        },
        SO_PROTOCOL => (if is_stream { IPPROTO_TCP } else { IPPROTO_UDP }).cast_signed(),
        SO_ERROR => inet.take_error().map_or(0, Errno::raw),
        SO_SNDBUF => int(inet.send_buffer()),
        SO_RCVBUF => int(inet.receive_buffer()),
        SO_REUSEADDR => inet.reuses_address().into(),
        SO_REUSEPORT => inet.shares_port().into(),
        _ => return Err(Errno::ENOPROTOOPT),
    })
}

fn timeval(timeout: Option<u64>) -> Vec<u8> {
    let nanos = timeout.unwrap_or(0);
    let part = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let time = Timeval { sec: part(nanos / 1_000_000_000), usec: part(nanos / 1000 % 1_000_000) };
    time.as_bytes().to_vec()
}

/// Supplementary groups of the peer, while it lives.
fn peer_groups(cx: &Cx<'_>, socket: &SocketFile) -> Result<Vec<u8>> {
    let Socket::Unix(unix) = &socket.socket else { return Err(Errno::ENODATA) };
    let peer = unix.peer_cred().ok_or(Errno::ENODATA)?;
    let thread = cx.kernel.tasks.thread(abi::ids::Tid(peer.pid)).ok_or(Errno::ENODATA)?;
    Ok(thread.cred().groups.iter().flat_map(|gid| gid.0.to_ne_bytes()).collect())
}
