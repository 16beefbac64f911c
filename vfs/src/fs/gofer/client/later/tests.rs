//! With a gofer that answers when the test wants it to.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use abi::Errno;
use base::lock::Mutex;
use gofer_protocol::{MAX_MESSAGE, ReplyHead, Request};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;

/// A client of two connections, wherever it runs, and their other ends.
fn client() -> (Client, Vec<OwnedFd>) {
    let (mut connections, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let kind = SocketType::SEQPACKET;
        let (ours, other) =
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        connections.push(Mutex::new(Connection::new(ours)));
        theirs.push(other);
    }
    let client = Client {
        connections: connections.into(),
        turn: AtomicUsize::new(0),
        is_broken: AtomicBool::new(false),
        on_broken: Box::new(|_| {}),
        trees: Vec::new(),
        cpus: (0..1024).collect(),
        explored: Mutex::new(Vec::new()),
        requests: AtomicU64::new(0),
    };
    (client, theirs)
}

/// Answers the next request of whichever connection has one, with its own path.
fn answer(theirs: &[OwnedFd], change_seq: u32) {
    let mut message = vec![0; MAX_MESSAGE];
    let came = theirs.iter().find_map(|socket| {
        Some((socket, transport::receive_now(socket, &mut message).unwrap()?.0))
    });
    let (socket, length) = came.expect("there is a request");
    let request = Request::decode(&message[..length]).unwrap();
    let mut out = Vec::new();
    ReplyHead { error: None, seq: request.seq + change_seq }.encode(&mut out);
    out.extend(request.path.bytes());
    transport::send(socket, &out, &[]).unwrap();
}

fn read(mut fields: Reader<'_>, _: Vec<OwnedFd>) -> Decoded<Vec<u8>> {
    let mut text = Vec::new();
    while !fields.is_empty() {
        text.extend(fields.bytes(1)?);
    }
    Ok(text)
}

fn hear(client: &Client, asked: &Asked) -> Option<Option<Vec<u8>>> {
    match client.hear(asked, Patience::Look, read).unwrap() {
        Later::Answer(text) => Some(Some(text)),
        Later::NotYet => Some(None),
        Later::Lost => None,
    }
}

#[test]
fn an_answer_is_heard_when_it_is_there() {
    let (client, theirs) = client();
    let asked = client.ask(0, b"first", Op::Attr).unwrap();
    assert_eq!(hear(&client, &asked), Some(None));
    answer(&theirs, 0);
    assert_eq!(hear(&client, &asked), Some(Some(b"first".to_vec())));
    assert_eq!(hear(&client, &asked), None, "only once");
}

#[test]
fn who_needs_the_connection_puts_the_answer_by() {
    let (client, theirs) = client();
    let asked = client.ask(0, b"first", Op::Attr).unwrap();
    answer(&theirs, 0);
    for connection in &client.connections {
        let mut connection = Connection::idle(connection.lock()).expect("it has come");
        connection.ask(0, 0, TreePath::new(b"second").unwrap(), Op::Attr).map_err(drop).unwrap();
        answer(&theirs, 0);
        let heard = connection.hear(read).map_err(drop);
        assert_eq!(heard, Ok(b"second".to_vec()));
    }
    assert_eq!(hear(&client, &asked), Some(Some(b"first".to_vec())));
}

#[test]
fn an_answer_that_nobody_hears_gives_way_to_the_next() {
    let (client, theirs) = client();
    let mut former: Option<Asked> = None;
    for _ in 0..10 {
        let asked = client.ask(0, b"path", Op::Attr).unwrap();
        answer(&theirs, 0);
        if let Some(former) = former.filter(|former| former.connection == asked.connection) {
            assert_eq!(hear(&client, &former), None);
        }
        former = Some(asked);
    }
}

#[test]
fn an_answer_to_something_else_ends_the_connection() {
    let (client, theirs) = client();
    let asked = client.ask(0, b"path", Op::Attr).unwrap();
    answer(&theirs, 7);
    assert_eq!(client.hear(&asked, Patience::Wait, read).err(), Some(Errno::EIO));
    assert!(client.ask(0, b"path", Op::Attr).is_none(), "nothing more is asked");
}
