//! Descriptors that are opened and closed so often that a kernel may take a short way: what others see of it, and what files and
//! devices do then.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::known_descriptors::{PATHS, warm_up};
use crate::support::{
    c, errno, exit_code, fails, in_child, ok, open, pipe, read_some, subject, sys, tests, wait_for,
    write_all,
};

tests! {
    others_see_it_closed, closing_ends_locks_at_once, devices_that_keep_nothing,
    a_watch_hears_of_devices, attributes_are_those_of_now, a_small_buffer_at_the_end_of_memory,
}

/// Who hears of a close(2) from its maker sees it in /proc.
fn others_see_it_closed() {
    let me = sys!(getpid());
    for round in 0..60 {
        let (from, to) = pipe();
        let fd = open(PATHS[0], libc::O_RDONLY);
        let link = c(&format!("/proc/{me}/fd/{fd}"));
        let child = in_child(|| {
            ok!(close(to));
            assert_eq!(read_some(from, 1), [round]);
            let mut text = [0; 64];
            let count = sys!(readlink(link.as_ptr(), text.as_mut_ptr(), text.len()));
            i32::from(count != -1 || errno() != libc::ENOENT)
        });
        ok!(close(from));
        ok!(close(fd));
        write_all(to, &[round]);
        assert_eq!(exit_code(wait_for(child)), 0);
        ok!(close(to));
    }
}

/// Closing any descriptor of a file ends the process's locks on it, and another process gets them while this one makes no call.
fn closing_ends_locks_at_once() {
    let name = format!("/tmp/known-{}", sys!(getpid()));
    std::fs::write(&name, b"text").expect("a new file");
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    let at = sys!(mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0));
    // SAFETY: a new mapping, which is never unmapped.
    let word = unsafe { &*at.cast::<AtomicU32>() };
    // SAFETY: plain data.
    let mut whole: libc::flock = unsafe { std::mem::zeroed() };
    whole.l_type = libc::F_WRLCK as i16;
    for round in 0..30u32 {
        let locked = open(&name, libc::O_RDWR);
        ok!(fcntl(locked, libc::F_SETLK, &whole));
        let child = in_child(|| {
            let fd = open(&name, libc::O_RDWR);
            assert_eq!((sys!(fcntl(fd, libc::F_SETLK, &whole)), errno()), (-1, libc::EAGAIN));
            word.store(2 * round + 1, SeqCst);
            ok!(fcntl(fd, libc::F_SETLKW, &whole));
            word.store(2 * round + 2, SeqCst);
            0
        });
        while word.load(SeqCst) != 2 * round + 1 {
            std::hint::spin_loop();
        }
        // Here, so that nobody else has it.
        let other = open(&name, libc::O_RDONLY);
        ok!(close(other));
        while word.load(SeqCst) != 2 * round + 2 {
            std::hint::spin_loop();
        }
        assert_eq!(exit_code(wait_for(child)), 0);
        ok!(close(locked));
    }
    std::fs::remove_file(&name).expect("it is there");
}

fn devices_that_keep_nothing() {
    let (null, zero) = ("/dev/null", "/dev/zero");
    let mut bytes = vec![7u8; 100_000];
    let buffer = bytes.as_mut_ptr();
    for round in 0..60 {
        let reads = open(zero, libc::O_RDONLY);
        let size = [1, 8, 255, 256, 257, 5000, 100_000][round % 7];
        // SAFETY: within the buffer.
        unsafe { std::ptr::write_bytes(buffer, 7, 100_000) };
        assert_eq!(ok!(read(reads, buffer.cast(), size)), size as isize);
        assert!(bytes[..size].iter().all(|byte| *byte == 0));
        assert!(bytes[size..].iter().all(|byte| *byte == 7));
        fails!(libc::EBADF, write(reads, buffer.cast(), 1));
        ok!(close(reads));
        fails!(libc::EBADF, read(reads, buffer.cast(), 1));
        let writes = open([null, zero][round % 2], libc::O_WRONLY);
        assert_eq!(ok!(write(writes, buffer.cast(), size)), size as isize);
        // Not looked at.
        assert_eq!(ok!(write(writes, std::ptr::without_provenance(1), size)), size as isize);
        fails!(libc::EFAULT, write(writes, std::ptr::without_provenance(1 << 63), size));
        fails!(libc::EBADF, read(writes, buffer.cast(), 1));
        ok!(close(writes));
        let both = open(null, libc::O_RDWR);
        assert_eq!(ok!(read(both, buffer.cast(), size)), 0);
        assert_eq!(ok!(write(both, buffer.cast(), size)), size as isize);
        // Another file takes its place.
        let (from, to) = pipe();
        ok!(dup2(to, both));
        write_all(both, b"text");
        assert_eq!(read_some(from, 10), b"text");
        for fd in [both, from, to] {
            ok!(close(fd));
        }
        let path = open(null, libc::O_PATH);
        fails!(libc::EBADF, write(path, buffer.cast(), 1));
        ok!(close(path));
    }
}

/// inotify(7) tells of what is written to a device as of anything.
fn a_watch_hears_of_devices() {
    warm_up();
    let fd = open("/dev/null", libc::O_WRONLY);
    for _ in 0..100 {
        write_all(fd, b"x");
    }
    let watch = ok!(inotify_init1(libc::IN_NONBLOCK));
    ok!(inotify_add_watch(watch, c"/dev/null".as_ptr(), libc::IN_MODIFY));
    for _ in 0..3 {
        write_all(fd, b"x");
        let event = read_some(watch, 4096);
        assert_eq!(event.get(4), Some(&(libc::IN_MODIFY as u8)));
    }
}

/// fstat(2) says what chmod(2) has set meanwhile, through other calls and from other processes.
fn attributes_are_those_of_now() {
    let path = subject("mode");
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o7777;
    let name = c(&path);
    let seen = |fd| {
        // SAFETY: plain data.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        ok!(fstat(fd, &mut stat));
        stat.st_mode & 0o7777
    };
    for _ in 0..100 {
        let fd = open(&path, libc::O_RDONLY);
        assert_eq!(seen(fd), mode);
        ok!(close(fd));
    }
    for round in 0..40 {
        let fd = open(&path, libc::O_RDONLY);
        assert_eq!(seen(fd), mode);
        let other = mode ^ 0o020;
        if round % 2 == 0 {
            ok!(chmod(name.as_ptr(), other));
        } else {
            assert_eq!(exit_code(wait_for(in_child(|| sys!(fchmod(fd, other))))), 0);
        }
        assert_eq!(seen(fd), other);
        ok!(chmod(name.as_ptr(), mode));
        assert_eq!(seen(fd), mode);
        ok!(close(fd));
    }
}

/// Memory ends in the middle of a result: what fits is given, or EFAULT, as without any short way.
fn a_small_buffer_at_the_end_of_memory() {
    const PAGE: usize = 4096;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let start = sys!(mmap(std::ptr::null_mut(), 2 * PAGE, protection, flags, -1, 0));
    ok!(munmap(start.wrapping_byte_add(PAGE), PAGE));
    for _ in 0..40 {
        let fd = open(PATHS[0], libc::O_RDONLY);
        let last = start.wrapping_byte_add(PAGE - 8);
        fails!(libc::EFAULT, fstat(fd, last.cast()));
        fails!(libc::EFAULT, read(fd, start.wrapping_byte_add(PAGE), 16));
        assert_eq!(ok!(lseek(fd, 0, libc::SEEK_CUR)), 0);
        let count = ok!(read(fd, last, 64));
        assert_eq!(count, 8);
        assert_eq!(ok!(lseek(fd, 0, libc::SEEK_CUR)), 8);
        ok!(close(fd));
    }
}
