//! Messages with at most one descriptor over `SOCK_SEQPACKET` sockets. See unix(7).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Sends `bytes` as one message, with `fd` when given.
///
/// # Errors
/// What sendmsg(2) says; `EPIPE` (without a signal) when the peer is gone.
pub fn send(socket: impl AsFd, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.as_slice();
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
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

/// Receives one message into `into`; returns its length (0: the peer is gone) and the first descriptor that came
/// with it. Further descriptors are closed.
///
/// # Errors
/// What recvmsg(2) says; `EMSGSIZE` when the message did not fit, `EMFILE` when it came whole but its descriptor was
/// lost, because the caller's table is full.
pub fn receive(socket: impl AsFd, into: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut parts = [IoSliceMut::new(into)];
        match recvmsg(socket.as_fd(), &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut first = None;
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = item {
            for fd in fds {
                first.get_or_insert(fd);
            }
        }
    }
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::MSGSIZE);
    }
    if message.flags.contains(ReturnFlags::CTRUNC) && first.is_none() {
        return Err(Errno::MFILE);
    }
    Ok((message.bytes, first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_descriptor_travels_with_its_message() {
        let (a, b) = pair();
        send(&a, b"hello", Some(a.as_fd())).unwrap();
        let mut buffer = [0; 16];
        let (length, fd) = receive(&b, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"hello");
        assert!(fd.is_some());
    }

    #[test]
    fn a_closed_peer_is_length_zero_then_epipe() {
        let (a, b) = pair();
        drop(a);
        assert_eq!(receive(&b, &mut [0; 4]).unwrap().0, 0);
        assert_eq!(send(&b, b"x", None), Err(Errno::PIPE));
    }

    #[test]
    fn a_long_message_is_refused_not_cut() {
        let (a, b) = pair();
        send(&a, b"longer than four", None).unwrap();
        assert_eq!(receive(&b, &mut [0; 4]).unwrap_err(), Errno::MSGSIZE);
    }
}
