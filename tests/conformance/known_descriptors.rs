//! Descriptors that are opened, closed and duplicated so often that a kernel may take a short way: beside a model of what open(2), dup(2),
//! fcntl(2) and close(2) say.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::lent_file::FILE;
use crate::socket::{receive_descriptor, send_descriptor};
use crate::support::{
    c, errno, exit_code, fails, in_child, ok, open, pipe, read_some, sys, tests, wait_for,
};

tests! {
    a_walk_beside_a_model, a_thread_sees_what_another_closes, flags_are_shared, walks_of_threads,
    walks_of_children, what_exec_leaves,
}

/// Files of every host and a folder.
pub const PATHS: [&str; 4] = ["/etc/passwd", FILE, "/etc", "/etc/group"];
/// Descriptors from here on are ours.
const FIRST: i32 = 10;
const BEYOND: i32 = 140;

/// A file description.
#[derive(Clone, Copy)]
struct Open {
    path: usize,
    flags: i32,
    position: i64,
}

/// What there should be.
#[derive(Clone, Default)]
struct Model {
    /// By number: which description, and FD_CLOEXEC.
    table: BTreeMap<i32, (usize, bool)>,
    opens: Vec<Open>,
    state: u64,
}

impl Model {
    /// Everything below [`FIRST`] is in use, nothing else.
    fn new(seed: u64) -> Self {
        for fd in 0..1024 {
            if fd >= FIRST {
                sys!(close(fd));
            } else if sys!(fcntl(fd, libc::F_GETFD)) < 0 {
                ok!(dup2(open("/dev/null", libc::O_RDWR), fd));
            }
        }
        for fd in 3..FIRST {
            ok!(dup2(0, fd));
        }
        Self { state: seed, ..Self::default() }
    }

    fn next(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.state >> 33) % below
    }

    fn free(&self, from: i32) -> i32 {
        (from.max(FIRST)..).find(|fd| !self.table.contains_key(fd)).expect("there are more")
    }

    /// Mostly one that is open.
    fn any(&mut self) -> i32 {
        let count = self.table.len() as u64;
        if count == 0 || self.next(10) == 0 {
            return FIRST + self.next(60) as i32;
        }
        let at = self.next(count) as usize;
        *self.table.keys().nth(at).expect("so many there are")
    }

    fn of(&mut self, fd: i32) -> Option<&mut Open> {
        let (index, _) = *self.table.get(&fd)?;
        self.opens.get_mut(index)
    }

    fn step(&mut self) {
        let many = self.table.len() > 40;
        match self.next(if many { 8 } else { 14 }) {
            0..=2 => self.close(),
            3 => self.get_flags(),
            4 => self.set_flags(),
            5 => self.seek(),
            6 | 7 => self.read(),
            8 | 9 => self.duplicate(),
            _ => self.open(),
        }
    }

    fn open(&mut self) {
        let path = self.next(PATHS.len() as u64) as usize;
        let cloexec = self.next(2) == 0;
        let flags = if self.next(2) == 0 { libc::O_NONBLOCK } else { 0 };
        let name = c(PATHS[path]);
        let fd = ok!(open(name.as_ptr(), flags | if cloexec { libc::O_CLOEXEC } else { 0 }));
        assert_eq!(fd, self.free(FIRST));
        self.opens.push(Open { path, flags, position: 0 });
        self.table.insert(fd, (self.opens.len() - 1, cloexec));
        // As programs do.
        self.stat(fd);
    }

    fn stat(&mut self, fd: i32) {
        let Some(&mut Open { path, .. }) = self.of(fd) else { return };
        let expected = std::fs::metadata(PATHS[path]).expect("it is there");
        // SAFETY: plain data.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        ok!(fstat(fd, &mut stat));
        let seen = (stat.st_dev, stat.st_ino, stat.st_size as u64, stat.st_mode);
        assert_eq!(seen, (expected.dev(), expected.ino(), expected.size(), expected.mode()));
    }

    fn close(&mut self) {
        let fd = self.any();
        if self.table.remove(&fd).is_some() {
            ok!(close(fd));
        } else {
            fails!(libc::EBADF, close(fd));
        }
    }

    fn duplicate(&mut self) {
        let old = self.any();
        let from = self.next(100) as i32;
        let how = self.next(4);
        let result = match how {
            0 => sys!(dup(old)),
            1 => sys!(fcntl(old, libc::F_DUPFD, from)),
            2 => sys!(fcntl(old, libc::F_DUPFD_CLOEXEC, from)),
            _ => sys!(dup2(old, FIRST + from)),
        };
        let Some(&(index, cloexec)) = self.table.get(&old) else {
            return assert_eq!((result, errno()), (-1, libc::EBADF));
        };
        let expected = match how {
            0 => self.free(FIRST),
            1 | 2 => self.free(from),
            _ => FIRST + from,
        };
        assert_eq!(result, expected);
        if expected != old {
            self.table.insert(expected, (index, how == 2));
        } else {
            self.table.insert(old, (index, cloexec));
        }
    }

    fn get_flags(&mut self) {
        let fd = self.any();
        let of_fd = sys!(fcntl(fd, libc::F_GETFD));
        match self.table.get(&fd) {
            Some(&(_, cloexec)) => assert_eq!(of_fd, i32::from(cloexec)),
            None => return assert_eq!((of_fd, errno()), (-1, libc::EBADF)),
        }
        let flags = ok!(fcntl(fd, libc::F_GETFL));
        let expected = self.of(fd).map_or(0, |open| open.flags);
        assert_eq!(flags & (libc::O_NONBLOCK | libc::O_ACCMODE | libc::O_APPEND), expected);
    }

    fn set_flags(&mut self) {
        let fd = self.any();
        let is_set = self.next(2) == 0;
        if self.next(2) == 0 {
            let result = sys!(fcntl(fd, libc::F_SETFD, i32::from(is_set)));
            match self.table.get_mut(&fd) {
                Some((_, cloexec)) => (*cloexec, _) = (is_set, assert_eq!(result, 0)),
                None => assert_eq!((result, errno()), (-1, libc::EBADF)),
            }
        } else if let Some(open) = self.of(fd) {
            open.flags = if is_set { libc::O_NONBLOCK } else { 0 };
            ok!(fcntl(fd, libc::F_SETFL, open.flags));
        }
    }

    fn seek(&mut self) {
        let fd = self.any();
        let by = self.next(400) as i64;
        let is_file = |open: &Open| PATHS[open.path] != "/etc";
        let Some(open) = self.of(fd).filter(|open| is_file(open)) else { return };
        if by % 2 == 0 {
            open.position = by;
            assert_eq!(ok!(lseek(fd, by, libc::SEEK_SET)), by);
        } else if open.position + by - 200 >= 0 {
            open.position += by - 200;
            assert_eq!(ok!(lseek(fd, by - 200, libc::SEEK_CUR)), open.position);
        } else {
            fails!(libc::EINVAL, lseek(fd, by - 200, libc::SEEK_CUR));
        }
    }

    fn read(&mut self) {
        let fd = self.any();
        let size = if self.next(8) == 0 { 20_000 } else { self.next(300) as usize };
        let is_at_place = self.next(3) == 0;
        let Some(open) = self.of(fd) else { return };
        let mut bytes = vec![0; size];
        let buffer = bytes.as_mut_ptr().cast();
        if PATHS[open.path] == "/etc" {
            return fails!(libc::EISDIR, read(fd, buffer, size));
        }
        let at = open.position;
        let count = if is_at_place {
            ok!(pread(fd, buffer, size, at))
        } else {
            ok!(read(fd, buffer, size))
        };
        if !is_at_place {
            open.position += count as i64;
        }
        let mut expected = vec![0; size];
        let file = std::fs::File::open(PATHS[open.path]).expect("it is there");
        let there = file.read_at(&mut expected, at as u64).expect("it can be read");
        assert_eq!(count as usize, there);
        assert!(bytes[..there] == expected[..there], "other bytes at {at}");
        drop(file);
    }

    fn walk(&mut self, steps: usize) {
        for step in 0..steps {
            self.step();
            if step % 500 == 499 {
                self.check_all();
            }
        }
        self.check_all();
    }

    fn check_all(&mut self) {
        for fd in FIRST..BEYOND {
            let flag = sys!(fcntl(fd, libc::F_GETFD));
            let expected = self.table.get(&fd).map_or(-1, |(_, cloexec)| i32::from(*cloexec));
            assert_eq!(flag, expected, "descriptor {fd}");
            self.stat(fd);
        }
    }
}

fn a_walk_beside_a_model() {
    for seed in 1..4 {
        Model::new(seed).walk(4000);
    }
}

/// Threads share the table, before, while and after there are several.
fn walks_of_threads() {
    let mut model = Model::new(11);
    model.walk(1500);
    for _ in 0..4 {
        let mut theirs = std::mem::take(&mut model);
        model = std::thread::spawn(move || {
            theirs.walk(700);
            theirs
        })
        .join()
        .expect("the thread asserts what we do");
        model.walk(700);
    }
}

/// Opened and closed often, by a thread that is alone.
pub fn warm_up() {
    for _ in 0..100 {
        let fd = open(PATHS[0], libc::O_RDONLY);
        ok!(fcntl(fd, libc::F_GETFD));
        ok!(fcntl(fd, libc::F_GETFL));
        ok!(close(fd));
    }
}

fn a_thread_sees_what_another_closes() {
    static TURN: AtomicU32 = AtomicU32::new(0);
    let wait_for_turn = |turn| {
        while TURN.load(SeqCst) != turn {
            std::hint::spin_loop();
        }
    };
    warm_up();
    let fds: Vec<i32> = (0..20).map(|_| open(PATHS[0], libc::O_RDONLY)).collect();
    let theirs = fds.clone();
    let thread = std::thread::spawn(move || {
        for (round, fd) in theirs.into_iter().enumerate() {
            wait_for_turn(2 * round as u32 + 1);
            ok!(close(fd));
            TURN.store(2 * round as u32 + 2, SeqCst);
        }
    });
    for (round, fd) in fds.into_iter().enumerate() {
        assert_eq!(ok!(fcntl(fd, libc::F_GETFD)), libc::FD_CLOEXEC);
        TURN.store(2 * round as u32 + 1, SeqCst);
        wait_for_turn(2 * round as u32 + 2);
        fails!(libc::EBADF, fcntl(fd, libc::F_GETFD));
    }
    thread.join().expect("it asserts nothing more");
}

/// Status flags are the file description's, whoever else has it.
fn flags_are_shared() {
    warm_up();
    let mut ends = [0; 2];
    ok!(socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, ends.as_mut_ptr()));
    let change = |fd, flags: i32| {
        ok!(fcntl(fd, libc::F_SETFL, flags));
    };
    let is_set = |fd| ok!(fcntl(fd, libc::F_GETFL)) & libc::O_NONBLOCK != 0;
    for _ in 0..20 {
        let fd = open(PATHS[0], libc::O_RDONLY);
        assert!(!is_set(fd));
        let child = in_child(|| {
            change(fd, libc::O_NONBLOCK);
            0
        });
        assert_eq!(exit_code(wait_for(child)), 0);
        assert!(is_set(fd), "changed by a child");
        ok!(close(fd));
        // Given to one that was there before.
        let child = in_child(|| {
            change(receive_descriptor(ends[1]), libc::O_NONBLOCK);
            0
        });
        let fd = open(PATHS[0], libc::O_RDONLY);
        assert!(!is_set(fd));
        send_descriptor(ends[0], fd);
        assert_eq!(exit_code(wait_for(child)), 0);
        assert!(is_set(fd), "changed by who was given it");
        ok!(close(fd));
    }
}

/// Copies of the table go ways of their own; descriptions are shared, so that the positions are left alone.
fn walks_of_children() {
    let mut model = Model::new(21);
    model.walk(1500);
    for round in 0..6 {
        let mut theirs = model.clone();
        theirs.state ^= round;
        let child = in_child(|| {
            for _ in 0..500 {
                theirs.close();
                theirs.close();
                theirs.get_flags();
                theirs.duplicate();
                theirs.open();
            }
            theirs.check_all();
            0
        });
        for _ in 0..300 {
            model.close();
            model.close();
            model.duplicate();
            model.get_flags();
            model.open();
        }
        assert_eq!(exit_code(wait_for(child)), 0);
        // Of its own, by vfork(2) and execve(2).
        let status = std::process::Command::new("/bin/true").status().expect("it runs");
        assert!(status.success());
        model.check_all();
    }
}

/// What is not marked is open in the next program, under its number.
fn what_exec_leaves() {
    let mut model = Model::new(31);
    model.walk(1500);
    for _ in 0..3 {
        model.walk(200);
        let (from, to) = pipe();
        let child = in_child(|| {
            ok!(dup2(to, 1));
            let text = c("for fd in /proc/self/fd/*; do echo ${fd##*/}; done");
            let (name, option) = (c("sh"), c("-c"));
            let args = [name.as_ptr(), option.as_ptr(), text.as_ptr(), std::ptr::null()];
            sys!(execv(c"/bin/sh".as_ptr(), args.as_ptr()));
            1
        });
        ok!(close(to));
        let mut seen = Vec::new();
        loop {
            let part = read_some(from, 4096);
            if part.is_empty() {
                break;
            }
            seen.extend(part);
        }
        ok!(close(from));
        assert_eq!(exit_code(wait_for(child)), 0);
        let seen = String::from_utf8(seen).expect("numbers");
        let mut seen: Vec<i32> = seen.split_whitespace().filter_map(|fd| fd.parse().ok()).collect();
        seen.sort_unstable();
        let kept = model.table.iter().filter(|(_, (_, cloexec))| !cloexec).map(|(fd, _)| *fd);
        // The shell's own folder has the lowest free number.
        let mut expected: Vec<i32> = (0..FIRST).chain(kept).collect();
        let own = (0..).find(|fd| !expected.contains(fd)).expect("there are more");
        expected.push(own);
        expected.sort_unstable();
        assert_eq!(seen, expected);
    }
}
