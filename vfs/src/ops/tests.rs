//! The same calls on the host and here, over a tree with one of everything: same errors, same tree after.

mod sides;

use abi::open::OpenFlags;
use abi::{Errno, Result};

use self::sides::{Host, Side, overlay_guest, tmpfs_guest};
use crate::ops;
use crate::path::LookupFlags;

const LONG: &str = concat!(
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
);

const PATHS: &[&str] = &[
    "", ".", "..", "./", "f", "f/", "f/x", "f/.", "f/..", "d", "d/", "d/.", "d/..", "d/sub", "d/f",
    "d//sub/", "e", "e/", "e/.", "e/..", "e/x", "e/x/", "l", "l/", "l/x", "ld", "ld/", "ld/.",
    "ld/sub", "ld/x", "dang", "dang/", "dang/x", "loop", "loop/", "loop/x", "none", "none/",
    "none/x", "none/.", "p", "p/", "lle", "lle/", "lle/x", "ldslash", "ldslash/", "lfslash", LONG,
];

/// Fewer, for calls that take two.
const PAIRED: &[&str] = &[
    "", ".", "f", "f/", "f/x", "d", "d/", "d/..", "d/sub", "d/f", "d/sub/x", "e", "e/x", "e/x/",
    "l", "l/", "ld/", "ld/x", "dang", "loop/x", "none", "none/", "none/x", "lle", LONG,
];

/// Runs `call` on a fresh tree of each side.
fn compare<T: PartialEq + std::fmt::Debug>(
    host: &mut Host,
    what: &str,
    changes: bool,
    call: impl Fn(&dyn Side) -> Result<T>,
) -> Option<String> {
    if changes {
        host.clear();
        host.fill();
    }
    let tmpfs = tmpfs_guest();
    tmpfs.fill();
    let native = call(host);
    let mut wrong = String::new();
    for (name, guest) in [("tmpfs", tmpfs), ("overlay", overlay_guest())] {
        let ours = call(&guest);
        if ours != native {
            wrong += &format!("{what}: host {native:?}, {name} {ours:?}\n");
        } else if changes && host.tree() != guest.tree() {
            wrong +=
                &format!("{what}: trees differ on {name}: {:?} {:?}\n", host.tree(), guest.tree());
        }
    }
    (!wrong.is_empty()).then_some(wrong)
}

fn assert_none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.concat());
}

fn short(path: &str) -> &str {
    &path[..path.len().min(12)]
}

#[test]
fn looking_gives_the_hosts_answers() {
    let mut host = Host::new("look");
    host.fill();
    let mut wrong = Vec::new();
    for path in PATHS {
        let name = short(path);
        wrong.extend(compare(&mut host, &format!("stat {name}"), false, |side| {
            side.stat(path, true).map(|mode| mode >> 12)
        }));
        wrong.extend(compare(&mut host, &format!("lstat {name}"), false, |side| {
            side.stat(path, false).map(|mode| mode >> 12)
        }));
        wrong.extend(compare(&mut host, &format!("readlink {name}"), false, |side| {
            side.readlink(path)
        }));
        wrong
            .extend(compare(&mut host, &format!("access {name}"), false, |side| side.access(path)));
    }
    assert_none(wrong);
}

#[test]
fn opening_gives_the_hosts_answers() {
    let mut host = Host::new("open");
    let creat = OpenFlags::CREAT;
    let excl = creat | OpenFlags::EXCL;
    let variants = [
        OpenFlags::empty(),
        OpenFlags::WRONLY,
        OpenFlags::RDWR,
        OpenFlags::TRUNC,
        OpenFlags::NOFOLLOW,
        OpenFlags::DIRECTORY,
        OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW,
        OpenFlags::PATH,
        OpenFlags::PATH | OpenFlags::NOFOLLOW,
        OpenFlags::TMPFILE | OpenFlags::RDWR,
        OpenFlags::TMPFILE,
        creat,
        creat | OpenFlags::RDWR,
        creat | OpenFlags::NOFOLLOW,
        creat | OpenFlags::DIRECTORY,
        creat | OpenFlags::RDWR | OpenFlags::TRUNC,
        excl,
        excl | OpenFlags::RDWR,
        excl | OpenFlags::NOFOLLOW,
    ];
    let mut wrong = Vec::new();
    for flags in variants {
        for path in PATHS {
            let what = format!("open {} {flags:?}", short(path));
            wrong.extend(compare(&mut host, &what, true, |side| side.open(path, flags)));
        }
    }
    assert_none(wrong);
}

#[test]
fn making_and_removing_gives_the_hosts_answers() {
    let mut host = Host::new("make");
    let mut wrong = Vec::new();
    for path in PATHS {
        let name = short(path);
        let mut check = |what: &str, call: &dyn Fn(&dyn Side) -> Result<()>| {
            wrong.extend(compare(&mut host, &format!("{what} {name}"), true, call));
        };
        check("mkdir", &|side| side.mkdir(path));
        check("mkfifo", &|side| side.mkfifo(path));
        check("symlink", &|side| side.symlink("x", path));
        check("link from", &|side| side.link(path, "new", false));
        check("link from, follow", &|side| side.link(path, "new", true));
        check("link to", &|side| side.link("f", path, false));
        check("unlink", &|side| side.unlink(path));
        check("rmdir", &|side| side.rmdir(path));
    }
    assert_none(wrong);
}

#[test]
fn renaming_gives_the_hosts_answers() {
    let mut host = Host::new("rename");
    let mut wrong = Vec::new();
    for flags in 0..=2 {
        for old in PAIRED {
            for new in PAIRED {
                let what = format!("rename {flags} {} {}", short(old), short(new));
                wrong.extend(compare(&mut host, &what, true, |side| side.rename(old, new, flags)));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn truncate_takes_only_files() {
    let guest = tmpfs_guest();
    guest.fill();
    let truncate = |path| {
        let path = guest.at(path, LookupFlags::FOLLOW)?;
        ops::truncate(&guest.world.cx(), &path, 3)
    };
    assert_eq!(truncate("d"), Err(Errno::EISDIR));
    assert_eq!(truncate("p"), Err(Errno::EINVAL));
    assert_eq!(truncate("f/"), Err(Errno::ENOTDIR));
    assert_eq!(truncate("l"), Ok(()));
}

/// A step of a random walk; the text says what it was.
fn random_step(side: &dyn Side, random: &mut dyn FnMut(usize) -> usize) -> String {
    const NAMES: &[&str] = &["f", "d", "e", "l", "ld", "x", "y"];
    let mut path = || {
        let names: Vec<_> = (0..=random(3)).map(|_| NAMES[random(NAMES.len())]).collect();
        names.join("/")
    };
    let (a, b) = (path(), path());
    let creat = OpenFlags::CREAT | OpenFlags::WRONLY;
    let (what, result) = match random(16) {
        0 | 1 => ("create", side.open(&a, creat)),
        2 => ("truncate on open", side.open(&a, OpenFlags::TRUNC | OpenFlags::WRONLY)),
        3 | 4 => ("mkdir", side.mkdir(&a)),
        5 => ("symlink", side.symlink(&b, &a)),
        6 => ("link", side.link(&a, &b, random(2) == 0)),
        7 => ("unlink", side.unlink(&a)),
        8 => ("rmdir", side.rmdir(&a)),
        9..=11 => ("rename", side.rename(&a, &b, 0)),
        12 => ("exchange", side.rename(&a, &b, 2)),
        13 => {
            let pos = random(9000) as u64;
            ("write", side.write(&a, pos, &[b'a' + random(26) as u8; 100]))
        }
        14 => ("truncate", side.truncate(&a, random(9000) as u64)),
        _ => return format!("read {a}: {:?}", side.read(&a)),
    };
    format!("{what} {a} {b}: {result:?}")
}

#[test]
fn random_walks_go_where_the_host_goes() {
    let mut host = Host::new("random");
    for seed in 1..=12_u64 {
        host.clear();
        host.fill();
        let tmpfs = tmpfs_guest();
        tmpfs.fill();
        let guests = [("tmpfs", tmpfs), ("overlay", overlay_guest())];
        for step in 0..300_u64 {
            let dice = || {
                let mut state = seed << 32 | step;
                move |below: usize| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                    usize::try_from(state >> 33).unwrap() % below
                }
            };
            let native = random_step(&host, &mut dice());
            for (name, guest) in &guests {
                assert_eq!(random_step(guest, &mut dice()), native, "{name}, {seed}, {step}");
            }
        }
        for (name, guest) in &guests {
            assert_eq!(guest.tree(), host.tree(), "{name}, {seed}");
        }
    }
}
