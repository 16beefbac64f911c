//! getrandom(2), memfd_create(2), flock(2), record locks, inotify(7), terminals, /proc.

use std::ptr;

use crate::support::{
    c, enter_new_directory, exit_code, fails, in_child, leave, ok, open, read_some, sys, tests,
    wait_for, write_all,
};

tests! {
    random_bytes_differ, memfd_holds_bytes, memfd_seals_hold, flock_excludes, record_locks_exclude, inotify_reports,
    pty_line_discipline, pty_controlling_terminal_interrupts, proc_fd_links, proc_self_exe_and_cwd,
    proc_status_of_a_child, getdents_of_proc, devices_behave, unknown_ioctl,
}

fn random_bytes_differ() {
    let (mut a, mut b) = ([0_u8; 32], [0_u8; 32]);
    assert_eq!(ok!(getrandom(a.as_mut_ptr().cast(), 32, 0)), 32);
    assert_eq!(ok!(getrandom(b.as_mut_ptr().cast(), 32, libc::GRND_NONBLOCK)), 32);
    assert_ne!(a, b);
    fails!(libc::EINVAL, getrandom(a.as_mut_ptr().cast(), 32, 0xff00));
    fails!(libc::EFAULT, getrandom(0x10 as *mut libc::c_void, 32, 0));
}

fn memfd_holds_bytes() {
    let fd = ok!(memfd_create(c"x".as_ptr(), libc::MFD_CLOEXEC));
    write_all(fd, b"hello");
    assert_eq!(crate::stat::fstat(fd).st_size, 5);
    ok!(ftruncate(fd, 8192));
    let memory = sys!(mmap(
        ptr::null_mut(),
        8192,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED,
        fd,
        0
    ));
    assert_ne!(memory, libc::MAP_FAILED);
    // SAFETY: mapped just now, two pages.
    unsafe { memory.cast::<u8>().add(5000).write_volatile(7) };
    let mut byte = 0_u8;
    ok!(pread(fd, (&raw mut byte).cast(), 1, 5000));
    assert_eq!(byte, 7);
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("it is there");
    assert!(link.to_string_lossy().starts_with("/memfd:x"), "{}", link.display());
}

fn memfd_seals_hold() {
    let fd = ok!(memfd_create(c"x".as_ptr(), libc::MFD_ALLOW_SEALING));
    write_all(fd, b"hello");
    ok!(fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK));
    fails!(libc::EPERM, write(fd, b"x".as_ptr().cast(), 1));
    fails!(libc::EPERM, ftruncate(fd, 0));
    assert_eq!(ok!(fcntl(fd, libc::F_GET_SEALS)), libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK);
}

fn flock_excludes() {
    let dir = enter_new_directory();
    let (a, b) = (open("f", libc::O_CREAT | libc::O_RDWR), open("f", libc::O_RDWR));
    ok!(flock(a, libc::LOCK_EX));
    fails!(libc::EWOULDBLOCK, flock(b, libc::LOCK_EX | libc::LOCK_NB));
    ok!(flock(a, libc::LOCK_SH));
    ok!(flock(b, libc::LOCK_SH | libc::LOCK_NB));
    ok!(flock(b, libc::LOCK_UN));
    let child = in_child(|| {
        ok!(flock(b, libc::LOCK_EX));
        3
    });
    crate::support::sleep_ms(30);
    ok!(flock(a, libc::LOCK_UN));
    assert_eq!(exit_code(wait_for(child)), 3);
    leave(&dir);
}

fn lock(kind: i32, start: i64, length: i64) -> libc::flock {
    // SAFETY: all zeros is a valid struct flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as i16;
    lock.l_start = start;
    lock.l_len = length;
    lock
}

fn record_locks_exclude() {
    let dir = enter_new_directory();
    let fd = open("f", libc::O_CREAT | libc::O_RDWR);
    ok!(fcntl(fd, libc::F_SETLK, &lock(libc::F_WRLCK, 0, 10)));
    let parent = sys!(getpid());
    let child = in_child(|| {
        fails!(libc::EAGAIN, fcntl(fd, libc::F_SETLK, &lock(libc::F_RDLCK, 5, 1)));
        ok!(fcntl(fd, libc::F_SETLK, &lock(libc::F_WRLCK, 10, 5)));
        let mut probe = lock(libc::F_WRLCK, 0, 0);
        ok!(fcntl(fd, libc::F_GETLK, &raw mut probe));
        assert_eq!(
            (probe.l_pid, i32::from(probe.l_type), probe.l_len),
            (parent, libc::F_WRLCK, 10)
        );
        0
    });
    assert_eq!(exit_code(wait_for(child)), 0);
    ok!(close(open("f", libc::O_RDONLY)));
    let child = in_child(|| {
        // Closing any descriptor of the file dropped the parent's locks.
        ok!(fcntl(fd, libc::F_SETLK, &lock(libc::F_WRLCK, 0, 10)));
        0
    });
    assert_eq!(exit_code(wait_for(child)), 0);
    leave(&dir);
}

fn inotify_reports() {
    let dir = enter_new_directory();
    let fd = ok!(inotify_init1(libc::IN_NONBLOCK));
    let mask = libc::IN_CREATE | libc::IN_DELETE | libc::IN_CLOSE_WRITE;
    ok!(inotify_add_watch(fd, c".".as_ptr(), mask));
    ok!(close(open("f", libc::O_CREAT | libc::O_WRONLY)));
    ok!(unlink(c"f".as_ptr()));
    let bytes = read_some(fd, 4096);
    let masks: Vec<u32> = bytes
        .chunks(32)
        .map(|event| u32::from_ne_bytes([event[4], event[5], event[6], event[7]]))
        .collect();
    assert_eq!(masks, [libc::IN_CREATE, libc::IN_CLOSE_WRITE, libc::IN_DELETE]);
    leave(&dir);
}

fn open_pty() -> (i32, i32) {
    let master = open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY);
    let zero = 0_i32;
    ok!(ioctl(master, libc::TIOCSPTLCK, &raw const zero));
    let mut number = 0_i32;
    ok!(ioctl(master, libc::TIOCGPTN, &raw mut number));
    let slave = open(&format!("/dev/pts/{number}"), libc::O_RDWR | libc::O_NOCTTY);
    (master, slave)
}

fn pty_line_discipline() {
    let (master, slave) = open_pty();
    assert_eq!(sys!(isatty(slave)), 1);
    write_all(master, b"helpo\x7f\x7flo\n");
    assert_eq!(read_some(slave, 100), b"hello\n");
    read_some(master, 100);
    write_all(slave, b"out\n");
    assert_eq!(read_some(master, 100), b"out\r\n");
    let size = libc::winsize { ws_row: 12, ws_col: 34, ws_xpixel: 0, ws_ypixel: 0 };
    ok!(ioctl(master, libc::TIOCSWINSZ, &raw const size));
    let mut seen = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    ok!(ioctl(slave, libc::TIOCGWINSZ, &raw mut seen));
    assert_eq!((seen.ws_row, seen.ws_col), (12, 34));
}

fn pty_controlling_terminal_interrupts() {
    let (master, slave) = open_pty();
    let (read_end, write_end) = crate::support::pipe();
    let child = in_child(|| {
        sys!(signal(libc::SIGINT, libc::SIG_DFL));
        ok!(setsid());
        ok!(ioctl(slave, libc::TIOCSCTTY, 0));
        assert_eq!(sys!(tcgetpgrp(slave)), sys!(getpid()));
        write_all(write_end, b"r");
        crate::support::sleep_ms(60_000);
        0
    });
    read_some(read_end, 1);
    write_all(master, b"\x03");
    assert_eq!(crate::support::signal_of(wait_for(child)), libc::SIGINT);
}

fn proc_fd_links() {
    let dir = enter_new_directory();
    let fd = open("f", libc::O_CREAT | libc::O_WRONLY);
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("it is there");
    assert_eq!(link.to_string_lossy(), format!("{dir}/f"));
    let (read_end, _write_end) = crate::support::pipe();
    let link = std::fs::read_link(format!("/proc/self/fd/{read_end}")).expect("it is there");
    assert!(link.to_string_lossy().starts_with("pipe:["), "{}", link.display());
    leave(&dir);
}

fn proc_self_exe_and_cwd() {
    let exe = std::fs::read_link("/proc/self/exe").expect("it is there");
    assert!(exe.is_absolute() && exe.exists());
    assert_eq!(std::fs::read_link("/proc/self/cwd").ok(), std::env::current_dir().ok());
    let cmdline = std::fs::read("/proc/self/cmdline").expect("it is there");
    assert!(cmdline.ends_with(b"misc\0") || cmdline.ends_with(b"cwd\0"));
}

fn proc_status_of_a_child() {
    let (read_end, write_end) = crate::support::pipe();
    let child = in_child(|| {
        read_some(read_end, 1);
        0
    });
    let status = std::fs::read_to_string(format!("/proc/{child}/status")).expect("it is there");
    let line = format!("PPid:\t{}\n", sys!(getpid()));
    assert!(status.contains(&line), "{status}");
    write_all(write_end, b"x");
    wait_for(child);
    assert!(std::fs::metadata(format!("/proc/{child}")).is_err());
}

fn getdents_of_proc() {
    let names: Vec<String> = std::fs::read_dir("/proc")
        .expect("it is there")
        .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
        .collect();
    for name in ["self", "meminfo", "mounts", &sys!(getpid()).to_string()] {
        assert!(names.iter().any(|n| n == name), "{name} is missing");
    }
}

fn devices_behave() {
    let full = open("/dev/full", libc::O_RDWR);
    fails!(libc::ENOSPC, write(full, b"x".as_ptr().cast(), 1));
    assert_eq!(read_some(full, 3), [0, 0, 0]);
    let null = open("/dev/null", libc::O_RDWR);
    assert_eq!(read_some(null, 3), b"");
    write_all(null, b"gone");
    let zero = open("/dev/zero", libc::O_RDWR);
    let memory = sys!(mmap(
        ptr::null_mut(),
        4096,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE,
        zero,
        0
    ));
    assert_ne!(memory, libc::MAP_FAILED);
    fails!(libc::ENOENT, open(c("/dev/no-such-device").as_ptr(), libc::O_RDONLY));
}

fn unknown_ioctl() {
    let fd = open("/etc/passwd", libc::O_RDONLY);
    fails!(libc::ENOTTY, ioctl(fd, 0x1234_5678));
    fails!(libc::ENOTTY, ioctl(fd, libc::TCGETS, 0x10));
}
