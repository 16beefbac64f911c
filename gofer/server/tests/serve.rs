//! The server from a client's side: what it answers, and what it does not let out.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::Errno;
use abi::ids::{Gid, Uid};
use abi::open::OpenFlags;
use abi::stat::{FileType, S_IFDIR, S_IFIFO, S_IFMT};
use abi::time::Timespec;
use gofer_protocol::wire::Put;
use gofer_protocol::*;
use support::{Client, TempDir};

const READ: Op<'_> = Op::Open { flags: OpenFlags::empty() };
const WRITE: Op<'_> = Op::Open { flags: OpenFlags::RDWR };

fn owner(mode: u32) -> Owner {
    Owner {
        uid: Uid(rustix::process::getuid().as_raw()),
        gid: Gid(rustix::process::getgid().as_raw()),
        mode,
    }
}

fn refused<T>(result: Result<T, Errno>) -> Option<Errno> {
    result.err()
}

#[test]
fn hello_names_version_and_trees() {
    let (a, b) = (TempDir::new(), TempDir::new());
    let client = Client::to_thread(&[(&a.0, false), (&b.0, true)]);
    let reply = client.ask("", Op::Hello { version: VERSION }).unwrap();
    let welcome = Welcome::decode(reply.fields()).unwrap();
    assert_eq!(welcome.trees.len(), 2);
    assert_eq!(welcome.trees.iter().map(|t| t.writable).collect::<Vec<_>>(), [false, true]);
    assert!(welcome.trees[0].root.is_dir());
    assert_eq!(refused(client.ask("", Op::Hello { version: 99 })), Some(Errno::EPROTONOSUPPORT));
    assert_eq!(refused(client.ask_tree(2, "", Op::Attr)), Some(Errno::ENODEV));
}

#[test]
fn attributes_are_those_of_the_host() {
    let dir = TempDir::new();
    fs::write(dir.path("file"), "hello").unwrap();
    let host = fs::metadata(dir.path("file")).unwrap();
    let client = Client::to_thread(&[(&dir.0, false)]);
    let attr = client.ask("file", Op::Attr).unwrap().attr();
    assert_eq!((attr.dev, attr.ino, attr.mode), (host.dev(), host.ino(), host.mode()));
    assert_eq!((attr.uid.0, attr.gid.0, attr.size), (host.uid(), host.gid(), 5));
    assert_eq!((attr.mtime.sec, attr.mtime.nsec), (host.mtime(), host.mtime_nsec()));
}

#[test]
fn opened_files_read_and_write_through_their_descriptor() {
    let dir = TempDir::new();
    fs::write(dir.path("file"), "hello").unwrap();
    let client = Client::to_thread(&[(&dir.0, true)]);
    let reply = client.ask("file", WRITE).unwrap();
    let mut file = fs::File::from(reply.fd.unwrap());
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    file.write_all(b" there").unwrap();
    assert_eq!(
        (text.as_str(), fs::read_to_string(dir.path("file")).unwrap().as_str()),
        ("hello", "hello there")
    );
}

#[test]
fn a_walk_stops_where_linux_would() {
    let dir = TempDir::new();
    fs::create_dir_all(dir.path("a/b")).unwrap();
    fs::write(dir.path("a/b/file"), "").unwrap();
    symlink("b", dir.path("a/link")).unwrap();
    let client = Client::to_thread(&[(&dir.0, false)]);

    let whole = client.walk("a/b/file");
    assert_eq!((whole.found.len(), whole.stopped, whole.link), (3, None, None));
    let missing = client.walk("a/none/file");
    assert_eq!((missing.found.len(), missing.stopped), (1, Some(Errno::ENOENT)));
    // The caller sees the file and says ENOTDIR itself.
    let through_file = client.walk("a/b/file/x");
    assert_eq!((through_file.found.len(), through_file.stopped), (3, None));
    let through_link = client.walk("a/link/file");
    assert_eq!((through_link.found.len(), through_link.link), (2, Some(b"b".to_vec())));
    assert_eq!(through_link.found[1].file_type(), FileType::Symlink);

    assert_eq!(refused(client.ask("a/link/file", Op::Attr)), Some(Errno::ELOOP));
    assert_eq!(refused(client.ask("a/link", READ)), Some(Errno::ELOOP));
    assert_eq!(refused(client.ask("a/b/file/x", Op::Attr)), Some(Errno::ENOTDIR));
    assert_eq!(refused(client.ask("none/x", Op::Attr)), Some(Errno::ENOENT));
    assert_eq!(client.ask("a/link", Op::ReadLink).unwrap().fields().blob().unwrap(), b"b");
    assert_eq!(refused(client.ask("a/b", Op::ReadLink)), Some(Errno::EINVAL));
}

#[test]
fn nothing_outside_the_tree_is_reached() {
    let dir = TempDir::new();
    fs::create_dir(dir.path("tree")).unwrap();
    fs::write(dir.path("secret"), "secret").unwrap();
    symlink("../secret", dir.path("tree/up")).unwrap();
    symlink("/etc/passwd", dir.path("tree/abs")).unwrap();
    symlink("..", dir.path("tree/dir")).unwrap();
    symlink("/proc/self/root/etc", dir.path("tree/magic")).unwrap();
    let tree = dir.path("tree");
    // Directories of a read-only tree are kept; that must not change a thing.
    let read_only = Client::to_thread(&[(&tree, false)]);
    for path in ["up", "abs", "dir/secret", "dir/tree/up", "magic/passwd", "up", "dir/secret"] {
        for op in [READ, Op::ReadDir { cursor: 0, plus: Plus::Everything }] {
            let error = refused(read_only.ask(path, op)).unwrap();
            assert!(matches!(error, Errno::ELOOP | Errno::ENOTDIR), "{path} {error}");
        }
    }
    let client = Client::to_thread(&[(&tree, true)]);
    for path in ["up", "abs", "dir/secret", "dir/tree/up", "magic/passwd"] {
        for op in [
            READ,
            WRITE,
            Op::ReadDir { cursor: 0, plus: Plus::Everything },
            Op::Create { owner: owner(0o644) },
        ] {
            let error = refused(client.ask(path, op)).unwrap();
            assert!(
                matches!(error, Errno::ELOOP | Errno::ENOTDIR | Errno::EEXIST),
                "{path} {error}"
            );
        }
    }
    // Paths that no honest client sends.
    for bad in [&b".."[..], b"../secret", b"/etc/passwd", b"a/../../secret", b".", b"a\0"] {
        let mut message = Vec::new();
        message.put_u16(3);
        message.put_u16(0);
        message.put_u32(1);
        message.put_u16(NO_CPU);
        message.put_blob(bad);
        assert_eq!(refused(client.raw(&message)), Some(Errno::EPROTO), "{bad:?}");
    }
    // A change of mode or owner does not go through a link either.
    let change = AttrChange { mode: Some(0o777), ..AttrChange::default() };
    let before = fs::metadata(dir.path("secret")).unwrap().mode();
    assert_eq!(refused(client.ask("up", Op::SetAttr { change })), Some(Errno::EOPNOTSUPP));
    let times = AttrChange {
        mtime: Some(TimeChange::At(Timespec { sec: 1, nsec: 0 })),
        ..AttrChange::default()
    };
    client.ask("up", Op::SetAttr { change: times }).unwrap();
    let after = fs::metadata(dir.path("secret")).unwrap();
    assert_eq!(after.mode(), before);
    assert_ne!(after.mtime(), 1);
    assert_eq!(fs::symlink_metadata(dir.path("tree/up")).unwrap().mtime(), 1);
}

#[test]
fn a_read_only_tree_stays_as_it_is() {
    let dir = TempDir::new();
    fs::write(dir.path("file"), "x").unwrap();
    let client = Client::to_thread(&[(&dir.0, false)]);
    let to = TreePath::new(b"new").unwrap();
    let change = AttrChange { size: Some(0), ..AttrChange::default() };
    for op in [
        WRITE,
        Op::Open { flags: OpenFlags::WRONLY },
        Op::Open { flags: OpenFlags::TRUNC },
        Op::Unlink,
        Op::Rename { to, flags: 0 },
        Op::Link { existing: to },
        Op::SetAttr { change },
        Op::SetXattr { name: b"user.a", value: b"b", flags: 0 },
        Op::RemoveXattr { name: b"user.a" },
    ] {
        assert_eq!(refused(client.ask("file", op)), Some(Errno::EROFS), "{op:?}");
    }
    for op in [
        Op::Create { owner: owner(0o644) },
        Op::Mkdir { owner: owner(0o755) },
        Op::Symlink { target: b"x", owner: owner(0o777) },
        Op::Mknod { kind: NodeKind::Fifo, owner: owner(0o644) },
    ] {
        assert_eq!(refused(client.ask("new", op)), Some(Errno::EROFS), "{op:?}");
    }
    // The donated descriptor cannot write.
    let file = fs::File::from(client.ask("file", READ).unwrap().fd.unwrap());
    assert!((&file).write_all(b"y").is_err());
    assert_eq!(fs::read(dir.path("file")).unwrap(), b"x");
}

#[test]
fn several_files_are_opened_at_once_and_others_refused_one_by_one() {
    let dir = TempDir::new();
    fs::create_dir_all(dir.path("dir/sub")).unwrap();
    fs::write(dir.path("secret"), "secret").unwrap();
    fs::write(dir.path("dir/a"), "A").unwrap();
    fs::write(dir.path("dir/b"), "B").unwrap();
    symlink("../secret", dir.path("dir/up")).unwrap();
    symlink("dir", dir.path("link")).unwrap();
    for writable in [false, true] {
        let client = Client::to_thread(&[(&dir.0, writable)]);
        let names = TreePath::new(b"a/sub/up/none/b").unwrap();
        let reply = client.ask("dir", Op::OpenFiles { names }).unwrap();
        let opened = OpenedFiles::decode(reply.fields(), 5).unwrap().0;
        let errors: Vec<_> = opened.iter().map(|file| file.err()).collect();
        let expected = [None, Some(Errno::EISDIR), Some(Errno::ELOOP), Some(Errno::ENOENT), None];
        assert_eq!(errors, expected);
        let texts: Vec<_> = reply
            .fd
            .into_iter()
            .chain(reply.more_fds)
            .map(|fd| std::io::read_to_string(fs::File::from(fd)).unwrap())
            .collect();
        assert_eq!(texts, ["A", "B"]);
        assert_eq!(refused(client.ask("link", Op::OpenFiles { names })), Some(Errno::ELOOP));
        let many = vec!["a"; MAX_OPEN + 1].join("/");
        let names = TreePath::new(many.as_bytes()).unwrap();
        assert_eq!(refused(client.ask("dir", Op::OpenFiles { names })), Some(Errno::EINVAL));
    }
}

#[test]
fn fifos_devices_and_directories_are_not_donated() {
    let dir = TempDir::new();
    let client = Client::to_thread(&[(&dir.0, true), (std::path::Path::new("/dev"), false)]);
    client.ask("fifo", Op::Mknod { kind: NodeKind::Fifo, owner: owner(0o640) }).unwrap();
    assert_eq!(client.ask("fifo", Op::Attr).unwrap().attr().mode, S_IFIFO | 0o640);
    assert_eq!(refused(client.ask("fifo", READ)), Some(Errno::ENXIO));
    assert_eq!(refused(client.ask_tree(1, "null", READ)), Some(Errno::ENXIO));
    assert_eq!(refused(client.ask("", READ)), Some(Errno::EISDIR));
    assert_eq!(refused(client.ask("fifo", Op::Connect)), Some(Errno::EPERM));
}

#[test]
fn objects_are_made_with_exact_modes_and_removed() {
    let dir = TempDir::new();
    let client = Client::to_thread(&[(&dir.0, true)]);
    let made = client.ask("dir", Op::Mkdir { owner: owner(0o1777) }).unwrap().attr();
    assert_eq!(made.mode, S_IFDIR | 0o1777);
    let reply = client.ask("dir/file", Op::Create { owner: owner(0o666) }).unwrap();
    assert_eq!(reply.attr().mode & !S_IFMT, 0o666);
    fs::File::from(reply.fd.unwrap()).write_all(b"data").unwrap();
    assert_eq!(
        refused(client.ask("dir/file", Op::Create { owner: owner(0o666) })),
        Some(Errno::EEXIST)
    );
    client.ask("link", Op::Symlink { target: b"dir/file", owner: owner(0o777) }).unwrap();
    assert_eq!(fs::read(dir.path("link")).unwrap(), b"data");
    let existing = TreePath::new(b"dir/file").unwrap();
    assert_eq!(client.ask("hard", Op::Link { existing }).unwrap().attr().nlink, 2);
    let to = TreePath::new(b"dir/moved").unwrap();
    client.ask("hard", Op::Rename { to, flags: 0 }).unwrap();
    assert_eq!(refused(client.ask("dir/file", Op::Rename { to, flags: 1 })), Some(Errno::EEXIST));
    assert_eq!(refused(client.ask("dir/file", Op::Rename { to, flags: 4 })), Some(Errno::EINVAL));
    assert_eq!(refused(client.ask("dir", Op::Rmdir)), Some(Errno::ENOTEMPTY));
    assert_eq!(refused(client.ask("dir", Op::Unlink)), Some(Errno::EISDIR));
    for name in ["dir/file", "dir/moved", "link"] {
        client.ask(name, Op::Unlink).unwrap();
    }
    client.ask("dir", Op::Rmdir).unwrap();
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0);
    assert_eq!(refused(client.ask("", Op::Rmdir)), Some(Errno::EBUSY));
    assert_eq!(refused(client.ask("", Op::Mkdir { owner: owner(0o755) })), Some(Errno::EEXIST));
}

#[test]
fn attributes_and_extended_attributes_change() {
    let dir = TempDir::new();
    fs::write(dir.path("file"), "12345").unwrap();
    let client = Client::to_thread(&[(&dir.0, true)]);
    let change = AttrChange {
        mode: Some(0o400),
        size: Some(2),
        mtime: Some(TimeChange::At(Timespec { sec: 77, nsec: 88 })),
        ..AttrChange::default()
    };
    let attr = client.ask("file", Op::SetAttr { change }).unwrap().attr();
    assert_eq!((attr.mode & 0o7777, attr.size), (0o400, 2));
    assert_eq!(attr.mtime, Timespec { sec: 77, nsec: 88 });
    fs::set_permissions(dir.path("file"), fs::Permissions::from_mode(0o600)).unwrap();

    let name = b"user.colour";
    match client.ask("file", Op::SetXattr { name, value: b"blue", flags: 1 }) {
        Err(Errno::EOPNOTSUPP) => return, // Not every temporary directory can hold them.
        other => other.unwrap(),
    };
    let set_again = client.ask("file", Op::SetXattr { name, value: b"red", flags: 1 });
    assert_eq!(refused(set_again), Some(Errno::EEXIST));
    assert_eq!(
        client.ask("file", Op::GetXattr { name }).unwrap().fields().blob().unwrap(),
        b"blue"
    );
    assert_eq!(
        client.ask("file", Op::ListXattr).unwrap().fields().blob().unwrap(),
        b"user.colour\0"
    );
    client.ask("file", Op::RemoveXattr { name }).unwrap();
    assert_eq!(refused(client.ask("file", Op::GetXattr { name })), Some(Errno::ENODATA));
}

#[test]
fn long_listings_come_in_pieces_and_complete() {
    let dir = TempDir::new();
    for i in 0..1500 {
        fs::write(dir.path(&format!("a-rather-long-file-name-{i}")), "").unwrap();
    }
    let client = Client::to_thread(&[(&dir.0, false)]);
    for (plus, expected) in [(Plus::Nothing, 0), (Plus::Directories, 0), (Plus::Everything, 1500)] {
        let list = client.list("", plus);
        let mut names: Vec<_> = list.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names.dedup();
        assert_eq!((names.len(), list.len()), (1502, 1502));
        let with_attr = list.iter().filter(|(_, attr)| attr.is_some()).count();
        assert_eq!(with_attr, expected);
    }
    assert_eq!(
        refused(client.ask("none", Op::ReadDir { cursor: 0, plus: Plus::Nothing })),
        Some(Errno::ENOENT)
    );
}

#[test]
fn paths_beyond_path_max_work() {
    let dir = TempDir::new();
    let client = Client::to_thread(&[(&dir.0, true)]);
    let mut path = String::new();
    for _ in 0..30 {
        path.push_str(if path.is_empty() { "" } else { "/" });
        path.push_str(&"d".repeat(250));
        client.ask(&path, Op::Mkdir { owner: owner(0o755) }).unwrap();
    }
    assert!(client.ask(&path, Op::Attr).unwrap().attr().is_dir());
    assert_eq!(client.list(&path, Plus::Everything).len(), 2);
    while let Some((dir, _)) = path.rsplit_once('/') {
        let dir = dir.to_owned();
        client.ask(&path, Op::Rmdir).unwrap();
        path = dir;
    }
}

#[test]
fn a_single_file_can_be_a_tree() {
    let dir = TempDir::new();
    fs::write(dir.path("file"), "alone").unwrap();
    fs::write(dir.path("other"), "hidden").unwrap();
    let client = Client::to_thread(&[(&dir.path("file"), true)]);
    assert_eq!(client.ask("", Op::Attr).unwrap().attr().size, 5);
    let fd = client.ask("", WRITE).unwrap().fd.unwrap();
    assert_eq!(std::io::read_to_string(fs::File::from(fd)).unwrap(), "alone");
    let change = AttrChange { mode: Some(0o600), ..AttrChange::default() };
    assert_eq!(client.ask("", Op::SetAttr { change }).unwrap().attr().mode & 0o777, 0o600);
    for op in [Op::Attr, READ, Op::Create { owner: owner(0o600) }, Op::Unlink] {
        assert_eq!(refused(client.ask("other", op)), Some(Errno::ENOTDIR));
    }
    assert_eq!(
        refused(client.ask("", Op::ReadDir { cursor: 0, plus: Plus::Nothing })),
        Some(Errno::ENOTDIR)
    );
    assert_eq!(refused(client.ask("", Op::Unlink)), Some(Errno::EBUSY));
}

/// Somebody on the host exchanges a directory for a link to the outside while requests run.
#[test]
fn a_raced_link_never_leads_out() {
    let dir = TempDir::new();
    fs::create_dir_all(dir.path("outside")).unwrap();
    fs::create_dir_all(dir.path("tree/inside")).unwrap();
    fs::write(dir.path("outside/file"), "outside").unwrap();
    fs::write(dir.path("tree/inside/file"), "inside").unwrap();
    symlink("../outside", dir.path("tree/link")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let racer = std::thread::spawn({
        let (stop, tree) = (Arc::clone(&stop), dir.path("tree"));
        move || {
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    tree.join("inside"),
                    rustix::fs::CWD,
                    tree.join("link"),
                    rustix::fs::RenameFlags::EXCHANGE,
                )
                .unwrap();
            }
        }
    });
    let client = Client::to_thread(&[(&dir.path("tree"), true)]);
    for round in 0..3000 {
        match client.ask("inside/file", READ) {
            Ok(reply) => {
                let mut text = String::new();
                fs::File::from(reply.fd.unwrap()).read_to_string(&mut text).unwrap();
                assert_eq!(text, "inside");
            }
            Err(error) => {
                assert!(matches!(error, Errno::ELOOP | Errno::ENOENT | Errno::ENOTDIR), "{error}");
            }
        }
        let names = TreePath::new(b"inside/file").unwrap();
        let walked = client.ask("", Op::Walk { names, open: false }).unwrap();
        let walked = Walked::decode(walked.fields(), 2).unwrap();
        assert!(walked.found.get(1).is_none_or(|attr| attr.size == 6));
        let name = format!("inside/new{round}");
        let _ = client.ask(&name, Op::Create { owner: owner(0o600) });
    }
    stop.store(true, Ordering::Relaxed);
    racer.join().unwrap();
    assert_eq!(fs::read_dir(dir.path("outside")).unwrap().count(), 1);
}

mod fuzz {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_message_gets_a_reply(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
            let dir = TempDir::new();
            let client = Client::to_thread(&[(&dir.0, false)]);
            let _ = client.raw(&bytes);
            prop_assert!(client.ask("", Op::Attr).is_ok());
        }
    }
}
