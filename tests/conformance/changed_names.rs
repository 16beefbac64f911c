//! Files and directories that are walked through by names while somebody changes them: each change is seen at once, also of what a kernel
//! has opened, read or listed ahead.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileExt, PermissionsExt};

use sandbox_tests::names::{DIRS, content};

use crate::known_names::PLAIN;
use crate::names_tree::{
    Other, Seen, entries, lead, names_in, open_at, open_dir, read_all, some_entries, stat_at,
    stat_of, tree, walk,
};
use crate::support::{c, errno, ok, read_some, sys, tests};

tests! {
    files_not_opened_yet, open_files, names_come_and_go, directories_close, directories_move, another_user_is_refused,
    listings_that_change, mounts_hide,
}

/// What is done to a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Overwrite,
    Append,
    Shorten,
    Lengthen,
    Mode,
    NoMode,
    MakeAnew,
    RenameOver,
    Link,
    Unlink,
    RenameAway,
}

const CHANGES: [Change; 11] = [
    Change::Overwrite,
    Change::Append,
    Change::Shorten,
    Change::Lengthen,
    Change::Mode,
    Change::NoMode,
    Change::MakeAnew,
    Change::RenameOver,
    Change::Link,
    Change::Unlink,
    Change::RenameAway,
];

impl Change {
    fn make(self, path: &str) {
        let writer = || std::fs::OpenOptions::new().write(true).open(path).expect("it is ours");
        let len = || std::fs::metadata(path).expect("it is there").len();
        let aside = format!("{path}-aside");
        let chmod = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path, mode).expect("it is ours");
        };
        match self {
            Self::Overwrite => writer().write_all_at(b"other", 0).expect("it is ours"),
            Self::Append => writer().write_all_at(b"other", len()).expect("it is ours"),
            Self::Shorten => writer().set_len(len().min(2)).expect("it is ours"),
            Self::Lengthen => writer().set_len(len() + 10).expect("it is ours"),
            Self::Mode => chmod(0o664),
            Self::NoMode => chmod(0),
            Self::MakeAnew => {
                std::fs::remove_file(path).expect("it is ours");
                std::fs::write(path, "made anew").expect("it is ours");
            }
            Self::RenameOver => {
                std::fs::write(&aside, "renamed").expect("it is ours");
                std::fs::rename(&aside, path).expect("it is ours");
            }
            Self::Link => std::fs::hard_link(path, &aside).expect("it is ours"),
            Self::Unlink => std::fs::remove_file(path).expect("it is ours"),
            Self::RenameAway => std::fs::rename(path, &aside).expect("it is ours"),
        }
    }

    /// What the file that was there contains then.
    fn of_file(self, mut bytes: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Overwrite => {
                let end = bytes.len().max(5);
                bytes.resize(end, 0);
                bytes[..5].copy_from_slice(b"other");
            }
            Self::Append => bytes.extend(b"other"),
            Self::Shorten => bytes.truncate(2),
            Self::Lengthen => bytes.resize(bytes.len() + 10, 0),
            _ => {}
        }
        bytes
    }

    /// What is found by its name then; `None`: nothing.
    fn of_name(self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        match self {
            Self::MakeAnew => Some(b"made anew".to_vec()),
            Self::RenameOver => Some(b"renamed".to_vec()),
            Self::Unlink | Self::RenameAway => None,
            _ => Some(self.of_file(bytes)),
        }
    }

    fn links(self) -> u64 {
        match self {
            Self::Link => 2,
            Self::MakeAnew | Self::RenameOver | Self::Unlink => 0,
            _ => 1,
        }
    }

    fn mode(self, before: u32) -> u32 {
        match self {
            Self::Mode => before & !0o777 | 0o664,
            Self::NoMode => before & !0o777,
            _ => before,
        }
    }
}

/// A process that makes the changes it is asked for, and the directories in which.
struct Changes {
    root: i32,
    path: String,
    other: Other,
}

/// Which change, where, and of which file there.
fn code(change: usize, dir: usize, file: usize) -> u32 {
    ((change * 16 + dir) * 16 + file) as u32
}

impl Changes {
    fn new(name: &str) -> Self {
        let path = tree(name);
        let theirs = path.clone();
        let other = Other::new(move |asked| {
            let asked = asked as usize;
            let dir = DIRS[asked / 16 % 16];
            CHANGES[asked / 256].make(&format!("{theirs}/{dir}/f{:02}", asked % 16));
        });
        walk(libc::AT_FDCWD, &path);
        walk(libc::AT_FDCWD, &path);
        Self { root: open_dir(libc::AT_FDCWD, &path), path, other }
    }

    /// For each change, by us and by the other: a directory whose first files were just read, and the name of the one after them.
    fn each(&self, mut look: impl FnMut(i32, &str, Vec<u8>, Change, &dyn Fn())) {
        for round in 0..2 * CHANGES.len() {
            let (change, by_us) = (round / 2, round % 2 == 0);
            let (dir, place) = (round % DIRS.len(), 5 + round / DIRS.len());
            let fd = open_dir(self.root, DIRS[dir]);
            let mut names = names_in(fd);
            names.retain(|name| name.len() == 3);
            let name = names[place.min(names.len() - 1)].clone();
            let number = name[1..].parse().expect("a number");
            let first: Vec<String> = names.into_iter().take_while(|other| *other != name).collect();
            lead(fd, &first);
            let path = format!("{}/{}/{name}", self.path, DIRS[dir]);
            let change_it = || match by_us {
                true => CHANGES[change].make(&path),
                false => self.other.ask(code(change, dir, number)),
            };
            let before = std::fs::read(&path).expect("it is there");
            lead(fd, &first);
            look(fd, &name, before, CHANGES[change], &change_it);
            // For who cannot read it would not be a walk any more.
            for name in names_in(fd) {
                sys!(fchmodat(fd, c(&name).as_ptr(), 0o755, 0));
            }
            ok!(close(fd));
        }
    }
}

fn files_not_opened_yet() {
    let changes = Changes::new("files");
    let is_root = sys!(geteuid()) == 0;
    changes.each(|dir, name, bytes, change, change_it| {
        let before = stat_at(dir, name).expect("it is there");
        change_it();
        let after = stat_at(dir, name);
        let opened = open_at(dir, name, PLAIN);
        let Some(expected) = change.of_name(bytes) else {
            assert_eq!((after, opened), (Err(libc::ENOENT), Err(libc::ENOENT)), "{change:?}");
            return;
        };
        let after = after.expect("it is there");
        assert_eq!(after.size, expected.len() as i64, "{change:?}");
        assert_eq!(after.links, change.links().max(1), "{change:?}");
        if change.links() > 0 {
            let Seen { ino, mode, .. } = before;
            assert_eq!((after.ino, after.mode), (ino, change.mode(mode)), "{change:?}");
        }
        if change == Change::NoMode && !is_root {
            assert_eq!(opened, Err(libc::EACCES));
            return;
        }
        let file = opened.expect("it may be read");
        assert_eq!(stat_of(file), after, "{change:?}");
        assert!(read_all(file, 4096) == expected, "{change:?}");
        ok!(close(file));
    });
}

fn open_files() {
    let changes = Changes::new("open");
    changes.each(|dir, name, bytes, change, change_it| {
        let before = stat_at(dir, name).expect("it is there");
        let file = open_at(dir, name, PLAIN).expect("it may be read");
        let copy = ok!(fcntl(file, libc::F_DUPFD_CLOEXEC, 0));
        let at = read_some(file, (bytes.len() / 2).max(1)).len();
        change_it();
        let expected = change.of_file(bytes);
        let after = stat_of(file);
        assert_eq!((after.ino, after.mode), (before.ino, change.mode(before.mode)), "{change:?}");
        assert_eq!(
            (after.size, after.links),
            (expected.len() as i64, change.links()),
            "{change:?}"
        );
        assert_eq!(ok!(lseek(copy, 0, libc::SEEK_CUR)), at as i64, "{change:?}");
        let mut some = [0; 8];
        let count = ok!(pread(file, some.as_mut_ptr().cast(), 8, 0)) as usize;
        assert_eq!(some[..count], expected[..expected.len().min(8)], "{change:?}");
        let rest = expected.get(at..).unwrap_or_default();
        assert!(read_all(copy, 4096) == rest, "{change:?}");
        assert_eq!(read_some(file, 8), b"");
        ok!(lseek(file, 0, libc::SEEK_SET));
        assert!(read_all(file, 10_000) == expected, "{change:?}");
        ok!(close(copy));
        ok!(close(file));
    });
}

/// Who changes names in the directories at the root of a tree, as asked.
fn keeper(path: &str, act: impl Fn(&str, u32) + 'static) -> Other {
    let path = path.to_owned();
    Other::new(move |asked| act(&path, asked))
}

/// Directories of the root, in their order, each of which was walked through but the last.
fn lead_to_last(root: i32, count: usize) -> String {
    let names: Vec<String> =
        names_in(root).into_iter().filter(|name| name.starts_with('d')).collect();
    for name in &names[..count] {
        walk(root, name);
    }
    names[count].clone()
}

fn set(root: i32, name: &str) -> BTreeSet<String> {
    let fd = open_dir(root, name);
    let all = names_in(fd);
    let found: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(found.len(), all.len());
    ok!(close(fd));
    found
}

fn names_come_and_go() {
    let path = tree("names");
    let number = |name: &str| name[1..].parse::<u32>().expect("a number");
    let act = |path: &str, asked: u32| {
        let new = format!("{path}/d{}/new", asked / 4);
        match asked % 4 {
            0 => std::fs::write(new, "new").expect("it is ours"),
            1 => std::fs::remove_file(new).expect("it is ours"),
            2 => std::fs::create_dir(new).expect("it is ours"),
            _ => std::fs::remove_dir(new).expect("it is ours"),
        }
    };
    let other = keeper(&path, act);
    walk(libc::AT_FDCWD, &path);
    walk(libc::AT_FDCWD, &path);
    let root = open_dir(libc::AT_FDCWD, &path);
    for round in 0..48_u32 {
        let name = lead_to_last(root, 1 + (round / 4) as usize % 3);
        let is_open = round % 3 == 0;
        let fd = if is_open { open_dir(root, &name) } else { -1 };
        let links = stat_at(root, &name).expect("it is there").links;
        let asked = number(&name) * 4 + round % 4;
        if round / 4 % 2 == 0 {
            other.ask(asked)
        } else {
            act(&path, asked)
        }
        let is_there = round % 2 == 0;
        let after = stat_at(root, &name).expect("it is there");
        let grown = if links > 1 { [0, 0, 1, -1][round as usize % 4] } else { 0 };
        assert_eq!(after.links.cast_signed(), links.cast_signed() + grown, "{round}");
        if is_open {
            assert_eq!(stat_of(fd), after);
            assert_eq!(names_in(fd).contains(&"new".to_owned()), is_there, "{round}");
            ok!(close(fd));
        }
        assert_eq!(set(root, &name).contains("new"), is_there, "{round}");
        let fd = open_dir(root, &name);
        assert_eq!(open_at(fd, "new", PLAIN).map(|fd| ok!(close(fd))).is_ok(), is_there);
        ok!(close(fd));
    }
}

fn directories_close() {
    let path = tree("closed");
    let act = |path: &str, asked: u32| {
        let mode = std::fs::Permissions::from_mode(asked / 4);
        std::fs::set_permissions(format!("{path}/d{}", asked % 4), mode).expect("it is ours");
    };
    let other = keeper(&path, act);
    let is_root = sys!(geteuid()) == 0;
    walk(libc::AT_FDCWD, &path);
    walk(libc::AT_FDCWD, &path);
    let root = open_dir(libc::AT_FDCWD, &path);
    for round in 0..24_usize {
        let name = lead_to_last(root, round % 4);
        let fd = open_dir(root, &name);
        let names: Vec<String> =
            names_in(fd).into_iter().filter(|name| name.starts_with('f')).collect();
        lead(fd, &names[..5]);
        let file = open_at(fd, &names[5], PLAIN).expect("it may be read");
        let number: u32 = name[1..].parse().expect("a number");
        let set_mode = |mode: u32| match round / 4 % 2 {
            0 => other.ask(mode * 4 + number),
            _ => act(&path, mode * 4 + number),
        };
        let mode = if round % 2 == 0 { 0 } else { 0o444 };
        set_mode(mode);
        assert_eq!(stat_of(fd).mode & 0o777, mode);
        assert_eq!(stat_at(root, &name).map(|seen| seen.mode & 0o777), Ok(mode));
        let within = stat_at(fd, &names[6]).map(|seen| seen.links);
        let opened = open_at(fd, &names[6], PLAIN).map(|fd| u64::from(sys!(close(fd)) == 0));
        let again = open_at(root, &name, PLAIN).map(|fd| sys!(close(fd)));
        if is_root {
            assert_eq!((within, opened, again), (Ok(1), Ok(1), Ok(0)));
        } else {
            let expected = if mode == 0 { Err(libc::EACCES) } else { Ok(0) };
            assert_eq!((within, opened, again), (Err(libc::EACCES), Err(libc::EACCES), expected));
        }
        // What is open stays so.
        assert!(read_all(file, 4096) == content(&format!("{name}/{}", names[5])));
        assert!(names_in(fd).len() >= names.len());
        set_mode(0o755);
        assert_eq!(stat_of(fd).mode & 0o777, 0o755);
        lead(fd, &names[6..]);
        ok!(close(file));
        ok!(close(fd));
    }
}

fn directories_move() {
    let path = tree("moved-names");
    let act = |path: &str, asked: u32| {
        let (here, aside) = (format!("{path}/d{}", asked / 2), format!("{path}/aside"));
        let (from, to) = if asked.is_multiple_of(2) { (here, aside) } else { (aside, here) };
        std::fs::rename(from, to).expect("it is ours");
    };
    let other = keeper(&path, act);
    walk(libc::AT_FDCWD, &path);
    walk(libc::AT_FDCWD, &path);
    let root = open_dir(libc::AT_FDCWD, &path);
    for round in 0..12_usize {
        let name = lead_to_last(root, 1 + round % 3);
        let number: u32 = name[1..].parse().expect("a number");
        let fd = open_dir(root, &name);
        let names: Vec<String> =
            names_in(fd).into_iter().filter(|name| name.starts_with('f')).collect();
        lead(fd, &names[..5]);
        let ask = |what: u32| match round % 2 {
            0 => other.ask(number * 2 + what),
            _ => act(&path, number * 2 + what),
        };
        ask(0);
        assert_eq!(stat_at(root, &name), Err(libc::ENOENT));
        assert_eq!(open_at(root, &name, PLAIN), Err(libc::ENOENT));
        assert_eq!(stat_at(root, "aside").map(|seen| seen.ino), Ok(stat_of(fd).ino));
        lead(fd, &names[5..9]);
        assert!(set(root, "aside").contains(&names[9]));
        ask(1);
        assert_eq!(stat_at(root, "aside"), Err(libc::ENOENT));
        lead(fd, &names[9..]);
        lead(root, &[name]);
        ok!(close(fd));
    }
    // Removed at last.
    let name = lead_to_last(root, 3);
    let removed = std::path::Path::new(&path).join(&name);
    std::fs::remove_dir_all(&removed).expect("it is ours");
    assert_eq!(stat_at(root, &name), Err(libc::ENOENT));
    assert_eq!(open_at(root, &name, PLAIN), Err(libc::ENOENT));
    std::fs::create_dir(&removed).expect("it is ours");
    assert_eq!(set(root, &name), BTreeSet::new());
    assert_eq!(sys!(unlinkat(root, c(&name).as_ptr(), libc::AT_REMOVEDIR)), 0);
    assert_eq!((sys!(openat(root, c(&name).as_ptr(), PLAIN)), errno()), (-1, libc::ENOENT));
}

/// What root's walk lets lie ready is not for another user who may not go there.
fn another_user_is_refused() {
    if sys!(geteuid()) != 0 {
        return;
    }
    let path = tree("users");
    walk(libc::AT_FDCWD, &path);
    let root = open_dir(libc::AT_FDCWD, &path);
    for round in 0..12 {
        let fd = open_dir(root, DIRS[round % DIRS.len()]);
        let names: Vec<String> =
            names_in(fd).into_iter().filter(|name| name.starts_with('f')).collect();
        ok!(fchmod(fd, 0o700));
        lead(fd, &names[..6]);
        ok!(setresuid(65533, 65533, 0));
        assert_eq!(open_at(fd, &names[6], PLAIN), Err(libc::EACCES));
        assert_eq!(stat_at(fd, &names[6]), Err(libc::EACCES));
        ok!(setresuid(0, 0, 0));
        ok!(fchmod(fd, 0o755));
        lead(fd, &names[6..]);
        ok!(setresuid(65533, 65533, 0));
        lead(fd, &names);
        ok!(setresuid(0, 0, 0));
        ok!(close(fd));
    }
}

/// Names that come and go while a listing is half read may be in it or not; the others are, and once.
fn listings_that_change() {
    let path = tree("halves");
    let act = |path: &str, asked: u32| {
        let new = format!("{path}/d{}/new{}", asked / 2 % 4, asked / 8);
        match asked % 2 {
            0 => std::fs::write(new, "new").expect("it is ours"),
            _ => std::fs::remove_file(new).expect("it is ours"),
        }
    };
    let other = keeper(&path, act);
    walk(libc::AT_FDCWD, &path);
    walk(libc::AT_FDCWD, &path);
    let root = open_dir(libc::AT_FDCWD, &path);
    for round in 0..48_u32 {
        let name = lead_to_last(root, round as usize % 4);
        let expected: BTreeSet<String> =
            set(root, &name).into_iter().filter(|name| !name.starts_with("new")).collect();
        lead_to_last(root, round as usize % 4);
        let fd = open_dir(root, &name);
        let mut all = some_entries(fd, 64 + 24 * (round as usize % 7)).expect("there is room");
        let number: u32 = name[1..].parse().expect("a number");
        let asked = round / 8 * 8 + number * 2 + u32::from(round % 8 >= 4);
        if round % 3 == 0 {
            act(&path, asked)
        } else {
            other.ask(asked)
        }
        all.extend(entries(fd, 80));
        let mut found: Vec<String> = all.into_iter().map(|entry| entry.name).collect();
        found.retain(|name| !name.starts_with("new") && !name.starts_with('.'));
        assert_eq!(found.len(), expected.len(), "{round}: {found:?}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
        ok!(close(fd));
    }
}

/// What is mounted over a directory that lies ready is what is found there.
fn mounts_hide() {
    let path = tree("mounts");
    if sys!(geteuid()) != 0 {
        return;
    }
    // A kernel that knows no namespaces of mounts has none of anybody else.
    let is_alone = sys!(unshare(libc::CLONE_NEWNS)) == 0;
    if !is_alone && errno() != libc::ENOSYS {
        return;
    }
    let none = std::ptr::null();
    if is_alone {
        let flags = libc::MS_REC | libc::MS_PRIVATE;
        ok!(mount(none, c"/".as_ptr(), none, flags, none.cast()));
    }
    walk(libc::AT_FDCWD, &path);
    walk(libc::AT_FDCWD, &path);
    let root = open_dir(libc::AT_FDCWD, &path);
    for round in 0..8 {
        let name = lead_to_last(root, 1 + round % 3);
        let whole = set(root, &name);
        lead_to_last(root, 1 + round % 3);
        let over = c(&format!("{path}/{name}"));
        ok!(mount(c"none".as_ptr(), over.as_ptr(), c"tmpfs".as_ptr(), 0, none.cast()));
        assert_eq!(set(root, &name), BTreeSet::new());
        std::fs::write(format!("{path}/{name}/f00"), "mounted").expect("it is ours");
        assert_eq!(set(root, &name).len(), 1);
        ok!(umount(over.as_ptr()));
        assert_eq!(set(root, &name), whole);
    }
}
