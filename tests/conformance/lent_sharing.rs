//! Files that are read so often that a kernel may take a short way, and that several threads, processes or numbers share: the
//! position is one, each byte is given once, and a number means what the last open(2) or dup(2) said.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle};

use crate::lent_file::{COUNT, FILE, as_words, file, next_words, run_of, start, words_at};
use crate::socket::{receive_descriptor, send_descriptor};
use crate::support::{
    errno, exit_code, fails, in_child, ok, open, pipe, read_some, sys, tests, wait_for,
};

tests! {
    threads_read_each_byte_once, processes_read_each_byte_once, duplicates_share_the_position,
    another_file_under_the_same_number, numbers_are_not_mixed_up, a_vfork_child_has_its_own_numbers,
    a_thread_may_have_its_own_numbers, a_descriptor_is_passed_on, many_files_at_once,
}

/// Reads to the end of the words; each read is of words that follow each other. All that it got.
fn drain(fd: i32, size: usize) -> Vec<u32> {
    let mut all = Vec::new();
    loop {
        let words = next_words(fd, size);
        let first = words.first().copied().unwrap_or(u32::MAX);
        let are_ours =
            words.iter().zip(first..COUNT as u32).take_while(|(word, n)| *word == n).count();
        // What lies behind the words looks like none of them.
        if are_ours < 2 && first as usize != COUNT - 1 {
            return all;
        }
        assert!(are_ours == words.len() || first as usize + are_ours == COUNT, "a torn read");
        all.extend(&words[..are_ours]);
    }
}

fn each_once(parts: Vec<Vec<u32>>) {
    let mut all: Vec<u32> = parts.into_iter().flatten().collect();
    let total = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), total, "words came twice");
    assert_eq!(all, run_of(0, COUNT), "words did not come");
}

fn threads_read_each_byte_once() {
    let start = start();
    for size in [1024, 64, 8192] {
        let fd = file(start);
        let readers: Vec<_> = (0..4).map(|_| thread::spawn(move || drain(fd, size))).collect();
        each_once(readers.into_iter().map(|reader| reader.join().unwrap()).collect());
        ok!(close(fd));
    }
}

/// The position is one, though the description was lent before there were two processes.
fn processes_read_each_byte_once() {
    let start = start();
    for round in 0..8 {
        let fd = file(start);
        assert_eq!(next_words(fd, 16), run_of(0, 16));
        let (from, to) = pipe();
        let child = in_child(|| {
            let words = drain(fd, 256 << (round % 4));
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            sys!(close(from));
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let count = ok!(write(to, rest.as_ptr().cast(), rest.len()));
                rest = &rest[count as usize..];
            }
            0
        });
        ok!(close(to));
        let ours = drain(fd, 512);
        let mut theirs = Vec::new();
        loop {
            let bytes = read_some(from, 1 << 16);
            if bytes.is_empty() {
                break;
            }
            theirs.extend(bytes);
        }
        assert_eq!(exit_code(wait_for(child)), 0);
        each_once(vec![run_of(0, 16), ours, as_words(&theirs)]);
        ok!(close(fd));
        ok!(close(from));
    }
}

fn duplicates_share_the_position() {
    let start = start();
    let fd = file(start);
    let mut at = 0;
    for round in 0..200 {
        let other = match round % 3 {
            0 => ok!(dup(fd)),
            1 => ok!(dup2(fd, 99)),
            _ => ok!(fcntl(fd, libc::F_DUPFD, 50)),
        };
        for fd in [fd, other, other, fd] {
            assert_eq!(next_words(fd, 3), run_of(at, 3));
            at += 3;
        }
        ok!(close(other));
        for _ in 0..40 {
            assert_eq!(next_words(fd, 2), run_of(at, 2));
            at += 2;
        }
    }
    // The number that was read before is the one that goes.
    let other = ok!(dup(fd));
    ok!(close(fd));
    fails!(libc::EBADF, read(fd, [0_u8; 4].as_mut_ptr().cast(), 4));
    for _ in 0..100 {
        assert_eq!(next_words(other, 2), run_of(at, 2));
        at += 2;
    }
}

fn another_file_under_the_same_number() {
    let start = start();
    let fd = file(start);
    let mut known = vec![0; 64];
    let other = open("/bin/bash", libc::O_RDONLY);
    ok!(pread(other, known.as_mut_ptr().cast(), 64, start));
    for round in 0..100 {
        assert_eq!(next_words(fd, 5), run_of(5 * round, 5));
        let kept = ok!(dup(fd));
        ok!(dup2(other, fd));
        ok!(lseek(fd, start, libc::SEEK_SET));
        let mut bytes = vec![0; 64];
        ok!(pread(fd, bytes.as_mut_ptr().cast(), 64, start));
        assert_eq!(bytes, known);
        assert_eq!(read_some(fd, 64), known);
        ok!(dup2(kept, fd));
        ok!(close(kept));
        for _ in 0..20 {
            words_at(fd, start, 0, 1);
        }
    }
}

/// One number is this file or nothing, whatever other files come and go under other numbers.
fn numbers_are_not_mixed_up() {
    let start = start();
    let number = file(start);
    let is_over = Arc::new(AtomicBool::new(false));
    let begun = Arc::new(AtomicUsize::new(0));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (is_over, begun) = (Arc::clone(&is_over), Arc::clone(&begun));
            thread::spawn(move || {
                let (mut good, mut bad) = (0, 0);
                while !is_over.load(SeqCst) {
                    let mut bytes = [0_u8; 64];
                    let got = sys!(pread(number, bytes.as_mut_ptr().cast(), 64, start + 400));
                    if got < 0 {
                        assert_eq!(errno(), libc::EBADF);
                        bad += 1;
                    } else {
                        assert_eq!(as_words(&bytes), run_of(100, 16));
                        if good == 0 {
                            begun.fetch_add(1, SeqCst);
                        }
                        good += 1;
                    }
                }
                (good, bad)
            })
        })
        .collect();
    // On a busy host a thread may come late.
    while begun.load(SeqCst) < 2 {
        thread::yield_now();
    }
    for _ in 0..400 {
        let other = open("/bin/bash", libc::O_RDONLY);
        assert_ne!(other, number);
        ok!(close(number));
        // Not the lowest number: that is to stay closed.
        let high = ok!(fcntl(other, libc::F_DUPFD, number + 1));
        ok!(close(other));
        let mut bytes = [0_u8; 64];
        for _ in 0..30 {
            ok!(pread(high, bytes.as_mut_ptr().cast(), 64, start + 400));
        }
        assert_eq!(open(FILE, libc::O_RDONLY), number);
        for _ in 0..30 {
            assert_eq!(words_at(number, start, 5, 2), [5, 6]);
        }
        ok!(close(high));
    }
    is_over.store(true, SeqCst);
    for reader in readers {
        let (good, _) = reader.join().unwrap();
        assert!(good > 0);
    }
}

/// Reads `fd` all the time, so that it is read without a call again whenever that may be.
fn keen_reader(fd: i32, start: i64, is_over: &Arc<AtomicBool>) -> JoinHandle<()> {
    let is_over = Arc::clone(is_over);
    thread::spawn(move || {
        while !is_over.load(SeqCst) {
            assert_eq!(words_at(fd, start, 30, 2), [30, 31]);
            READS.fetch_add(1, SeqCst);
        }
    })
}

static READS: AtomicUsize = AtomicUsize::new(0);

/// Until the keen reader has read so often that it makes no calls again, if it ever does.
fn wait_for_reader() {
    let end = READS.load(SeqCst) + 3000;
    for _ in 0..2_000_000 {
        if READS.load(SeqCst) >= end {
            break;
        }
        sys!(sched_yield());
    }
}

fn a_vfork_child_has_its_own_numbers() {
    let start = start();
    let other = open("/bin/bash", libc::O_RDONLY);
    let mut known = [0_u8; 16];
    ok!(pread(other, known.as_mut_ptr().cast(), 16, start));
    for _ in 0..8 {
        let fd = file(start);
        let is_over = Arc::new(AtomicBool::new(false));
        let reader = keen_reader(fd, start, &is_over);
        assert_eq!(next_words(fd, 4), run_of(0, 4));
        let (child, bytes) = in_vfork_child(fd, other, start);
        assert_eq!(exit_code(wait_for(child)), 0);
        assert_eq!(bytes, known);
        assert_eq!(next_words(fd, 4), run_of(4, 4));
        is_over.store(true, SeqCst);
        reader.join().unwrap();
        ok!(close(fd));
    }
}

/// Moves `other` to the number `fd` in a child in the same memory, and reads it there.
fn in_vfork_child(fd: i32, other: i32, start: i64) -> (i32, [u8; 16]) {
    struct Shared {
        fd: i32,
        other: i32,
        start: i64,
        bytes: [u8; 16],
        word: [u8; 4],
    }
    extern "C" fn child(shared: *mut libc::c_void) -> i32 {
        // SAFETY: the parent waits, and has it live.
        let shared = unsafe { &mut *shared.cast::<Shared>() };
        for _ in 0..20 {
            sys!(pread(shared.fd, shared.word.as_mut_ptr().cast(), 4, shared.start + 40));
            if shared.word != 10_u32.to_le_bytes() {
                return 1;
            }
        }
        sys!(dup2(shared.other, shared.fd));
        wait_for_reader();
        let mut first = shared.bytes;
        for round in 0..200 {
            let got = sys!(pread(shared.fd, shared.bytes.as_mut_ptr().cast(), 16, shared.start));
            if got != 16 || round > 0 && first != shared.bytes {
                return 2;
            }
            first = shared.bytes;
        }
        0
    }
    let mut shared = Shared { fd, other, start, bytes: [0; 16], word: [0; 4] };
    let mut stack = vec![0_u64; 8192];
    let top = stack.as_mut_ptr_range().end;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let pid = ok!(clone(child, top.cast(), flags, (&raw mut shared).cast()));
    (pid, shared.bytes)
}

/// See close_range(2): a descriptor table of its own.
fn a_thread_may_have_its_own_numbers() {
    const UNSHARE: u32 = 2;
    let start = start();
    let other = open("/bin/bash", libc::O_RDONLY);
    let mut known = [0_u8; 16];
    ok!(pread(other, known.as_mut_ptr().cast(), 16, start));
    for _ in 0..8 {
        let fd = file(start);
        let is_over = Arc::new(AtomicBool::new(false));
        let reader = keen_reader(fd, start, &is_over);
        let loner = thread::spawn(move || {
            for at in 0..200 {
                assert_eq!(words_at(fd, start, at, 1), [at as u32]);
            }
            ok!(syscall(libc::SYS_close_range, 1000, 1000, UNSHARE));
            assert_eq!(words_at(fd, start, 3, 1), [3]);
            ok!(dup2(other, fd));
            wait_for_reader();
            for _ in 0..200 {
                let mut bytes = [0_u8; 16];
                assert_eq!(ok!(pread(fd, bytes.as_mut_ptr().cast(), 16, start)), 16);
                assert_eq!(bytes, known);
            }
        });
        loner.join().unwrap();
        is_over.store(true, SeqCst);
        reader.join().unwrap();
        assert_eq!(next_words(fd, 2), [0, 1]);
        ok!(close(fd));
    }
}

/// See unix(7): who gets it shares the position.
fn a_descriptor_is_passed_on() {
    let start = start();
    let mut ends = [0; 2];
    ok!(socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, ends.as_mut_ptr()));
    for round in 0..20 {
        let fd = file(start);
        assert_eq!(next_words(fd, 9), run_of(0, 9));
        send_descriptor(ends[0], fd);
        assert_eq!(next_words(fd, 9), run_of(9, 9));
        let other = receive_descriptor(ends[1]);
        let mut at = 18;
        for reader in [other, fd, other, other, fd] {
            assert_eq!(next_words(reader, 5), run_of(at, 5));
            at += 5;
        }
        let first = if round % 2 == 0 { fd } else { other };
        ok!(close(first));
        let rest = fd + other - first;
        for _ in 0..100 {
            assert_eq!(next_words(rest, 5), run_of(at, 5));
            at += 5;
        }
        ok!(close(rest));
    }
}

/// More than any kernel lends to one process.
fn many_files_at_once() {
    let start = start();
    let files: Vec<i32> = (0..70).map(|_| open(FILE, libc::O_RDONLY)).collect();
    for (number, fd) in files.iter().enumerate() {
        ok!(lseek(*fd, start + 4 * number as i64, libc::SEEK_SET));
    }
    for round in 0..120 {
        for (number, fd) in files.iter().enumerate() {
            assert_eq!(next_words(*fd, 2), run_of(number + 2 * round, 2));
        }
    }
    for round in 0..6 {
        // Every other one anew, under the numbers of others.
        for fd in files.iter().skip(round % 2).step_by(2) {
            ok!(close(*fd));
        }
        for _ in files.iter().skip(round % 2).step_by(2) {
            let fd = open(FILE, libc::O_RDONLY);
            ok!(lseek(fd, start + 4 * i64::from(fd), libc::SEEK_SET));
            for at in 0..40 {
                assert_eq!(next_words(fd, 1), [(fd + at) as u32]);
            }
        }
        for fd in &files {
            assert_eq!(words_at(*fd, start, 77, 3), [77, 78, 79]);
        }
    }
}
