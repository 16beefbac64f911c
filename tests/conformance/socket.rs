//! Unix socket pairs; refusals of what is not there.

use crate::support::{fails, ok, read_some, sys, tests, write_all};

tests! {
    streams_carry_bytes_both_ways, datagrams_keep_boundaries, seqpacket_keeps_boundaries_and_order,
    shutdown_ends_a_direction, descriptors_are_passed, nonblocking_and_full, types_are_told, not_a_socket,
    peer_credentials, peek_and_truncate, closed_peer_is_epipe,
}

fn pair(kind: i32) -> (i32, i32) {
    let mut fds = [0; 2];
    ok!(socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()));
    (fds[0], fds[1])
}

fn streams_carry_bytes_both_ways() {
    let (a, b) = pair(libc::SOCK_STREAM);
    write_all(a, b"to b");
    write_all(b, b"to a");
    assert_eq!((read_some(a, 10), read_some(b, 10)), (b"to a".to_vec(), b"to b".to_vec()));
}

fn keeps_boundaries(kind: i32) {
    let (a, b) = pair(kind);
    write_all(a, b"one");
    write_all(a, b"two");
    assert_eq!(read_some(b, 2), b"on");
    assert_eq!(read_some(b, 10), b"two");
}

fn datagrams_keep_boundaries() {
    keeps_boundaries(libc::SOCK_DGRAM);
}

fn seqpacket_keeps_boundaries_and_order() {
    keeps_boundaries(libc::SOCK_SEQPACKET);
    let (a, b) = pair(libc::SOCK_SEQPACKET);
    ok!(close(a));
    assert_eq!(read_some(b, 10), b"");
}

fn shutdown_ends_a_direction() {
    let (a, b) = pair(libc::SOCK_STREAM);
    ok!(shutdown(a, libc::SHUT_WR));
    assert_eq!(read_some(b, 10), b"");
    write_all(b, b"x");
    assert_eq!(read_some(a, 10), b"x");
    fails!(libc::EPIPE, send(a, b"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL));
    fails!(libc::EINVAL, shutdown(a, 9));
}

pub fn send_descriptor(socket: i32, fd: i32) {
    let mut byte = 1_u8;
    let mut iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = [0_u64; 3];
    // SAFETY: all zeros is a valid msghdr; the control buffer is aligned and large enough for one descriptor.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = 24;
        let head = libc::CMSG_FIRSTHDR(&raw const message);
        (*head).cmsg_level = libc::SOL_SOCKET;
        (*head).cmsg_type = libc::SCM_RIGHTS;
        (*head).cmsg_len = 20;
        libc::CMSG_DATA(head).cast::<i32>().write_unaligned(fd);
        assert_eq!(libc::sendmsg(socket, &raw const message, 0), 1);
    }
}

pub fn receive_descriptor(socket: i32) -> i32 {
    let mut byte = 0_u8;
    let mut iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = [0_u64; 3];
    // SAFETY: as above; the kernel filled in the control message that is read.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = 24;
        assert_eq!(libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC), 1);
        let head = libc::CMSG_FIRSTHDR(&raw const message);
        assert!(!head.is_null() && (*head).cmsg_type == libc::SCM_RIGHTS);
        libc::CMSG_DATA(head).cast::<i32>().read_unaligned()
    }
}

fn descriptors_are_passed() {
    let (a, b) = pair(libc::SOCK_STREAM);
    let (read_end, write_end) = crate::support::pipe();
    send_descriptor(a, write_end);
    ok!(close(write_end));
    let received = receive_descriptor(b);
    write_all(received, b"via");
    ok!(close(received));
    assert_eq!(read_some(read_end, 10), b"via");
    assert_eq!(read_some(read_end, 10), b"");
}

fn nonblocking_and_full() {
    let (a, b) = pair(libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    let mut byte = 0_u8;
    fails!(libc::EAGAIN, read(a, (&raw mut byte).cast(), 1));
    let block = [0_u8; 4096];
    let mut total = 0;
    while let written @ 1.. = sys!(write(a, block.as_ptr().cast(), 4096)) {
        total += written;
    }
    assert!(total > 4096);
    assert_eq!(crate::support::errno(), libc::EAGAIN);
    assert!(!read_some(b, 100).is_empty());
}

fn types_are_told() {
    let (a, _b) = pair(libc::SOCK_SEQPACKET);
    let (mut value, mut length) = (0_i32, 4_u32);
    ok!(getsockopt(a, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut value).cast(), &raw mut length));
    assert_eq!((value, length), (libc::SOCK_SEQPACKET, 4));
    ok!(getsockopt(a, libc::SOL_SOCKET, libc::SO_DOMAIN, (&raw mut value).cast(), &raw mut length));
    assert_eq!(value, libc::AF_UNIX);
    assert_eq!(crate::stat::fstat(a).st_mode & libc::S_IFMT, libc::S_IFSOCK);
}

fn not_a_socket() {
    let (read_end, _write_end) = crate::support::pipe();
    fails!(libc::ENOTSOCK, send(read_end, b"x".as_ptr().cast(), 1, 0));
    fails!(libc::ENOTSOCK, listen(read_end, 1));
    fails!(libc::EBADF, recv(999, std::ptr::null_mut(), 0, 0));
    let mut fds = [0; 2];
    fails!(libc::EAFNOSUPPORT, socketpair(9999, libc::SOCK_STREAM, 0, fds.as_mut_ptr()));
    fails!(libc::EINVAL, socketpair(libc::AF_UNIX, 77, 0, fds.as_mut_ptr()));
}

fn peer_credentials() {
    let (a, _b) = pair(libc::SOCK_STREAM);
    let mut peer = libc::ucred { pid: 0, uid: 9, gid: 9 };
    let mut length = 12_u32;
    ok!(getsockopt(
        a,
        libc::SOL_SOCKET,
        libc::SO_PEERCRED,
        (&raw mut peer).cast(),
        &raw mut length
    ));
    assert_eq!((peer.pid, peer.uid, peer.gid), (sys!(getpid()), sys!(geteuid()), sys!(getegid())));
}

fn peek_and_truncate() {
    let (a, b) = pair(libc::SOCK_DGRAM);
    write_all(a, b"12345");
    let mut bytes = [0_u8; 3];
    assert_eq!(ok!(recv(b, bytes.as_mut_ptr().cast(), 3, libc::MSG_PEEK | libc::MSG_TRUNC)), 5);
    assert_eq!(ok!(recv(b, bytes.as_mut_ptr().cast(), 3, 0)), 3);
    fails!(libc::EAGAIN, recv(b, bytes.as_mut_ptr().cast(), 3, libc::MSG_DONTWAIT));
}

fn closed_peer_is_epipe() {
    let (a, b) = pair(libc::SOCK_STREAM);
    ok!(close(b));
    fails!(libc::EPIPE, send(a, b"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL));
    assert_eq!(read_some(a, 1), b"");
}
