//! Pipes that stream between two processes for so long that a kernel may take a short way: every byte comes once and in order, whatever is
//! done to an end meanwhile.

use crate::socket::{receive_descriptor, send_descriptor};
use crate::support::{errno, exit_code, fails, in_child, ok, open, pipe, sys, tests, wait_for};

tests! {
    streams_of_all_sizes, the_writer_is_meddled_with, the_reader_is_meddled_with, others_write_meanwhile, others_read_meanwhile,
    both_ends_in_one_process,
    one_descriptor_after_the_other, the_end_is_another_programs,
}

pub const KIB: usize = 1024;
/// More than it takes to become a stream, and to become one again.
pub const LONG: u64 = 600 << 10;
pub const WHOLE: u64 = 5 * LONG;

fn byte(at: u64) -> u8 {
    (at ^ at >> 8 ^ at >> 15).to_le_bytes()[0].wrapping_mul(31)
}

/// An end of a pipe, and what came through it.
pub struct End {
    pub fd: i32,
    pub at: u64,
}

impl End {
    fn new(fd: i32) -> Self {
        Self { fd, at: 0 }
    }

    pub fn next(&self, len: usize) -> Vec<u8> {
        (self.at..self.at + len as u64).map(byte).collect()
    }

    /// Writes the next bytes, however often it takes.
    pub fn put(&mut self, len: usize) {
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

    /// In pieces, so that they are a stream.
    pub fn put_all(&mut self, len: u64) {
        let end = self.at + len;
        while self.at < end {
            self.put(((end - self.at) as usize).min(10 * KIB));
        }
    }

    /// Reads some of the next bytes; 0 is the end.
    pub fn get(&mut self, most: usize) -> usize {
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

    pub fn expect(&mut self, bytes: &[u8]) {
        assert!(
            bytes == self.next(bytes.len()),
            "other bytes within {} at {}",
            bytes.len(),
            self.at
        );
        self.at += bytes.len() as u64;
    }

    pub fn get_all(&mut self, len: u64) {
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
pub fn run(writes: impl FnOnce(&mut End) -> i32, reads: impl FnOnce(&mut End) -> i32) -> [i32; 2] {
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

pub fn both(writes: impl FnOnce(&mut End), reads: impl FnOnce(&mut End)) {
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

pub fn write_whole(end: &mut End, size: usize, mut between: impl FnMut(&mut End)) {
    let mut next = LONG;
    while end.at < WHOLE {
        end.put(size);
        if end.at >= next {
            next += LONG;
            between(end);
        }
    }
}

pub fn read_whole(end: &mut End, size: usize, mut between: impl FnMut(&mut End)) {
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
        both(|end| end.put_all(LONG), |end| end.get_all(LONG));
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
            end.put_all(LONG);
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
