//! Epolls that are changed so often that a kernel may take a short way: beside a model of what epoll_ctl(2) and epoll_wait(2) say.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::known_descriptors::warm_up;
use crate::support::{
    errno, exit_code, fails, in_child, ok, pipe, read_some, sys, tests, wait_for, write_all,
};

tests! {
    walks_beside_a_model, walks_beside_a_thread, another_process_waits, an_outer_epoll_waits, edges_are_told_once,
}

/// Descriptors from here on are ours.
const FIRST: i32 = 10;
const COUNT: u64 = 30;
const READY: i32 = libc::EPOLLIN | libc::EPOLLOUT;

/// A file description.
#[derive(Clone, Copy, PartialEq)]
enum File {
    /// An eventfd(2) that has been told something, or not.
    Event(bool),
    Epoll,
}

struct Item {
    epoll: usize,
    fd: i32,
    file: usize,
    events: i32,
    data: u64,
    /// It was to be told once, and was.
    is_off: bool,
}

/// What there should be.
#[derive(Default)]
struct Model {
    table: BTreeMap<i32, usize>,
    files: Vec<File>,
    items: Vec<Item>,
    state: u64,
}

impl Model {
    fn new(seed: u64) -> Self {
        ok!(close_range(FIRST as u32, 1023, 0));
        Self { state: seed, ..Self::default() }
    }

    fn next(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.state >> 33) % below
    }

    /// Mostly one of that kind.
    fn any(&mut self, is_epoll: bool) -> i32 {
        let is_of = |file: &File| (*file == File::Epoll) == is_epoll;
        let files = &self.files;
        let all: Vec<i32> = self
            .table
            .iter()
            .filter(|(_, file)| is_of(&files[**file]))
            .map(|(fd, _)| *fd)
            .collect();
        if all.is_empty() || self.next(30) == 0 {
            return FIRST + self.next(COUNT) as i32;
        }
        all[self.next(all.len() as u64) as usize]
    }

    fn file(&self, fd: i32) -> Option<(usize, File)> {
        self.table.get(&fd).map(|file| (*file, self.files[*file]))
    }

    fn step(&mut self) {
        match self.next(20) {
            0 => self.open(),
            1 => self.close(),
            2 => self.duplicate(),
            3 | 4 => self.tell(),
            5 => self.wait(),
            6 if self.next(8) == 0 => self.child(),
            _ => self.control(),
        }
    }

    fn put(&mut self, fd: i32, file: usize) {
        let former = self.table.insert(fd, file);
        former.into_iter().for_each(|former| self.lost(former));
    }

    fn lost(&mut self, file: usize) {
        if !self.table.values().any(|other| *other == file) {
            self.items.retain(|item| item.file != file && item.epoll != file);
        }
    }

    fn open(&mut self) {
        let is_epoll = self.next(5) == 0;
        let fd = if is_epoll {
            ok!(epoll_create1(libc::EPOLL_CLOEXEC))
        } else {
            ok!(eventfd(0, libc::EFD_NONBLOCK))
        };
        let place = FIRST + self.next(COUNT) as i32;
        ok!(dup2(fd, place));
        if fd != place {
            ok!(close(fd));
        }
        self.files.push(if is_epoll { File::Epoll } else { File::Event(false) });
        self.put(place, self.files.len() - 1);
    }

    fn close(&mut self) {
        let is_epoll = self.next(4) == 0;
        let fd = self.any(is_epoll);
        match self.table.remove(&fd) {
            Some(file) => {
                ok!(close(fd));
                self.lost(file);
            }
            None => fails!(libc::EBADF, close(fd)),
        }
    }

    fn duplicate(&mut self) {
        let is_epoll = self.next(4) == 0;
        let (old, new) = (self.any(is_epoll), FIRST + self.next(COUNT) as i32);
        match self.table.get(&old) {
            Some(&file) => {
                assert_eq!(ok!(dup2(old, new)), new);
                self.put(new, file);
            }
            None => fails!(libc::EBADF, dup2(old, new)),
        }
    }

    fn tell(&mut self) {
        let fd = self.any(false);
        let Some((file, File::Event(is_told))) = self.file(fd) else { return };
        if is_told {
            assert_eq!(read_some(fd, 8).len(), 8);
        } else {
            write_all(fd, &1_u64.to_ne_bytes());
        }
        self.files[file] = File::Event(!is_told);
    }

    fn control(&mut self) {
        let (epfd, fd) = (self.any(true), self.any(false));
        let most = if self.next(20) == 0 { 5 } else { 3 };
        let operation = self.next(most);
        let operation = [libc::EPOLL_CTL_ADD, libc::EPOLL_CTL_DEL, libc::EPOLL_CTL_MOD, 0, 17]
            [operation as usize];
        let once = if self.next(5) == 0 { libc::EPOLLONESHOT } else { 0 };
        let events = [libc::EPOLLIN, libc::EPOLLOUT, READY, 0][self.next(4) as usize] | once;
        let data = self.next(1 << 31) << 32 | self.next(1 << 31);
        let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: data };
        let has_event = self.next(30) != 0;
        let at = if has_event { &raw mut event } else { std::ptr::without_provenance_mut(8) };
        let is_nested = matches!(self.file(fd), Some((_, File::Epoll)));
        if is_nested && self.table.get(&epfd) != self.table.get(&fd) {
            return;
        }
        let result = (sys!(epoll_ctl(epfd, operation, fd, at)), errno());
        match self.expect(epfd, operation, fd, has_event) {
            Ok(at) => {
                assert_eq!(result.0, 0, "{operation} of {fd} for {epfd}: {}", result.1);
                let (epoll, file) = (self.table[&epfd], self.table[&fd]);
                let item = Item { epoll, fd, file, events, data, is_off: false };
                match (at, operation) {
                    (Some(at), libc::EPOLL_CTL_DEL) => drop(self.items.remove(at)),
                    (Some(at), _) => self.items[at] = item,
                    (None, _) => self.items.push(item),
                }
            }
            Err(expected) => {
                assert_eq!(result, (-1, expected), "{operation} of {fd} for {epfd}");
            }
        }
    }

    /// Which item is meant.
    fn expect(
        &self,
        epfd: i32,
        operation: i32,
        fd: i32,
        has_event: bool,
    ) -> Result<Option<usize>, i32> {
        if !has_event && operation != libc::EPOLL_CTL_DEL {
            return Err(libc::EFAULT);
        }
        let (epoll, kind) = self.file(epfd).ok_or(libc::EBADF)?;
        let (file, _) = self.file(fd).ok_or(libc::EBADF)?;
        if kind != File::Epoll || epoll == file {
            return Err(libc::EINVAL);
        }
        let is_it = |item: &Item| (item.epoll, item.fd, item.file) == (epoll, fd, file);
        let at = self.items.iter().position(is_it);
        match (operation, at) {
            (libc::EPOLL_CTL_ADD, Some(_)) => Err(libc::EEXIST),
            (libc::EPOLL_CTL_ADD, None) => Ok(None),
            (libc::EPOLL_CTL_DEL | libc::EPOLL_CTL_MOD, Some(at)) => Ok(Some(at)),
            (libc::EPOLL_CTL_DEL | libc::EPOLL_CTL_MOD, None) => Err(libc::ENOENT),
            _ => Err(libc::EINVAL),
        }
    }

    fn wait(&mut self) {
        let fd = self.any(true);
        let Some((epoll, File::Epoll)) = self.file(fd) else { return };
        let mut seen = wait(fd, 0);
        let mut expected = Vec::new();
        for item in self.items.iter_mut().filter(|item| item.epoll == epoll && !item.is_off) {
            let File::Event(is_told) = self.files[item.file] else { continue };
            let now = if is_told { READY } else { libc::EPOLLOUT };
            if item.events & now != 0 {
                expected.push((item.data, item.events & now));
                item.is_off = item.events & libc::EPOLLONESHOT != 0;
            }
        }
        seen.sort_unstable();
        expected.sort_unstable();
        assert_eq!(seen, expected);
    }

    /// A copy of the process takes out what it shares.
    fn child(&mut self) {
        let fd = self.any(true);
        let Some((epoll, File::Epoll)) = self.file(fd) else { return };
        let table = &self.table;
        let is_open = |item: &Item| item.epoll == epoll && table.get(&item.fd) == Some(&item.file);
        let Some(at) = self.items.iter().position(is_open) else { return };
        let item = self.items.remove(at);
        let child = in_child(|| {
            let nothing: *mut libc::epoll_event = std::ptr::null_mut();
            ok!(epoll_ctl(fd, libc::EPOLL_CTL_DEL, item.fd, nothing));
            0
        });
        assert_eq!(exit_code(wait_for(child)), 0);
    }

    fn walk(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
        }
    }
}

fn wait(fd: i32, timeout: i32) -> Vec<(u64, i32)> {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 128];
    let count = ok!(epoll_wait(fd, events.as_mut_ptr(), 128, timeout)) as usize;
    events[..count].iter().map(|event| (event.u64, event.events.cast_signed())).collect()
}

fn control(epoll: i32, operation: i32, fd: i32, events: i32) {
    let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: fd as u64 };
    ok!(epoll_ctl(epoll, operation, fd, &mut event));
}

/// Many times, so that a short way is taken.
fn change_often(epoll: i32, fd: i32) {
    for _ in 0..50 {
        control(epoll, libc::EPOLL_CTL_ADD, fd, READY);
        control(epoll, libc::EPOLL_CTL_MOD, fd, libc::EPOLLIN);
        control(epoll, libc::EPOLL_CTL_DEL, fd, 0);
    }
}

fn walks_beside_a_model() {
    for seed in 1..5 {
        Model::new(seed).walk(6000);
    }
}

/// Before, while and after there is another thread.
fn walks_beside_a_thread() {
    let mut model = Model::new(7);
    for _ in 0..3 {
        model.walk(1500);
        let (from, to) = pipe();
        let thread = std::thread::spawn(move || assert_eq!(read_some(from, 1).len(), 1));
        model.walk(1500);
        write_all(to, b"x");
        thread.join().expect("it asserts nothing more");
        ok!(close(from));
        ok!(close(to));
    }
}

/// What is added is told to another process that waits, while the one that has added it makes no call.
fn another_process_waits() {
    warm_up();
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    let at = sys!(mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0));
    // SAFETY: a new mapping, which is never unmapped.
    let word = unsafe { &*at.cast::<AtomicU32>() };
    for round in 1..20 {
        let epoll = ok!(epoll_create1(libc::EPOLL_CLOEXEC));
        let fd = ok!(eventfd(1, 0));
        change_often(epoll, fd);
        let child = in_child(|| {
            word.store(2 * round, SeqCst);
            let seen = wait(epoll, 10_000).len();
            word.store(2 * round + 1, SeqCst);
            i32::from(seen != 1)
        });
        let begun = Instant::now();
        // The clock is read without a call.
        let spin = |until: u32| {
            while word.load(SeqCst) != until && begun.elapsed() < Duration::from_secs(9) {
                std::hint::spin_loop();
            }
        };
        spin(2 * round);
        control(epoll, libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN);
        spin(2 * round + 1);
        assert_eq!(word.load(SeqCst), 2 * round + 1, "nobody was told");
        assert_eq!(exit_code(wait_for(child)), 0);
        ok!(close(fd));
        ok!(close(epoll));
    }
}

/// The same of a process that waits for an epoll that watches this one.
fn an_outer_epoll_waits() {
    warm_up();
    for _ in 0..20 {
        let outer = ok!(epoll_create1(libc::EPOLL_CLOEXEC));
        let epoll = ok!(epoll_create1(libc::EPOLL_CLOEXEC));
        let fd = ok!(eventfd(1, 0));
        change_often(epoll, fd);
        control(outer, libc::EPOLL_CTL_ADD, epoll, libc::EPOLLIN);
        assert_eq!(wait(outer, 0), []);
        control(epoll, libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN);
        assert_eq!(wait(outer, 0), [(epoll as u64, libc::EPOLLIN)]);
        control(epoll, libc::EPOLL_CTL_DEL, fd, 0);
        assert_eq!(wait(outer, 0), []);
        for fd in [outer, epoll, fd] {
            ok!(close(fd));
        }
    }
}

/// Of what is taken out and put in again before anybody asks.
fn edges_are_told_once() {
    warm_up();
    let epoll = ok!(epoll_create1(libc::EPOLL_CLOEXEC));
    let fd = ok!(eventfd(1, 0));
    let edge = libc::EPOLLIN | libc::EPOLLET;
    change_often(epoll, fd);
    control(epoll, libc::EPOLL_CTL_ADD, fd, edge);
    for _ in 0..50 {
        assert_eq!(wait(epoll, 0), [(fd as u64, libc::EPOLLIN)]);
        assert_eq!(wait(epoll, 0), []);
        control(epoll, libc::EPOLL_CTL_DEL, fd, 0);
        control(epoll, libc::EPOLL_CTL_ADD, fd, edge);
        assert_eq!(wait(epoll, 0), [(fd as u64, libc::EPOLLIN)]);
        assert_eq!(wait(epoll, 0), []);
        control(epoll, libc::EPOLL_CTL_MOD, fd, edge);
    }
}
