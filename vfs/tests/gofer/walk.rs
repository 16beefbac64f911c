//! Programs that walk a tree: what they will want next comes along with what they want.

use std::fs;
use std::path::Path as HostPath;

use abi::open::OpenFlags;

use super::{Guest, TempDir, in_order};

/// `width` directories with as many in each, and three files in each of these.
fn plant(dir: &HostPath, width: usize) {
    for outer in 0..width {
        for inner in 0..width {
            let at = dir.join(format!("outer-{outer}/inner-{inner}"));
            fs::create_dir_all(&at).unwrap();
            for file in 0..3 {
                fs::write(at.join(format!("file-{file}")), format!("{outer}.{inner}.{file}"))
                    .unwrap();
            }
        }
    }
}

/// Lists everything below `path` depth first, in the order of listings; files go to `visit`.
fn walk(guest: &Guest, host: &HostPath, path: &str, visit: &mut dyn FnMut(&str)) -> usize {
    let mut names = guest.list(&format!("{path}/"), 1000);
    names.retain(|name| name != "." && name != "..");
    let mut expected = in_order(host);
    let in_order = expected.clone();
    expected.sort();
    assert_eq!(names, expected, "{path}");
    let mut seen = names.len();
    for name in in_order {
        let below = format!("{path}/{name}");
        if host.join(&name).symlink_metadata().unwrap().is_dir() {
            seen += walk(guest, &host.join(&name), &below, visit);
        } else {
            visit(&below);
        }
    }
    seen
}

#[test]
fn a_walk_lists_many_directories_at_a_time() {
    let dir = TempDir::new();
    plant(&dir.0, 20);
    let guest = Guest::new(&dir.0, false);
    let (seen, asked) = guest.requests(|| walk(&guest, &dir.0, "", &mut |_| {}));
    assert_eq!(seen, 20 + 20 * 20 * 4);
    assert!(asked < 60, "{asked} round trips for 421 directories");
    let (_, asked) = guest.requests(|| walk(&guest, &dir.0, "", &mut |_| {}));
    assert_eq!(asked, 0, "all is known");
    // Others may change this one between any two steps.
    let guest = Guest::new(&dir.0, true);
    let mut removed = 0;
    walk(&guest, &dir.0, "", &mut |path| {
        if path.ends_with("file-1") {
            fs::remove_file(dir.path(&path[1..])).unwrap();
            removed += 1;
        }
    });
    assert_eq!(removed, 400);
    walk(&guest, &dir.0, "", &mut |path| assert!(!path.ends_with("file-1"), "{path}"));
}

#[test]
fn a_walk_that_reads_files_has_them_opened_along_with_the_listings() {
    let dir = TempDir::new();
    plant(&dir.0, 20);
    let guest = Guest::new(&dir.0, false);
    let mut files = 0;
    let mut read = |path: &str| {
        let text = guest.read(path).unwrap();
        assert_eq!(text, fs::read_to_string(dir.path(&path[1..])).unwrap());
        files += 1;
    };
    let (_, asked) = guest.requests(|| walk(&guest, &dir.0, "", &mut read));
    assert_eq!(files, 1200);
    assert!(asked < 200, "{asked} round trips for 421 directories and 1200 files");
}

#[test]
fn who_reads_files_without_their_attributes_is_not_told_any() {
    let dir = TempDir::new();
    fs::create_dir(dir.path("first")).unwrap();
    fs::create_dir(dir.path("second")).unwrap();
    for number in 0..1500 {
        fs::write(dir.path(&format!("first/{number}")), "").unwrap();
    }
    for number in 0..300 {
        fs::write(dir.path(&format!("second/{number}")), number.to_string()).unwrap();
    }
    let guest = Guest::new(&dir.0, false);
    // So many attributes for nothing: those of the second directory do not come.
    guest.list("/first", 1000);
    guest.list("/second", 1000);
    let read = || {
        for name in in_order(&dir.path("second")) {
            assert_eq!(guest.read(&format!("/second/{name}")).unwrap(), name);
        }
    };
    let ((), asked) = guest.requests(read);
    assert!(asked < 20, "{asked} round trips for 300 files");
    let size = guest.at("/second/299").unwrap().inode().attr().unwrap().size;
    assert_eq!(size, 3, "opening has told it");
}

#[test]
fn who_lists_here_and_there_gets_nothing_else() {
    let dir = TempDir::new();
    plant(&dir.0, 20);
    let guest = Guest::new(&dir.0, false);
    guest.list("/", 1000);
    let outer = in_order(&dir.0);
    let mut asked = Vec::new();
    for name in outer.iter().rev() {
        guest.list(&format!("/{name}"), 1000);
        let inner = in_order(&dir.path(name));
        let last = format!("/{name}/{}", inner.last().unwrap());
        asked.push(guest.requests(|| guest.list(&last, 1000)).1);
    }
    assert_eq!(asked, vec![1; 20], "each is asked for by itself");
}

#[test]
fn files_read_in_the_order_of_the_listing_come_along_with_each_other() {
    let dir = TempDir::new();
    fs::create_dir(dir.path("many")).unwrap();
    for number in 0..300 {
        fs::write(dir.path(&format!("many/{number}")), number.to_string()).unwrap();
    }
    let names = in_order(&dir.path("many"));
    let read = |guest: &Guest, names: &mut dyn Iterator<Item = &String>| {
        for name in names {
            assert_eq!(&guest.read(&format!("/many/{name}")).unwrap(), name);
        }
    };
    let guest = Guest::new(&dir.0, false);
    guest.list("/many", 1000);
    let ((), asked) = guest.requests(|| read(&guest, &mut names.iter()));
    assert!(asked < 20, "{asked} round trips in order");
    let ((), asked) = guest.requests(|| read(&guest, &mut names.iter().rev()));
    assert_eq!(asked, 0, "descriptors are kept");

    let guest = Guest::new(&dir.0, false);
    guest.list("/many", 1000);
    let ((), asked) = guest.requests(|| read(&guest, &mut names.iter().rev()));
    assert!((280..=300).contains(&asked), "{asked} round trips in reverse: nothing is guessed");
    // What others may change is opened when it is opened.
    let guest = Guest::new(&dir.0, true);
    guest.list("/many", 1000);
    read(&guest, &mut names.iter().take(100));
    for name in &names[100..] {
        fs::write(dir.path(&format!("many/{name}")), "changed").unwrap();
        assert_eq!(guest.read(&format!("/many/{name}")).unwrap(), "changed");
    }
}

/// Chains of `depth` directories, each of which but the last has nothing else.
fn plant_chains(dir: &HostPath, width: usize, depth: usize) {
    for chain in 0..width {
        let mut at = dir.join(format!("chain-{chain}"));
        for level in 0..depth {
            at.push(format!("level-{level}"));
        }
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("file"), "").unwrap();
    }
}

#[test]
fn a_walk_out_of_deep_directories_goes_on_beside_what_they_are_in() {
    let dir = TempDir::new();
    plant_chains(&dir.0, 100, 9);
    let guest = Guest::new(&dir.0, false);
    let (seen, asked) = guest.requests(|| walk(&guest, &dir.0, "", &mut |_| {}));
    assert_eq!(seen, 100 * 11);
    assert!(asked < 60, "{asked} requests for 1001 directories");
}

#[test]
fn a_walk_that_leaves_something_out_and_comes_back_sees_all() {
    let dir = TempDir::new();
    plant(&dir.0, 20);
    let guest = Guest::new(&dir.0, false);
    let outer = in_order(&dir.0);
    let visit = |name: &String| {
        walk(&guest, &dir.path(name), &format!("/{name}"), &mut |path| {
            let text = guest.read(path).unwrap();
            assert_eq!(text, fs::read_to_string(dir.path(&path[1..])).unwrap());
        })
    };
    guest.list("/", 1000);
    // By now more is asked for than these.
    let first: usize = outer.iter().take(10).map(visit).sum();
    let others: usize = outer.iter().skip(10).rev().map(visit).sum();
    assert_eq!(first + others, 20 * 20 * 4);
    let (again, asked) = guest.requests(|| walk(&guest, &dir.0, "", &mut |_| {}));
    assert_eq!((again, asked <= 1), (20 + 20 * 20 * 4, true), "{asked} requests");
}

#[test]
fn several_walks_at_a_time_see_all() {
    let dir = TempDir::new();
    plant(&dir.0, 20);
    let guest = Guest::new(&dir.0, false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut files = 0;
                let mut read = |path: &str| {
                    let text = guest.read(path).unwrap();
                    assert_eq!(text, fs::read_to_string(dir.path(&path[1..])).unwrap());
                    files += 1;
                };
                let seen = walk(&guest, &dir.0, "", &mut read);
                assert_eq!((seen, files), (20 + 20 * 20 * 4, 1200));
            });
        }
    });
}

#[test]
fn a_directory_says_whether_all_its_names_are_known() {
    let dir = TempDir::new();
    fs::create_dir(dir.path("large")).unwrap();
    for number in 0..2000 {
        fs::write(dir.path(&format!("large/{number:0100}")), "").unwrap();
    }
    let guest = Guest::new(&dir.0, false);
    let large = guest.at("/large").unwrap();
    assert!(!large.inode().is_listed());
    assert!(guest.at("/large/0").is_err());
    assert!(!large.inode().is_listed());
    assert_eq!(guest.list("/large", 10_000).len(), 2002);
    assert!(large.inode().is_listed());
}

#[test]
fn a_long_walk_goes_on_and_on() {
    let dir = TempDir::new();
    // More directories than one walk of the gofer's has.
    plant(&dir.0, 36);
    let guest = Guest::new(&dir.0, false);
    let (seen, asked) = guest.requests(|| walk(&guest, &dir.0, "", &mut |_| {}));
    assert_eq!(seen, 36 + 36 * 36 * 4);
    assert!(asked < 120, "{asked} round trips for 1333 directories");
}

#[test]
fn who_leaves_a_walk_and_comes_back_loses_little() {
    let dir = TempDir::new();
    plant(&dir.0, 24);
    let guest = Guest::new(&dir.0, false);
    let mut orders: Vec<usize> = (0..24).collect();
    // From the end, then back to what was left out.
    orders.rotate_left(7);
    let (_, asked) = guest.requests(|| {
        for outer in orders {
            let path = format!("/outer-{outer}");
            walk(&guest, &dir.path(&path[1..]), &path, &mut |_| {});
        }
    });
    assert!(asked < 200, "{asked} round trips for 600 directories");
}

#[test]
fn a_directory_of_many_pieces_is_read_from_anywhere() {
    let dir = TempDir::new();
    for number in 0..6000 {
        fs::write(dir.path(&format!("a-file-with-a-long-name-{number}")), "").unwrap();
    }
    let expected = in_order(&dir.0);
    for is_writable in [false, true] {
        let guest = Guest::new(&dir.0, is_writable);
        for at_a_time in [7, 700, 5000] {
            let mut names = guest.list("/", at_a_time);
            names.retain(|name| name != "." && name != "..");
            let mut sorted = expected.clone();
            sorted.sort();
            assert_eq!(names, sorted);
        }
        // Two that read it, each in its own place.
        let open = || guest.open("/", OpenFlags::DIRECTORY).unwrap();
        let (first, second) = (open(), open());
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        while guest.read_names(&first, 900, &mut ours) {
            guest.read_names(&second, 1100, &mut theirs);
        }
        while guest.read_names(&second, 1100, &mut theirs) {}
        assert_eq!((ours.len(), &ours), (6002, &theirs));
    }
}
