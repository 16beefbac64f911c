//! Files that are read so often that a kernel may take a short way: where it stands, what is refused, who hears of it.

use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::lent_file::{
    COUNT, FILE, file, file_with_reads, next_words, position, run_of, start, warm_up, words_at,
};
use crate::support::{
    c, errno, exit_code, fails, in_child, ok, open, pipe, read_some, sys, tests, wait_for,
};

tests! {
    seeks_between_reads, a_closed_number_is_not_read, the_position_outlives_exec, bad_buffers,
    reads_end_at_a_bad_page, the_end_of_the_file, bad_offsets_and_counts, a_watch_hears_of_reads,
    other_calls_move_the_position, signals_between_reads, flags_change,
}

fn seeks_between_reads() {
    let start = start();
    let fd = file(start);
    for at in (0..COUNT - 64).step_by(COUNT / 300) {
        ok!(lseek(fd, start + 4 * at as i64, libc::SEEK_SET));
        assert_eq!(next_words(fd, 8), run_of(at, 8));
        assert_eq!(words_at(fd, start, 7, 3), [7, 8, 9]);
        assert_eq!(position(fd), start + 4 * (at as i64 + 8));
        ok!(lseek(fd, 16, libc::SEEK_CUR));
        assert_eq!(next_words(fd, 1), [at as u32 + 12]);
    }
    let end = ok!(lseek(fd, 0, libc::SEEK_END));
    assert_eq!(read_some(fd, 10), b"");
    assert_eq!(position(fd), end);
    fails!(libc::EINVAL, lseek(fd, -1, libc::SEEK_SET));
    assert_eq!(position(fd), end);
}

fn a_closed_number_is_not_read() {
    let start = start();
    let mut word = [0_u8; 4];
    for round in 0..60 {
        let fd = file_with_reads(start, 300);
        match round % 3 {
            0 => drop(ok!(close(fd))),
            1 => drop(ok!(syscall(libc::SYS_close_range, fd, fd, 0))),
            _ => {
                let (other, end) = pipe();
                ok!(dup2(other, fd));
                ok!(close(fd));
                ok!(close(other));
                ok!(close(end));
            }
        }
        fails!(libc::EBADF, pread(fd, word.as_mut_ptr().cast(), 4, start));
        fails!(libc::EBADF, read(fd, word.as_mut_ptr().cast(), 4));
    }
}

/// What the new program does: the words go on at `at`, and the other number is closed.
pub fn after_exec(fd: i32, closed: i32, at: i32) -> bool {
    let start = start();
    let mut word = [0_u8; 4];
    let is_closed = sys!(pread(closed, word.as_mut_ptr().cast(), 4, start)) < 0;
    is_closed && next_words(fd, 4) == run_of(at as usize, 4) && words_at(fd, start, 1, 2) == [1, 2]
}

fn the_position_outlives_exec() {
    let start = start();
    let (fd, closed) = (file(start), file(start));
    ok!(fcntl(fd, libc::F_SETFD, 0));
    next_words(fd, 21);
    let child = in_child(|| {
        for _ in 0..300 {
            next_words(fd, 1);
        }
        let words = ["conformance", "helper", "lent", &fd.to_string(), &closed.to_string(), "321"];
        let args: Vec<_> = words.iter().map(|word| c(word)).collect();
        let args: Vec<_> = args.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect();
        sys!(execve(c(FILE).as_ptr(), args.as_ptr(), [ptr::null()].as_ptr()));
        77
    });
    assert_eq!(exit_code(wait_for(child)), 0);
    assert_eq!(next_words(fd, 1), [325]);
}

/// Memory of two pages, of which the second is not there.
fn torn_page() -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let memory = ok_map(8192, flags);
    ok!(munmap(memory.wrapping_add(4096).cast(), 4096));
    memory
}

fn ok_map(length: usize, flags: i32) -> *mut u8 {
    let memory =
        sys!(mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0));
    assert_ne!(memory, libc::MAP_FAILED);
    memory.cast()
}

fn bad_buffers() {
    let start = start();
    let fd = file(start);
    let readable = ok_map(4096, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    ok!(mprotect(readable.cast(), 4096, libc::PROT_READ));
    let text = bad_buffers as *const () as usize;
    let kernel = [0x7fff_ffff_f000, 0xffff_8000_0000_0000, usize::MAX - 2];
    for bad in [8, readable as usize, text].into_iter().chain(kernel) {
        let bad = ptr::without_provenance_mut(bad);
        fails!(libc::EFAULT, read(fd, bad, 4));
        fails!(libc::EFAULT, pread(fd, bad, 4, start));
        assert_eq!(position(fd), start);
    }
    fails!(libc::EFAULT, read(fd, ptr::without_provenance_mut(0x1000_0000), usize::MAX));
    assert_eq!(next_words(fd, 2), [0, 1]);
}

fn reads_end_at_a_bad_page() {
    let start = start();
    let fd = file(start);
    let memory = torn_page();
    let end = memory.wrapping_add(4096);
    for room in [4, 64, 4096] {
        let buffer = end.wrapping_sub(room);
        ok!(lseek(fd, start, libc::SEEK_SET));
        assert_eq!(ok!(pread(fd, buffer.cast(), room, start)) as usize, room);
        let got = sys!(read(fd, buffer.cast(), room + 400));
        // The host decides whether it gives a part; the position tells the same.
        assert!(got == room as isize || (got == -1 && errno() == libc::EFAULT), "{got}");
        assert_eq!(position(fd), start + got.max(0) as i64);
    }
}

fn the_end_of_the_file() {
    let start = start();
    let fd = file(start);
    let size = ok!(lseek(fd, 0, libc::SEEK_END));
    let mut last = [0_u8; 4];
    ok!(pread(fd, last.as_mut_ptr().cast(), 4, size - 4));
    for _ in 0..300 {
        ok!(lseek(fd, size - 4, libc::SEEK_SET));
        assert_eq!(read_some(fd, 100), last);
        assert_eq!(read_some(fd, 100), b"");
        assert_eq!(sys!(pread(fd, last.as_mut_ptr().cast(), 4, size + 4000)), 0);
        assert_eq!(position(fd), size);
    }
    ok!(lseek(fd, size + 1_000_000, libc::SEEK_SET));
    assert_eq!(read_some(fd, 100), b"");
    assert_eq!(position(fd), size + 1_000_000);
    ok!(lseek(fd, 1 << 42, libc::SEEK_SET));
    assert_eq!(read_some(fd, 100), b"");
    assert_eq!(position(fd), 1 << 42);
    ok!(lseek(fd, start, libc::SEEK_SET));
    warm_up(fd, start);
}

fn bad_offsets_and_counts() {
    let start = start();
    let fd = file(start);
    let mut word = [0_u8; 4];
    for _ in 0..50 {
        fails!(libc::EINVAL, pread(fd, word.as_mut_ptr().cast(), 4, -1));
        fails!(libc::EINVAL, pread(fd, word.as_mut_ptr().cast(), 4, i64::MIN));
        assert_eq!(sys!(pread(fd, word.as_mut_ptr().cast(), 0, start)), 0);
        assert_eq!(sys!(read(fd, word.as_mut_ptr().cast(), 0)), 0);
        fails!(libc::EBADF, read(-1, word.as_mut_ptr().cast(), 4));
        fails!(libc::EBADF, read(511, word.as_mut_ptr().cast(), 4));
        fails!(libc::EBADF, read(600, word.as_mut_ptr().cast(), 4));
    }
    // The upper half of a descriptor is nothing.
    let odd = i64::from(fd) | 1 << 40;
    let got = sys!(syscall(libc::SYS_pread64, odd, word.as_mut_ptr(), 4, start + 8));
    assert_eq!((got, word), (4, 2_u32.to_le_bytes()));
    assert_eq!(next_words(fd, 1), [0]);
}

/// See inotify(7): also of a file that was read for long before anybody watched.
fn a_watch_hears_of_reads() {
    let start = start();
    let path = std::fs::read_link(FILE).expect("a link");
    let fd = open(path.to_str().expect("a plain path"), libc::O_RDONLY);
    for _ in 0..3 {
        warm_up(fd, start);
        let inotify = ok!(inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC));
        let watched = c(path.to_str().expect("a plain path"));
        ok!(inotify_add_watch(inotify, watched.as_ptr(), libc::IN_ACCESS));
        assert_eq!(next_words(fd, 1), [0]);
        assert_ne!(read_some(inotify, 64), b"");
        assert_eq!(words_at(fd, start, 4, 1), [4]);
        assert_ne!(read_some(inotify, 64), b"");
        ok!(close(inotify));
    }
}

/// Those that no short way knows.
fn other_calls_move_the_position() {
    let start = start();
    let fd = file(start);
    let (from, to) = pipe();
    let (mut a, mut b) = ([0_u8; 8], [0_u8; 8]);
    let parts = [
        libc::iovec { iov_base: a.as_mut_ptr().cast(), iov_len: 8 },
        libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: 8 },
    ];
    let mut at = 0;
    for _ in 0..100 {
        assert_eq!(next_words(fd, 3), run_of(at, 3));
        assert_eq!(ok!(readv(fd, parts.as_ptr(), 2)), 16);
        assert_eq!(next_words(fd, 3), run_of(at + 7, 3));
        assert_eq!(ok!(preadv(fd, parts.as_ptr(), 2, start)), 16);
        assert_eq!(ok!(sendfile(to, fd, ptr::null_mut(), 40)), 40);
        assert_eq!(next_words(from, 10), run_of(at + 10, 10));
        assert_eq!(next_words(fd, 2), run_of(at + 20, 2));
        at += 22;
        assert_eq!(position(fd), start + 4 * at as i64);
        let mut left = 0_i32;
        ok!(ioctl(fd, libc::FIONREAD, &mut left));
        let size = ok!(lseek(fd, 0, libc::SEEK_END));
        assert_eq!(i64::from(left), size - start - 4 * at as i64);
        ok!(lseek(fd, start + 4 * at as i64, libc::SEEK_SET));
    }
}

fn signals_between_reads() {
    static HEARD: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn on_signal(_: i32) {
        HEARD.fetch_add(1, SeqCst);
    }
    let start = start();
    let fd = file(start);
    // SAFETY: all zeros is valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as usize;
    ok!(sigaction(libc::SIGVTALRM, &action, ptr::null_mut()));
    ok!(sigaction(libc::SIGPROF, &action, ptr::null_mut()));
    let every = libc::timeval { tv_sec: 0, tv_usec: 300 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    let started = std::time::Instant::now();
    ok!(sigaction(libc::SIGALRM, &action, ptr::null_mut()));
    // The time limit of the test is lost with it: this ends by itself.
    ok!(syscall(libc::SYS_setitimer, libc::ITIMER_REAL, &raw const timer, 0));
    let mut at = 0;
    while HEARD.load(SeqCst) < 300 && started.elapsed().as_secs() < 8 {
        for size in [1, 700, 3] {
            assert_eq!(next_words(fd, size), run_of(at, size));
            assert_eq!(words_at(fd, start, at, size), run_of(at, size));
            at += size;
        }
        if at > 200_000 {
            at = 0;
            ok!(lseek(fd, start, libc::SEEK_SET));
        }
    }
    assert!(HEARD.load(SeqCst) > 10);
}

fn flags_change() {
    let start = start();
    let fd = file(start);
    for round in 0..50 {
        ok!(fcntl(fd, libc::F_SETFL, if round % 2 == 0 { libc::O_NONBLOCK } else { 0 }));
        for at in 0..30 {
            assert_eq!(next_words(fd, 2), run_of(60 * round + 2 * at, 2));
            assert_eq!(words_at(fd, start, at, 2), run_of(at, 2));
        }
    }
    let other = open(FILE, libc::O_RDONLY | libc::O_NONBLOCK);
    warm_up(other, start);
    let path = open(FILE, libc::O_PATH);
    fails!(libc::EBADF, read(path, [0_u8; 4].as_mut_ptr().cast(), 4));
}
