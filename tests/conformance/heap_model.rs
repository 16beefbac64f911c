//! brk(2) beside a model: random moves of the heap's end, and mappings in its way.

use std::collections::BTreeMap;

use crate::heap::{begin, brk, byte, map_at};
use crate::memory::{PAGE, RW, get, put};
use crate::support::{exit_code, fails, in_child, ok, tests, wait_for};

tests! {
    a_random_heap_beside_a_model, another_random_heap_beside_a_model,
}

/// Pages from the heap's end on: what is there. Absent: nothing.
struct Model {
    start: usize,
    end: usize,
    pages: BTreeMap<usize, Page>,
    state: u64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Page {
    value: u8,
    is_writable: bool,
}

const PAGES: usize = 48;

impl Model {
    fn random(&mut self, below: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from(self.state >> 20).unwrap_or(0) % below
    }

    fn at(&self, page: usize) -> usize {
        self.start + page * PAGE
    }

    fn is_free(&self, mut pages: std::ops::Range<usize>) -> bool {
        pages.all(|page| !self.pages.contains_key(&page))
    }

    fn fill(&mut self, pages: std::ops::Range<usize>) {
        for page in pages {
            self.pages.insert(page, Page { value: 0, is_writable: true });
        }
    }

    fn clear(&mut self, pages: std::ops::Range<usize>) {
        for page in pages {
            self.pages.remove(&page);
        }
    }

    fn move_end(&mut self) {
        let to = match self.random(3) {
            0 => self.random(PAGES) * PAGE,
            1 => self.random(PAGES * PAGE),
            _ => (self.end + self.random(4 * PAGE)).saturating_sub(2 * PAGE),
        };
        let (old, new) = (self.end.div_ceil(PAGE), to.div_ceil(PAGE));
        let moves = match new.cmp(&old) {
            std::cmp::Ordering::Less => !self.is_free(new..old),
            std::cmp::Ordering::Equal => true,
            std::cmp::Ordering::Greater => self.is_free(old..new + 1),
        };
        if moves {
            self.clear(new..old);
            self.fill(old..new);
            self.end = to;
        }
        assert_eq!(brk(self.start + to), self.start + self.end, "moved to {to:#x}");
    }

    fn change_mapping(&mut self) {
        let (first, count) = (self.random(PAGES), 1 + self.random(3));
        let (at, len) = (byte(self.at(first)).cast(), count * PAGE);
        let range = first..first + count;
        match self.random(4) {
            0 => {
                ok!(munmap(at, len));
                self.clear(range);
            }
            1 => {
                map_at(
                    at as usize,
                    count,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                );
                self.fill(range);
            }
            what => {
                let is_writable = what == 2;
                let protection = if is_writable { RW } else { libc::PROT_READ };
                let until = range.clone().find(|page| !self.pages.contains_key(page));
                if until.is_some() {
                    fails!(libc::ENOMEM, mprotect(at, len, protection));
                } else {
                    ok!(mprotect(at, len, protection));
                }
                for page in first..until.unwrap_or(range.end) {
                    if let Some(page) = self.pages.get_mut(&page) {
                        page.is_writable = is_writable;
                    }
                }
            }
        }
    }

    fn write(&mut self) {
        let (page, value) = (self.random(PAGES), self.random(255) as u8);
        let at = self.at(page);
        if let Some(page) = self.pages.get_mut(&page)
            && page.is_writable
        {
            page.value = value;
            put(byte(at), 0, value);
            put(byte(at), PAGE - 1, value);
        }
    }

    /// Without a call.
    fn check_values(&self) {
        for (page, expected) in &self.pages {
            let at = byte(self.at(*page));
            assert_eq!((get(at, 0), get(at, PAGE - 1)), (expected.value, expected.value), "{page}");
        }
    }

    fn check(&self) {
        self.check_values();
        assert_eq!(brk(0), self.start + self.end);
        let maps = std::fs::read_to_string("/proc/self/maps").expect("it is there");
        let number = |text| usize::from_str_radix(text, 16).expect("a number");
        let mut found = BTreeMap::new();
        for line in maps.lines() {
            let mut words = line.split(' ');
            let (from, to) = words.next().and_then(|range| range.split_once('-')).expect("a range");
            let is_writable = words.next() == Some("rw-p");
            for at in
                (number(from).max(self.start)..number(to).min(self.at(PAGES + 4))).step_by(PAGE)
            {
                found.insert((at - self.start) / PAGE, is_writable);
            }
        }
        let expected: BTreeMap<_, _> =
            self.pages.iter().map(|(page, what)| (*page, what.is_writable)).collect();
        assert_eq!(found, expected);
    }
}

fn beside_a_model(seed: u64) {
    let mut model = Model { start: begin(), end: 0, pages: BTreeMap::new(), state: seed };
    for _ in 0..4000 {
        match model.random(40) {
            0..=27 => model.move_end(),
            28..=30 => model.change_mapping(),
            31..=37 => model.write(),
            38 => model.check_values(),
            _ if model.random(4) == 0 => {
                let child = in_child(|| {
                    model.check();
                    for _ in 0..20 {
                        model.move_end();
                    }
                    model.check();
                    0
                });
                assert_eq!(exit_code(wait_for(child)), 0);
            }
            _ => model.check(),
        }
    }
    model.check();
}

fn a_random_heap_beside_a_model() {
    beside_a_model(0x9e37_79b9_7f4a_7c15);
}

fn another_random_heap_beside_a_model() {
    for seed in 1..4 {
        let child = in_child(|| {
            beside_a_model(seed * 0x1234_5678_9abc_def1);
            0
        });
        assert_eq!(wait_for(child), 0);
    }
}
