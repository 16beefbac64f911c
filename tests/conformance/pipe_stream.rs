//! Pipes that stream between two processes for so long that a kernel may take a short way: every byte comes once and in order, whatever is
//! done to an end meanwhile.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::socket::{receive_descriptor, send_descriptor};
use crate::support::{
    errno, exit_code, fails, in_child, ok, open, pipe, shared_word, signal_of, sys, tests, wait_for,
};

tests! {
    streams_of_all_sizes, the_writer_is_meddled_with, the_reader_is_meddled_with, others_write_meanwhile, others_read_meanwhile,
    no_message_waits_for_another, polled_streams, a_closed_reader_ends_the_writer, a_dead_writer_leaves_what_it_wrote,
    signals_interrupt_both_ends, bad_buffers_end_transfers, a_stream_holds_what_its_pipe_does, both_ends_in_one_process,
    one_descriptor_after_the_other, the_end_is_another_programs, all_readers_are_told,
    what_is_there_is_seen,
}

const KIB: usize = 1024;
/// More than it takes to become a stream, and to become one again.
const LONG: u64 = 600 << 10;
const WHOLE: u64 = 5 * LONG;

fn byte(at: u64) -> u8 {
    (at ^ at >> 8 ^ at >> 15).to_le_bytes()[0].wrapping_mul(31)
}

/// An end of a pipe, and what came through it.
struct End {
    fd: i32,
    at: u64,
}

impl End {
    fn new(fd: i32) -> Self {
        Self { fd, at: 0 }
    }

    fn next(&self, len: usize) -> Vec<u8> {
        (self.at..self.at + len as u64).map(byte).collect()
    }

    /// Writes the next bytes, however often it takes.
    fn put(&mut self, len: usize) {
        let bytes = self.next(len);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let count = sys!(write(self.fd, rest.as_ptr().cast(), rest.len()));
            if count < 0 {
                assert!([libc::EAGAIN, libc::EINTR].contains(&errno()), "errno {}", errno());
                std::thread::yield_now();
                continue;
            }
            rest = &rest[count as usize..];
            self.at += count as u64;
        }
    }

    /// Reads some of the next bytes; 0 is the end.
    fn get(&mut self, most: usize) -> usize {
        let mut bytes = vec![0; most];
        loop {
            let count = sys!(read(self.fd, bytes.as_mut_ptr().cast(), most));
            if count < 0 {
                assert!([libc::EAGAIN, libc::EINTR].contains(&errno()), "errno {}", errno());
                std::thread::yield_now();
                continue;
            }
            self.expect(&bytes[..count as usize]);
            return count as usize;
        }
    }

    fn expect(&mut self, bytes: &[u8]) {
        assert!(
            bytes == self.next(bytes.len()),
            "other bytes within {} at {}",
            bytes.len(),
            self.at
        );
        self.at += bytes.len() as u64;
    }

    fn get_all(&mut self, len: u64) {
        let end = self.at + len;
        while self.at < end {
            assert_ne!(
                self.get(((end - self.at) as usize).min(16 * KIB)),
                0,
                "the end at {}",
                self.at
            );
        }
    }
}

/// A process that writes, and one that reads; each has its end only.
fn run(writes: impl FnOnce(&mut End) -> i32, reads: impl FnOnce(&mut End) -> i32) -> [i32; 2] {
    let (read_end, write_end) = pipe();
    let writer = in_child(|| {
        ok!(close(read_end));
        writes(&mut End::new(write_end))
    });
    let reader = in_child(|| {
        ok!(close(write_end));
        reads(&mut End::new(read_end))
    });
    ok!(close(read_end));
    ok!(close(write_end));
    [wait_for(writer), wait_for(reader)]
}

fn both(writes: impl FnOnce(&mut End), reads: impl FnOnce(&mut End)) {
    let as_child = |end: &mut End, does: &mut dyn FnMut(&mut End)| {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| does(end)));
        i32::from(result.is_err())
    };
    let (mut writes, mut reads) = (Some(writes), Some(reads));
    let codes = run(
        |end| as_child(end, &mut |end| writes.take().unwrap()(end)),
        |end| as_child(end, &mut |end| reads.take().unwrap()(end)),
    );
    assert_eq!(codes.map(exit_code), [0, 0]);
}

fn write_whole(end: &mut End, size: usize, mut between: impl FnMut(&mut End)) {
    let mut next = LONG;
    while end.at < WHOLE {
        end.put(size);
        if end.at >= next {
            next += LONG;
            between(end);
        }
    }
}

fn read_whole(end: &mut End, size: usize, mut between: impl FnMut(&mut End)) {
    let mut next = LONG;
    while end.get(size) != 0 {
        // Not near the end: it may want many bytes.
        if end.at >= next && next < WHOLE {
            next += LONG;
            between(end);
        }
    }
    assert!(end.at >= WHOLE, "only {} bytes", end.at);
}

fn streams_of_all_sizes() {
    let sizes =
        [(512, 4 * KIB), (10 * KIB, 16 * KIB), (70_000, 777), (64 * KIB, 64 * KIB), (1001, 3003)];
    for (written, read) in sizes.into_iter().chain([(4 * KIB, 256 * KIB), (256 * KIB, 8 * KIB)]) {
        both(|end| write_whole(end, written, |_| ()), |end| read_whole(end, read, |_| ()));
    }
}

type Meddle = fn(&mut End);

/// What a process may do to its end without moving bytes.
const MEDDLES: &[Meddle] = &[
    |end| {
        let other = ok!(dup(end.fd));
        ok!(close(other));
    },
    |end| {
        // Another number from now on.
        let other = ok!(dup(end.fd));
        ok!(close(end.fd));
        end.fd = other;
    },
    |_| assert_eq!(exit_code(wait_for(in_child(|| 0))), 0),
    |end| {
        ok!(fcntl(end.fd, libc::F_SETFL, libc::O_NONBLOCK));
    },
    |end| {
        ok!(fcntl(end.fd, libc::F_SETPIPE_SZ, 256 * KIB as i32));
    },
    |end| {
        let mut polled =
            libc::pollfd { fd: end.fd, events: libc::POLLIN | libc::POLLOUT, revents: 0 };
        ok!(poll(&mut polled, 1, 0));
    },
    |_| std::thread::spawn(|| ()).join().unwrap(),
    |end| {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", end.fd)).unwrap();
        assert!(text.starts_with("pos:\t0\n"), "{text}");
    },
    |end| {
        fails!(libc::EFAULT, pipe2(std::ptr::without_provenance_mut(8), 0));
        fails!(libc::ESPIPE, lseek(end.fd, 0, libc::SEEK_CUR));
    },
    |end| {
        let other = ok!(fcntl(end.fd, libc::F_DUPFD_CLOEXEC, 70));
        ok!(dup2(other, end.fd));
        ok!(close(other));
    },
    |end| {
        let queue = ok!(epoll_create1(libc::EPOLL_CLOEXEC));
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        ok!(epoll_ctl(queue, libc::EPOLL_CTL_ADD, end.fd, &mut event));
        ok!(close(queue));
    },
];

fn the_writer_is_meddled_with() {
    for meddle in MEDDLES {
        both(|end| write_whole(end, 10 * KIB, meddle), |end| read_whole(end, 9999, |_| ()));
    }
    both(
        |end| {
            write_whole(end, 8 * KIB, |end| {
                ok!(fcntl(end.fd, libc::F_SETFL, libc::O_DIRECT));
            })
        },
        |end| read_whole(end, 8 * KIB, |_| ()),
    );
}

fn the_reader_is_meddled_with() {
    for meddle in MEDDLES {
        both(|end| write_whole(end, 9999, |_| ()), |end| read_whole(end, 10 * KIB, meddle));
    }
    // What is told to be there is there.
    let counted = |end: &mut End| {
        let mut count = 0_i32;
        ok!(ioctl(end.fd, libc::FIONREAD, &mut count));
        if count > 0 {
            assert_eq!(end.get(count as usize), count as usize);
        }
    };
    both(|end| write_whole(end, 3000, |_| ()), |end| read_whole(end, 7000, counted));
}

/// Bytes that come by other ways than write(2) to that descriptor by that thread.
fn others_write_meanwhile() {
    let ways: &[Meddle] = &[
        |end| {
            let bytes = end.next(20_000);
            let halves = bytes.split_at(7_000);
            let parts = [halves.0, halves.1].map(|part| libc::iovec {
                iov_base: part.as_ptr().cast_mut().cast(),
                iov_len: part.len(),
            });
            assert_eq!(ok!(writev(end.fd, parts.as_ptr(), 2)), 20_000);
            end.at += 20_000;
        },
        |end| {
            let (fd, at) = (end.fd, end.at);
            assert_eq!(
                exit_code(wait_for(in_child(|| {
                    End { fd, at }.put(30_000);
                    0
                }))),
                0
            );
            end.at += 30_000;
        },
        |end| {
            let (fd, at) = (end.fd, end.at);
            std::thread::spawn(move || End { fd, at }.put(30_000)).join().unwrap();
            end.at += 30_000;
        },
        |end| {
            let other = open(&format!("/proc/self/fd/{}", end.fd), libc::O_WRONLY);
            let mut again = End { fd: other, at: end.at };
            again.put(30_000);
            end.at = again.at;
            ok!(close(other));
        },
        |end| {
            let bytes = end.next(5_000);
            let (from, to) = pipe();
            crate::support::write_all(to, &bytes);
            let none = std::ptr::null_mut();
            let mut left = 5_000;
            while left > 0 {
                left -= ok!(splice(from, none, end.fd, none, left, 0)) as usize;
            }
            end.at += 5_000;
            ok!(close(from));
            ok!(close(to));
        },
        |end| {
            let mut sockets = [0; 2];
            ok!(socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, sockets.as_mut_ptr()));
            let at = end.at;
            let child = in_child(|| {
                End { fd: receive_descriptor(sockets[1]), at }.put(30_000);
                0
            });
            send_descriptor(sockets[0], end.fd);
            assert_eq!(exit_code(wait_for(child)), 0);
            end.at += 30_000;
            for fd in sockets {
                ok!(close(fd));
            }
        },
    ];
    for way in ways {
        both(|end| write_whole(end, 10 * KIB, way), |end| read_whole(end, 16 * KIB, |_| ()));
    }
}

fn others_read_meanwhile() {
    let ways: &[Meddle] = &[
        |end| {
            let (fd, at) = (end.fd, end.at);
            assert_eq!(
                exit_code(wait_for(in_child(|| {
                    End { fd, at }.get_all(30_000);
                    0
                }))),
                0
            );
            end.at += 30_000;
        },
        |end| {
            let (fd, at) = (end.fd, end.at);
            std::thread::spawn(move || End { fd, at }.get_all(30_000)).join().unwrap();
            end.at += 30_000;
        },
        |end| {
            let (from, to) = pipe();
            let copied = ok!(tee(end.fd, to, 4_000, 0)) as usize;
            assert_eq!(crate::support::read_some(from, 4_000), end.next(copied));
            let none = std::ptr::null_mut();
            let moved = ok!(splice(end.fd, none, to, none, 5_000, 0)) as usize;
            end.expect(&crate::support::read_some(from, moved));
            ok!(close(from));
            ok!(close(to));
        },
        |end| {
            let mut bytes = vec![0; 9_000];
            let (front, back) = bytes.split_at_mut(4_000);
            let parts = [front, back].map(|part| libc::iovec {
                iov_base: part.as_mut_ptr().cast(),
                iov_len: part.len(),
            });
            let count = ok!(readv(end.fd, parts.as_ptr(), 2)) as usize;
            end.expect(&bytes[..count]);
        },
    ];
    for way in ways {
        both(|end| write_whole(end, 10 * KIB, |_| ()), |end| read_whole(end, 16 * KIB, way));
    }
}

/// After a stream each message is heard though nothing follows it, and its writer never calls again before it is.
fn no_message_waits_for_another() {
    let heard = shared_word();
    let hears = |round: u32| {
        while heard.load(SeqCst) < round {
            std::hint::spin_loop();
        }
    };
    let sizes = || (1..=300_u32).map(|round| (round, 1 + (round as usize * 677) % (40 * KIB)));
    both(
        |end| {
            end.put(LONG as usize);
            for (round, size) in sizes() {
                if round % 3 == 0 {
                    (0..size).step_by(4000).for_each(|at| end.put(4000.min(size - at)));
                } else {
                    end.put(size);
                }
                hears(round);
            }
        },
        |end| {
            end.get_all(LONG);
            for (round, size) in sizes() {
                end.get_all(size as u64);
                heard.store(round, SeqCst);
            }
        },
    );
    // And room is heard of: a full pipe is emptied a little, and then no more.
    let (room, full) = (shared_word(), shared_word());
    both(
        |end| {
            end.put(LONG as usize);
            for round in 1..=30 {
                end.put(64 * KIB);
                full.store(round, SeqCst);
                end.put(5000);
                room.store(round, SeqCst);
            }
        },
        |end| {
            end.get_all(LONG);
            let waits = |word: &AtomicU32, round: u32| while word.load(SeqCst) < round {};
            for round in 1..=30 {
                waits(full, round);
                (0..3).for_each(|_| end.get_all(4 * KIB as u64));
                waits(room, round);
                end.get_all(64 * KIB as u64 + 5000 - 12 * KIB as u64);
            }
        },
    );
}

/// Who polls sees what was written, and is woken by what is written next.
fn polled_streams() {
    let go = shared_word();
    both(
        |end| {
            for round in 1..=4 {
                end.put(LONG as usize);
                while go.load(SeqCst) < round {
                    std::thread::yield_now();
                }
                crate::support::sleep_ms(5);
                end.put(100);
            }
        },
        |end| {
            for round in 1..=4 {
                end.get_all(LONG);
                go.store(round, SeqCst);
                let mut polled = libc::pollfd { fd: end.fd, events: libc::POLLIN, revents: 0 };
                assert_eq!(ok!(poll(&mut polled, 1, 5000)), 1);
                assert_eq!(end.get(1000), 100);
            }
        },
    );
}

fn a_closed_reader_ends_the_writer() {
    let short = |end: &mut End| {
        end.get_all(LONG);
        0
    };
    let codes = run(
        |end| loop {
            // Rust's runtime ignores it.
            sys!(signal(libc::SIGPIPE, libc::SIG_DFL));
            end.put(10 * KIB);
        },
        short,
    );
    assert_eq!((signal_of(codes[0]), exit_code(codes[1])), (libc::SIGPIPE, 0));
    let refused = |end: &mut End| {
        sys!(signal(libc::SIGPIPE, libc::SIG_IGN));
        let bytes = [0_u8; 10 * KIB];
        while sys!(write(end.fd, bytes.as_ptr().cast(), bytes.len())) > 0 {}
        i32::from(errno() != libc::EPIPE)
    };
    let counted = |end: &mut End| {
        let mut bytes = vec![0_u8; 4 * KIB];
        for _ in 0..300 {
            ok!(read(end.fd, bytes.as_mut_ptr().cast(), bytes.len()));
        }
        0
    };
    assert_eq!(run(refused, counted).map(exit_code), [0, 0]);
}

fn a_dead_writer_leaves_what_it_wrote() {
    for size in [100, 10 * KIB] {
        let written = shared_word();
        let codes = run(
            |end| {
                while end.at < LONG + 50_000 {
                    end.put(size);
                    written.store(u32::try_from(end.at).unwrap(), SeqCst);
                }
                sys!(raise(libc::SIGKILL));
                0
            },
            |end| {
                end.get_all(LONG - 20_000);
                crate::support::sleep_ms(20);
                while end.get(5000) != 0 {}
                i32::from(end.at != u64::from(written.load(SeqCst)))
            },
        );
        assert_eq!((signal_of(codes[0]), exit_code(codes[1])), (libc::SIGKILL, 0));
    }
}

extern "C" fn on_alarm(_: i32) {}

/// Interrupts what blocks, for a while.
fn with_alarms(does: impl FnOnce()) {
    // SAFETY: all zeros is a valid one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_alarm as *const () as usize;
    ok!(sigaction(libc::SIGALRM, &action, std::ptr::null_mut()));
    let every = libc::timeval { tv_sec: 0, tv_usec: 3000 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    ok!(setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()));
    does();
}

fn signals_interrupt_both_ends() {
    both(
        |end| with_alarms(|| write_whole(end, 10 * KIB, |_| crate::support::sleep_ms(10))),
        |end| with_alarms(|| read_whole(end, 16 * KIB, |_| crate::support::sleep_ms(10))),
    );
    let done = shared_word();
    both(
        |end| {
            end.put(LONG as usize);
            while done.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
        },
        |end| {
            end.get_all(LONG);
            let mut byte = 0_u8;
            with_alarms(|| fails!(libc::EINTR, read(end.fd, (&raw mut byte).cast(), 1)));
            done.store(1, SeqCst);
        },
    );
}

fn bad_buffers_end_transfers() {
    const PAGE: usize = 4096;
    let two_pages = || {
        let (rights, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let at = sys!(mmap(std::ptr::null_mut(), 2 * PAGE, rights, flags, -1, 0)).cast::<u8>();
        ok!(munmap(at.wrapping_add(PAGE).cast(), PAGE));
        at
    };
    both(
        |end| {
            end.put(LONG as usize);
            let at = two_pages();
            let bytes = end.next(PAGE);
            // SAFETY: the first page is mapped.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, PAGE) };
            fails!(libc::EFAULT, write(end.fd, at.wrapping_add(PAGE).cast(), PAGE));
            assert_eq!(ok!(write(end.fd, at.cast(), 2 * PAGE)), PAGE as isize);
            assert_eq!(sys!(write(end.fd, at.cast(), 0)), 0);
            end.at += PAGE as u64;
            end.put(3 * PAGE);
        },
        |end| {
            end.get_all(LONG);
            let at = two_pages();
            fails!(libc::EFAULT, read(end.fd, at.wrapping_add(PAGE).cast(), PAGE));
            assert_eq!(sys!(read(end.fd, at.cast(), 0)), 0);
            // SAFETY: as above.
            let taken = |count| unsafe { std::slice::from_raw_parts(at, count) }.to_vec();
            let count = ok!(read(end.fd, at.cast(), PAGE));
            end.expect(&taken(count as usize));
            while end.get(PAGE) != 0 {}
            assert_eq!(end.at, LONG + 4 * PAGE as u64);
        },
    );
}

/// Nobody reads: a pipe's worth goes in, and no more.
fn a_stream_holds_what_its_pipe_does() {
    let (read, full) = (shared_word(), shared_word());
    let wait = |word: &AtomicU32| {
        while word.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
    };
    both(
        |end| {
            end.put(LONG as usize);
            wait(read);
            (0..12).for_each(|_| end.put(4 * KIB));
            ok!(fcntl(end.fd, libc::F_SETFL, libc::O_NONBLOCK));
            let block = [0_u8; 4 * KIB];
            let mut more = 0;
            while sys!(write(end.fd, block.as_ptr().cast(), block.len())) == 4 * KIB as isize {
                more += 1;
            }
            assert_eq!((more, errno()), (4, libc::EAGAIN));
            full.store(1, SeqCst);
        },
        |end| {
            end.get_all(LONG);
            read.store(1, SeqCst);
            wait(full);
            end.get_all(48 * KIB as u64);
        },
    );
}

fn both_ends_in_one_process() {
    let (read_end, write_end) = pipe();
    let (mut from, mut to) = (End::new(read_end), End::new(write_end));
    while to.at < WHOLE {
        to.put(5000 + to.at as usize % 3000);
        from.get_all(to.at - from.at);
    }
    ok!(close(write_end));
    assert_eq!(from.get(1), 0);
}

/// Rings come and go under the same numbers.
fn one_descriptor_after_the_other() {
    for _ in 0..12 {
        both(|end| end.put(LONG as usize), |end| end.get_all(LONG));
    }
    let mut pipes = Vec::new();
    for _ in 0..30 {
        let (read_end, write_end) = pipe();
        let (mut from, mut to) = (End::new(read_end), End::new(write_end));
        while to.at < LONG {
            to.put(20_000);
            from.get_all(20_000);
        }
        pipes.push((from, to));
    }
    for (from, to) in &mut pipes {
        to.put(1000);
        from.get_all(1000);
    }
}

/// execve(2) keeps the ends, and forgets what was known of them.
fn the_end_is_another_programs() {
    let shell = |script: &str| {
        let [name, option, script] = ["sh", "-c", script].map(crate::support::c);
        let args = [name.as_ptr(), option.as_ptr(), script.as_ptr(), std::ptr::null()];
        sys!(execv(c"/bin/sh".as_ptr(), args.as_ptr()));
        127
    };
    let codes = run(
        |end| {
            end.put(LONG as usize);
            ok!(dup2(end.fd, 1));
            shell("head -c 1000000 /dev/zero; echo end")
        },
        |end| {
            end.get_all(LONG);
            ok!(dup2(end.fd, 0));
            shell("test \"$(cat | tail -c 4)\" = end")
        },
    );
    assert_eq!(codes.map(exit_code), [0, 0]);
}

/// Two wait for the same stream: who has read something is busy then, and the next message is the other one's.
fn all_readers_are_told() {
    fn take(fd: i32, heard: &AtomicU32) {
        let mut bytes = [0_u8; 100];
        assert_eq!(ok!(read(fd, bytes.as_mut_ptr().cast(), 100)), 100);
        heard.fetch_add(1, SeqCst);
        while heard.load(SeqCst) < 2 {
            std::thread::yield_now();
        }
    }
    for has_threads in [false, true] {
        let heard = shared_word();
        both(
            |end| {
                end.put(LONG as usize);
                for round in 0..2 {
                    while heard.load(SeqCst) < round {
                        std::thread::yield_now();
                    }
                    // Both sleep by then.
                    crate::support::sleep_ms(30);
                    end.put(100);
                }
            },
            |end| {
                end.get_all(LONG);
                let fd = end.fd;
                if has_threads {
                    let other = std::thread::spawn(move || take(fd, heard));
                    take(fd, heard);
                    return other.join().unwrap();
                }
                let child = in_child(|| {
                    take(fd, heard);
                    0
                });
                take(fd, heard);
                assert_eq!(exit_code(wait_for(child)), 0);
            },
        );
    }
}

/// Whoever asks is told of what was written before, and of packets as such.
fn what_is_there_is_seen() {
    let written = shared_word();
    let wait = |word: &AtomicU32, round: u32| {
        while word.load(SeqCst) < round {
            std::thread::yield_now();
        }
    };
    both(
        |end| {
            end.put(LONG as usize);
            (0..4).for_each(|_| end.put(5000));
            written.store(1, SeqCst);
            wait(written, 2);
            end.put(WHOLE as usize);
            ok!(fcntl(end.fd, libc::F_SETFL, libc::O_DIRECT));
            wait(written, 3);
            end.put(100);
            end.put(200);
            written.store(4, SeqCst);
        },
        |end| {
            end.get_all(LONG);
            wait(written, 1);
            let mut count = 0_i32;
            ok!(ioctl(end.fd, libc::FIONREAD, &mut count));
            assert_eq!(count, 20_000);
            end.get_all(3000);
            let (from, to) = pipe();
            assert_eq!(ok!(tee(end.fd, to, 10_000, 0)), 10_000);
            assert_eq!(crate::support::read_some(from, 10_000), end.next(10_000));
            written.store(2, SeqCst);
            end.get_all(17_000 + WHOLE);
            written.store(3, SeqCst);
            wait(written, 4);
            assert_eq!((end.get(1000), end.get(1000)), (100, 200));
        },
    );
}
