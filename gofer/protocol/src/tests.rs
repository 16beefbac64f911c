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
    type Items<'a> = Vec<(u16, &'a [u8], Vec<DirItem<'a>>)>;
    fn decode(message: &[u8], before: u16) -> Result<Items<'_>, DecodeError> {
        Sections::decode(Reader::new(message), 0, before)?
            .map(|section| {
                let Section { dir, name, listing } = section?;
                let items = listing.map(|item| item.map(|(_, item)| item));
                Ok((dir, name, items.collect::<Result<_, _>>()?))
            })
            .collect()
    }
    let attr = Some(sample_attr());
    let kind = Some(abi::stat::FileType::Regular);
    let open = DirItem { ino: 1, next: 2, kind, name: b"file", attr, is_open: true };
    let named = DirItem { name: b"named", attr: None, is_open: false, ..open };
    let sections = |dirs: [u16; 2], name: &[u8]| {
        let mut out = vec![1];
        let mut section = OpenSection::default();
        section.begin(dirs[0], b"a", &mut out);
        for item in [&open, &named] {
            let before = section.listing.reply_len(&out);
            section.listing.push(item, &mut out);
            let len = section.listing.reply_len(&out) - before;
            assert!(len <= DirItem::encoded_bound(item.name));
        }
        section.end(true, &mut out);
        let before = out.len();
        section.begin(0, b"cancelled", &mut out);
        section.listing.push(&open, &mut out);
        section.cancel(&mut out);
        assert_eq!(out.len(), before);
        section.begin(dirs[1], name, &mut out);
        assert!(out.len() - before <= OpenSection::encoded_bound(name));
        section.end(false, &mut out);
        out
    };
    let out = sections([0, 1], b"b");
    let expected = vec![(0, &b"a"[..], vec![open, named]), (1, &b"b"[..], vec![])];
    assert_eq!(decode(&out, 0), Ok(expected));
    let told = Sections::decode(Reader::new(&out), 0, 0).unwrap();
    assert!(told.has_more);
    let last: Vec<_> = told.map(|s| s.unwrap().listing.is_last).collect();
    assert_eq!(last, [true, false]);
    for cut in 0..out.len() {
        // Only at the end of a section there is nothing to be missed.
        let is_whole = |all: Items<'_>| all.len() == usize::from(cut > 1);
        assert!(decode(&out[..cut], 0).map_or(true, is_whole), "cut at {cut}");
    }
    for (dirs, name) in [([1, 0], &b"b"[..]), ([0, 2], b"b"), ([0, 0], b".."), ([0, 0], b"a/b")] {
        assert!(decode(&sections(dirs, name), 0).is_err(), "{dirs:?} {name:?}");
    }
    // What earlier replies of the walk told may be named.
    assert!(decode(&sections([1, 2], b"b"), 1).is_ok());
    assert!(decode(&sections([2, 0], b"b"), 1).is_err());
}

/// The front of a listing, and its records.
fn listing(items: &[DirItem<'_>]) -> Vec<u8> {
    let (mut out, mut listing) = (Vec::new(), OpenListing::default());
    listing.begin(&mut out);
    for item in items {
        listing.push(item, &mut out);
    }
    listing.end(true, &mut out);
    out
}

#[test]
fn records_and_attributes_that_do_not_belong_together_are_refused() {
    let item = DirItem {
        ino: 1,
        next: 2,
        kind: None,
        name: b"file",
        attr: Some(sample_attr()),
        is_open: false,
    };
    let plain = DirItem { attr: None, ..item };
    let count = |bytes: &[u8]| {
        let items: Result<Vec<_>, _> = Listing::decode(Reader::new(bytes))?.collect();
        items.map(|items| items.len())
    };
    let good = listing(&[plain, item]);
    assert_eq!(count(&good), Ok(2));
    let records = Listing::decode(Reader::new(&good)).unwrap().records();
    assert_eq!(abi::dirent::Records::new(records).count(), 2);
    // Attributes of a record that is none, or of one before.
    let place = 1 + 4 + records.len();
    for bad in [1u32, 23, 24 + 1, 48, u32::MAX] {
        let mut bytes = good.clone();
        bytes[place..place + 4].copy_from_slice(&bad.to_le_bytes());
        assert!(count(&bytes).is_err(), "attributes at {bad}");
    }
    // A record's own length.
    for bad in [0u16, 8, 16, 32, 48, u16::MAX] {
        let mut bytes = good.clone();
        bytes[5 + 16..5 + 18].copy_from_slice(&bad.to_ne_bytes());
        assert!(count(&bytes).is_err(), "length {bad}");
    }
    for name in [&b""[..], b"a/b", b"/"] {
        assert!(count(&listing(&[DirItem { name, ..plain }])).is_err(), "{name:?}");
    }
    let mut bytes = good.clone();
    bytes[5 + 18] = 3;
    assert!(count(&bytes).is_err(), "a type that is none");
}
