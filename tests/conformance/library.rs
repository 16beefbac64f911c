//! mmap(2) as loaders use it: a file as a whole, then its parts in that place. A kernel may let a program do the latter on its own, as
//! long as nobody can tell; here other calls come between, at random, beside a model.

use std::os::unix::fs::FileExt;
use std::ptr;

use crate::memory::{PAGE, RW, get, put};
use crate::support::{exit_code, in_child, ok, open, sys, tests, wait_for};

tests! {
    parts_are_where_they_were_asked_for, parts_and_other_calls_beside_a_model, limits_hold_for_parts,
}

const WHOLE: i32 = libc::MAP_PRIVATE | libc::MAP_DENYWRITE;
const PART: i32 = WHOLE | libc::MAP_FIXED;
const ZEROS: i32 = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_ANONYMOUS;
const R: i32 = libc::PROT_READ;
const RX: i32 = libc::PROT_READ | libc::PROT_EXEC;

/// Pages of the whole.
const PAGES: usize = 24;

/// Files that are there before, larger than the whole, and which everybody may read.
const FILES: [&str; 2] = ["/bin/sh", "/proc/self/exe"];

#[derive(Clone, Copy, PartialEq, Debug)]
struct Page {
    /// The file, and which of its pages.
    file: Option<(usize, usize)>,
    protection: i32,
    written: Option<u8>,
}

/// What is mapped where.
struct Model {
    base: usize,
    pages: [Option<Page>; PAGES],
    /// The file of `fd`.
    file: usize,
    fd: i32,
    files: [std::fs::File; 2],
    state: u64,
}

fn protection_of(line: &str) -> i32 {
    let bits = [('r', libc::PROT_READ), ('w', libc::PROT_WRITE), ('x', libc::PROT_EXEC)];
    bits.iter().filter(|(letter, _)| line.contains(*letter)).map(|(_, bit)| bit).sum()
}

impl Model {
    fn new(seed: u64) -> Self {
        let files = FILES.map(|path| std::fs::File::open(path).expect("it is there"));
        let mut model = Self { base: 0, pages: [None; PAGES], file: 0, fd: -1, files, state: seed };
        model.begin();
        model
    }

    fn random(&mut self, below: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from(self.state >> 20).unwrap_or(0) % below
    }

    /// Maps a file as a whole.
    fn begin(&mut self) {
        if self.base != 0 {
            ok!(munmap(self.at(0).cast(), PAGES * PAGE));
            ok!(close(self.fd));
        }
        self.file = self.random(2);
        self.fd = open(FILES[self.file], libc::O_RDONLY);
        let whole = sys!(mmap(ptr::null_mut(), PAGES * PAGE, R, WHOLE, self.fd, 0));
        assert_ne!(whole, libc::MAP_FAILED);
        self.base = whole as usize;
        self.note(0, PAGES, Some(0), R);
    }

    fn at(&self, page: usize) -> *mut u8 {
        (self.base + page * PAGE) as *mut u8
    }

    fn note(&mut self, first: usize, count: usize, offset: Option<usize>, protection: i32) {
        for page in 0..count {
            let file = offset.map(|offset| (self.file, offset + page));
            self.pages[first + page] = Some(Page { file, protection, written: None });
        }
    }

    /// Some pages.
    fn range(&mut self) -> (usize, usize) {
        let first = self.random(PAGES);
        let most = (PAGES - first).min(6);
        (first, 1 + self.random(most))
    }

    fn map_part(&mut self) {
        let (first, count) = self.range();
        let protection = [R, RX, RW, libc::PROT_NONE][self.random(4)];
        // The last page need not be whole.
        let length = count * PAGE - self.random(2) * 100;
        let (flags, fd, offset) = match self.random(3) {
            0 => (ZEROS, -1, None),
            1 => (PART & !libc::MAP_DENYWRITE, self.fd, Some(self.random(PAGES))),
            _ => (PART, self.fd, Some(self.random(PAGES))),
        };
        let at = i64::try_from(offset.unwrap_or(0) * PAGE).expect("small");
        let to = self.at(first).cast();
        assert_eq!(sys!(mmap(to, length, protection, flags, fd, at)), to);
        self.note(first, count, offset, protection);
    }

    /// Another file under the same number.
    fn change_file(&mut self) {
        let other = 1 - self.file;
        if self.random(2) == 0 {
            ok!(close(self.fd));
            let fd = open(FILES[other], libc::O_RDONLY);
            assert_eq!(fd, self.fd, "the lowest that is free");
        } else {
            let fd = open(FILES[other], libc::O_RDONLY);
            ok!(dup2(fd, self.fd));
            ok!(close(fd));
        }
        self.file = other;
    }

    fn change_something(&mut self) {
        let (first, count) = self.range();
        let (to, length) = (self.at(first).cast(), count * PAGE);
        match self.random(8) {
            0 => {
                ok!(munmap(to, length));
                self.pages[first..first + count].fill(None);
            }
            1 => {
                let protection = [R, RW][self.random(2)];
                let pages = &mut self.pages[first..first + count];
                if pages.iter().all(Option::is_some) {
                    ok!(mprotect(to, length, protection));
                    pages.iter_mut().flatten().for_each(|page| page.protection = protection);
                }
            }
            2 => self.change_file(),
            3 => {
                sys!(syscall(libc::SYS_sched_getaffinity, 0, 0, 0));
            }
            4 => self.check_in_child(),
            5 => std::thread::spawn(|| ()).join().expect("it does nothing"),
            6 => self.begin(),
            _ => {
                let writable = |page: &Page| page.protection == RW;
                if let Some(page) = self.pages[first].as_mut().filter(|page| writable(page)) {
                    page.written = Some(7);
                    put(self.at(first), 1, 7);
                }
            }
        }
    }

    fn check_in_child(&self) {
        let child = in_child(|| {
            self.check();
            0
        });
        assert_eq!(exit_code(wait_for(child)), 0);
    }

    fn check(&self) {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("it is there");
        let number = |text: &str| usize::from_str_radix(text, 16).expect("a number");
        let mut listed = [None; PAGES];
        for line in maps.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let (from, to) = words[0].split_once('-').expect("a range");
            let (from, to) = (number(from), number(to));
            for (page, place) in listed.iter_mut().enumerate() {
                let at = self.base + page * PAGE;
                if (from..to).contains(&at) {
                    let offset = (words[4] != "0").then(|| (number(words[2]) + at - from) / PAGE);
                    *place = Some((protection_of(words[1]), offset));
                }
            }
        }
        let told =
            self.pages.map(|page| page.map(|page| (page.protection, page.file.map(|file| file.1))));
        assert_eq!(listed, told);
        for (page, known) in self.pages.iter().enumerate() {
            let Some(known) = known.filter(|known| known.protection & R != 0) else { continue };
            let mut bytes = [0; 4];
            if let Some((file, offset)) = known.file {
                let from = (offset * PAGE) as u64;
                self.files[file].read_exact_at(&mut bytes, from).expect("it is long enough");
            }
            bytes[1] = known.written.unwrap_or(bytes[1]);
            assert_eq!([0, 1, 2, 3].map(|at| get(self.at(page), at)), bytes, "page {page}");
        }
    }
}

fn parts_are_where_they_were_asked_for() {
    let mut model = Model::new(0x1234_5678_9abc_def1);
    for _ in 0..60 {
        model.begin();
        let fd = model.fd;
        // Text, constants, data, and what begins as zeros; none of them at its offset.
        for (first, count, offset, protection) in
            [(2, 6, 3, RX), (8, 4, 1, R), (13, 3, 12, RW), (0, 1, 23, R)]
        {
            let at = i64::try_from(offset * PAGE).expect("small");
            let to = model.at(first).cast();
            assert_eq!(sys!(mmap(to, count * PAGE, protection, PART, fd, at)), to);
            model.note(first, count, Some(offset), protection);
        }
        let to = model.at(16).cast();
        assert_eq!(sys!(mmap(to, 4 * PAGE, RW, ZEROS, -1, 0)), to);
        model.note(16, 4, None, RW);
        for page in [13, 15, 16, 19] {
            put(model.at(page), 1, 9);
            model.pages[page].as_mut().expect("it is there").written = Some(9);
        }
        model.check();
        model.check_in_child();
    }
}

fn parts_and_other_calls_beside_a_model() {
    for seed in 1..4 {
        let mut model = Model::new(seed * 0x1234_5678_9abc_def1);
        for _ in 0..120 {
            for _ in 0..model.random(8) {
                model.map_part();
            }
            match model.random(4) {
                0 => model.check(),
                _ => model.change_something(),
            }
        }
    }
}

/// Also one that is set between the whole and its parts.
fn limits_hold_for_parts() {
    let mut model = Model::new(7);
    for _ in 0..20 {
        model.begin();
        model.map_part();
    }
    let child = in_child(|| {
        model.begin();
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        ok!(setrlimit(libc::RLIMIT_DATA, &raw const none));
        let fd = model.fd;
        let to = model.at(4).cast();
        let refused = sys!(mmap(to, PAGE, RW, PART, fd, 0)) == libc::MAP_FAILED;
        // Nothing that counts.
        assert_eq!(sys!(mmap(to, PAGE, RX, PART, fd, 0)), to);
        i32::from(refused)
    });
    assert_eq!(exit_code(wait_for(child)), 1);
}
