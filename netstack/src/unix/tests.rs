use std::sync::Arc;

use abi::Errno;
use abi::poll::PollEvents;
use abi::socket::Ucred;

use super::*;

const CRED: Ucred = Ucred { pid: 7, uid: 1000, gid: 100 };

fn pair(kind: Kind) -> (Arc<UnixSocket>, Arc<UnixSocket>) {
    UnixSocket::pair(kind, &Names::new(), CRED)
}

fn send(socket: &UnixSocket, text: &str) -> abi::Result<usize> {
    send_with(socket, text, Vec::new())
}

fn send_with(socket: &UnixSocket, text: &str, rights: Vec<Right>) -> abi::Result<usize> {
    let mut source = text.as_bytes();
    let mut control = Control { cred: CRED, rights };
    match socket.kind() {
        Kind::Datagram => socket.send_to(&mut source, &control, None),
        Kind::Stream | Kind::SeqPacket => socket.send(&mut source, &mut control),
    }
}

fn receive_most(socket: &UnixSocket, most: usize, mode: Mode) -> abi::Result<(String, Received)> {
    let mut buffer = vec![0; most];
    let mut sink = &mut buffer[..];
    let received = match socket.kind() {
        Kind::Datagram => socket.receive_from(&mut sink, mode)?,
        Kind::Stream | Kind::SeqPacket => socket.receive(&mut sink, mode)?,
    };
    Ok((String::from_utf8_lossy(&buffer[..received.bytes]).into_owned(), received))
}

fn receive(socket: &UnixSocket, most: usize) -> abi::Result<String> {
    receive_most(socket, most, Mode::Take).map(|(text, _)| text)
}

#[test]
fn streams_join_writes_and_keep_order() {
    let (a, b) = pair(Kind::Stream);
    assert_eq!(receive(&b, 10), Err(Errno::EAGAIN));
    send(&a, "one").unwrap();
    send(&a, "two").unwrap();
    assert_eq!(receive_most(&b, 4, Mode::Peek).unwrap().0, "onet");
    assert_eq!(receive(&b, 4).unwrap(), "onet");
    assert_eq!(receive(&b, 10).unwrap(), "wo");
    send(&b, "back").unwrap();
    assert_eq!(receive(&a, 10).unwrap(), "back");
}

#[test]
fn packets_keep_their_bounds_and_are_cut() {
    for kind in [Kind::SeqPacket, Kind::Datagram] {
        let (a, b) = pair(kind);
        send(&a, "long packet").unwrap();
        send(&a, "").unwrap();
        send(&a, "next").unwrap();
        let (text, received) = receive_most(&b, 4, Mode::Take).unwrap();
        assert_eq!((text.as_str(), received.full), ("long", 11));
        let (text, received) = receive_most(&b, 4, Mode::Take).unwrap();
        assert_eq!((text.as_str(), received.full, received.control.is_some()), ("", 0, true));
        assert_eq!(receive(&b, 9).unwrap(), "next");
        assert_eq!(send(&a, &"x".repeat(1 << 20)), Err(Errno::EMSGSIZE));
    }
}

#[test]
fn a_full_stream_takes_part_then_says_so() {
    let (a, b) = pair(Kind::Stream);
    let big = "x".repeat(300_000);
    let mut total = 0;
    loop {
        match send(&a, &big) {
            Ok(count) => total += count,
            Err(errno) => {
                assert_eq!(errno, Errno::EAGAIN);
                break;
            }
        }
    }
    assert_eq!(total, a.send_buffer());
    assert!(!a.poll().contains(PollEvents::OUT));
    assert_eq!(receive(&b, 150_000).unwrap().len(), 150_000);
    assert!(a.poll().contains(PollEvents::OUT));
}

#[test]
fn rights_come_with_their_bytes() {
    let (a, b) = pair(Kind::Stream);
    send(&a, "plain ").unwrap();
    send_with(&a, "with", vec![Arc::new(5u8)]).unwrap();
    send(&a, " after").unwrap();
    let (text, received) = receive_most(&b, 50, Mode::Take).unwrap();
    assert_eq!(text, "plain with");
    let control = received.control.unwrap();
    assert_eq!(control.rights[0].downcast_ref::<u8>(), Some(&5));
    assert_eq!(control.cred, CRED);
    let (text, received) = receive_most(&b, 50, Mode::Take).unwrap();
    assert_eq!((text.as_str(), received.control.unwrap().rights.len()), (" after", 0));
}

#[test]
fn closing_gives_end_of_file_and_epipe() {
    let (a, b) = pair(Kind::Stream);
    send(&a, "last").unwrap();
    drop(a);
    assert!(b.poll().contains(PollEvents::HUP | PollEvents::RDHUP | PollEvents::IN));
    assert_eq!(receive(&b, 10).unwrap(), "last");
    assert_eq!(receive(&b, 10).unwrap(), "");
    assert_eq!(send(&b, "x"), Err(Errno::EPIPE));
}

#[test]
fn closing_with_unread_bytes_resets() {
    let (a, b) = pair(Kind::Stream);
    send(&a, "for a").unwrap();
    send(&b, "never read").unwrap();
    drop(a);
    assert!(b.poll().contains(PollEvents::ERR));
    assert_eq!(receive(&b, 10).unwrap(), "for a");
    assert_eq!(receive(&b, 10), Err(Errno::ECONNRESET));
    assert_eq!(receive(&b, 10).unwrap(), "");
}

#[test]
fn shutdown_ends_one_direction() {
    let (a, b) = pair(Kind::Stream);
    a.shut_down(Shutdown::Write).unwrap();
    assert_eq!(send(&a, "x"), Err(Errno::EPIPE));
    assert_eq!(receive(&b, 1).unwrap(), "");
    assert!(b.poll().contains(PollEvents::RDHUP) && !b.poll().contains(PollEvents::HUP));
    send(&b, "still").unwrap();
    assert_eq!(receive(&a, 9).unwrap(), "still");
    a.shut_down(Shutdown::Read).unwrap();
    assert_eq!(send(&b, "x"), Err(Errno::EPIPE));
    assert!(b.poll().contains(PollEvents::HUP));
}

fn listener(names: &Arc<Names>, name: &[u8], backlog: usize) -> Arc<UnixSocket> {
    let socket = UnixSocket::new(Kind::Stream, names);
    let name = name.to_vec();
    socket.bind(Address::Abstract(name.clone()), Key::Abstract(name)).unwrap();
    socket.listen(backlog, CRED).unwrap();
    socket
}

#[test]
fn connections_are_made_accepted_and_named() {
    let names = Names::new();
    let server = listener(&names, b"server", 5);
    let client = UnixSocket::new(Kind::Stream, &names);
    assert_eq!(
        client.poll(),
        PollEvents::HUP | PollEvents::OUT | PollEvents::WRNORM | PollEvents::WRBAND
    );
    assert_eq!(receive(&client, 1), Err(Errno::EINVAL));
    assert_eq!(send(&client, "x"), Err(Errno::ENOTCONN));
    assert_eq!(server.accept().err(), Some(Errno::EAGAIN));

    let found = names.find(&Key::Abstract(b"server".to_vec())).unwrap();
    let me = Ucred { pid: 9, ..CRED };
    assert!(matches!(client.connect(&found, me), Ok(Connecting::Done)));
    assert!(matches!(client.connect(&found, me), Err(Errno::EISCONN)));
    // Before anybody accepts.
    send(&client, "early").unwrap();
    assert!(server.poll().contains(PollEvents::IN));
    let accepted = server.accept().unwrap();
    assert_eq!(receive(&accepted, 9).unwrap(), "early");
    assert_eq!(accepted.address(), Address::Abstract(b"server".to_vec()));
    assert_eq!(client.peer_address(), Ok(Address::Abstract(b"server".to_vec())));
    assert_eq!(accepted.peer_address(), Ok(Address::Unnamed));
    assert_eq!((accepted.peer_cred(), client.peer_cred()), (Some(me), Some(CRED)));
}

#[test]
fn a_full_backlog_waits_and_a_gone_listener_refuses() {
    let names = Names::new();
    let server = listener(&names, b"s", 0);
    let clients: Vec<_> = (0..2).map(|_| UnixSocket::new(Kind::Stream, &names)).collect();
    assert!(matches!(clients[0].connect(&server, CRED), Ok(Connecting::Done)));
    assert!(matches!(clients[1].connect(&server, CRED), Ok(Connecting::Wait(_))));
    let accepted = server.accept().unwrap();
    assert!(matches!(clients[1].connect(&server, CRED), Ok(Connecting::Done)));
    drop((server, accepted));
    assert_eq!(receive(&clients[0], 1).unwrap(), "");
    // Never accepted.
    assert_eq!(receive(&clients[1], 1), Err(Errno::ECONNRESET));
    assert_eq!(names.find(&Key::Abstract(b"s".to_vec())).err(), Some(Errno::ECONNREFUSED));
}

#[test]
fn names_are_taken_once_and_freed() {
    let names = Names::new();
    let first = listener(&names, b"name", 1);
    let second = UnixSocket::new(Kind::Stream, &names);
    let key = Key::Abstract(b"name".to_vec());
    let address = Address::Abstract(b"name".to_vec());
    assert_eq!(second.bind(address.clone(), key.clone()), Err(Errno::EADDRINUSE));
    drop(first);
    second.bind(address.clone(), key.clone()).unwrap();
    assert_eq!(second.bind(address, key), Err(Errno::EINVAL));
    let third = UnixSocket::new(Kind::Datagram, &names);
    third.bind_auto().unwrap();
    assert_eq!(third.address(), Address::Abstract(b"00000".to_vec()));
    assert_eq!(third.listen(1, CRED), Err(Errno::EOPNOTSUPP));
}

#[test]
fn datagrams_find_their_receiver_and_tell_their_sender() {
    let names = Names::new();
    let (a, b, c) = (
        UnixSocket::new(Kind::Datagram, &names),
        UnixSocket::new(Kind::Datagram, &names),
        UnixSocket::new(Kind::Datagram, &names),
    );
    a.bind_auto().unwrap();
    b.bind_auto().unwrap();
    assert_eq!(send(&a, "x"), Err(Errno::ENOTCONN));
    a.send_to(&mut &b"hello"[..], &Control::default(), Some(&b)).unwrap();
    let (text, received) = receive_most(&b, 9, Mode::Take).unwrap();
    assert_eq!((text.as_str(), received.from), ("hello", Some(a.address())));
    // b listens to a alone now.
    b.set_peer(Some(&a)).unwrap();
    assert_eq!(c.set_peer(Some(&b)), Err(Errno::EPERM));
    assert_eq!(c.send_to(&mut &b"x"[..], &Control::default(), Some(&b)), Err(Errno::EPERM));
    a.set_peer(Some(&b)).unwrap();
    drop(b);
    assert!(a.poll().contains(PollEvents::OUT));
    assert_eq!(send(&a, "x"), Err(Errno::ECONNREFUSED));
    assert_eq!(send(&a, "x"), Err(Errno::ENOTCONN));
}

#[test]
fn a_full_inbox_makes_senders_wait_until_it_is_read() {
    let (a, b) = pair(Kind::Datagram);
    let mut sent = 0;
    while send(&a, "datagram").is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 512);
    assert!(!a.poll().contains(PollEvents::OUT));
    receive(&b, 9).unwrap();
    assert!(a.poll().contains(PollEvents::OUT));
    b.shut_down(Shutdown::Read).unwrap();
    assert_eq!(send(&a, "x"), Err(Errno::EPIPE));
}
