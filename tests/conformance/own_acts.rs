//! Locks and writes of a process that a kernel may let it make on its own, until somebody looks: he does so while the process computes,
//! without any call in between.

use std::mem::zeroed;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

use crate::support::{
    enter_new_directory, errno, exit_code, in_child, leave, ok, open, pipe, read_some, shared_word,
    signal_of, sleep_ms, sys, tests, wait_for,
};

tests! {
    locks_of_a_computing_process_exclude, a_waiter_gets_the_lock_of_who_computed, locks_end_with_a_killed_process,
    locks_go_when_another_descriptor_is_closed, a_child_has_none_of_its_parents_locks,
    many_locks_are_kept_apart, bytes_of_a_computing_process_are_there, later_bytes_are_in_a_mapping,
    a_file_is_cut_meanwhile, the_time_is_that_of_the_write, bytes_of_a_killed_process_stay,
    a_limit_holds_at_once, appending_begins_at_once, writers_take_turns, watchers_hear_of_it,
    bytes_are_in_order_after_a_fork, holes_read_as_zeros, attributes_are_those_of_now,
}

/// More often than a kernel may want to see something before it lets a process do it on its own.
const OFTEN: i64 = 200;

fn lock(fd: i32, command: i32, kind: i32, start: i64, length: i64) -> i32 {
    // SAFETY: all zeros is a valid struct flock.
    let mut lock: libc::flock = unsafe { zeroed() };
    (lock.l_type, lock.l_start, lock.l_len) = (kind as i16, start, length);
    sys!(fcntl(fd, command, &lock))
}

fn set(fd: i32, kind: i32, start: i64, length: i64) -> i32 {
    lock(fd, libc::F_SETLK, kind, start, length)
}

fn take_often(fd: i32) {
    for _ in 0..OFTEN {
        assert_eq!(set(fd, libc::F_WRLCK, 0, 10), 0);
        assert_eq!(set(fd, libc::F_UNLCK, 0, 0), 0);
    }
}

fn put(fd: i32, bytes: &[u8], at: i64) {
    let count = ok!(pwrite(fd, bytes.as_ptr().cast(), bytes.len(), at));
    assert_eq!(usize::try_from(count), Ok(bytes.len()));
}

fn put_often(fd: i32) {
    for n in 0..OFTEN {
        put(fd, &[n as u8; 8], n % 16);
    }
}

/// Without a call, not even one that asks for the time; but not for ever.
fn compute_until(word: &AtomicU32, value: u32) {
    for _ in 0..300_000_000 {
        if word.load(SeqCst) >= value {
            return;
        }
        std::hint::spin_loop();
    }
    sys!(_exit(99));
}

/// The other's side.
fn wait_until(word: &AtomicU32, value: u32) {
    let start = Instant::now();
    while word.load(SeqCst) < value {
        assert!(start.elapsed() < Duration::from_secs(20), "the child does not come");
        sleep_ms(1);
    }
}

/// A child that acts, and computes until the word is 2; then it goes on.
fn computing(word: &'static AtomicU32, act: impl FnOnce(), rest: impl FnOnce() -> i32) -> i32 {
    in_child(|| {
        act();
        word.store(1, SeqCst);
        compute_until(word, 2);
        rest()
    })
}

fn finish(word: &AtomicU32, child: i32) {
    word.store(2, SeqCst);
    assert_eq!(exit_code(wait_for(child)), 0);
}

fn holder(word: &'static AtomicU32, rest: impl FnOnce(i32) -> i32) -> i32 {
    let fd = open("f", libc::O_RDWR | libc::O_CREAT);
    let act = || {
        take_often(fd);
        assert_eq!(set(fd, libc::F_WRLCK, 5, 10), 0);
        assert_eq!(set(fd, libc::F_RDLCK, 20, 10), 0);
        // The last of them is not known to be made by a call.
        for _ in 0..5 {
            assert_eq!(set(fd, libc::F_WRLCK, 40, 10), 0);
            assert_eq!(set(fd, libc::F_UNLCK, 40, 10), 0);
        }
    };
    let child = computing(word, act, || rest(fd));
    ok!(close(fd));
    child
}

fn locks_of_a_computing_process_exclude() {
    let (directory, word) = (enter_new_directory(), shared_word());
    let child = holder(word, |_| 0);
    wait_until(word, 1);
    let fd = open("f", libc::O_RDWR);
    // SAFETY: all zeros is a valid struct flock.
    let mut asked: libc::flock = unsafe { zeroed() };
    asked.l_type = libc::F_WRLCK as i16;
    ok!(fcntl(fd, libc::F_GETLK, &mut asked));
    let told = (asked.l_type, asked.l_start, asked.l_len, asked.l_pid);
    assert_eq!(told, (libc::F_WRLCK as i16, 5, 10, child));
    assert_eq!((set(fd, libc::F_RDLCK, 14, 1), errno()), (-1, libc::EAGAIN));
    assert_eq!((set(fd, libc::F_WRLCK, 29, 1), errno()), (-1, libc::EAGAIN));
    assert_eq!(set(fd, libc::F_RDLCK, 29, 1), 0);
    assert_eq!(set(fd, libc::F_WRLCK, 15, 5), 0);
    assert_eq!((lock(fd, libc::F_OFD_SETLK, libc::F_WRLCK, 0, 6), errno()), (-1, libc::EAGAIN));
    finish(word, child);
    assert_eq!(set(fd, libc::F_WRLCK, 0, 0), 0);
    leave(&directory);
}

fn a_waiter_gets_the_lock_of_who_computed() {
    let (directory, word) = (enter_new_directory(), shared_word());
    let child = holder(word, |fd| {
        // It goes on as before: others are told though.
        sleep_ms(60);
        let _ = set(fd, libc::F_UNLCK, 5, 10);
        for _ in 0..OFTEN {
            assert_eq!(set(fd, libc::F_WRLCK, 100, 10), 0);
            assert_eq!(set(fd, libc::F_UNLCK, 100, 10), 0);
        }
        word.store(3, SeqCst);
        compute_until(word, 4);
        0
    });
    wait_until(word, 1);
    let waiter = in_child(|| {
        let fd = open("f", libc::O_RDWR);
        lock(fd, libc::F_SETLKW, libc::F_WRLCK, 0, 10)
    });
    sleep_ms(30);
    word.store(2, SeqCst);
    wait_until(word, 3);
    assert_eq!(exit_code(wait_for(waiter)), 0);
    word.store(4, SeqCst);
    assert_eq!(exit_code(wait_for(child)), 0);
    leave(&directory);
}

fn locks_end_with_a_killed_process() {
    let (directory, word) = (enter_new_directory(), shared_word());
    let child = holder(word, |_| 0);
    wait_until(word, 1);
    ok!(kill(child, libc::SIGKILL));
    assert_eq!(signal_of(wait_for(child)), libc::SIGKILL);
    let fd = open("f", libc::O_RDWR);
    assert_eq!(set(fd, libc::F_WRLCK, 0, 0), 0);
    leave(&directory);
}

fn locks_go_when_another_descriptor_is_closed() {
    let (directory, word) = (enter_new_directory(), shared_word());
    let fd = open("f", libc::O_RDWR | libc::O_CREAT);
    let act = || {
        let other = open("f", libc::O_RDONLY);
        take_often(fd);
        assert_eq!(set(fd, libc::F_WRLCK, 0, 10), 0);
        ok!(close(other));
        assert_eq!(set(fd, libc::F_WRLCK, 30, 10), 0);
    };
    let child = computing(word, act, || 0);
    wait_until(word, 1);
    assert_eq!(set(fd, libc::F_WRLCK, 0, 30), 0);
    assert_eq!((set(fd, libc::F_WRLCK, 0, 31), errno()), (-1, libc::EAGAIN));
    finish(word, child);
    leave(&directory);
}

fn a_child_has_none_of_its_parents_locks() {
    let directory = enter_new_directory();
    let fd = open("f", libc::O_RDWR | libc::O_CREAT);
    take_often(fd);
    assert_eq!(set(fd, libc::F_WRLCK, 0, 10), 0);
    let child = in_child(|| {
        assert_eq!((set(fd, libc::F_WRLCK, 0, 1), errno()), (-1, libc::EAGAIN));
        assert_eq!(set(fd, libc::F_WRLCK, 10, 1), 0);
        // Those of the parent stay.
        ok!(close(fd));
        0
    });
    assert_eq!(exit_code(wait_for(child)), 0);
    take_often(fd);
    assert_eq!(set(fd, libc::F_WRLCK, 10, 1), 0);
    leave(&directory);
}

fn many_locks_are_kept_apart() {
    let (directory, word) = (enter_new_directory(), shared_word());
    let fd = open("f", libc::O_RDWR | libc::O_CREAT);
    let act = || {
        take_often(fd);
        for n in 0..OFTEN {
            assert_eq!(set(fd, libc::F_WRLCK, 4 * n, 2), 0);
        }
        // The middle of some.
        assert_eq!(set(fd, libc::F_UNLCK, 41, 40), 0);
    };
    let child = computing(word, act, || 0);
    wait_until(word, 1);
    for n in 0..OFTEN {
        assert_eq!(set(fd, libc::F_WRLCK, 4 * n + 2, 2), 0, "{n}");
        let free = (11..=20).contains(&n);
        assert_eq!(set(fd, libc::F_WRLCK, 4 * n, 1) == 0, free, "{n}");
    }
    assert_eq!(set(fd, libc::F_WRLCK, 41, 3), 0);
    assert_eq!(set(fd, libc::F_WRLCK, 81, 1), -1);
    finish(word, child);
    leave(&directory);
}

/// A child that writes OFTEN, then `tail` at 100.
fn writer(word: &'static AtomicU32, tail: &'static [u8], rest: impl FnOnce(i32) -> i32) -> i32 {
    let fd = open("f", libc::O_RDWR | libc::O_CREAT);
    let act = || {
        put_often(fd);
        put(fd, tail, 100);
        for _ in 0..10 {
            put(fd, b"x", 50);
        }
    };
    let child = computing(word, act, || rest(fd));
    ok!(close(fd));
    child
}

fn bytes_of_a_computing_process_are_there() {
    let (directory, word) = (enter_new_directory(), shared_word());
    let child = writer(word, b"the end", |_| 0);
    wait_until(word, 1);
    assert_eq!(std::fs::metadata("f").expect("it is there").len(), 107);
    let bytes = std::fs::read("f").expect("it is there");
    assert_eq!(&bytes[100..], b"the end");
    assert_eq!(bytes[(OFTEN % 16) as usize - 1], (OFTEN - 1) as u8);
    finish(word, child);
    leave(&directory);
}

fn later_bytes_are_in_a_mapping() {
    let (directory, word) = (enter_new_directory(), shared_word());
    let child = writer(word, &[1; 5000], |fd| {
        for n in 0..OFTEN {
            put(fd, &n.to_le_bytes(), 8 * n);
        }
        word.store(3, SeqCst);
        compute_until(word, 4);
        0
    });
    wait_until(word, 1);
    let fd = open("f", libc::O_RDWR);
    let at = sys!(mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, fd, 0));
    assert_ne!(at, libc::MAP_FAILED);
    let at = at.cast::<i64>().cast_const();
    // SAFETY: within the mapping, which nobody makes smaller.
    let word_at = |n: i64| unsafe { at.offset(n as isize).read_volatile() };
    assert_eq!(word_at(OFTEN), 0x0101_0101_0101_0101);
    word.store(2, SeqCst);
    compute_until(word, 3);
    assert_eq!(word_at(OFTEN - 1), OFTEN - 1);
    word.store(4, SeqCst);
    assert_eq!(exit_code(wait_for(child)), 0);
    leave(&directory);
}

fn a_file_is_cut_meanwhile() {
    let (directory, word) = (enter_new_directory(), shared_word());
    let child = writer(word, b"the end", |fd| {
        put(fd, b"x", 20);
        0
    });
    wait_until(word, 1);
    let fd = open("f", libc::O_RDWR);
    ok!(ftruncate(fd, 4));
    finish(word, child);
    let bytes = std::fs::read("f").expect("it is there");
    assert_eq!((bytes.len(), &bytes[4..20], bytes[20]), (21, &[0; 16][..], b'x'));
    leave(&directory);
}

fn the_time_is_that_of_the_write() {
    let (directory, word) = (enter_new_directory(), shared_word());
    let child = writer(word, b"the end", |_| 0);
    wait_until(word, 1);
    let before = SystemTime::now();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(120) {
        std::hint::spin_loop();
    }
    let meta = std::fs::metadata("f").expect("it is there");
    let modified = meta.modified().expect("there is one");
    assert!(
        modified <= before + Duration::from_millis(20),
        "late by {:?}",
        modified.duration_since(before)
    );
    assert!(modified + Duration::from_secs(5) > before);
    finish(word, child);
    leave(&directory);
}

fn bytes_of_a_killed_process_stay() {
    let (directory, word) = (enter_new_directory(), shared_word());
    let child = writer(word, b"the end", |_| 0);
    wait_until(word, 1);
    ok!(kill(child, libc::SIGKILL));
    assert_eq!(signal_of(wait_for(child)), libc::SIGKILL);
    assert_eq!(&std::fs::read("f").expect("it is there")[100..], b"the end");
    leave(&directory);
}

fn a_limit_holds_at_once() {
    let (directory, word) = (enter_new_directory(), shared_word());
    let child = writer(word, b"the end", |fd| {
        sys!(signal(libc::SIGXFSZ, libc::SIG_IGN));
        put(fd, b"x", 49);
        i32::from(sys!(pwrite(fd, b"x".as_ptr().cast(), 1, 50)) != -1 || errno() != libc::EFBIG)
    });
    wait_until(word, 1);
    let limit = libc::rlimit { rlim_cur: 50, rlim_max: 50 };
    ok!(prlimit(child, libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut()));
    finish(word, child);
    leave(&directory);
}

fn appending_begins_at_once() {
    let (directory, word) = (enter_new_directory(), shared_word());
    let fd = open("f", libc::O_RDWR | libc::O_CREAT);
    let act = || {
        put_often(fd);
        put(fd, b"the end", 100);
        put(fd, b"x", 50);
    };
    let child = computing(word, act, || {
        put(fd, b"x", 0);
        0
    });
    wait_until(word, 1);
    ok!(fcntl(fd, libc::F_SETFL, libc::O_APPEND));
    finish(word, child);
    assert_eq!(&std::fs::read("f").expect("it is there")[100..], b"the endx");
    leave(&directory);
}

/// Each writes where the other has written before, and finds that there.
fn writers_take_turns() {
    let (directory, word) = (enter_new_directory(), shared_word());
    let turns = 60;
    let write_in_turn = |first: u32| {
        let file = std::fs::File::options().read(true).write(true).open("f").expect("it is there");
        for turn in (first..turns).step_by(2) {
            compute_until(word, turn);
            let mut last = [0; 4];
            if turn > 0 {
                file.read_exact_at(&mut last, 0).expect("it was written");
                assert_eq!(u32::from_le_bytes(last), turn - 1);
            }
            for n in 0..20 {
                file.write_all_at(&n.to_string().into_bytes(), 4).expect("there is room");
            }
            file.write_all_at(&turn.to_le_bytes(), 0).expect("there is room");
            word.store(turn + 1, SeqCst);
        }
    };
    std::fs::write("f", "").expect("the directory is ours");
    let child = in_child(|| {
        write_in_turn(1);
        0
    });
    write_in_turn(0);
    assert_eq!(exit_code(wait_for(child)), 0);
    leave(&directory);
}

fn watchers_hear_of_it() {
    let (directory, word) = (enter_new_directory(), shared_word());
    let child = writer(word, b"the end", |fd| {
        put(fd, b"x", 0);
        word.store(3, SeqCst);
        compute_until(word, 4);
        0
    });
    wait_until(word, 1);
    let watch = ok!(inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC));
    ok!(inotify_add_watch(watch, c"f".as_ptr(), libc::IN_MODIFY));
    word.store(2, SeqCst);
    wait_until(word, 3);
    assert!(!read_some(watch, 1024).is_empty());
    word.store(4, SeqCst);
    assert_eq!(exit_code(wait_for(child)), 0);
    leave(&directory);
}

fn bytes_are_in_order_after_a_fork() {
    let directory = enter_new_directory();
    let fd = open("f", libc::O_RDWR | libc::O_CREAT);
    put_often(fd);
    put(fd, b"aaaa", 0);
    let (read_end, write_end) = pipe();
    let child = in_child(|| {
        put_often(fd);
        put(fd, b"bb", 0);
        put(fd, b"c", 3);
        ok!(write(write_end, b"x".as_ptr().cast(), 1));
        0
    });
    read_some(read_end, 1);
    put(fd, b"d", 1);
    assert_eq!(exit_code(wait_for(child)), 0);
    put(fd, b"e", 2);
    let bytes = std::fs::read("f").expect("it is there");
    assert_eq!((&bytes[..2], bytes[2], bytes[3]), (&b"bd"[..], b'e', b'c'));
    leave(&directory);
}

fn holes_read_as_zeros() {
    let directory = enter_new_directory();
    let fd = open("f", libc::O_RDWR | libc::O_CREAT);
    put_often(fd);
    put(fd, &[7; 10_000], 3 * 4096 + 5);
    put(fd, b"x", 100_000);
    let bytes = std::fs::read("f").expect("it is there");
    assert_eq!(bytes.len(), 100_001);
    assert!(bytes[23..3 * 4096 + 5].iter().all(|byte| *byte == 0));
    assert!(bytes[3 * 4096 + 5..][..10_000].iter().all(|byte| *byte == 7));
    assert!(bytes[3 * 4096 + 10_005..100_000].iter().all(|byte| *byte == 0));
    ok!(ftruncate(fd, 3));
    put(fd, b"y", 10);
    let bytes = std::fs::read("f").expect("it is there");
    assert_eq!((bytes.len(), &bytes[3..]), (11, &b"\0\0\0\0\0\0\0y"[..]));
    leave(&directory);
}

fn attributes(fd: i32) -> libc::stat {
    // SAFETY: all zeros is a valid struct stat.
    let mut stat: libc::stat = unsafe { zeroed() };
    ok!(fstat(fd, &mut stat));
    stat
}

/// Whoever changes them: each change is one that the next fstat(2) sees, though the ones before were alike.
fn attributes_are_those_of_now() {
    let (directory, word) = (enter_new_directory(), shared_word());
    let changes: [(fn(i32), fn(&libc::stat) -> bool); 5] = [
        (
            |fd| {
                ok!(fchmod(fd, 0o600));
            },
            |stat| stat.st_mode & 0o777 == 0o600,
        ),
        (
            |_| {
                ok!(link(c"f".as_ptr(), c"g".as_ptr()));
            },
            |stat| stat.st_nlink == 2,
        ),
        (
            |fd| {
                ok!(ftruncate(fd, 5));
            },
            |stat| stat.st_size == 5,
        ),
        (|fd| put(fd, b"more", 5000), |stat| stat.st_size == 5004 && stat.st_blocks >= 8),
        (
            |_| {
                ok!(unlink(c"f".as_ptr()));
            },
            |stat| stat.st_nlink == 1,
        ),
    ];
    let fd = open("f", libc::O_RDWR | libc::O_CREAT);
    let child = in_child(|| {
        put_often(fd);
        for (turn, (_, is_seen)) in (0..).zip(&changes) {
            for size in 0..10 {
                put(fd, b"x", 6000 + size);
                assert_eq!(attributes(fd).st_size, 6001 + size);
                assert_eq!(attributes(fd).st_size, 6001 + size);
            }
            ok!(ftruncate(fd, 20));
            for _ in 0..10 {
                assert!(!is_seen(&attributes(fd)));
            }
            word.store(2 * turn + 1, SeqCst);
            compute_until(word, 2 * turn + 2);
            assert!(is_seen(&attributes(fd)), "change {turn}");
        }
        0
    });
    for (turn, (change, _)) in (0..).zip(&changes) {
        wait_until(word, 2 * turn + 1);
        change(fd);
        word.store(2 * turn + 2, SeqCst);
    }
    assert_eq!(exit_code(wait_for(child)), 0);
    leave(&directory);
}
