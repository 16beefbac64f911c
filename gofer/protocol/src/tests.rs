use abi::Errno;
use abi::ids::{Gid, Uid};
use abi::open::OpenFlags;
use abi::stat::{Attr, S_IFLNK, S_IFREG};
use abi::time::Timespec;
use proptest::prelude::*;

use crate::attr;
use crate::wire::Reader;
use crate::*;

fn sample_attr() -> Attr {
    Attr {
        dev: 0x803,
        ino: 42,
        mode: S_IFREG | 0o644,
        nlink: 2,
        uid: Uid(1000),
        gid: Gid(100),
        size: 1 << 40,
        blksize: 4096,
        blocks: 8,
        mtime: Timespec { sec: -5, nsec: 999_999_999 },
        ..Attr::default()
    }
}

fn round_trip(op: Op<'_>) {
    let request = Request { seq: 7, cpu: 5, tree: 3, path: TreePath::new(b"usr/lib").unwrap(), op };
    let mut message = Vec::new();
    request.encode(&mut message);
    assert_eq!(Request::decode(&message), Ok(request));
    assert_eq!(Request::peek_seq(&message), 7);
    for cut in 0..message.len() {
        assert!(Request::decode(&message[..cut]).is_err(), "cut at {cut}");
    }
    message.push(0);
    assert_eq!(Request::decode(&message), Err(DecodeError::Trailing));
}

#[test]
fn requests_survive_the_wire_and_every_cut_is_refused() {
    let owner = Owner { uid: Uid(1), gid: Gid(2), mode: 0o1755 };
    let change = AttrChange {
        mode: Some(0o600),
        size: Some(9),
        atime: Some(TimeChange::Now),
        mtime: Some(TimeChange::At(Timespec { sec: 1, nsec: 2 })),
        ..AttrChange::default()
    };
    round_trip(Op::Hello { version: VERSION });
    for open in [false, true] {
        round_trip(Op::Walk { names: TreePath::new(b"a/b/c").unwrap(), open });
    }
    round_trip(Op::Open { flags: OpenFlags::RDWR | OpenFlags::TRUNC });
    round_trip(Op::Explore { paths: b"/bin/../x\0y\0" });
    round_trip(Op::OpenFiles { names: TreePath::new(b"a/b").unwrap() });
    for plus in [Plus::Nothing, Plus::Directories, Plus::Everything, Plus::Few] {
        round_trip(Op::ReadDir { cursor: u64::MAX, plus });
    }
    let names = TreePath::new(b"a/b").unwrap();
    for above in [&b""[..], b"c/d\0", b"\0e\0"] {
        let above = Paths::new(above).unwrap();
        round_trip(Op::ReadTree { names, above, plus: Plus::Directories, dirs: 3, open: 70 });
        round_trip(Op::ReadOn { walk: 9, plus: Plus::Everything, dirs: 3, open: 70 });
    }
    for above in [&b"c"[..], b"c\0d", b"/\0", b"..\0", &[0; 17]] {
        assert_eq!(Paths::new(above), Err(abi::Errno::EINVAL));
    }
    round_trip(Op::Symlink { target: b"../x", owner });
    round_trip(Op::Rename { to: TreePath::new(b"z").unwrap(), flags: 2 });
    round_trip(Op::Mknod { kind: NodeKind::Socket, owner });
    round_trip(Op::SetAttr { change });
    round_trip(Op::SetXattr { name: b"user.a", value: b"", flags: 1 });
    round_trip(Op::Sync { scope: SyncScope::FileSystem });
}

#[test]
fn paths_that_could_lead_out_are_refused() {
    for bad in [&b"/"[..], b"/a", b"a/", b"a//b", b".", b"..", b"a/..", b"../a", b"a/./b", b"a\0b"]
    {
        assert_eq!(TreePath::new(bad), Err(Errno::EINVAL), "{bad:?}");
    }
    assert_eq!(TreePath::new(&[b'x'; 256]), Err(Errno::ENAMETOOLONG));
    assert!(TreePath::new(&[b'x'; 255]).is_ok());
    for good in [&b""[..], b"...", b"..a", b"a/.b/c..", b"\xff"] {
        assert!(TreePath::new(good).is_ok(), "{good:?}");
    }
}

#[test]
fn paths_split_at_names() {
    let path = TreePath::new(b"a/bc/d").unwrap();
    assert_eq!(path.names().map(Name::bytes).collect::<Vec<_>>(), [&b"a"[..], b"bc", b"d"]);
    let (dir, name) = path.split_last().unwrap();
    assert_eq!((dir.bytes(), name.bytes()), (&b"a/bc"[..], &b"d"[..]));
    let (head, rest) = path.split_within(4).unwrap();
    assert_eq!((head.bytes(), rest.bytes()), (&b"a/bc"[..], &b"d"[..]));
    let (head, rest) = path.split_within(3).unwrap();
    assert_eq!((head.bytes(), rest.bytes()), (&b"a"[..], &b"bc/d"[..]));
    assert!(path.split_within(0).is_none());
    assert_eq!(TreePath::ROOT.names().count(), 0);
}

#[test]
fn attributes_take_as_many_bytes_as_promised() {
    let mut out = Vec::new();
    attr::put_attr(&mut out, &sample_attr());
    assert_eq!(out.len(), attr::ATTR_BYTES);
    assert_eq!(attr::attr(&mut Reader::new(&out)), Ok(sample_attr()));
}

#[test]
fn replies_survive_the_wire() {
    let mut out = Vec::new();
    ReplyHead { error: Some(Errno::ENOENT), seq: 9 }.encode(&mut out);
    let (head, rest) = ReplyHead::decode(&out).unwrap();
    assert_eq!((head.error, head.seq, rest.is_empty()), (Some(Errno::ENOENT), 9, true));

    let link = Attr { mode: S_IFLNK | 0o777, ..sample_attr() };
    let walked =
        Walked { found: vec![sample_attr(), link], stopped: None, link: Some(b"../t".to_vec()) };
    out.clear();
    walked.encode(&mut out);
    assert_eq!(Walked::decode(Reader::new(&out), 2), Ok(walked.clone()));
    assert_eq!(Walked::decode(Reader::new(&out), 1), Err(DecodeError::BadValue));

    let opened = OpenedFiles(vec![Ok(sample_attr()), Err(Errno::EACCES), Ok(sample_attr())]);
    out.clear();
    opened.encode(&mut out);
    assert_eq!(OpenedFiles::decode(Reader::new(&out), 3), Ok(opened));
    assert_eq!(OpenedFiles::decode(Reader::new(&out), 2), Err(DecodeError::BadValue));

    let welcome = Welcome {
        version: VERSION,
        max_message: 65536,
        trees: vec![TreeInfo { writable: true, root: sample_attr() }],
    };
    out.clear();
    welcome.encode(&mut out);
    assert_eq!(Welcome::decode(Reader::new(&out)), Ok(welcome));
}

proptest! {
    #[test]
    fn random_requests_are_errors_or_encode_back(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(request) = Request::decode(&bytes) {
            let mut again = Vec::new();
            request.encode(&mut again);
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn random_fields_after_a_valid_front_never_panic(
        code in 0u16..28, bytes in prop::collection::vec(any::<u8>(), 0..120)
    ) {
        let mut message = code.to_le_bytes().to_vec();
        message.extend([0, 0, 1, 0, 0, 0, 0, 0, 1, 0, b'a']);
        message.extend(&bytes);
        if let Ok(request) = Request::decode(&message) {
            let mut again = Vec::new();
            request.encode(&mut again);
            prop_assert_eq!(again, message);
        }
    }

    #[test]
    fn random_replies_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), asked in 0usize..8) {
        if let Ok((_, rest)) = ReplyHead::decode(&bytes) {
            let _ = Welcome::decode(rest.clone());
            let _ = Walked::decode(rest.clone(), asked);
            prop_assert!(Sections::decode(rest.clone(), 2, 3).map_or(0, Iterator::count) <= bytes.len());
            if let Ok(listing) = Listing::decode(rest) {
                prop_assert!(listing.count() <= bytes.len());
            }
        }
    }

    #[test]
    fn random_bytes_make_safe_paths_or_none(bytes in prop::collection::vec(prop::sample::select(b"./a\0".to_vec()), 0..12)) {
        if let Ok(path) = TreePath::new(&bytes) {
            prop_assert!(path.names().all(|name| Name::new(name.bytes()).is_ok()));
        }
    }
}

#[test]
fn sightings_survive_the_wire_and_stand_after_their_directories() {
    let link = Attr { mode: S_IFLNK | 0o777, ..sample_attr() };
    let seen = [
        Sighting { dir: 0, name: b"a", attr: Some(link), link: Some(b"/b"), is_open: false },
        Sighting { dir: 1, name: b"b", attr: Some(sample_attr()), link: None, is_open: true },
        Sighting { dir: 1, name: b"c", attr: None, link: None, is_open: false },
    ];
    let mut out = Vec::new();
    for sighting in &seen {
        let before = out.len();
        sighting.encode(&mut out);
        assert!(out.len() - before <= sighting.encoded_bound());
    }
    fn decode(message: &[u8]) -> Result<Vec<Sighting<'_>>, DecodeError> {
        Sightings::decode(Reader::new(message)).collect()
    }
    assert_eq!(decode(&out), Ok(seen.to_vec()));
    assert!(decode(&out[..out.len() - 1]).is_err());
    for bad in [
        Sighting { dir: 1, ..seen[0] },
        Sighting { dir: 0, name: b"..", ..seen[0] },
        Sighting { dir: 0, name: b"a/b", ..seen[0] },
    ] {
        out.clear();
        bad.encode(&mut out);
        assert!(decode(&out).is_err(), "{bad:?}");
    }
}

#[test]
fn sections_survive_the_wire_and_stand_after_their_directories() {
    fn decode(message: &[u8]) -> Result<Vec<(u16, &[u8], Vec<DirItem<'_>>)>, DecodeError> {
        Sections::decode(Reader::new(message), 0)
            .map(|section| {
                let Section { dir, name, listing } = section?;
                Ok((dir, name, listing.collect::<Result<_, _>>()?))
            })
            .collect()
    }
    let attr = Some(sample_attr());
    let kind = Some(abi::stat::FileType::Regular);
    let open = DirItem { ino: 1, next: 2, kind, name: b"file", attr, is_open: true };
    let named = DirItem { name: b"named", attr: None, is_open: false, ..open };
    let sections = |dirs: [u16; 2], name: &[u8]| {
        let mut out = Vec::new();
        let first = OpenSection::begin(dirs[0], b"a", &mut out);
        open.encode(&mut out);
        named.encode(&mut out);
        first.end(true, &mut out);
        let before = out.len();
        OpenSection::begin(0, b"cancelled", &mut out).cancel(&mut out);
        assert_eq!(out.len(), before);
        let second = OpenSection::begin(dirs[1], name, &mut out);
        assert!(out.len() - before <= OpenSection::encoded_bound(name));
        second.end(false, &mut out);
        out
    };
    let out = sections([0, 1], b"b");
    let expected = vec![(0, &b"a"[..], vec![open, named]), (1, &b"b"[..], vec![])];
    assert_eq!(decode(&out), Ok(expected));
    let last: Vec<_> =
        Sections::decode(Reader::new(&out), 0).map(|s| s.unwrap().listing.is_last).collect();
    assert_eq!(last, [true, false]);
    for cut in 1..out.len() {
        // Only at the end of a section there is nothing to be missed.
        assert!(decode(&out[..cut]).map_or(true, |all| all.len() == 1), "cut at {cut}");
    }
    for (dirs, name) in [([1, 0], &b"b"[..]), ([0, 2], b"b"), ([0, 0], b".."), ([0, 0], b"a/b")] {
        assert!(decode(&sections(dirs, name)).is_err(), "{dirs:?} {name:?}");
    }
}
