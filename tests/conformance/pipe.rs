//! pipe(2), pipe(7): capacity, atomicity, blocking, ends of file.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::{
    exit_code, fails, in_child, ok, pipe, read_some, shared_word, sleep_ms, sys, tests, wait_for,
    write_all,
};

tests! {
    bytes_come_in_order, end_of_file_after_the_last_writer, full_pipe_blocks_or_refuses, nonblocking_read,
    capacity_can_be_changed, small_writes_are_atomic, big_write_is_delivered_whole, writer_waits_for_reader,
    flags_of_pipe2, fionread_counts, splice_and_tee, packet_mode, reopening_through_proc,
    streams_arrive_while_their_writer_computes, streams_arrive_while_their_writer_waits,
}

fn bytes_come_in_order() {
    let (read_end, write_end) = pipe();
    write_all(write_end, b"abc");
    write_all(write_end, b"def");
    assert_eq!(read_some(read_end, 4), b"abcd");
    assert_eq!(read_some(read_end, 100), b"ef");
}

fn end_of_file_after_the_last_writer() {
    let (read_end, write_end) = pipe();
    let copy = ok!(dup(write_end));
    write_all(write_end, b"x");
    ok!(close(write_end));
    assert_eq!(read_some(read_end, 10), b"x");
    ok!(close(copy));
    assert_eq!(read_some(read_end, 10), b"");
}

fn set_nonblocking(fd: i32) {
    ok!(fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK));
}

fn full_pipe_blocks_or_refuses() {
    let (read_end, write_end) = pipe();
    set_nonblocking(write_end);
    let block = [7_u8; 4096];
    let mut total = 0;
    while let written @ 1.. = sys!(write(write_end, block.as_ptr().cast(), 4096)) {
        total += written;
    }
    assert_eq!((total, crate::support::errno()), (65536, libc::EAGAIN));
    read_some(read_end, 4096);
    assert_eq!(ok!(write(write_end, block.as_ptr().cast(), 4096)), 4096);
}

fn nonblocking_read() {
    let (read_end, _write_end) = pipe();
    set_nonblocking(read_end);
    let mut byte = 0_u8;
    fails!(libc::EAGAIN, read(read_end, (&raw mut byte).cast(), 1));
    assert_eq!(ok!(read(read_end, (&raw mut byte).cast(), 0)), 0);
}

fn capacity_can_be_changed() {
    let (read_end, write_end) = pipe();
    assert_eq!(ok!(fcntl(read_end, libc::F_GETPIPE_SZ)), 65536);
    assert_eq!(ok!(fcntl(write_end, libc::F_SETPIPE_SZ, 5000)), 8192);
    write_all(write_end, &[0; 8192]);
    fails!(libc::EBUSY, fcntl(write_end, libc::F_SETPIPE_SZ, 4096));
}

fn small_writes_are_atomic() {
    let (read_end, write_end) = pipe();
    let children: Vec<_> = (1..=4_u8)
        .map(|n| {
            in_child(|| {
                (0..50).for_each(|_| write_all(write_end, &[n; 1000]));
                0
            })
        })
        .collect();
    ok!(close(write_end));
    let mut all = Vec::new();
    loop {
        let some = read_some(read_end, 65536);
        if some.is_empty() {
            break;
        }
        all.extend(some);
    }
    assert_eq!(all.len(), 200_000);
    assert!(all.chunks(1000).all(|chunk| chunk.iter().all(|byte| *byte == chunk[0])));
    children.into_iter().for_each(|child| assert_eq!(exit_code(wait_for(child)), 0));
}

fn big_write_is_delivered_whole() {
    let (read_end, write_end) = pipe();
    let child = in_child(|| {
        let big: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        write_all(write_end, &big);
        0
    });
    ok!(close(write_end));
    let mut all = Vec::new();
    loop {
        let some = read_some(read_end, 10_000);
        if some.is_empty() {
            break;
        }
        all.extend(some);
    }
    wait_for(child);
    assert_eq!(all.len(), 1_000_000);
    assert!(all.iter().enumerate().all(|(n, byte)| (n % 251) as u8 == *byte));
}

fn writer_waits_for_reader() {
    let (read_end, write_end) = pipe();
    write_all(write_end, &[0; 65536]);
    let child = in_child(|| {
        write_all(write_end, b"late");
        0
    });
    sleep_ms(50);
    let mut status = 0;
    assert_eq!(ok!(waitpid(child, &mut status, libc::WNOHANG)), 0);
    read_some(read_end, 65536);
    assert_eq!(exit_code(wait_for(child)), 0);
    assert_eq!(read_some(read_end, 10), b"late");
}

fn flags_of_pipe2() {
    let mut fds = [0; 2];
    ok!(pipe2(fds.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC));
    assert_eq!(ok!(fcntl(fds[0], libc::F_GETFD)), libc::FD_CLOEXEC);
    assert_ne!(ok!(fcntl(fds[1], libc::F_GETFL)) & libc::O_NONBLOCK, 0);
    fails!(libc::EINVAL, pipe2(fds.as_mut_ptr(), 0x1234_5678));
}

fn fionread_counts() {
    let (read_end, write_end) = pipe();
    write_all(write_end, b"12345");
    let mut count = 0_i32;
    ok!(ioctl(read_end, libc::FIONREAD, &raw mut count));
    assert_eq!(count, 5);
    fails!(libc::ENOTTY, ioctl(read_end, libc::TCGETS, &raw mut count));
}

fn splice_and_tee() {
    let ((a_read, a_write), (b_read, b_write)) = (pipe(), pipe());
    write_all(a_write, b"hello");
    let none = std::ptr::null_mut();
    assert_eq!(ok!(tee(a_read, b_write, 3, 0)), 3);
    assert_eq!(read_some(b_read, 10), b"hel");
    assert_eq!(ok!(splice(a_read, none, b_write, none, 100, 0)), 5);
    assert_eq!(read_some(b_read, 10), b"hello");
}

fn packet_mode() {
    let mut fds = [0; 2];
    ok!(pipe2(fds.as_mut_ptr(), libc::O_DIRECT));
    write_all(fds[1], b"one");
    write_all(fds[1], b"two");
    assert_eq!(read_some(fds[0], 2), b"on");
    assert_eq!(read_some(fds[0], 10), b"two");
}

fn reopening_through_proc() {
    let (read_end, write_end) = pipe();
    let again = crate::support::open(&format!("/proc/self/fd/{write_end}"), libc::O_WRONLY);
    write_all(again, b"x");
    assert_eq!(read_some(read_end, 5), b"x");
}

/// Sends `count` blocks in quick succession to a child that takes them all, then has `then` wait for its answer; several times over.
fn stream(count: usize, then: impl Fn(&AtomicU32, i32, u32)) {
    const BLOCK: usize = 4096;
    let (read_end, write_end) = pipe();
    let (answer, answer_end) = pipe();
    let word = shared_word();
    let child = in_child(|| {
        for round in 1..=50 {
            let mut left = count * BLOCK;
            while left > 0 {
                left -= read_some(read_end, left.min(3 * BLOCK)).len();
            }
            word.store(round, Ordering::SeqCst);
            write_all(answer_end, b"x");
        }
        0
    });
    for round in 1..=50 {
        (0..count).for_each(|_| write_all(write_end, &[1; BLOCK]));
        then(word, answer, round);
    }
    assert_eq!(exit_code(wait_for(child)), 0);
}

/// It never calls again before it has the answer.
fn streams_arrive_while_their_writer_computes() {
    for count in [1, 2, 3, 5, 12, 40] {
        stream(count, |word, _, round| {
            while word.load(Ordering::SeqCst) != round {
                std::hint::spin_loop();
            }
        });
    }
}

fn streams_arrive_while_their_writer_waits() {
    for count in [1, 3, 12, 40] {
        stream(count, |_, answer, _| assert_eq!(read_some(answer, 1), b"x"));
    }
}
