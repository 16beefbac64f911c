//! A temporary directory, and a raw client.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use abi::Errno;
use abi::stat::Attr;
use gofer_protocol::wire::Reader;
use gofer_protocol::{
    Listing, MAX_MESSAGE, NO_CPU, Op, Plus, ReplyHead, Request, TreePath, Walked,
};
use host::scm_rights::{receive, send};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// A directory that is gone after the test.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("gofer-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn pair(flags: SocketFlags) -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

pub struct Client {
    pub socket: OwnedFd,
}

pub struct Reply {
    message: Vec<u8>,
    pub fd: Option<OwnedFd>,
    pub more_fds: Vec<OwnedFd>,
}

impl Reply {
    pub fn fields(&self) -> Reader<'_> {
        ReplyHead::decode(&self.message).unwrap().1
    }

    pub fn attr(&self) -> Attr {
        gofer_protocol::attr::attr(&mut self.fields()).unwrap()
    }
}

impl Client {
    /// Serves from a thread of this process, unconfined.
    pub fn to_thread(trees: &[(&Path, bool)]) -> Self {
        let (ours, theirs) = pair(SocketFlags::CLOEXEC);
        let config = gofer_server::Config {
            trees: trees
                .iter()
                .map(|(path, writable)| gofer_server::Tree {
                    host_path: path.to_path_buf(),
                    writable: *writable,
                })
                .collect(),
            sockets: vec![theirs],
            confine: gofer_server::ConfineOptions::none(),
            leave: None,
        };
        std::thread::spawn(move || gofer_server::serve(config).unwrap());
        Self { socket: ours }
    }

    pub fn raw(&self, message: &[u8]) -> Result<Reply, Errno> {
        send(&self.socket, message, &[]).unwrap();
        let mut buffer = vec![0; MAX_MESSAGE];
        let (length, fds) = receive(&self.socket, &mut buffer).unwrap();
        assert_ne!(length, 0, "the gofer hung up");
        buffer.truncate(length);
        match ReplyHead::decode(&buffer).unwrap().0.error {
            Some(error) => Err(error),
            None => {
                let mut fds = fds.into_iter();
                Ok(Reply { message: buffer, fd: fds.next(), more_fds: fds.collect() })
            }
        }
    }

    pub fn ask_tree(&self, tree: u16, path: &str, op: Op<'_>) -> Result<Reply, Errno> {
        let path = TreePath::new(path.as_bytes()).unwrap();
        let mut message = Vec::new();
        Request { seq: 1, cpu: NO_CPU, tree, path, op }.encode(&mut message);
        self.raw(&message)
    }

    pub fn ask(&self, path: &str, op: Op<'_>) -> Result<Reply, Errno> {
        self.ask_tree(0, path, op)
    }

    pub fn walk(&self, names: &str) -> Walked {
        let names = TreePath::new(names.as_bytes()).unwrap();
        let reply = self.ask("", Op::Walk { names, open: false }).unwrap();
        Walked::decode(reply.fields(), names.names().count()).unwrap()
    }

    /// Names and whether attributes came, in the host's order.
    pub fn list(&self, path: &str, plus: Plus) -> Vec<(String, Option<Attr>)> {
        let (mut all, mut cursor) = (Vec::new(), 0);
        loop {
            let reply = self.ask(path, Op::ReadDir { cursor, plus }).unwrap();
            let listing = Listing::decode(reply.fields()).unwrap();
            let is_last = listing.is_last;
            for item in listing {
                let (_, item) = item.unwrap();
                cursor = item.next;
                all.push((String::from_utf8_lossy(item.name).into_owned(), item.attr));
            }
            if is_last {
                return all;
            }
        }
    }
}
