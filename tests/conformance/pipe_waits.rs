//! Who waits for a stream through a pipe, or ends it: everybody is told in time, and of what there is.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::pipe_stream::{KIB, LONG, both, read_whole, run, write_whole};
use crate::support::{
    errno, exit_code, fails, in_child, ok, pipe, read_some, shared_word, signal_of, sleep_ms, sys,
    tests, wait_for,
};

tests! {
    no_message_waits_for_another, polled_streams, a_closed_reader_ends_the_writer, a_dead_writer_leaves_what_it_wrote, signals_interrupt_both_ends, bad_buffers_end_transfers, a_stream_holds_what_its_pipe_does, all_readers_are_told, what_is_there_is_seen, packets_stay_packets,
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
            end.put_all(LONG);
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
            end.put_all(LONG);
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
                end.put_all(LONG);
                while go.load(SeqCst) < round {
                    std::thread::yield_now();
                }
                sleep_ms(5);
                end.put(100);
            }
        },
        |end| {
            for round in 1..=4 {
                end.get_all(LONG);
                go.store(round, SeqCst);
                let mut polled = libc::pollfd { fd: end.fd, events: libc::POLLIN, revents: 0 };
                assert_eq!(ok!(poll(&mut polled, 1, 5000)), 1);
                end.get_all(100);
            }
        },
    );
}

fn a_closed_reader_ends_the_writer() {
    let short = |end: &mut crate::pipe_stream::End| {
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
    let refused = |end: &mut crate::pipe_stream::End| {
        sys!(signal(libc::SIGPIPE, libc::SIG_IGN));
        let bytes = [0_u8; 10 * KIB];
        while sys!(write(end.fd, bytes.as_ptr().cast(), bytes.len())) > 0 {}
        i32::from(errno() != libc::EPIPE)
    };
    let counted = |end: &mut crate::pipe_stream::End| {
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
                sleep_ms(20);
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
        |end| with_alarms(|| write_whole(end, 10 * KIB, |_| sleep_ms(10))),
        |end| with_alarms(|| read_whole(end, 16 * KIB, |_| sleep_ms(10))),
    );
    let done = shared_word();
    both(
        |end| {
            end.put_all(LONG);
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
            end.put_all(LONG);
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
            end.put_all(LONG);
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
                end.put_all(LONG);
                for round in 0..2 {
                    while heard.load(SeqCst) < round {
                        std::thread::yield_now();
                    }
                    // Both sleep by then.
                    sleep_ms(30);
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

/// Whoever asks is told of what was written before.
fn what_is_there_is_seen() {
    let go = shared_word();
    both(
        |end| {
            end.put_all(LONG + 20_000);
            go.store(1, SeqCst);
        },
        |end| {
            end.get_all(LONG);
            wait(go, 1);
            let mut count = 0_i32;
            ok!(ioctl(end.fd, libc::FIONREAD, &mut count));
            assert_eq!(count, 20_000);
            end.get_all(3000);
            let (from, to) = pipe();
            assert_eq!(ok!(tee(end.fd, to, 10_000, 0)), 10_000);
            assert_eq!(read_some(from, 10_000), end.next(10_000));
            end.get_all(17_000);
        },
    );
}

fn packets_stay_packets() {
    let go = shared_word();
    both(
        |end| {
            end.put_all(LONG);
            wait(go, 1);
            ok!(fcntl(end.fd, libc::F_SETFL, libc::O_DIRECT));
            end.put(100);
            end.put(200);
            go.store(2, SeqCst);
        },
        |end| {
            end.get_all(LONG);
            go.store(1, SeqCst);
            wait(go, 2);
            assert_eq!((end.get(1000), end.get(1000)), (100, 200));
        },
    );
}

fn wait(word: &AtomicU32, value: u32) {
    while word.load(SeqCst) < value {
        std::thread::yield_now();
    }
}
