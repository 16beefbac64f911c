//! What absolute paths are (there or not, links, attributes, rights), asked so often that a kernel may tell it ahead: the same by an absolute
//! path and by a relative one, whoever has changed something in between.

use std::ffi::CString;
use std::os::unix::fs::{PermissionsExt, symlink};

use sandbox_tests::names::{DIRS, FILES};

use crate::names_tree::{Other, tree};
use crate::support::{c, errno, exit_code, fails, in_child, ok, sys, tests, wait_for};

tests! {
    beside_a_relative_path, beside_one_with_many_changes, a_file_becomes_a_link, what_was_absent_comes,
    another_root, folders_that_close, rights_that_change, which_error_comes_first, of_threads,
}

/// An answer: result, and what else there is to see.
type Answer = (Result<i64, i32>, Vec<u8>);

fn result(value: i64) -> Result<i64, i32> {
    if value < 0 { Err(errno()) } else { Ok(value) }
}

const QUESTIONS: usize = 8;

fn ask(question: usize, path: &str) -> Answer {
    let (at, path) = (libc::AT_FDCWD, c(path));
    let path = path.as_ptr();
    let access = |mode, flags| (result(sys!(faccessat(at, path, mode, flags)).into()), Vec::new());
    match question {
        0 | 1 => {
            // SAFETY: plain data.
            let mut stat: libc::stat = unsafe { std::mem::zeroed() };
            let flags = if question == 0 { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
            let done = result(sys!(fstatat(at, path, &mut stat, flags)).into());
            let seen = [stat.st_ino, stat.st_mode.into(), stat.st_nlink, stat.st_size as u64];
            (done, seen.iter().flat_map(|word| word.to_le_bytes()).collect())
        }
        2 => {
            let mut text = [0_u8; 300];
            let len = sys!(readlink(path, text.as_mut_ptr().cast(), text.len()));
            (result(len as i64), text.to_vec())
        }
        3 => access(libc::F_OK, 0),
        4 => access(libc::R_OK, 0),
        5 => access(libc::X_OK, libc::AT_EACCESS),
        6 => access(libc::F_OK, libc::AT_SYMLINK_NOFOLLOW),
        _ => {
            let fd = sys!(open(path, libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK));
            let done = result(fd.into()).map(|_| 0);
            if fd >= 0 {
                ok!(close(fd));
            }
            (done, Vec::new())
        }
    }
}

/// Asked often enough.
fn known(question: usize, path: &str) -> Answer {
    let first = ask(question, path);
    for _ in 0..4 {
        assert_eq!(ask(question, path), first);
    }
    first
}

/// A tree that everybody may look into. What it was before is left alone where it can be, for a change of its own may be remembered.
fn open_tree(name: &str) -> String {
    let path = tree(name);
    for dir in [""].iter().chain(&DIRS) {
        let dir = format!("{path}/{dir}");
        let mode = std::fs::metadata(&dir).expect("it is there").permissions().mode();
        if mode & 0o777 != 0o755 {
            let all = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(dir, all).expect("it is ours");
        }
    }
    path
}

struct Walk {
    state: u64,
    path: String,
    other: Other,
}

/// Ways to change what a name is.
const CHANGES: u32 = 12;

/// `at` is a name in the tree, or (`%` beyond) a directory.
fn change(path: &str, at: u32, what: u32) {
    let dir = DIRS[at as usize / 16 % DIRS.len()];
    let other = DIRS[(at as usize / 16 + 1) % DIRS.len()];
    let name = format!("{path}/{dir}/{}", file_name(at as usize % 16));
    let aside = format!("{path}/{other}/{}", file_name(at as usize % 7));
    let (from, to) = (c(&name), c(&aside));
    // Whatever fails, fails for both who ask.
    match what {
        0 => drop(std::fs::remove_file(&name).or_else(|_| std::fs::remove_dir(&name))),
        1 => {
            // Of a FIFO without waiting.
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_NONBLOCK;
            let fd = sys!(open(from.as_ptr(), flags, 0o644));
            if fd >= 0 {
                sys!(ftruncate(fd, i64::from(at)));
                ok!(close(fd));
            }
        }
        2 => drop(std::fs::create_dir(&name)),
        3 => drop(symlink(format!("../{other}"), &name)),
        4 => {
            let link = format!("{name}-link");
            drop(symlink("f03", &link).and_then(|()| std::fs::rename(link, &name)));
        }
        5 => drop(std::fs::rename(&name, &aside)),
        6 => drop(std::fs::hard_link(&name, &aside)),
        7 => {
            let how = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
            sys!(renameat2(how.0, from.as_ptr(), how.0, to.as_ptr(), how.1));
        }
        8 => {
            sys!(chmod(from.as_ptr(), if at.is_multiple_of(2) { 0o644 } else { 0o755 }));
        }
        9 => {
            let dir = c(&format!("{path}/{dir}"));
            sys!(chmod(dir.as_ptr(), if at.is_multiple_of(2) { 0o755 } else { 0o711 }));
        }
        10 => {
            let (dir, away) = (format!("{path}/{dir}"), format!("{path}/away"));
            let moved = if at.is_multiple_of(2) {
                std::fs::rename(&dir, &away)
            } else {
                std::fs::rename(&away, &dir)
            };
            drop(moved);
        }
        _ => {
            sys!(mkfifo(from.as_ptr(), 0o644));
        }
    }
}

fn file_name(number: usize) -> String {
    match number {
        0..FILES => format!("f{number:02}"),
        FILES => "inner".into(),
        _ => "none".into(),
    }
}

impl Walk {
    fn new(name: &str, seed: u64) -> Self {
        let path = open_tree(name);
        ok!(chdir(c(&path).as_ptr()));
        let theirs = path.clone();
        let other = Other::new(move |asked| change(&theirs, asked / CHANGES, asked % CHANGES));
        Self { state: seed, path, other }
    }

    fn roll(&mut self, below: usize) -> usize {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.state >> 33) % below as u64) as usize
    }

    /// A path in the tree, in several spellings.
    fn any(&mut self) -> String {
        let dir = DIRS[self.roll(DIRS.len())];
        let name = file_name([0, 1, 2, 3, 4, 5, 14, 15][self.roll(8)]);
        let inner = file_name(self.roll(3));
        match self.roll(8) {
            0 => dir.to_owned(),
            1 => format!("{dir}/{name}/{inner}"),
            2 => format!("{dir}/{name}/"),
            3 => format!("{dir}/./{name}/../{inner}"),
            4 => format!("{dir}//{name}"),
            _ => format!("{dir}/{name}"),
        }
    }

    fn run(&mut self, rounds: usize, calm: usize) {
        let mut some: Vec<String> = (0..40).map(|_| self.any()).collect();
        let mut answers = std::collections::BTreeMap::<String, usize>::new();
        for _ in 0..rounds {
            if self.roll(calm) == 0 {
                let at = self.roll(16 * DIRS.len()) as u32;
                let what = self.roll(CHANGES as usize) as u32;
                match self.roll(3) {
                    0 => change(&self.path, at, what),
                    1 => self.other.ask(at * CHANGES + what),
                    _ => {
                        let by_child = in_child(|| {
                            change(&self.path, at, what);
                            0
                        });
                        assert_eq!(exit_code(wait_for(by_child)), 0);
                    }
                }
                let place = self.roll(some.len());
                some[place] = self.any();
            }
            let (question, place) = (self.roll(QUESTIONS), self.roll(some.len()));
            let path = &some[place];
            let full = ask(question, &format!("{}/{path}", self.path));
            let relative = ask(question, path);
            assert_eq!(full, relative, "question {question} about {path}");
            *answers.entry(format!("{:?}", full.0.map(|_| 0))).or_default() += 1;
        }
        // Of each kind enough.
        for kind in ["Ok(0)", "Err(2)", "Err(22)"] {
            assert!(answers.get(kind).is_some_and(|count| *count > rounds / 50), "{answers:?}");
        }
    }
}

fn beside_a_relative_path() {
    Walk::new("told-0", 5).run(6000, 100);
}

fn beside_one_with_many_changes() {
    Walk::new("told-1", 6).run(6000, 20);
}

fn a_file_becomes_a_link() {
    let root = open_tree("told-2");
    for (round, dir) in
        DIRS.iter().enumerate().flat_map(|(at, dir)| [(2 * at, dir), (2 * at + 1, dir)])
    {
        let path = format!("{root}/{dir}/f{round:02}");
        assert_eq!(known(2, &path).0, Err(libc::EINVAL));
        let attributes = known(1, &path);
        let aside = format!("{path}-aside");
        let swap = || {
            match round % 3 {
                0 => {
                    symlink("f13", &aside).expect("it is ours");
                    std::fs::rename(&aside, &path).expect("it is ours");
                }
                1 => {
                    std::fs::remove_file(&path).expect("it is ours");
                    symlink("f13", &path).expect("it is ours");
                }
                _ => {
                    symlink("f13", &aside).expect("it is ours");
                    let (at, from, to) = (libc::AT_FDCWD, c(&aside), c(&path));
                    ok!(renameat2(at, from.as_ptr(), at, to.as_ptr(), libc::RENAME_EXCHANGE));
                }
            }
            0
        };
        if round % 2 == 0 {
            swap()
        } else {
            exit_code(wait_for(in_child(swap)))
        };
        let link = ask(2, &path);
        assert_eq!((link.0, &link.1[..3]), (Ok(3), &b"f13"[..]));
        assert_ne!(ask(1, &path), attributes);
        assert_eq!(known(2, &path), link);
        // And a folder on the way: what is behind it is another file, and so is `..`.
        let there = format!("{root}/{dir}/f13");
        assert_eq!(known(2, &there).0, Err(libc::EINVAL));
        std::fs::remove_file(&path).expect("it is ours");
        assert_eq!(ask(2, &path).0, Err(libc::ENOENT));
    }
    let (folder, aside) = (format!("{root}/d3"), format!("{root}/d3-aside"));
    let path = format!("{folder}/f13/");
    assert_eq!(known(2, &path).0, Err(libc::ENOTDIR));
    let path = format!("{folder}/../d2/f12");
    assert_eq!(known(2, &path).0, Err(libc::EINVAL));
    std::fs::rename(&folder, aside).expect("it is ours");
    assert_eq!(ask(2, &path).0, Err(libc::ENOENT));
    symlink("d0/inner", &folder).expect("it is ours");
    assert_eq!(ask(2, &path).0, Err(libc::ENOENT));
    assert_eq!(known(3, &format!("{folder}/../inner")).0, Ok(0));
}

/// In each folder by another way, for where one name has come others are expected.
fn what_was_absent_comes() {
    let root = open_tree("told-3");
    for (way, dir) in DIRS.iter().enumerate() {
        let path = format!("{root}/{dir}/none");
        let below = format!("{path}/below");
        for path in [&path, &below] {
            for question in 0..QUESTIONS {
                assert_eq!(known(question, path).0, Err(libc::ENOENT));
            }
        }
        let file = format!("{root}/{dir}/f01");
        let make = || {
            match way {
                0 => std::fs::write(&path, "new"),
                1 => std::fs::create_dir(&path),
                2 => symlink("f01", &path),
                3 => std::fs::rename(&file, &path),
                4 => std::fs::hard_link(&file, &path),
                _ => std::os::unix::net::UnixListener::bind(&path).map(drop),
            }
            .expect("it is ours");
            0
        };
        if way % 2 == 0 {
            exit_code(wait_for(in_child(make)))
        } else {
            make()
        };
        assert_eq!(ask(1, &path).0, Ok(0), "{way}");
        assert_eq!(ask(0, &path).0, Ok(0));
        assert_eq!(ask(3, &path).0, Ok(0));
        assert_eq!(ask(2, &path).0, if way == 2 { Ok(3) } else { Err(libc::EINVAL) });
        assert_eq!(ask(7, &path).0, if way == 5 { Err(libc::ENXIO) } else { Ok(0) });
        let expected = if way == 1 { libc::ENOENT } else { libc::ENOTDIR };
        assert_eq!(ask(1, &below).0, Err(expected));
    }
}

fn another_root() {
    if sys!(geteuid()) != 0 {
        return;
    }
    let child = in_child(|| {
        for question in 0..QUESTIONS {
            assert_eq!(known(question, "/passwd").0, Err(libc::ENOENT));
        }
        assert_eq!(known(2, "/etc").0, Err(libc::EINVAL));
        assert_eq!(known(0, "/etc/passwd").0, Ok(0));
        assert_eq!(known(4, "/etc/passwd").0, Ok(0));
        ok!(chroot(c"/etc".as_ptr()));
        assert_eq!(ask(2, "/passwd").0, Err(libc::EINVAL));
        assert_eq!(ask(0, "/passwd").0, Ok(0));
        assert_eq!(ask(7, "/passwd").0, Ok(0));
        for question in 0..QUESTIONS {
            assert_eq!(ask(question, "/etc/passwd").0, Err(libc::ENOENT));
            assert_eq!(known(question, "/etc").0, Err(libc::ENOENT));
        }
        // A child begins anew, there as well.
        let child = in_child(|| {
            assert_eq!(known(0, "/passwd").0, Ok(0));
            assert_eq!(known(2, "/etc").0, Err(libc::ENOENT));
            0
        });
        exit_code(wait_for(child))
    });
    assert_eq!(exit_code(wait_for(child)), 0);
    assert_eq!(ask(2, "/passwd").0, Err(libc::ENOENT));
    assert_eq!(ask(2, "/etc").0, Err(libc::EINVAL));
}

fn folders_that_close() {
    let root = open_tree("told-4");
    let folder = format!("{root}/d0");
    let set = |mode: u32| ok!(chmod(c(&folder).as_ptr(), mode));
    let paths = [format!("{folder}/f01"), format!("{folder}/none"), format!("{folder}/inner/f02")];
    let kinds = [libc::EINVAL, libc::ENOENT, libc::EINVAL];
    if sys!(geteuid()) != 0 {
        for (path, kind) in paths.iter().zip(kinds) {
            assert_eq!(known(2, path).0, Err(kind));
            set(0o600);
            assert_eq!(ask(2, path).0, Err(libc::EACCES));
            set(0o755);
        }
        return;
    }
    let child = in_child(|| {
        for (path, kind) in paths.iter().zip(kinds) {
            assert_eq!(known(2, path).0, Err(kind));
            let all = [known(0, path), known(3, path), known(7, path)];
            ok!(setresuid(65534, 65534, 0));
            assert_eq!(known(2, path).0, Err(kind));
            let by_root = in_child(|| {
                ok!(setresuid(0, 0, 0));
                set(0o700);
                0
            });
            assert_eq!(exit_code(wait_for(by_root)), 0);
            for question in 0..QUESTIONS {
                assert_eq!(ask(question, path).0, Err(libc::EACCES));
            }
            ok!(setresuid(0, 0, 0));
            assert_eq!([known(0, path), known(3, path), known(7, path)], all);
            ok!(setresuid(65534, 65534, 0));
            for question in 0..QUESTIONS {
                assert_eq!(ask(question, path).0, Err(libc::EACCES));
            }
            ok!(setresuid(0, 0, 0));
            set(0o755);
        }
        0
    });
    assert_eq!(exit_code(wait_for(child)), 0);
}

fn rights_that_change() {
    let root = open_tree("told-5");
    let is_root = sys!(geteuid()) == 0;
    for (at, dir) in DIRS.iter().enumerate() {
        let path = format!("{root}/{dir}/f{at:02}");
        let link = format!("{root}/{dir}/link");
        symlink(format!("f{at:02}"), &link).expect("it is ours");
        for path in [&path, &link] {
            assert_eq!((known(4, path).0, known(5, path).0), (Ok(0), Err(libc::EACCES)));
            assert_eq!(known(6, path).0, Ok(0));
        }
        let change = |mode| {
            let by = || sys!(chmod(c(&path).as_ptr(), mode));
            assert_eq!(if at % 2 == 0 { by() } else { exit_code(wait_for(in_child(by))) }, 0);
        };
        change(0o755);
        for path in [&path, &link] {
            assert_eq!((known(4, path).0, known(5, path).0), (Ok(0), Ok(0)));
        }
        change(0o000);
        let expected = if is_root { Ok(0) } else { Err(libc::EACCES) };
        for path in [&path, &link] {
            assert_eq!((ask(4, path).0, ask(5, path).0), (expected, Err(libc::EACCES)));
        }
        // What a link leads to, and the link itself, are two things.
        assert_eq!(known(0, &link), known(0, &path));
        assert_ne!(known(1, &link), known(0, &link));
        std::fs::remove_file(&path).expect("it is ours");
        assert_eq!((ask(0, &link).0, ask(3, &link).0), (Err(libc::ENOENT), Err(libc::ENOENT)));
        assert_eq!((ask(1, &link).0, ask(6, &link).0), (Ok(0), Ok(0)));
    }
}

fn which_error_comes_first() {
    let root = open_tree("told-6");
    let (file, none) = (c(&format!("{root}/d0/f01")), c(&format!("{root}/d0/none")));
    let nowhere = std::ptr::without_provenance_mut::<libc::c_char>(8);
    for _ in 0..6 {
        let readlink = |path: &CString, room: usize| {
            (sys!(syscall(libc::SYS_readlink, path.as_ptr(), nowhere, room)), errno())
        };
        for room in [0, -1_i32 as usize, 1 << 31, 1 << 32] {
            assert_eq!(readlink(&file, room), (-1, libc::EINVAL));
            assert_eq!(readlink(&none, room), (-1, libc::EINVAL));
        }
        assert_eq!(readlink(&file, 10), (-1, libc::EINVAL));
        assert_eq!(readlink(&none, 10), (-1, libc::ENOENT));
        fails!(libc::EFAULT, readlink(nowhere, nowhere, 10));
        fails!(libc::ENOENT, stat(none.as_ptr(), nowhere.cast()));
        fails!(libc::EFAULT, stat(file.as_ptr(), nowhere.cast()));
        let at = libc::AT_FDCWD;
        fails!(libc::EINVAL, readlinkat(-77, file.as_ptr(), nowhere, 10));
        fails!(libc::ENOENT, readlinkat(-77, none.as_ptr(), nowhere, 10));
        fails!(libc::EBADF, readlinkat(-77, c"none".as_ptr(), nowhere, 10));
        let access = |path: &CString, mode: i32, flags: i32| {
            (sys!(syscall(libc::SYS_faccessat2, at, path.as_ptr(), mode, flags)), errno())
        };
        assert_eq!(access(&none, 8, 0), (-1, libc::EINVAL));
        assert_eq!(access(&none, 0, 0x4000), (-1, libc::EINVAL));
        assert_eq!(access(&none, libc::W_OK, 0), (-1, libc::ENOENT));
        assert_eq!(access(&file, 0, 0x4000), (-1, libc::EINVAL));
        assert_eq!(access(&file, 0, libc::AT_EACCESS).0, 0);
        assert_eq!(access(&file, libc::R_OK, 0).0, 0);
        for flags in
            [0, libc::O_WRONLY, libc::O_PATH, libc::O_DIRECTORY, libc::O_APPEND | libc::O_RDWR]
        {
            fails!(libc::ENOENT, open(none.as_ptr(), flags));
        }
        fails!(libc::EINVAL, open(none.as_ptr(), libc::O_TMPFILE | libc::O_RDONLY));
    }
    let child = in_child(|| {
        ok!(syscall(libc::SYS_close_range, 3, u32::MAX, 0));
        fails!(libc::ENOENT, open(none.as_ptr(), libc::O_RDONLY));
        while sys!(dup(0)) >= 0 {
            if sys!(fcntl(100, libc::F_GETFD)) >= 0 {
                break;
            }
        }
        fails!(libc::ENOENT, open(none.as_ptr(), libc::O_RDONLY));
        let fd = sys!(open(none.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o644));
        assert!(fd >= 0 && sys!(close(fd)) == 0);
        assert_eq!(ask(7, none.to_str().expect("plain")).0, Ok(0));
        0
    });
    assert_eq!(exit_code(wait_for(child)), 0);
}

fn of_threads() {
    let root = open_tree("told-7");
    for (at, dir) in DIRS.iter().enumerate() {
        let (path, none) = (format!("{root}/{dir}/f{at:02}"), format!("{root}/{dir}/none"));
        assert_eq!((known(2, &path).0, known(2, &none).0), (Err(libc::EINVAL), Err(libc::ENOENT)));
        let (theirs, new) = (path.clone(), none.clone());
        let thread = std::thread::spawn(move || {
            assert_eq!(
                (known(2, &theirs).0, known(2, &new).0),
                (Err(libc::EINVAL), Err(libc::ENOENT))
            );
            std::fs::rename(&theirs, &new).expect("it is ours");
            assert_eq!((ask(2, &theirs).0, ask(2, &new).0), (Err(libc::ENOENT), Err(libc::EINVAL)));
        });
        thread.join().expect("it asserts what we do");
        assert_eq!((ask(2, &path).0, ask(2, &none).0), (Err(libc::ENOENT), Err(libc::EINVAL)));
    }
}
