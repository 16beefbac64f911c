//! fcntl(2): waiting for record locks, deadlocks, description locks, SIGIO; splice(2) and its kin between files.

use std::mem::zeroed;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::support::{
    enter_new_directory, errno, exit_code, fails, in_child, leave, ok, open, pipe, read_some,
    sleep_ms, sys, tests, wait_for, write_all,
};

tests! {
    record_lock_waits, record_lock_deadlock, record_lock_interrupted, description_locks, closing_drops_record_locks,
    locks_end_with_the_last_process_of_a_table,
    locks_split_and_join, sigio_tells, sigio_owner_is_told_back, status_flags, duplicate_query, sendfile_moves_position,
    copy_file_range_copies, splice_file_to_pipe_and_back, vectors_are_limited, close_range_closes, openat2_resolves,
}

/// Names that libc lacks.
const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;

fn lock(kind: i32, start: i64, length: i64) -> libc::flock {
    // SAFETY: all zeros is a valid struct flock.
    let mut lock: libc::flock = unsafe { zeroed() };
    (lock.l_type, lock.l_start, lock.l_len) = (kind as i16, start, length);
    lock
}

fn set(fd: i32, command: i32, kind: i32, start: i64, length: i64) -> i32 {
    sys!(fcntl(fd, command, &lock(kind, start, length)))
}

fn record_lock_waits() {
    let directory = enter_new_directory();
    let fd = open("f", libc::O_RDWR | libc::O_CREAT);
    assert_eq!(set(fd, libc::F_SETLK, libc::F_WRLCK, 0, 10), 0);
    let child = in_child(|| {
        let started = std::time::Instant::now();
        let taken = set(fd, libc::F_SETLKW, libc::F_WRLCK, 5, 10);
        i32::from(taken != 0 || started.elapsed().as_millis() < 40)
    });
    sleep_ms(60);
    assert_eq!(set(fd, libc::F_SETLK, libc::F_UNLCK, 0, 0), 0);
    assert_eq!(exit_code(wait_for(child)), 0);
    leave(&directory);
}

fn record_lock_deadlock() {
    let directory = enter_new_directory();
    let fd = open("f", libc::O_RDWR | libc::O_CREAT);
    let (read_end, write_end) = pipe();
    assert_eq!(set(fd, libc::F_SETLK, libc::F_WRLCK, 0, 1), 0);
    let child = in_child(|| {
        assert_eq!(set(fd, libc::F_SETLK, libc::F_WRLCK, 1, 1), 0);
        write_all(write_end, b"x");
        set(fd, libc::F_SETLKW, libc::F_WRLCK, 0, 1)
    });
    read_some(read_end, 1);
    sleep_ms(30);
    assert_eq!((set(fd, libc::F_SETLKW, libc::F_WRLCK, 1, 1), errno()), (-1, libc::EDEADLK));
    assert_eq!(set(fd, libc::F_SETLK, libc::F_UNLCK, 0, 0), 0);
    assert_eq!(exit_code(wait_for(child)), 0);
    leave(&directory);
}

extern "C" fn count_signal(_signal: i32) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

static SIGNALS: AtomicI32 = AtomicI32::new(0);

fn handle(signal: i32, flags: i32) {
    // SAFETY: all zeros is a valid struct sigaction; the handler only counts.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = count_signal as extern "C" fn(i32) as usize;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}

fn record_lock_interrupted() {
    let directory = enter_new_directory();
    let fd = open("f", libc::O_RDWR | libc::O_CREAT);
    assert_eq!(set(fd, libc::F_SETLK, libc::F_WRLCK, 0, 1), 0);
    let child = in_child(|| {
        handle(libc::SIGUSR1, 0);
        let result = set(fd, libc::F_SETLKW, libc::F_WRLCK, 0, 1);
        i32::from(result != -1 || errno() != libc::EINTR)
    });
    sleep_ms(40);
    ok!(kill(child, libc::SIGUSR1));
    assert_eq!(exit_code(wait_for(child)), 0);
    leave(&directory);
}

fn description_locks() {
    let directory = enter_new_directory();
    let a = open("f", libc::O_RDWR | libc::O_CREAT);
    let b = open("f", libc::O_RDWR);
    assert_eq!(set(a, libc::F_OFD_SETLK, libc::F_WRLCK, 0, 0), 0);
    assert_eq!((set(b, libc::F_OFD_SETLK, libc::F_RDLCK, 3, 1), errno()), (-1, libc::EAGAIN));
    let mut asked = lock(libc::F_RDLCK, 0, 0);
    ok!(fcntl(b, libc::F_OFD_GETLK, &mut asked));
    assert_eq!((asked.l_type, asked.l_pid), (libc::F_WRLCK as i16, -1));
    ok!(close(a));
    assert_eq!(set(b, libc::F_OFD_SETLK, libc::F_RDLCK, 3, 1), 0);
    leave(&directory);
}

fn closing_drops_record_locks() {
    let directory = enter_new_directory();
    let a = open("f", libc::O_RDWR | libc::O_CREAT);
    let b = open("f", libc::O_RDWR);
    assert_eq!(set(a, libc::F_SETLK, libc::F_WRLCK, 0, 0), 0);
    ok!(close(b));
    let child = in_child(|| set(a, libc::F_SETLK, libc::F_WRLCK, 0, 0));
    assert_eq!(exit_code(wait_for(child)), 0);
    leave(&directory);
}

/// Who has left a shared descriptor table does not keep its last process from giving up its locks.
fn locks_end_with_the_last_process_of_a_table() {
    let directory = enter_new_directory();
    let fd = open("f", libc::O_RDWR | libc::O_CREAT);
    let mut args = [0_u64; 11];
    (args[0], args[4]) = (libc::CLONE_FILES as u64, libc::SIGCHLD as u64);
    let pid = i32::try_from(ok!(syscall(libc::SYS_clone3, args.as_ptr(), 88))).expect("a pid");
    if pid == 0 {
        sleep_ms(30);
        sys!(_exit(set(fd, libc::F_SETLK, libc::F_WRLCK, 0, 0)));
    }
    ok!(close_range(4000, 4001, libc::CLOSE_RANGE_UNSHARE as i32));
    // Without a call meanwhile.
    let started = std::time::Instant::now();
    while started.elapsed().as_millis() < 90 {}
    assert_eq!(exit_code(wait_for(pid)), 0);
    assert_eq!(set(fd, libc::F_SETLK, libc::F_WRLCK, 0, 0), 0);
    leave(&directory);
}

fn locks_split_and_join() {
    let directory = enter_new_directory();
    let fd = open("f", libc::O_RDWR | libc::O_CREAT);
    assert_eq!(set(fd, libc::F_SETLK, libc::F_WRLCK, 0, 30), 0);
    assert_eq!(set(fd, libc::F_SETLK, libc::F_UNLCK, 10, 10), 0);
    let held = |start| {
        let child = in_child(|| {
            let mut asked = lock(libc::F_WRLCK, start, 1);
            ok!(fcntl(fd, libc::F_GETLK, &mut asked));
            i32::from(asked.l_type != libc::F_UNLCK as i16)
        });
        exit_code(wait_for(child)) == 1
    };
    assert_eq!([0, 9, 10, 19, 20, 29, 30].map(held), [true, true, false, false, true, true, false]);
    leave(&directory);
}

fn sigio_tells() {
    let mut pair = [0; 2];
    ok!(socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr()));
    handle(libc::SIGIO, libc::SA_RESTART);
    let me = sys!(getpid());
    ok!(fcntl(pair[0], libc::F_SETOWN, me));
    write_all(pair[1], b"x");
    assert_eq!(SIGNALS.load(Ordering::SeqCst), 0);
    let on = 1_i32;
    ok!(ioctl(pair[0], libc::FIOASYNC, &on));
    assert_ne!(ok!(fcntl(pair[0], libc::F_GETFL)) & libc::O_ASYNC, 0);
    write_all(pair[1], b"x");
    for _ in 0..100 {
        if SIGNALS.load(Ordering::SeqCst) > 0 {
            return;
        }
        sleep_ms(5);
    }
    panic!("no SIGIO");
}

fn sigio_owner_is_told_back() {
    let (read_end, _) = pipe();
    assert_eq!(ok!(fcntl(read_end, libc::F_GETOWN)), 0);
    let me = sys!(getpid());
    ok!(fcntl(read_end, libc::F_SETOWN, me));
    assert_eq!(ok!(fcntl(read_end, libc::F_GETOWN)), me);
    ok!(fcntl(read_end, F_SETSIG, libc::SIGUSR1));
    assert_eq!(ok!(fcntl(read_end, F_GETSIG)), libc::SIGUSR1);
    fails!(libc::EINVAL, fcntl(read_end, F_SETSIG, 65));
    fails!(libc::ESRCH, fcntl(read_end, libc::F_SETOWN, 999_999));
}

fn status_flags() {
    let directory = enter_new_directory();
    let fd = open("f", libc::O_RDWR | libc::O_CREAT | libc::O_EXCL);
    let flags = ok!(fcntl(fd, libc::F_GETFL));
    assert_eq!(flags & !0o100_000, libc::O_RDWR);
    ok!(fcntl(fd, libc::F_SETFL, libc::O_APPEND | libc::O_WRONLY | libc::O_CREAT));
    assert_eq!(ok!(fcntl(fd, libc::F_GETFL)) & !0o100_000, libc::O_RDWR | libc::O_APPEND);
    fails!(libc::EINVAL, fcntl(fd, libc::F_DUPFD, -1));
    fails!(libc::EBADF, fcntl(999, libc::F_GETFD));
    leave(&directory);
}

fn duplicate_query() {
    let (a, b) = pipe();
    let c = ok!(dup(a));
    assert_eq!(ok!(dup2(a, a)), a);
    fails!(libc::EINVAL, dup3(a, a, 0));
    fails!(libc::EBADF, dup2(999, 5));
    ok!(close(a));
    write_all(b, b"x");
    assert_eq!(read_some(c, 2), b"x");
}

fn sendfile_moves_position() {
    let directory = enter_new_directory();
    let (from, to) =
        (open("a", libc::O_RDWR | libc::O_CREAT), open("b", libc::O_RDWR | libc::O_CREAT));
    write_all(from, b"0123456789");
    ok!(lseek(from, 2, libc::SEEK_SET));
    assert_eq!(ok!(sendfile(to, from, std::ptr::null_mut(), 3)), 3);
    assert_eq!(ok!(lseek(from, 0, libc::SEEK_CUR)), 5);
    let mut offset = 8;
    assert_eq!(ok!(sendfile(to, from, &mut offset, 100)), 2);
    assert_eq!((offset, ok!(lseek(from, 0, libc::SEEK_CUR))), (10, 5));
    ok!(lseek(to, 0, libc::SEEK_SET));
    assert_eq!(read_some(to, 20), b"23489");
    leave(&directory);
}

fn copy_file_range_copies() {
    let directory = enter_new_directory();
    let (from, to) =
        (open("a", libc::O_RDWR | libc::O_CREAT), open("b", libc::O_RDWR | libc::O_CREAT));
    write_all(from, b"0123456789");
    let (mut start, mut end) = (4, 1);
    assert_eq!(ok!(copy_file_range(from, &mut start, to, &mut end, 100, 0)), 6);
    assert_eq!((start, end), (10, 7));
    assert_eq!(read_some(to, 20), b"\x00456789");
    fails!(libc::EINVAL, copy_file_range(from, &mut 0, from, &mut 1, 5, 0));
    fails!(libc::EINVAL, copy_file_range(from, &mut 0, to, &mut 0, 5, 1));
    let directory_fd = open(".", libc::O_RDONLY);
    fails!(libc::EISDIR, copy_file_range(directory_fd, &mut 0, to, &mut 0, 5, 0));
    leave(&directory);
}

fn splice_file_to_pipe_and_back() {
    let directory = enter_new_directory();
    let fd = open("a", libc::O_RDWR | libc::O_CREAT);
    let (read_end, write_end) = pipe();
    write_all(fd, b"0123456789");
    let mut offset = 3;
    assert_eq!(ok!(splice(fd, &mut offset, write_end, std::ptr::null_mut(), 4, 0)), 4);
    assert_eq!(offset, 7);
    let mut back = 0;
    assert_eq!(ok!(splice(read_end, std::ptr::null_mut(), fd, &mut back, 100, 0)), 4);
    ok!(lseek(fd, 0, libc::SEEK_SET));
    assert_eq!(read_some(fd, 20), b"3456456789");
    fails!(libc::EINVAL, splice(fd, &mut 0, fd, &mut 0, 4, 0));
    fails!(libc::ESPIPE, splice(read_end, &mut 0, fd, &mut 0, 4, 0));
    leave(&directory);
}

fn vectors_are_limited() {
    let (_, write_end) = pipe();
    // SAFETY: all zeros is an array of empty vectors.
    let vectors: [libc::iovec; 1025] = unsafe { zeroed() };
    assert_eq!(ok!(writev(write_end, vectors.as_ptr(), 1024)), 0);
    fails!(libc::EINVAL, writev(write_end, vectors.as_ptr(), 1025));
    fails!(libc::EINVAL, writev(write_end, vectors.as_ptr(), -1));
}

fn close_range_closes() {
    let (a, b) = pipe();
    let (low, high) = (a.min(b).cast_unsigned(), a.max(b).cast_unsigned());
    ok!(syscall(libc::SYS_close_range, low, high, libc::CLOSE_RANGE_CLOEXEC));
    ok!(fcntl(a, libc::F_GETFD));
    ok!(syscall(libc::SYS_close_range, low, high, 0));
    fails!(libc::EBADF, fcntl(a, libc::F_GETFD));
    fails!(libc::EBADF, fcntl(b, libc::F_GETFD));
    fails!(libc::EINVAL, syscall(libc::SYS_close_range, 5, 4, 0));
}

fn openat2_resolves() {
    let directory = enter_new_directory();
    ok!(mkdir(c"d".as_ptr(), 0o755));
    ok!(symlink(c"/etc/passwd".as_ptr(), c"d/out".as_ptr()));
    open("d/in", libc::O_CREAT | libc::O_RDWR);
    let d = open("d", libc::O_DIRECTORY);
    let open2 = |path: &std::ffi::CStr, flags: i32, resolve: u64, size: usize| {
        // SAFETY: all zeros is a valid struct open_how.
        let mut how: libc::open_how = unsafe { zeroed() };
        (how.flags, how.resolve) = (flags as u64, resolve);
        let fd = sys!(syscall(libc::SYS_openat2, d, path.as_ptr(), &raw const how, size));
        if fd < 0 { -i64::from(errno()) } else { 0 }
    };
    let size = size_of::<libc::open_how>();
    assert_eq!(open2(c"in", libc::O_RDONLY, libc::RESOLVE_BENEATH, size), 0);
    assert_eq!(open2(c"out", libc::O_RDONLY, libc::RESOLVE_BENEATH, size), -i64::from(libc::EXDEV));
    let loops = -i64::from(libc::ELOOP);
    assert_eq!(open2(c"out", libc::O_RDONLY, libc::RESOLVE_NO_SYMLINKS, size), loops);
    assert_eq!(open2(c"in", libc::O_RDONLY, 0, 4), -i64::from(libc::EINVAL));
    assert_eq!(open2(c"in", 1 << 30, 0, size), -i64::from(libc::EINVAL));
    assert_eq!(
        open2(c"../d/in", libc::O_RDONLY, libc::RESOLVE_BENEATH, size),
        -i64::from(libc::EXDEV)
    );
    assert_eq!(
        open2(c"../d/in", libc::O_RDONLY, libc::RESOLVE_IN_ROOT, size),
        -i64::from(libc::ENOENT)
    );
    leave(&directory);
}
