//! Messages with a few descriptors over `SOCK_SEQPACKET` sockets. See unix(7).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Descriptors of one message, at most.
pub const MAX_FDS: usize = 32;

/// Sends `bytes` as one message, with `fds`.
///
/// # Errors
/// What sendmsg(2) says; `EPIPE` (without a signal) when the peer is gone, `EINVAL` for more than [`MAX_FDS`].
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = fds.is_empty()
        || fds.len() <= MAX_FDS && control.push(SendAncillaryMessage::ScmRights(fds));
    if !fits {
        return Err(Errno::INVAL);
    }
    let parts = [IoSlice::new(bytes)];
    loop {
        match sendmsg(socket.as_fd(), &parts, &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == bytes.len() => return Ok(()),
            Ok(_) => return Err(Errno::MSGSIZE),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Receives one message into `into`; returns its length (0: the peer is gone) and the descriptors that came with
/// it, in order. When the caller's table gets full the last ones are missing.
///
/// # Errors
/// What recvmsg(2) says; `EMSGSIZE` when the message did not fit, `EMFILE` when it came whole but all its descriptors
/// were lost, because the caller's table is full.
pub fn receive(socket: impl AsFd, into: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
    receive_with(socket, into, RecvFlags::empty())
}

/// As [`receive`]; `None` when no message has come yet.
///
/// # Errors
/// Those of [`receive`].
pub fn receive_now(
    socket: impl AsFd,
    into: &mut [u8],
) -> Result<Option<(usize, Vec<OwnedFd>)>, Errno> {
    match receive_with(socket, into, RecvFlags::DONTWAIT) {
        Ok(message) => Ok(Some(message)),
        Err(Errno::AGAIN) => Ok(None),
        Err(reason) => Err(reason),
    }
}

fn receive_with(
    socket: impl AsFd,
    into: &mut [u8],
    flags: RecvFlags,
) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut parts = [IoSliceMut::new(into)];
        match recvmsg(socket.as_fd(), &mut parts, &mut control, flags) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut came = Vec::new();
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = item {
            came.extend(fds);
        }
    }
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::MSGSIZE);
    }
    if message.flags.contains(ReturnFlags::CTRUNC) && came.is_empty() {
        return Err(Errno::MFILE);
    }
    Ok((message.bytes, came))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn descriptors_travel_with_their_message() {
        let (a, b) = pair();
        for count in [1, MAX_FDS] {
            send(&a, b"hello", &vec![a.as_fd(); count]).unwrap();
            let mut buffer = [0; 16];
            let (length, fds) = receive(&b, &mut buffer).unwrap();
            assert_eq!((&buffer[..length], fds.len()), (&b"hello"[..], count));
        }
        assert_eq!(send(&a, b"hello", &[a.as_fd(); MAX_FDS + 1]), Err(Errno::INVAL));
    }

    #[test]
    fn a_closed_peer_is_length_zero_then_epipe() {
        let (a, b) = pair();
        drop(a);
        assert_eq!(receive(&b, &mut [0; 4]).unwrap().0, 0);
        assert_eq!(send(&b, b"x", &[]), Err(Errno::PIPE));
    }

    #[test]
    fn a_long_message_is_refused_not_cut() {
        let (a, b) = pair();
        send(&a, b"longer than four", &[]).unwrap();
        assert_eq!(receive(&b, &mut [0; 4]).unwrap_err(), Errno::MSGSIZE);
    }
}
