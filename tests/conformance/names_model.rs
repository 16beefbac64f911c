//! Opens by name, reads, copies, closes and changes at random, by this process and by another, beside a model of what they are to
//! do.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

use sandbox_tests::names::{DIRS, content, files};

use crate::known_names::PLAIN;
use crate::names_tree::{
    Other, lead, names_in, open_at, open_dir, read_all, stat_at, stat_of, tree, walk,
};
use crate::support::{c, exit_code, in_child, ok, sys, tests, wait_for};

tests! { a_walk_beside_a_model, another_walk_beside_a_model, a_walk_with_many_changes, a_number_that_another_reads_by }

/// What there should be.
struct Model {
    state: u64,
    path: String,
    dirs: Vec<i32>,
    /// By directory and name: which content.
    names: BTreeMap<(usize, String), usize>,
    contents: Vec<Vec<u8>>,
    /// Descriptors: which opening.
    table: BTreeMap<i32, usize>,
    /// Which content, and the position.
    opens: Vec<(usize, usize)>,
    /// Where the walk is, and what comes in that directory.
    dir: usize,
    next: Vec<String>,
    /// How many steps there are for one that changes something.
    calm: u64,
    made: usize,
    other: Other,
}

/// What one of the processes does to a file.
fn change(path: &str, what: u32) {
    let writer = || std::fs::OpenOptions::new().write(true).open(path).expect("it is ours");
    let len = || std::fs::metadata(path).expect("it is there").len();
    match what {
        0 => writer().write_all_at(b"over", 1).expect("it is ours"),
        1 => writer().write_all_at(b"more", len()).expect("it is ours"),
        2 => writer().set_len(len() / 2).expect("it is ours"),
        3 => std::fs::remove_file(path).expect("it is ours"),
        4 => std::fs::write(path, path).expect("it is ours"),
        _ => {
            let aside = format!("{path}-aside");
            std::fs::write(&aside, "over it").expect("it is ours");
            std::fs::rename(aside, path).expect("it is ours");
        }
    }
}

fn file_name(number: u32) -> String {
    format!("f{number:02}")
}

impl Model {
    fn new(name: &str, seed: u64, calm: u64) -> Self {
        // Whatever our maker has left open.
        ok!(syscall(libc::SYS_close_range, 3, u32::MAX, 0));
        let path = tree(name);
        let theirs = path.clone();
        let other = Other::new(move |asked| {
            let (dir, name) = (DIRS[asked as usize / 8 % 8], file_name(asked / 64));
            change(&format!("{theirs}/{dir}/{name}"), asked % 8);
        });
        walk(libc::AT_FDCWD, &path);
        walk(libc::AT_FDCWD, &path);
        let root = open_dir(libc::AT_FDCWD, &path);
        let dirs = DIRS.iter().map(|dir| open_dir(root, dir)).collect();
        let mut names = BTreeMap::new();
        let mut contents = Vec::new();
        for (path, bytes) in files() {
            let (dir, name) = path.rsplit_once('/').expect("a file in a directory");
            let dir = DIRS.iter().position(|known| *known == dir).expect("one of them");
            names.insert((dir, name.to_owned()), contents.len());
            contents.push(bytes);
        }
        let (table, opens, next) = (BTreeMap::new(), Vec::new(), Vec::new());
        let (dir, made) = (0, 0);
        Self {
            state: seed,
            path,
            dirs,
            names,
            contents,
            table,
            opens,
            dir,
            next,
            calm,
            made,
            other,
        }
    }

    fn roll(&mut self, below: u64) -> usize {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.state >> 33) % below) as usize
    }

    fn step(&mut self) {
        if self.roll(self.calm) == 0 {
            return self.change();
        }
        let many = self.table.len() > 30;
        match self.roll(20) {
            0..=6 if !many => self.open_next(),
            7 if !many => self.open_any(),
            8 if !many => self.copy(),
            9..=11 => self.read(),
            12 => self.pread(),
            13 => self.seek(),
            14 => self.look(),
            15 => self.list(),
            _ => self.close(),
        }
    }

    fn any(&mut self) -> Option<i32> {
        let at = self.roll(self.table.len().max(1) as u64);
        self.table.keys().nth(at).copied()
    }

    /// What a number means: its content and position.
    fn of(&mut self, fd: i32) -> (&Vec<u8>, &mut usize) {
        let (content, position) = &mut self.opens[self.table[&fd]];
        (&self.contents[*content], position)
    }

    fn open_next(&mut self) {
        while self.next.is_empty() {
            self.dir = (self.dir + 1) % DIRS.len();
            self.next = names_in(self.dirs[self.dir]);
            self.next.retain(|name| name != "inner");
        }
        let name = self.next.remove(0);
        self.open(self.dir, &name);
    }

    fn open_any(&mut self) {
        let dir = self.roll(DIRS.len() as u64);
        let name = file_name(self.roll(16) as u32);
        self.open(dir, &name);
    }

    fn open(&mut self, dir: usize, name: &str) {
        let content = self.names.get(&(dir, name.to_owned())).copied();
        let seen = stat_at(self.dirs[dir], name);
        let opened = open_at(self.dirs[dir], name, PLAIN);
        let Some(content) = content else {
            return assert_eq!((seen, opened), (Err(libc::ENOENT), Err(libc::ENOENT)));
        };
        let fd = opened.expect("it may be read");
        let seen = seen.expect("it is there");
        assert_eq!(seen.size, self.contents[content].len() as i64);
        assert_eq!(stat_of(fd), seen);
        self.insert(fd, self.opens.len());
        self.opens.push((content, 0));
    }

    /// The lowest number that is free.
    fn insert(&mut self, fd: i32, open: usize) {
        let ours = self.dirs.iter().max().expect("some") + 1;
        let free = (ours..).find(|fd| !self.table.contains_key(fd));
        assert_eq!(Some(fd), free);
        self.table.insert(fd, open);
    }

    fn copy(&mut self) {
        let Some(fd) = self.any() else { return };
        let open = self.table[&fd];
        let copy = if self.roll(2) == 0 { ok!(dup(fd)) } else { ok!(fcntl(fd, libc::F_DUPFD, 0)) };
        self.insert(copy, open);
    }

    fn size(&mut self) -> usize {
        [1, 7, 500, 4096, 40_000][self.roll(5)]
    }

    fn read(&mut self) {
        let Some(fd) = self.any() else { return };
        let size = self.size();
        let got = crate::support::read_some(fd, size);
        let (content, position) = self.of(fd);
        let left = content.get(*position..).unwrap_or_default();
        assert_eq!(got.len(), left.len().min(size));
        assert!(left.starts_with(&got));
        *position += got.len();
    }

    fn pread(&mut self) {
        let Some(fd) = self.any() else { return };
        let (size, at) = (self.size(), self.roll(12_000));
        let mut got = vec![0; size];
        let count = ok!(pread(fd, got.as_mut_ptr().cast(), size, at as i64)) as usize;
        let (content, _) = self.of(fd);
        let left = content.get(at..).unwrap_or_default();
        assert_eq!(count, left.len().min(size));
        assert!(left.starts_with(&got[..count]));
    }

    fn seek(&mut self) {
        let Some(fd) = self.any() else { return };
        let (to, how) = (self.roll(5000), self.roll(3));
        let (content, position) = self.of(fd);
        let (expected, offset, whence) = match how {
            0 => (to, to as i64, libc::SEEK_SET),
            1 => (*position + to, to as i64, libc::SEEK_CUR),
            _ => (content.len(), 0, libc::SEEK_END),
        };
        *position = expected;
        assert_eq!(ok!(lseek(fd, offset, whence)), expected as i64);
    }

    fn look(&mut self) {
        let Some(fd) = self.any() else { return };
        let size = stat_of(fd).size;
        let (content, position) = self.of(fd);
        assert_eq!(size, content.len() as i64);
        assert_eq!(ok!(lseek(fd, 0, libc::SEEK_CUR)), *position as i64);
    }

    fn list(&mut self) {
        let dir = self.roll(DIRS.len() as u64);
        let mut found = names_in(self.dirs[dir]);
        found.retain(|name| name != "inner");
        found.sort();
        let names = self.names.keys().filter(|(there, _)| *there == dir);
        assert_eq!(found, names.map(|(_, name)| name.clone()).collect::<Vec<_>>());
    }

    fn close(&mut self) {
        let Some(fd) = self.any() else { return };
        self.table.remove(&fd);
        ok!(close(fd));
    }

    /// Of one that comes next, mostly.
    fn change(&mut self) {
        let is_near = self.roll(3) > 0 && !self.next.is_empty();
        let (dir, name) = if is_near {
            let at = self.roll(self.next.len().min(4) as u64);
            (self.dir, self.next[at].clone())
        } else {
            (self.roll(DIRS.len() as u64), file_name(self.roll(16) as u32))
        };
        let path = format!("{}/{}/{name}", self.path, DIRS[dir]);
        let key = (dir, name);
        let known = self.names.get(&key).copied();
        let what = if known.is_some() { [0, 1, 2, 3, 5][self.roll(5)] } else { 4 };
        let number: u32 = key.1[1..].parse().expect("a number");
        match self.roll(4) {
            0 => change(&path, what),
            1 => assert_eq!(
                exit_code(wait_for(in_child(|| {
                    change(&path, what);
                    0
                }))),
                0
            ),
            _ => self.other.ask(number * 64 + dir as u32 * 8 + what),
        }
        self.made += 1;
        let Some(content) = known.map(|at| &mut self.contents[at]) else {
            self.names.insert(key, self.contents.len());
            return self.contents.push(path.into_bytes());
        };
        match what {
            0 => {
                let end = content.len().max(5);
                content.resize(end, 0);
                content[1..5].copy_from_slice(b"over");
            }
            1 => content.extend(b"more"),
            2 => content.truncate(content.len() / 2),
            3 => drop(self.names.remove(&key)),
            _ => {
                self.names.insert(key, self.contents.len());
                self.contents.push(b"over it".to_vec());
            }
        }
    }

    /// All of what is open and of what is there.
    fn finish(mut self) {
        assert!(self.made > 0);
        for fd in self.table.keys().copied().collect::<Vec<_>>() {
            let got = read_all(fd, 4096);
            let (content, position) = self.of(fd);
            assert!(got == content.get(*position..).unwrap_or_default());
            *position = (*position).max(content.len());
        }
        for ((dir, name), content) in &self.names {
            assert_eq!(sys!(faccessat(self.dirs[*dir], c(name).as_ptr(), libc::R_OK, 0)), 0);
            let fd = open_at(self.dirs[*dir], name, PLAIN).expect("it may be read");
            assert!(read_all(fd, 4096) == self.contents[*content]);
            ok!(close(fd));
        }
    }
}

fn run(name: &str, seeds: std::ops::Range<u64>, calm: u64) {
    for seed in seeds {
        // Changes to a tree last.
        let mut model = Model::new(&format!("{name}-{seed}"), seed * 77 + 1, calm);
        for _ in 0..3000 {
            model.step();
        }
        model.finish();
    }
}

fn a_walk_beside_a_model() {
    run("model", 0..1, 150);
}

fn another_walk_beside_a_model() {
    run("model", 1..2, 60);
}

fn a_walk_with_many_changes() {
    run("model", 2..3, 12);
}

/// A child reads on in a file whose number means another one by now, here: each has its own position.
fn a_number_that_another_reads_by() {
    let path = tree("numbers-read");
    walk(libc::AT_FDCWD, &path);
    walk(libc::AT_FDCWD, &path);
    let root = open_dir(libc::AT_FDCWD, &path);
    for (round, dir) in DIRS.iter().cycle().take(30).enumerate() {
        let fd = open_dir(root, dir);
        let mut names = names_in(fd);
        names.retain(|name| name != "inner");
        let of = |at: usize| content(&format!("{dir}/{}", names[at]));
        lead(fd, &names[..4]);
        let file = open_at(fd, &names[4], PLAIN).expect("it may be read");
        let first = of(4);
        let mut at = crate::support::read_some(file, 1).len();
        let (theirs, mut there) = (first.clone(), at);
        let other = Other::new(move |_| {
            let got = crate::support::read_some(file, 1);
            assert!(theirs[there.min(theirs.len())..].starts_with(&got));
            there += got.len();
        });
        if round % 2 == 0 {
            other.ask(0);
            at = (at + 1).min(first.len());
            assert_eq!(ok!(lseek(file, 0, libc::SEEK_CUR)), at as i64);
        }
        lead(fd, &names[..8]);
        for (next, name) in names.iter().enumerate().skip(8) {
            ok!(close(file));
            assert_eq!(open_at(fd, name, PLAIN), Ok(file));
            let expected = of(next);
            let got = crate::support::read_some(file, 2);
            other.ask(0);
            assert!(read_all(file, 4096) == expected[got.len()..]);
            other.ask(0);
        }
        ok!(close(file));
        ok!(close(fd));
    }
}
