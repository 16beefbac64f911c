//! pty(7), termios(3), ioctl_tty(2): pairs, line editing, signals, job control, hang-up.

use std::ffi::CStr;

use crate::support::{
    exit_code, fails, in_child, ok, pipe, read_some, signal_of, sleep_ms, sys, tests, wait_for,
    write_all,
};

tests! {
    pairs_are_made_locked, lines_are_edited_and_echoed, raw_mode_passes_bytes, minimum_and_time,
    end_of_file_character, newline_goes_out_as_two, window_size_is_shared_and_told, interrupt_goes_to_foreground,
    background_read_stops, background_change_stops, orphaned_background_read_fails, closing_master_hangs_up,
    closing_slave_is_seen, packet_mode_tells_flushes, controlling_terminal_of_a_new_session, dev_tty_needs_one,
    readiness, unread_bytes_are_counted, names_and_numbers, peer_is_opened_without_its_name,
}

/// Master and slave of a new pair; neither becomes anybody's controlling terminal.
fn pair() -> (i32, i32) {
    let master = ok!(posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC));
    ok!(grantpt(master));
    ok!(unlockpt(master));
    let slave = open_slave(master, libc::O_NOCTTY);
    (master, slave)
}

fn name_of(master: i32) -> String {
    let mut buffer = [0_u8; 64];
    ok!(ptsname_r(master, buffer.as_mut_ptr().cast(), buffer.len()));
    CStr::from_bytes_until_nul(&buffer).unwrap().to_str().unwrap().to_owned()
}

fn open_slave(master: i32, flags: i32) -> i32 {
    let name = crate::support::c(&name_of(master));
    ok!(open(name.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC | flags))
}

fn change(fd: i32, how: impl FnOnce(&mut libc::termios)) {
    // SAFETY: termios is plain data.
    let mut termios: libc::termios = unsafe { std::mem::zeroed() };
    ok!(tcgetattr(fd, &mut termios));
    how(&mut termios);
    ok!(tcsetattr(fd, libc::TCSANOW, &termios));
}

fn make_raw(fd: i32, min: u8, time: u8) {
    change(fd, |termios| {
        sys!(cfmakeraw(termios));
        termios.c_cc[libc::VMIN] = min;
        termios.c_cc[libc::VTIME] = time;
    });
}

fn poll(fd: i32) -> i16 {
    let events = libc::POLLIN | libc::POLLOUT | libc::POLLPRI;
    let mut fds = [libc::pollfd { fd, events, revents: 0 }];
    ok!(poll(fds.as_mut_ptr(), 1, 0));
    fds[0].revents
}

fn pairs_are_made_locked() {
    let master = ok!(posix_openpt(libc::O_RDWR | libc::O_NOCTTY));
    let name = crate::support::c(&name_of(master));
    fails!(libc::EIO, open(name.as_ptr(), libc::O_RDWR | libc::O_NOCTTY));
    ok!(unlockpt(master));
    ok!(open(name.as_ptr(), libc::O_RDWR | libc::O_NOCTTY));
}

fn lines_are_edited_and_echoed() {
    let (master, slave) = pair();
    write_all(master, b"ab\x7fc\rnext");
    assert_eq!(read_some(slave, 100), b"ac\n");
    assert_eq!(read_some(master, 100), b"ab\x08 \x08c\r\nnext");
    write_all(master, b"\x15two words\x17x\n");
    assert_eq!(read_some(slave, 3), b"two");
    assert_eq!(read_some(slave, 100), b" x\n");
}

fn raw_mode_passes_bytes() {
    let (master, slave) = pair();
    make_raw(slave, 1, 0);
    write_all(master, b"a\r\x03\x04\x7f");
    assert_eq!(read_some(slave, 100), b"a\r\x03\x04\x7f");
    write_all(slave, b"out\n");
    assert_eq!(read_some(master, 100), b"out\n");
}

fn minimum_and_time() {
    let (master, slave) = pair();
    make_raw(slave, 0, 0);
    assert_eq!(read_some(slave, 10), b"");
    make_raw(slave, 0, 1);
    assert_eq!(read_some(slave, 10), b"");
    make_raw(slave, 3, 0);
    write_all(master, b"ab");
    let child = in_child(|| {
        sleep_ms(50);
        write_all(master, b"c");
        0
    });
    assert_eq!(read_some(slave, 10), b"abc");
    wait_for(child);
    make_raw(slave, 5, 1);
    write_all(master, b"xy");
    assert_eq!(read_some(slave, 10), b"xy");
}

fn end_of_file_character() {
    let (master, slave) = pair();
    write_all(master, b"\x04");
    assert_eq!(read_some(slave, 10), b"");
    write_all(master, b"ab\x04");
    assert_eq!(read_some(slave, 10), b"ab");
}

fn newline_goes_out_as_two() {
    let (master, slave) = pair();
    write_all(slave, b"a\nb");
    assert_eq!(read_some(master, 10), b"a\r\nb");
    change(slave, |termios| termios.c_oflag &= !libc::OPOST);
    write_all(slave, b"a\nb");
    assert_eq!(read_some(master, 10), b"a\nb");
}

extern "C" fn note(_: i32) {}

fn window_size_is_shared_and_told() {
    let (master, slave) = pair();
    let size = libc::winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    let child = in_child(|| {
        become_leader(slave);
        sys!(signal(libc::SIGWINCH, note as *const () as usize));
        ok!(ioctl(master, libc::TIOCSWINSZ, &size));
        // The signal came before the call returned.
        let mut got = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        ok!(ioctl(slave, libc::TIOCGWINSZ, &mut got));
        i32::from((got.ws_row, got.ws_col) != (40, 120))
    });
    assert_eq!(exit_code(wait_for(child)), 0);
}

/// Makes the caller the leader of a session whose terminal is `slave`.
fn become_leader(slave: i32) {
    ok!(setsid());
    ok!(ioctl(slave, libc::TIOCSCTTY, 0));
}

fn interrupt_goes_to_foreground() {
    let (master, slave) = pair();
    let (ready, tell) = pipe();
    let child = in_child(|| {
        become_leader(slave);
        write_all(tell, b"x");
        sleep_ms(5000);
        0
    });
    read_some(ready, 1);
    write_all(master, b"\x03");
    assert_eq!(signal_of(wait_for(child)), libc::SIGINT);
    assert_eq!(read_some(master, 10), b"^C");
}

/// A leader with a child in the background that does `what`; how the child stopped or ended.
fn in_background(what: impl FnOnce(i32) -> i32) -> i32 {
    let (_master, slave) = pair();
    let child = in_child(|| {
        become_leader(slave);
        let job = in_child(|| {
            ok!(setpgid(0, 0));
            what(slave)
        });
        let mut status = 0;
        ok!(waitpid(job, &mut status, libc::WUNTRACED));
        sys!(kill(job, libc::SIGKILL));
        if libc::WIFSTOPPED(status) { libc::WSTOPSIG(status) } else { 100 + exit_code(status) }
    });
    exit_code(wait_for(child))
}

fn background_read_stops() {
    let how = in_background(|slave| i32::try_from(read_some(slave, 1).len()).unwrap());
    assert_eq!(how, libc::SIGTTIN);
    let ignored = in_background(|slave| {
        sys!(signal(libc::SIGTTIN, libc::SIG_IGN));
        let mut byte = 0_u8;
        fails!(libc::EIO, read(slave, (&raw mut byte).cast(), 1));
        7
    });
    assert_eq!(ignored, 107);
}

fn background_change_stops() {
    let size = in_background(|slave| {
        change(slave, |termios| termios.c_lflag |= libc::TOSTOP);
        1
    });
    assert_eq!(size, libc::SIGTTOU);
    let ignored = in_background(|slave| {
        sys!(signal(libc::SIGTTOU, libc::SIG_IGN));
        change(slave, |termios| termios.c_lflag |= libc::TOSTOP);
        let group = ok!(getpgrp());
        ok!(tcsetpgrp(slave, group));
        write_all(slave, b"x");
        7
    });
    assert_eq!(ignored, 107);
}

fn orphaned_background_read_fails() {
    let (_master, slave) = pair();
    let (results, tell) = pipe();
    let leader = in_child(|| {
        become_leader(slave);
        let middle = in_child(|| {
            ok!(setpgid(0, 0));
            in_child(|| {
                sleep_ms(100);
                let mut byte = 0_u8;
                let got = sys!(read(slave, (&raw mut byte).cast(), 1));
                let is_refused = got == -1 && crate::support::errno() == libc::EIO;
                write_all(tell, if is_refused { b"y" } else { b"n" });
                0
            });
            0
        });
        wait_for(middle);
        sleep_ms(400);
        0
    });
    assert_eq!(read_some(results, 1), b"y");
    wait_for(leader);
}

fn closing_master_hangs_up() {
    let (master, slave) = pair();
    let (ready, tell) = pipe();
    let child = in_child(|| {
        ok!(close(master));
        become_leader(slave);
        write_all(tell, b"x");
        sleep_ms(5000);
        0
    });
    read_some(ready, 1);
    ok!(close(master));
    assert_eq!(signal_of(wait_for(child)), libc::SIGHUP);
    assert_eq!(read_some(slave, 10), b"");
    fails!(libc::EIO, write(slave, c"x".as_ptr().cast(), 1));
    assert_eq!(poll(slave) & libc::POLLHUP, libc::POLLHUP);
}

fn closing_slave_is_seen() {
    let (master, slave) = pair();
    write_all(slave, b"last");
    ok!(close(slave));
    assert_eq!(read_some(master, 10), b"last");
    let mut byte = 0_u8;
    fails!(libc::EIO, read(master, (&raw mut byte).cast(), 1));
    assert_eq!(poll(master) & libc::POLLHUP, libc::POLLHUP);
    let again = open_slave(master, libc::O_NOCTTY);
    assert_eq!(poll(master) & libc::POLLHUP, 0);
    ok!(close(again));
}

fn packet_mode_tells_flushes() {
    let (master, slave) = pair();
    let on = 1_i32;
    ok!(ioctl(master, libc::TIOCPKT, &on));
    write_all(slave, b"ab");
    assert_eq!(read_some(master, 10), b"\0ab");
    ok!(tcflush(slave, libc::TCIFLUSH));
    assert_eq!(poll(master) & libc::POLLPRI, libc::POLLPRI);
    assert_eq!(read_some(master, 10), [1]);
}

fn controlling_terminal_of_a_new_session() {
    let (master, slave) = pair();
    let child = in_child(|| {
        ok!(setsid());
        fails!(libc::ENOTTY, tcgetsid(slave));
        let opened = open_slave(master, 0);
        let sid = ok!(getsid(0));
        assert_eq!(ok!(tcgetsid(opened)), sid);
        assert_eq!(ok!(tcgetpgrp(opened)), ok!(getpgrp()));
        let tty = ok!(open(c"/dev/tty".as_ptr(), libc::O_RDWR));
        assert_eq!(ok!(tcgetsid(tty)), sid);
        fails!(libc::ESRCH, tcsetpgrp(tty, 4_000_000));
        0
    });
    assert_eq!(exit_code(wait_for(child)), 0);
}

fn dev_tty_needs_one() {
    let child = in_child(|| {
        ok!(setsid());
        fails!(libc::ENXIO, open(c"/dev/tty".as_ptr(), libc::O_RDWR));
        0
    });
    assert_eq!(exit_code(wait_for(child)), 0);
}

fn readiness() {
    let (master, slave) = pair();
    assert_eq!((poll(master), poll(slave)), (libc::POLLOUT, libc::POLLOUT));
    write_all(master, b"ab");
    assert_eq!(read_some(master, 10), b"ab");
    assert_eq!(poll(slave), libc::POLLOUT);
    write_all(master, b"\n");
    sleep_ms(50);
    assert_eq!(poll(master), libc::POLLIN | libc::POLLOUT);
    assert_eq!(poll(slave), libc::POLLIN | libc::POLLOUT);
}

fn unread_bytes_are_counted() {
    let (master, slave) = pair();
    let mut count = 0_i32;
    write_all(master, b"abc");
    // Linux passes input on in its own time; the echo comes with it.
    assert_eq!(read_some(master, 10), b"abc");
    ok!(ioctl(slave, libc::FIONREAD, &mut count));
    assert_eq!(count, 0);
    write_all(master, b"\n");
    assert_eq!(read_some(master, 10), b"\r\n");
    ok!(ioctl(slave, libc::FIONREAD, &mut count));
    assert_eq!(count, 4);
    ok!(tcflush(slave, libc::TCIFLUSH));
    ok!(ioctl(slave, libc::FIONREAD, &mut count));
    assert_eq!(count, 0);
}

fn names_and_numbers() {
    let (master, slave) = pair();
    let name = name_of(master);
    assert!(name.starts_with("/dev/pts/"), "{name}");
    let mut number = -1_i32;
    ok!(ioctl(master, libc::TIOCGPTN, &mut number));
    assert_eq!(name, format!("/dev/pts/{number}"));
    let mut buffer = [0_u8; 64];
    assert_eq!(sys!(ttyname_r(slave, buffer.as_mut_ptr().cast(), buffer.len())), 0);
    let known = CStr::from_bytes_until_nul(&buffer).unwrap().to_str().unwrap();
    assert_eq!(known, name);
    // SAFETY: stat is plain data.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    ok!(fstat(slave, &mut stat));
    // The permission bits are the mount's choice.
    assert_eq!(stat.st_mode & libc::S_IFMT, libc::S_IFCHR);
    assert_eq!(libc::major(stat.st_rdev), 136);
    assert_eq!(sys!(isatty(slave)), 1);
    assert_eq!(sys!(isatty(master)), 1);
}

fn peer_is_opened_without_its_name() {
    let (master, _slave) = pair();
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    let peer = ok!(ioctl(master, libc::TIOCGPTPEER, flags));
    write_all(master, b"hi\n");
    assert_eq!(read_some(peer, 10), b"hi\n");
    assert_eq!(ok!(fcntl(peer, libc::F_GETFD)), libc::FD_CLOEXEC);
    fails!(libc::EIO, ioctl(peer, libc::TIOCGPTPEER, flags));
}
