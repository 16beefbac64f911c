//! The server as a process of its own, behind all its walls: it still does its work.
//!
//! The test binary runs itself again as the gofer; the socket is its standard input.

mod support;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use abi::Errno;
use abi::ids::{Gid, Uid};
use abi::open::OpenFlags;
use gofer_protocol::{AttrChange, NodeKind, Op, Owner, Plus, SyncScope, TimeChange, TreePath};
use rustix::net::SocketFlags;
use support::{Client, TempDir, pair};

const READ: Op<'_> = Op::Open { flags: OpenFlags::empty() };
const ROLE: &str = "GOFER_TEST_TREES";

/// Not a test by itself: what the child runs.
#[test]
fn serve_when_asked() {
    let Ok(trees) = std::env::var(ROLE) else { return };
    let trees = trees
        .split(':')
        .map(|tree| {
            let (mode, path) = tree.split_at(1);
            gofer_server::Tree { host_path: path.into(), writable: mode == "w" }
        })
        .collect();
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let second = pair(SocketFlags::CLOEXEC).1; // Its peer is gone: that thread ends at once.
    let config = gofer_server::Config {
        trees,
        sockets: vec![socket, second],
        confine: gofer_server::ConfineOptions::default(),
        leave: None,
    };
    // The harness's own calls after the test are not the gofer's: leave from here.
    let result = gofer_server::serve(config);
    std::process::exit(i32::from(result.is_err()));
}

struct Gofer {
    client: Option<Client>,
    child: Child,
}

impl Gofer {
    fn start(trees: &[(&Path, bool)]) -> Self {
        let (ours, theirs) = pair(SocketFlags::CLOEXEC);
        let role: Vec<_> = trees
            .iter()
            .map(|(path, write)| format!("{}{}", if *write { "w" } else { "r" }, path.display()))
            .collect();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "serve_when_asked", "--nocapture"])
            .env(ROLE, role.join(":"))
            .stdin(theirs)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { client: Some(Client { socket: ours }), child }
    }

    fn ask(&self, tree: u16, path: &str, op: Op<'_>) -> Result<support::Reply, Errno> {
        self.client.as_ref().unwrap().ask_tree(tree, path, op)
    }

    /// Closes the connection; the gofer must then end by itself, not by its filter.
    fn finish(mut self) {
        self.client = None;
        let status = self.child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(0), None));
    }
}

#[test]
fn a_confined_gofer_serves_and_ends_in_peace() {
    let (ro, rw) = (TempDir::new(), TempDir::new());
    fs::write(ro.path("file"), "read me").unwrap();
    let single = ro.path("file");
    let gofer = Gofer::start(&[(&ro.0, false), (&rw.0, true), (&single, true)]);
    assert!(gofer.ask(2, "", Op::Open { flags: OpenFlags::RDWR }).unwrap().fd.is_some());
    let owner = Owner {
        uid: Uid(rustix::process::getuid().as_raw()),
        gid: Gid(rustix::process::getgid().as_raw()),
        mode: 0o2750,
    };
    let fd = gofer.ask(0, "file", READ).unwrap().fd.unwrap();
    assert_eq!(std::io::read_to_string(fs::File::from(fd)).unwrap(), "read me");
    assert_eq!(gofer.ask(0, "new", Op::Mkdir { owner }).err(), Some(Errno::EROFS));

    gofer.ask(1, "dir", Op::Mkdir { owner }).unwrap();
    let attr = gofer.ask(1, "dir/file", Op::Create { owner }).unwrap().attr();
    assert_eq!(attr.mode & 0o7777, 0o2750);
    gofer.ask(1, "link", Op::Symlink { target: b"dir", owner }).unwrap();
    gofer.ask(1, "fifo", Op::Mknod { kind: NodeKind::Fifo, owner }).unwrap();
    gofer.ask(1, "sock", Op::Mknod { kind: NodeKind::Socket, owner }).unwrap();
    let existing = TreePath::new(b"dir/file").unwrap();
    gofer.ask(1, "hard", Op::Link { existing }).unwrap();
    // Between directories: Landlock calls this "refer".
    gofer
        .ask(1, "dir/file", Op::Rename { to: TreePath::new(b"moved").unwrap(), flags: 0 })
        .unwrap();
    let change = AttrChange {
        mode: Some(0o640),
        size: Some(100),
        uid: Some(owner.uid),
        mtime: Some(TimeChange::Now),
        ..AttrChange::default()
    };
    assert_eq!(gofer.ask(1, "moved", Op::SetAttr { change }).unwrap().attr().size, 100);
    for scope in [SyncScope::Object, SyncScope::Data, SyncScope::FileSystem] {
        gofer.ask(1, "moved", Op::Sync { scope }).unwrap();
    }
    let _ = gofer.ask(1, "moved", Op::SetXattr { name: b"user.a", value: b"b", flags: 0 });
    let _ = gofer.ask(1, "moved", Op::GetXattr { name: b"user.a" });
    let _ = gofer.ask(1, "moved", Op::ListXattr);
    let _ = gofer.ask(1, "moved", Op::RemoveXattr { name: b"user.a" });
    for (path, op) in [
        ("moved", Op::Access { mode: 4 }),
        ("moved", Op::StatFs),
        ("link", Op::ReadLink),
        ("", Op::ReadDir { cursor: 0, plus: Plus::Everything }),
        ("hard", Op::Unlink),
        ("moved", Op::Unlink),
        ("dir", Op::Rmdir),
    ] {
        gofer.ask(1, path, op).map(drop).unwrap_or_else(|error| panic!("{path} {op:?} {error}"));
    }
    gofer.finish();
}

#[test]
fn the_whole_host_can_be_served_read_only() {
    let gofer = Gofer::start(&[(Path::new("/"), false)]);
    let names = TreePath::new(b"etc/passwd").unwrap();
    gofer.ask(0, "", Op::Walk { names, open: false }).unwrap();
    gofer.ask(0, "etc/passwd", Op::Open { flags: OpenFlags::empty() }).unwrap();
    assert!(gofer.ask(0, "proc/self", Op::Attr).is_ok(), "mounts below the tree are part of it");
    let memory = gofer.ask(0, &format!("proc/{}/mem", std::process::id()), READ);
    assert_eq!(
        memory.err(),
        Some(Errno::EACCES),
        "processes of the host are not files to give away"
    );
    assert_eq!(
        gofer.ask(0, "dev/null", Op::Open { flags: OpenFlags::empty() }).err(),
        Some(Errno::ENXIO)
    );
    gofer.finish();
}
