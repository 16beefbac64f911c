//! Sockets with names: unix paths and abstract names, TCP and UDP over loopback.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use crate::support::{ok, sys, tests};

tests! {
    unix_paths_are_inodes_and_meet, unix_abstract_names_end_with_their_socket, unix_datagrams_tell_their_sender,
    unix_backlog_wakes_connect, tcp_connects_transfers_and_ends, tcp_refuses_without_a_listener,
    tcp_resets_when_bytes_were_unread, ports_are_taken_once, udp_sends_peeks_and_hears_of_refusal,
    ipv6_wildcard_hears_ipv4, receive_timeout_ends_a_wait, big_transfers_wait_for_room,
}

fn path(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("conformance-{name}-{}", std::process::id()))
}

fn unix_paths_are_inodes_and_meet() {
    let path = path("stream");
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::NotFound);
    let listener = UnixListener::bind(&path).unwrap();
    assert!(std::fs::metadata(&path).unwrap().file_type().is_socket());
    assert_eq!(UnixListener::bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"before accept").unwrap();
    let (mut server, from) = listener.accept().unwrap();
    assert!(from.is_unnamed());
    assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(path.as_path()));
    let mut text = [0; 13];
    server.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"before accept");
    drop(listener);
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    std::fs::remove_file(&path).unwrap();
}

fn unix_abstract_names_end_with_their_socket() {
    let name = SocketAddr::from_abstract_name(format!("name-{}", std::process::id())).unwrap();
    let listener = UnixListener::bind_addr(&name).unwrap();
    assert_eq!(UnixListener::bind_addr(&name).unwrap_err().kind(), ErrorKind::AddrInUse);
    UnixStream::connect_addr(&name).unwrap();
    drop(listener);
    assert_eq!(UnixStream::connect_addr(&name).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    UnixListener::bind_addr(&name).unwrap();
}

fn unix_datagrams_tell_their_sender() {
    let (a_path, b_path) = (path("a"), path("b"));
    let (a, b) = (UnixDatagram::bind(&a_path).unwrap(), UnixDatagram::bind(&b_path).unwrap());
    a.send_to(b"one", &b_path).unwrap();
    let mut bytes = [0; 8];
    let (length, from) = b.recv_from(&mut bytes).unwrap();
    assert_eq!((&bytes[..length], from.as_pathname()), (&b"one"[..], Some(a_path.as_path())));
    // What is connected to one hears nobody else.
    b.connect(&a_path).unwrap();
    let stranger = UnixDatagram::unbound().unwrap();
    let refused = stranger.send_to(b"x", &b_path).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    drop(a);
    assert_eq!(b.send(b"x").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    std::fs::remove_file(&a_path).unwrap();
    std::fs::remove_file(&b_path).unwrap();
}

fn unix_backlog_wakes_connect() {
    let path = path("backlog");
    let listener = UnixListener::bind(&path).unwrap();
    ok!(listen(listener.as_raw_fd(), 0));
    let _first = UnixStream::connect(&path).unwrap();
    let blocked = std::thread::spawn({
        let path = path.clone();
        move || UnixStream::connect(&path).map(drop)
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(!blocked.is_finished());
    let _accepted = listener.accept().unwrap();
    blocked.join().unwrap().unwrap();
    std::fs::remove_file(&path).unwrap();
}

fn tcp_connects_transfers_and_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(at).unwrap();
    let (mut server, from) = listener.accept().unwrap();
    assert_eq!((from, server.local_addr().unwrap()), (client.local_addr().unwrap(), at));
    client.set_nodelay(true).unwrap();
    assert!(client.nodelay().unwrap());
    client.write_all(b"request").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).unwrap();
    assert_eq!(text, "request");
    server.write_all(b"answer").unwrap();
    drop(server);
    text.clear();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "answer");
}

fn tcp_refuses_without_a_listener() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = TcpStream::connect(free).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

fn tcp_resets_when_bytes_were_unread() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    client.write_all(b"never read").unwrap();
    drop(server);
    let mut byte = [0];
    assert_eq!(client.read(&mut byte).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(client.read(&mut byte).unwrap(), 0);
}

fn ports_are_taken_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    assert_eq!(TcpListener::bind(at).unwrap_err().kind(), ErrorKind::AddrInUse);
    // UDP has ports of its own.
    UdpSocket::bind(at).unwrap();
    drop(listener);
    TcpListener::bind(at).unwrap();
}

fn udp_sends_peeks_and_hears_of_refusal() {
    let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    a.send_to(b"12345", b.local_addr().unwrap()).unwrap();
    let mut bytes = [0; 3];
    assert_eq!(b.peek(&mut bytes).unwrap(), 3);
    assert_eq!(b.recv_from(&mut bytes).unwrap(), (3, a.local_addr().unwrap()));
    b.set_nonblocking(true).unwrap();
    assert_eq!(b.recv(&mut bytes).unwrap_err().kind(), ErrorKind::WouldBlock);
    a.connect(b.local_addr().unwrap()).unwrap();
    drop(b);
    a.send(b"lost").unwrap();
    assert_eq!(a.recv(&mut bytes).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

fn ipv6_wildcard_hears_ipv4() {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (server, from) = listener.accept().unwrap();
    assert!(from.ip().to_string().starts_with("::ffff:127."));
    assert_eq!(server.local_addr().unwrap().port(), port);
}

fn receive_timeout_ends_a_wait() {
    let (a, _b) = UnixStream::pair().unwrap();
    a.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    let mut byte = [0];
    let length = sys!(recv(a.as_raw_fd(), byte.as_mut_ptr().cast(), 1, 0));
    assert_eq!((length, crate::support::errno()), (-1, libc::EAGAIN));
    let length = sys!(read(a.as_raw_fd(), byte.as_mut_ptr().cast(), 1));
    assert_eq!((length, crate::support::errno()), (-1, libc::EAGAIN));
}

fn big_transfers_wait_for_room() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let sender = std::thread::spawn(move || {
        let block = vec![7; 1 << 20];
        (0..16).try_for_each(|_| client.write_all(&block))
    });
    let (mut total, mut block) = (0, vec![0; 50_000]);
    loop {
        match server.read(&mut block).unwrap() {
            0 => break,
            count => {
                assert!(block[..count].iter().all(|byte| *byte == 7));
                total += count;
            }
        }
    }
    sender.join().unwrap().unwrap();
    assert_eq!(total, 16 << 20);
}
