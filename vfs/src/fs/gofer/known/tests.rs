use gofer_protocol::wire::Reader;
use gofer_protocol::{DirItem, Listing, OpenListing};

use super::*;

fn piece(from: u64, names: &[&str], is_last: bool) -> Arc<Piece> {
    let (mut out, mut listing) = (Vec::new(), OpenListing::default());
    listing.begin(&mut out);
    for (name, next) in names.iter().zip(from + 1..) {
        let kind = if name.starts_with('d') { FileType::Directory } else { FileType::Regular };
        let (ino, name, kind) = (next, name.as_bytes(), Some(kind));
        listing.push(&DirItem { ino, next, kind, name, attr: None, is_open: false }, &mut out);
    }
    listing.end(is_last, &mut out);
    Arc::new(Piece::decode(from, Listing::decode(Reader::new(&out)).unwrap()).unwrap().0)
}

fn dirs(known: &mut Known) -> Vec<String> {
    let first = known.first_dirs(9).expect("all are known");
    let text = |name: &Arc<[u8]>| String::from_utf8(name.to_vec()).unwrap();
    let first: Vec<_> = first.iter().map(text).collect();
    let after = known.dirs_after(first[0].as_bytes(), 9).expect("all are known");
    assert_eq!(after.iter().map(text).collect::<Vec<_>>(), first[1..]);
    first
}

#[test]
fn what_was_known_before_has_its_place_in_the_listing() {
    for pieces in [
        vec![piece(0, &["d1", "d2", "f", "d3"], true)],
        vec![piece(0, &["d1", "d2"], false), piece(2, &["f", "d3"], true)],
    ] {
        let mut known = Known::default();
        known.insert(b"d2", Entry::Inode(Weak::new()));
        known.insert(b"f", Entry::Inode(Weak::new()));
        // Twice, for a directory may be read again.
        for _ in 0..2 {
            pieces.iter().for_each(|piece| known.learn(piece, &[]));
            assert_eq!(dirs(&mut known), ["d1", "d2", "d3"]);
            let mut order = Vec::new();
            let mut last: Option<Arc<[u8]>> = None;
            while let Some((name, _)) = known.following(last.as_deref(), false) {
                order.push(String::from_utf8(name.to_vec()).unwrap());
                last = Some(name);
            }
            assert_eq!(order, ["d1", "d2", "f", "d3"]);
        }
        assert!(matches!(known.get(b"d2"), Some(Entry::Inode(_))), "more than a listing says");
    }
}
