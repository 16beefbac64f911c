//! Walks through a directory by names, so much in order that a kernel may open, read and list ahead: what opens, reads, listings and
//! numbers are then.

use std::collections::BTreeSet;
use std::ffi::CStr;

use sandbox_tests::names::{DIRS, content};

use crate::names_tree::{
    entries, lead, names_in, open_at, open_dir, read_all, some_entries, stat_at, stat_of, tree,
    walk,
};
use crate::support::{errno, exit_code, fails, in_child, ok, read_some, sys, tests, wait_for};

tests! {
    reads_of_all_sizes, listings_of_all_sizes, numbers_are_the_lowest, a_number_again_and_again, many_at_once,
    children_walk_on, what_exec_is_given, a_thread_walks_too, what_is_refused, memory_that_ends, watches_hear,
}

pub const PLAIN: i32 = libc::O_RDONLY | libc::O_CLOEXEC;

/// What open(2) adds to all flags.
const LARGEFILE: i32 = 0o100_000;

/// The tree, walked often, and a descriptor of it.
fn known(name: &str) -> i32 {
    // Whatever our maker has left open.
    ok!(syscall(libc::SYS_close_range, 3, u32::MAX, 0));
    let path = tree(name);
    for _ in 0..3 {
        walk(libc::AT_FDCWD, &path);
    }
    open_dir(libc::AT_FDCWD, &path)
}

fn reads_of_all_sizes() {
    let root = known("sizes");
    for size in [1, 7, 512, 4096, 10_240, 65_536, 1] {
        for dir in DIRS {
            let fd = open_dir(root, dir);
            for name in names_in(fd).iter().filter(|name| name.as_str() != "inner") {
                let expected = content(&format!("{dir}/{name}"));
                if size < 512 && expected.len() > 8000 {
                    continue;
                }
                let before = stat_at(fd, name).expect("it is there");
                let file = open_at(fd, name, PLAIN).expect("it may be read");
                assert_eq!(stat_of(file), before);
                assert_eq!((before.size, before.links), (expected.len() as i64, 1));
                assert_eq!(before.mode & libc::S_IFMT, libc::S_IFREG);
                assert_eq!(ok!(fcntl(file, libc::F_GETFD)), libc::FD_CLOEXEC);
                assert_eq!(ok!(fcntl(file, libc::F_GETFL)), LARGEFILE);
                assert!(read_all(file, size) == expected, "{dir}/{name}");
                assert_eq!(ok!(lseek(file, 0, libc::SEEK_CUR)), before.size);
                assert_eq!(ok!(lseek(file, 1, libc::SEEK_SET)), 1);
                assert!(read_all(file, size).as_slice() == expected.get(1..).unwrap_or_default());
                let mut some = [0; 5];
                let count = ok!(pread(file, some.as_mut_ptr().cast(), 5, before.size / 2));
                assert!(expected[expected.len() / 2..].starts_with(&some[..count as usize]));
                assert_eq!(stat_at(fd, name), Ok(before));
                ok!(close(file));
                fails!(libc::EBADF, fstat(file, std::ptr::null_mut()));
            }
            ok!(close(fd));
        }
    }
}

fn listings_of_all_sizes() {
    let root = known("listings");
    for room in [64, 80, 128, 1000, 4096, 32_768, 64] {
        for dir in DIRS {
            let before = stat_at(root, dir).expect("it is there");
            let flags = libc::O_DIRECTORY | libc::O_NONBLOCK;
            let fd = open_at(root, dir, flags).expect("it is there");
            assert_eq!(stat_of(fd), before);
            assert_eq!(ok!(fcntl(fd, libc::F_GETFL)), flags | LARGEFILE);
            assert_eq!(ok!(fcntl(fd, libc::F_GETFD)), 0);
            let all = entries(fd, room);
            let found: BTreeSet<String> = all.iter().map(|entry| entry.name.clone()).collect();
            let mut expected: BTreeSet<String> = (0..14).map(|at| format!("f{at:02}")).collect();
            expected.extend([".".into(), "..".into()]);
            expected
                .extend(DIRS.contains(&format!("{dir}/inner").as_str()).then(|| "inner".into()));
            assert_eq!((found, all.len()), (expected.clone(), expected.len()));
            ok!(lseek(fd, 0, libc::SEEK_SET));
            assert_eq!(entries(fd, room), all);
            // From where an entry says that the next is.
            for at in [0, 3, 9] {
                ok!(lseek(fd, all[at].next, libc::SEEK_SET));
                assert_eq!(some_entries(fd, room).expect("there is room")[0], all[at + 1]);
                ok!(lseek(fd, 0, libc::SEEK_SET));
                assert_eq!(some_entries(fd, 80).expect("there is room")[0], all[0]);
            }
            // A copy has the same position.
            let copy = ok!(dup(fd));
            ok!(lseek(copy, 0, libc::SEEK_SET));
            let mut both = some_entries(fd, 80).expect("there is room");
            let first = both.last().expect("one").next;
            assert_eq!(ok!(lseek(copy, 0, libc::SEEK_CUR)), first);
            both.extend(some_entries(copy, 80).expect("there is room"));
            both.extend(entries(fd, room));
            assert_eq!(both, all);
            ok!(close(copy));
            for entry in all.iter().filter(|entry| !entry.name.starts_with('.')) {
                let seen = stat_at(fd, &entry.name).expect("it is there");
                assert_eq!(seen.ino, entry.ino);
                assert_eq!(seen.mode & libc::S_IFMT == libc::S_IFDIR, entry.is_dir);
            }
            ok!(close(fd));
        }
    }
}

/// A directory, and its files in their order.
fn known_dir(root: i32, dir: &str) -> (i32, Vec<String>) {
    let fd = open_dir(root, dir);
    let mut names = names_in(fd);
    names.retain(|name| name != "inner");
    (fd, names)
}

fn numbers_are_the_lowest() {
    let root = known("numbers");
    for (round, dir) in DIRS.iter().cycle().take(24).enumerate() {
        let (fd, names) = known_dir(root, dir);
        lead(fd, &names[..5]);
        let open = |at: usize| open_at(fd, &names[at], PLAIN).expect("it may be read");
        let is = |file: i32, at: usize, from: usize| {
            let expected = content(&format!("{dir}/{}", names[at]));
            assert!(read_all(file, 4096).as_slice() == expected.get(from..).unwrap_or_default());
        };
        let first: Vec<i32> = (5..9).map(open).collect();
        assert_eq!(first, (first[0]..first[0] + 4).collect::<Vec<_>>());
        let null = crate::support::open("/dev/null", libc::O_RDONLY);
        assert_eq!(null, first[3] + 1);
        ok!(close(first[2]));
        ok!(close(first[1]));
        assert_eq!((open(9), open(10)), (first[1], first[2]));
        assert_eq!(open(11), null + 1);
        // Over one of them, and one of them over another.
        read_some(first[0], 3);
        if round % 2 == 0 {
            ok!(dup2(null, first[3]));
            assert_eq!(read_some(first[3], 8), b"");
            ok!(dup2(first[0], null));
            is(null, 5, 3);
            assert_eq!(read_some(first[0], 8), b"");
        } else {
            ok!(dup2(first[0], first[3]));
            is(first[3], 5, 3);
            assert_eq!(read_some(first[0], 8), b"");
        }
        is(first[1], 9, 0);
        is(first[2], 10, 0);
        ok!(lseek(null + 1, 2, libc::SEEK_SET));
        is(null + 1, 11, 2);
        let last = open(12);
        ok!(syscall(libc::SYS_close_range, first[0], null + 1, 0));
        assert_eq!(last, null + 2);
        for gone in first[0]..=null + 1 {
            assert_eq!((sys!(fcntl(gone, libc::F_GETFD)), errno()), (-1, libc::EBADF));
        }
        assert_eq!(open(13), first[0]);
        is(last, 12, 0);
        is(first[0], 13, 0);
        for open in [first[0], last, fd] {
            ok!(close(open));
        }
    }
}

/// One number means one file after the other, each with a position of its own.
fn a_number_again_and_again() {
    let root = known("again");
    for dir in DIRS.iter().cycle().take(60) {
        let (fd, names) = known_dir(root, dir);
        let mut numbers = BTreeSet::new();
        for (at, name) in names.iter().enumerate() {
            let file = open_at(fd, name, PLAIN).expect("it may be read");
            numbers.insert(file);
            let expected = content(&format!("{dir}/{name}"));
            let most = [3, 4096, 70_000, 1][at % 4];
            let got = read_some(file, most);
            assert!(expected.starts_with(&got) && got.len() == most.min(expected.len()), "{name}");
            if at % 3 == 0 {
                assert_eq!(ok!(lseek(file, 0, libc::SEEK_CUR)), got.len() as i64);
            }
            ok!(close(file));
        }
        assert_eq!(numbers.len(), 1);
        ok!(close(fd));
    }
}

fn many_at_once() {
    let root = known("many");
    for round in 0..6 {
        let mut all = Vec::new();
        for dir in DIRS {
            let (fd, names) = known_dir(root, dir);
            for name in names {
                let file = open_at(fd, &name, PLAIN).expect("it may be read");
                let expected = content(&format!("{dir}/{name}"));
                assert!(expected.starts_with(&read_some(file, 10 + all.len())));
                all.push((file, expected));
            }
            ok!(close(fd));
        }
        // In another order than they were opened.
        for index in 0..all.len() {
            let (file, expected) = &all[(index * 31 + round) % all.len()];
            let at = ok!(lseek(*file, 0, libc::SEEK_CUR)) as usize;
            assert!(read_all(*file, 5000) == expected[at..]);
        }
        for (file, _) in all {
            ok!(close(file));
        }
    }
}

fn children_walk_on() {
    let root = known("children");
    for (round, dir) in DIRS.iter().cycle().take(30).enumerate() {
        let (fd, names) = known_dir(root, dir);
        lead(fd, &names[..3]);
        let file = open_at(fd, &names[3], PLAIN).expect("it may be read");
        let expected = content(&format!("{dir}/{}", names[3]));
        let head = read_some(file, 2).len();
        let go_on = || {
            for name in &names[4..] {
                let file = open_at(fd, name, PLAIN).expect("it may be read");
                assert!(read_all(file, 4096) == content(&format!("{dir}/{name}")));
                ok!(close(file));
            }
            open_at(fd, &names[5], PLAIN).expect("it may be read")
        };
        let child = in_child(|| {
            let own = go_on();
            assert_eq!(own, file + 1);
            if round % 2 == 0 { read_some(file, 40).len() as i32 } else { 0 }
        });
        let own = go_on();
        assert_eq!(own, file + 1);
        let by_child = exit_code(wait_for(child)) as usize;
        let from = (head + by_child).min(expected.len());
        assert!(read_all(file, 512) == expected[from..], "{by_child}");
        for open in [own, file, fd] {
            ok!(close(open));
        }
    }
}

/// What a program that was executed finds: whether this number is open, and where it stands.
pub fn after_exec(fd: i32, closed: i32, at: i32) -> bool {
    let is_closed = sys!(fcntl(closed, libc::F_GETFD)) == -1;
    let byte = ok!(lseek(fd, 0, libc::SEEK_CUR)) == i64::from(at) && read_some(fd, 1).len() == 1;
    is_closed && byte
}

/// By vfork(2).
fn spawn(path: &CStr, args: &[*const libc::c_char]) -> i32 {
    let mut pid = 0;
    let (args, none) = (args.as_ptr().cast(), std::ptr::null());
    let (actions, attributes) = (std::ptr::null(), std::ptr::null());
    assert_eq!(sys!(posix_spawn(&mut pid, path.as_ptr(), actions, attributes, args, none)), 0);
    pid
}

fn what_exec_is_given() {
    let root = known("exec");
    let own = crate::exec::own_path();
    for (round, dir) in DIRS.iter().cycle().take(12).enumerate() {
        let (fd, names) = known_dir(root, dir);
        lead(fd, &names[..4]);
        let large: Vec<&String> =
            names.iter().filter(|name| content(&format!("{dir}/{name}")).len() > 20).collect();
        let kept = open_at(fd, large[0], libc::O_RDONLY).expect("it may be read");
        let closed = open_at(fd, large[1], PLAIN).expect("it may be read");
        read_some(kept, 5);
        let words = ["conformance", "helper", "names"].map(crate::support::c);
        let numbers = [kept, closed, 5].map(|number| crate::support::c(&number.to_string()));
        let mut args: Vec<_> = words.iter().chain(&numbers).map(|text| text.as_ptr()).collect();
        args.push(std::ptr::null());
        let child = if round % 2 == 0 {
            in_child(|| sys!(execv(own.as_ptr(), args.as_ptr())))
        } else {
            spawn(&own, &args)
        };
        assert_eq!(exit_code(wait_for(child)), 0);
        assert_eq!(ok!(lseek(kept, 0, libc::SEEK_CUR)), 6);
        let expected = content(&format!("{dir}/{}", large[1]));
        assert!(read_all(closed, 4096) == expected);
        for open in [kept, closed, fd] {
            ok!(close(open));
        }
    }
}

fn a_thread_walks_too() {
    let root = known("threads");
    for dir in DIRS.iter().cycle().take(18) {
        let (fd, names) = known_dir(root, dir);
        lead(fd, &names[..4]);
        let shared = open_at(fd, &names[4], PLAIN).expect("it may be read");
        let half = read_some(shared, 50).len();
        let through = move |names: Vec<String>| {
            for name in names {
                let file = open_at(fd, &name, PLAIN).expect("it may be read");
                assert!(read_all(file, 4096) == content(&format!("{dir}/{name}")));
                ok!(close(file));
            }
        };
        let theirs = names.clone();
        let thread = std::thread::spawn(move || through(theirs));
        through(names[5..].to_vec());
        thread.join().expect("it asserts what we do");
        through(names[5..].to_vec());
        assert!(read_all(shared, 512) == content(&format!("{dir}/{}", names[4]))[half..]);
        ok!(close(shared));
        ok!(close(fd));
    }
}

fn what_is_refused() {
    let root = known("refused");
    for dir in DIRS.iter().cycle().take(18) {
        let (fd, names) = known_dir(root, dir);
        let expected = |at: usize| content(&format!("{dir}/{}", names[at]));
        lead(fd, &names[..4]);
        assert_eq!(open_at(fd, &names[4], libc::O_DIRECTORY), Err(libc::ENOTDIR));
        assert_eq!(open_at(fd, &format!("{}/", names[4]), PLAIN), Err(libc::ENOTDIR));
        assert_eq!(open_at(fd, &names[5], libc::O_CREAT | libc::O_EXCL), Err(libc::EEXIST));
        assert_eq!(open_at(fd, "none", PLAIN), Err(libc::ENOENT));
        assert_eq!(stat_at(fd, "none"), Err(libc::ENOENT));
        fails!(libc::EFAULT, openat(fd, std::ptr::without_provenance(1), PLAIN));
        let path = open_at(fd, &names[5], libc::O_PATH).expect("it is there");
        fails!(libc::EBADF, read(path, [0_u8; 4].as_mut_ptr().cast(), 4));
        ok!(close(path));
        for flags in [libc::O_NOFOLLOW, libc::O_APPEND, libc::O_RDWR, libc::O_NOATIME] {
            let file = open_at(fd, &names[6], flags).expect("it is ours");
            assert_eq!(ok!(fcntl(file, libc::F_GETFL)), flags | LARGEFILE);
            assert!(read_all(file, 4096) == expected(6));
            ok!(close(file));
        }
        lead(fd, &names[3..7]);
        let file = open_at(fd, &names[7], PLAIN).expect("it may be read");
        let whole = expected(7);
        fails!(libc::EBADF, write(file, [0_u8; 4].as_ptr().cast(), 4));
        fails!(libc::EINVAL, lseek(file, -1, libc::SEEK_SET));
        fails!(libc::EINVAL, pread(file, [0_u8; 4].as_mut_ptr().cast(), 4, -1));
        assert_eq!(ok!(read(file, std::ptr::without_provenance_mut(8), 0)), 0);
        if !whole.is_empty() {
            fails!(libc::EFAULT, read(file, std::ptr::without_provenance_mut(8), 4));
            assert_eq!(ok!(lseek(file, 0, libc::SEEK_CUR)), 0);
        }
        fails!(libc::EFAULT, fstat(file, std::ptr::without_provenance_mut(8)));
        fails!(libc::ENOTDIR, syscall(libc::SYS_getdents64, file, [0_u64; 64].as_mut_ptr(), 512));
        assert_eq!(ok!(lseek(file, 0, libc::SEEK_END)), whole.len() as i64);
        assert_eq!(ok!(lseek(file, 1 << 40, libc::SEEK_SET)), 1 << 40);
        assert_eq!(read_some(file, 8), b"");
        ok!(lseek(file, 0, libc::SEEK_SET));
        let mut all = vec![0_u8; 1 << 20];
        assert_eq!(ok!(read(file, all.as_mut_ptr().cast(), all.len())) as usize, whole.len());
        ok!(close(file));
        let folder = open_at(root, dir, libc::O_RDONLY).expect("it is there");
        fails!(libc::EISDIR, read(folder, all.as_mut_ptr().cast(), 4));
        fails!(libc::EISDIR, pread(folder, all.as_mut_ptr().cast(), 4, 0));
        assert_eq!(some_entries(folder, 16), Err(libc::EINVAL));
        fails!(libc::EFAULT, syscall(libc::SYS_getdents64, folder, 8, 512));
        assert_eq!(open_at(root, dir, libc::O_RDWR), Err(libc::EISDIR));
        assert_eq!(entries(folder, 512).len(), entries_of(root, dir));
        ok!(close(folder));
        ok!(close(fd));
    }
}

fn entries_of(root: i32, dir: &str) -> usize {
    let fd = open_dir(root, dir);
    let count = entries(fd, 4096).len();
    ok!(close(fd));
    count
}

/// What fits before memory ends is given, and the rest by the next call.
fn memory_that_ends() {
    const PAGE: usize = 4096;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let start = sys!(mmap(std::ptr::null_mut(), 2 * PAGE, protection, flags, -1, 0));
    ok!(munmap(start.wrapping_byte_add(PAGE), PAGE));
    let before_end = |left: usize| start.wrapping_byte_add(PAGE - left);
    let root = known("ends");
    for dir in DIRS.iter().cycle().take(18) {
        let (fd, names) = known_dir(root, dir);
        lead(fd, &names[..4]);
        ok!(lseek(fd, 0, libc::SEEK_SET));
        let all = entries(fd, 4096);
        ok!(close(fd));
        let fd = open_dir(root, dir);
        fails!(libc::EFAULT, syscall(libc::SYS_getdents64, fd, before_end(8), 4096));
        fails!(libc::EFAULT, syscall(libc::SYS_getdents64, fd, before_end(0), 4096));
        let count = ok!(syscall(libc::SYS_getdents64, fd, before_end(80), 4096)) as usize;
        assert!((24..=80).contains(&count));
        let rest = entries(fd, 4096);
        assert!(all.ends_with(&rest) && (1..=3).contains(&(all.len() - rest.len())));
        lead(fd, &names[..4]);
        let file = open_at(fd, &names[4], PLAIN).expect("it may be read");
        let expected = content(&format!("{dir}/{}", names[4]));
        if expected.len() > 64 {
            assert_eq!(ok!(read(file, before_end(8).cast(), 64)), 8);
            fails!(libc::EFAULT, read(file, before_end(0).cast(), 64));
            assert!(read_all(file, 4096) == expected[8..]);
        }
        fails!(libc::EFAULT, fstat(file, before_end(8).cast()));
        // A name that ends with memory, and one that does not.
        let name = names[5].as_bytes();
        // SAFETY: within the mapping.
        unsafe {
            before_end(4).cast::<[u8; 4]>().write([name[0], name[1], name[2], 0]);
        }
        let other = ok!(openat(fd, before_end(4).cast(), PLAIN));
        assert_eq!(Ok(stat_of(other)), stat_at(fd, &names[5]));
        // SAFETY: as above.
        unsafe {
            before_end(1).cast::<u8>().write(b'x');
        }
        fails!(libc::EFAULT, openat(fd, before_end(4).cast(), PLAIN));
        for open in [other, file, fd] {
            ok!(close(open));
        }
    }
}

/// Masks and names of what a watch heard.
fn heard(watch: i32) -> Vec<(u32, String)> {
    let mut bytes = vec![0_u8; 1 << 16];
    let count = sys!(read(watch, bytes.as_mut_ptr().cast(), bytes.len()));
    let mut left = &bytes[..usize::try_from(count).unwrap_or(0)];
    let mut all = Vec::new();
    while !left.is_empty() {
        let word = |at: usize| u32::from_ne_bytes(left[at..at + 4].try_into().expect("4 bytes"));
        let len = 16 + word(12) as usize;
        let name =
            left[16..len].iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte));
        all.push((word(4), name.collect()));
        left = &left[len..];
    }
    all
}

/// A watch on what lies ready hears of what is opened from now on, and of nothing else.
fn watches_hear() {
    let path = tree("watched");
    let root = known("watched");
    for dir in DIRS.iter().cycle().take(12) {
        let (fd, names) = known_dir(root, dir);
        lead(fd, &names[..5]);
        let watch = ok!(inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC));
        let mask = libc::IN_OPEN | libc::IN_ACCESS | libc::IN_CLOSE_NOWRITE;
        let watched = crate::support::c(&format!("{path}/{dir}"));
        ok!(inotify_add_watch(watch, watched.as_ptr(), mask));
        assert_eq!(heard(watch), []);
        for name in &names[5..9] {
            let file = open_at(fd, name, PLAIN).expect("it may be read");
            let got = read_some(file, 4096).len();
            ok!(close(file));
            let mut masks = vec![libc::IN_OPEN];
            masks.extend((got > 0).then_some(libc::IN_ACCESS));
            masks.push(libc::IN_CLOSE_NOWRITE);
            let expected: Vec<_> = masks.into_iter().map(|mask| (mask, name.clone())).collect();
            let mut events = heard(watch);
            events.retain(|(mask, _)| got > 0 || *mask != libc::IN_ACCESS);
            assert_eq!(events, expected);
        }
        assert_eq!(heard(watch), []);
        ok!(close(watch));
        lead(fd, &names);
        ok!(close(fd));
    }
}
