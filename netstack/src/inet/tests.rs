use std::net::SocketAddr;
use std::sync::Arc;

use abi::Errno;
use abi::poll::PollEvents;

use super::*;
use crate::message::{Mode, Shutdown};

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn tcp(ports: &Arc<Ports>) -> Arc<InetSocket> {
    InetSocket::new(Family::V4, Kind::Stream, ports)
}

fn udp(ports: &Arc<Ports>) -> Arc<InetSocket> {
    InetSocket::new(Family::V4, Kind::Datagram, ports)
}

fn send(socket: &InetSocket, text: &str, to: Option<SocketAddr>) -> abi::Result<usize> {
    socket.send(&mut text.as_bytes(), to)
}

fn receive(socket: &InetSocket) -> abi::Result<(String, Option<SocketAddr>)> {
    let mut buffer = [0; 64];
    let received = socket.receive(&mut &mut buffer[..], Mode::Take)?;
    Ok((String::from_utf8_lossy(&buffer[..received.bytes]).into_owned(), received.from))
}

fn text(socket: &InetSocket) -> abi::Result<String> {
    receive(socket).map(|(text, _)| text)
}

#[test]
fn a_connection_is_made_used_and_ended() {
    let ports = Ports::new();
    let server = tcp(&ports);
    server.bind(at("127.0.0.1:0")).unwrap();
    server.listen(8).unwrap();
    let to = server.address();
    let client = tcp(&ports);
    assert_eq!(send(&client, "x", None), Err(Errno::EPIPE));
    assert_eq!(text(&client), Err(Errno::ENOTCONN));
    assert!(matches!(client.connect(to), Ok(Connecting::Done)));
    assert!(matches!(client.connect(to), Err(Errno::EISCONN)));
    let accepted = server.accept().unwrap();
    assert_eq!(accepted.peer_address().unwrap(), client.address());
    assert_eq!((accepted.address(), client.peer_address().unwrap()), (to, to));
    assert_eq!(text(&client), Err(Errno::EAGAIN));
    send(&accepted, "hello", None).unwrap();
    assert_eq!(text(&client).unwrap(), "hello");
    client.shut_down(Shutdown::Write).unwrap();
    assert_eq!(text(&accepted).unwrap(), "");
    assert!(
        accepted.poll().contains(PollEvents::RDHUP) && !accepted.poll().contains(PollEvents::HUP)
    );
    send(&accepted, "bye", None).unwrap();
    drop(accepted);
    assert_eq!(text(&client).unwrap(), "bye");
    assert_eq!(text(&client).unwrap(), "");
    assert!(client.poll().contains(PollEvents::HUP));
}

#[test]
fn addresses_beyond_loopback_are_unreachable_and_ports_are_taken_once() {
    let ports = Ports::new();
    let (a, b) = (tcp(&ports), tcp(&ports));
    assert!(matches!(a.connect(at("10.0.0.1:80")), Err(Errno::ENETUNREACH)));
    assert!(matches!(a.connect(at("127.0.0.1:80")), Err(Errno::ECONNREFUSED)));
    assert_eq!(b.bind(at("10.0.0.1:80")), Err(Errno::EADDRNOTAVAIL));
    let c = tcp(&ports);
    c.bind(at("0.0.0.0:8080")).unwrap();
    assert_eq!(c.bind(at("0.0.0.0:8081")), Err(Errno::EINVAL));
    assert_eq!(b.bind(at("127.0.0.1:8080")), Err(Errno::EADDRINUSE));
    // UDP has ports of its own.
    udp(&ports).bind(at("127.0.0.1:8080")).unwrap();
    drop(c);
    b.bind(at("127.0.0.1:8080")).unwrap();
}

#[test]
fn reuse_shares_a_port_but_not_with_a_listener() {
    let ports = Ports::new();
    let sockets: Vec<_> = (0..3).map(|_| tcp(&ports)).collect();
    sockets.iter().for_each(|socket| socket.set_reuses_address(true));
    sockets[0].bind(at("127.0.0.1:9000")).unwrap();
    sockets[1].bind(at("127.0.0.1:9000")).unwrap();
    sockets[0].listen(1).unwrap();
    assert_eq!(sockets[2].bind(at("127.0.0.1:9000")), Err(Errno::EADDRINUSE));
}

#[test]
fn datagrams_go_to_their_port_and_refusals_come_back() {
    let ports = Ports::new();
    let (server, client, stranger) = (udp(&ports), udp(&ports), udp(&ports));
    server.bind(at("127.0.0.1:53")).unwrap();
    assert_eq!(send(&client, "x", None), Err(Errno::EDESTADDRREQ));
    send(&client, "ask", Some(server.address())).unwrap();
    let (text_got, from) = receive(&server).unwrap();
    let from = from.unwrap();
    assert_eq!((text_got.as_str(), from.ip().to_string().as_str()), ("ask", "127.0.0.1"));
    send(&server, "answer", Some(from)).unwrap();
    assert_eq!(text(&client).unwrap(), "answer");
    // With a peer, only that one is heard.
    client.set_peer(Some(server.address())).unwrap();
    send(&stranger, "noise", Some(client.address())).unwrap();
    assert_eq!(text(&client), Err(Errno::EAGAIN));
    drop(server);
    assert_eq!(send(&client, "lost", None), Ok(4));
    assert!(client.poll().contains(PollEvents::ERR));
    assert_eq!(text(&client), Err(Errno::ECONNREFUSED));
    assert_eq!(text(&client), Err(Errno::EAGAIN));
}

#[test]
fn ipv6_wildcards_hear_ipv4_unless_told_not_to() {
    let ports = Ports::new();
    let server = InetSocket::new(Family::V6, Kind::Stream, &ports);
    server.bind(at("[::]:7000")).unwrap();
    server.listen(4).unwrap();
    let client = tcp(&ports);
    assert!(matches!(client.connect(at("127.0.0.1:7000")), Ok(Connecting::Done)));
    let accepted = server.accept().unwrap();
    assert_eq!(accepted.address(), at("[::ffff:127.0.0.1]:7000"));
    let strict = InetSocket::new(Family::V6, Kind::Stream, &ports);
    strict.set_v6_only(true);
    strict.bind(at("[::]:7001")).unwrap();
    strict.listen(4).unwrap();
    assert!(matches!(tcp(&ports).connect(at("127.0.0.1:7001")), Err(Errno::ECONNREFUSED)));
    tcp(&ports).bind(at("0.0.0.0:7001")).unwrap();
    let six = InetSocket::new(Family::V6, Kind::Stream, &ports);
    assert!(matches!(six.connect(at("[::1]:7001")), Ok(Connecting::Done)));
}
