//! Capacity, atomicity and packets as a host's pipe has them.

use std::time::{Duration, Instant};

use super::pipe::Pace;
use super::ring::Ring;

fn push(ring: &mut Ring, len: usize) -> usize {
    ring.push(&mut vec![7u8; len].as_slice(), false).unwrap()
}

fn pop(ring: &mut Ring, len: usize) -> usize {
    let mut buffer = vec![0u8; len];
    ring.pop(&mut buffer.as_mut_slice()).unwrap()
}

#[test]
fn capacity_is_counted_in_pages() {
    let mut ring = Ring::new(16);
    // A page and a half each time: the odd halves pair up, as on the host.
    assert_eq!(push(&mut ring, 65536 + 10), 65536);
    assert!(ring.is_full());
    assert_eq!(push(&mut ring, 1), 0);
    assert_eq!(pop(&mut ring, 4095), 4095);
    assert!(ring.is_full());
    assert_eq!(pop(&mut ring, 1), 1);
    assert!(!ring.is_full());
    assert_eq!(push(&mut ring, 5000), 4096);
}

#[test]
fn small_writes_share_a_page() {
    let mut ring = Ring::new(2);
    let mut count = 0;
    while push(&mut ring, 1) == 1 {
        count += 1;
    }
    assert_eq!(count, 2 * 4096);
}

#[test]
fn writes_that_do_not_fit_the_last_page_take_a_new_one() {
    let mut ring = Ring::new(2);
    assert_eq!(push(&mut ring, 3000), 3000);
    assert_eq!(push(&mut ring, 3000), 3000);
    assert_eq!(push(&mut ring, 3000), 0);
    assert_eq!(push(&mut ring, 1000), 1000);
}

#[test]
fn bytes_keep_their_order_around_the_ring() {
    let mut ring = Ring::new(4);
    let mut written = 0u8;
    let mut read = 0u8;
    for step in 1..400usize {
        let chunk: Vec<u8> = (0..step % 23).map(|i| written.wrapping_add(i as u8)).collect();
        let got = ring.push(&mut chunk.as_slice(), false).unwrap();
        written = written.wrapping_add(got as u8);
        let mut buffer = [0u8; 11];
        let got = ring.pop(&mut buffer.as_mut_slice()).unwrap();
        for byte in &buffer[..got] {
            assert_eq!(*byte, read);
            read = read.wrapping_add(1);
        }
    }
}

#[test]
fn packets_end_a_read_and_lose_their_rest() {
    let mut ring = Ring::new(16);
    for packet in [&b"abcdef"[..], b"gh"] {
        assert_eq!(ring.push(&mut &*packet, true).unwrap(), packet.len());
    }
    let mut buffer = [0u8; 4];
    assert_eq!(ring.pop(&mut buffer.as_mut_slice()).unwrap(), 4);
    assert_eq!(ring.pop(&mut buffer.as_mut_slice()).unwrap(), 2);
    assert_eq!(&buffer[..2], b"gh");
    assert!(ring.is_empty());
}

#[test]
fn large_writes_in_quick_succession_are_a_stream() {
    let (begun, mut pace) = (Instant::now(), Pace::default());
    let mut note = |count, at| pace.note(count, begun + Duration::from_micros(at), 0);
    let micros = |micros| Some(Duration::from_micros(micros));
    assert_eq!(note(4096, 0), None, "the first");
    assert_eq!(note(4096, 30), micros(240));
    assert_eq!(note(2048, 32), micros(100));
    assert_eq!(note(4096, 332), micros(2000));
    assert_eq!(note(4096, 2000), None, "after a pause");
    assert_eq!(note(100, 2010), None, "small");
    assert_eq!(note(4096, 2020), None, "after a small one");
    assert!(note(4096, 2030).is_some());
}

#[test]
fn who_takes_turns_is_told_at_once() {
    let (begun, mut pace) = (Instant::now(), Pace::default());
    let mut note = |at, hurries| pace.note(4096, begun + Duration::from_micros(at), hurries);
    assert!(note(0, 7).is_none() && note(10, 7).is_none());
    let later = (0..200).map(|at| note(20 + at, 8)).position(|patience| patience.is_some());
    assert_eq!(later, Some(63));
    assert!(note(300, 8).is_some() && note(310, 9).is_none());
}

mod ends {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use abi::Errno;
    use abi::open::OpenFlags;
    use abi::poll::PollEvents;
    use base::Observer;

    use crate::file::File;
    use crate::fs::pipefs::{FifoOpen, new_pipe, open_fifo};
    use crate::test_support::World;

    fn poll(world: &World, file: &File) -> PollEvents {
        file.ops().poll(&world.cx(), file)
    }

    const IN: PollEvents = PollEvents::IN.union(PollEvents::RDNORM);
    const OUT: PollEvents = PollEvents::OUT.union(PollEvents::WRNORM);

    #[test]
    fn readiness_follows_content_and_peers() {
        let world = World::tmpfs();
        let (reader, writer) = new_pipe(&world.cred, OpenFlags::empty());
        assert_eq!(poll(&world, &reader), PollEvents::empty());
        assert_eq!(poll(&world, &writer), OUT);
        let mut buffer = [0; 8];
        assert_eq!(reader.read(&world.cx(), &mut &mut buffer[..]), Err(Errno::EAGAIN));
        assert_eq!(writer.write(&world.cx(), &mut &b"abc"[..]), Ok(3));
        assert_eq!(poll(&world, &reader), IN);
        drop(writer);
        assert_eq!(poll(&world, &reader), IN | PollEvents::HUP);
        assert_eq!(reader.read(&world.cx(), &mut &mut buffer[..]), Ok(3));
        assert_eq!(reader.read(&world.cx(), &mut &mut buffer[..]), Ok(0));
        assert_eq!(poll(&world, &reader), PollEvents::HUP);
    }

    #[test]
    fn write_without_readers_is_broken() {
        let world = World::tmpfs();
        let (reader, writer) = new_pipe(&world.cred, OpenFlags::empty());
        drop(reader);
        assert_eq!(writer.write(&world.cx(), &mut &b"abc"[..]), Err(Errno::EPIPE));
        assert_eq!(writer.write(&world.cx(), &mut &b""[..]), Ok(0));
        assert_eq!(poll(&world, &writer), OUT | PollEvents::ERR);
    }

    #[test]
    fn wrong_direction_is_a_bad_descriptor() {
        let world = World::tmpfs();
        let (reader, writer) = new_pipe(&world.cred, OpenFlags::empty());
        assert_eq!(reader.write(&world.cx(), &mut &b"a"[..]), Err(Errno::EBADF));
        assert_eq!(writer.read(&world.cx(), &mut &mut [0u8; 1][..]), Err(Errno::EBADF));
    }

    #[test]
    fn readers_are_told_before_a_writer_must_wait() {
        #[derive(Default)]
        struct Count(AtomicU32);
        impl Observer for Count {
            fn notify(&self, _: PollEvents) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        base::later::serve();
        let world = World::tmpfs();
        let (reader, writer) = new_pipe(&world.cred, OpenFlags::empty());
        let count = Arc::new(Count::default());
        let queue = reader.ops().wait_queue().expect("a pipe has one");
        let _registration = queue.register(PollEvents::IN, Arc::clone(&count) as Arc<dyn Observer>);
        let write = |len: usize| writer.write(&world.cx(), &mut vec![1; len].as_slice());
        let told = || count.0.load(Ordering::Relaxed);
        // Small ones, and the first of several, at once.
        assert_eq!((write(1), told()), (Ok(1), 1));
        assert_eq!((write(8192), told()), (Ok(8192), 2));
        // These perhaps later; but then the pipe is more than half full.
        for _ in 0..4 {
            assert_eq!(write(8192), Ok(8192));
        }
        assert!(told() >= 3);
        base::later::tell_all();
    }

    #[test]
    fn size_is_rounded_and_bounded() {
        let world = World::tmpfs();
        let (_reader, writer) = new_pipe(&world.cred, OpenFlags::empty());
        assert_eq!(writer.ops().pipe_size(None), Ok(65536));
        assert_eq!(writer.ops().pipe_size(Some(5000)), Ok(8192));
        assert_eq!(writer.ops().pipe_size(Some(2 << 20)), Err(Errno::EPERM));
        assert_eq!(writer.write(&world.cx(), &mut &[0; 8192][..]), Ok(8192));
        assert_eq!(writer.ops().pipe_size(Some(4096)), Err(Errno::EBUSY));
    }

    #[test]
    fn fifo_reader_and_writer_meet() {
        let reads = OpenFlags::empty();
        let Ok(FifoOpen::Wait(wait)) = open_fifo(1, 2, reads) else { panic!("no writer yet") };
        let wait = wait.finish().map(|_| ()).expect_err("still no writer");
        let Ok(FifoOpen::Done(writer)) = open_fifo(1, 2, OpenFlags::WRONLY) else {
            panic!("a reader waits")
        };
        // A writer that came and went counts.
        drop(writer);
        assert!(wait.finish().is_ok());
    }

    #[test]
    fn fifo_without_blocking() {
        let nonblocking = OpenFlags::NONBLOCK;
        assert!(matches!(open_fifo(1, 3, nonblocking | OpenFlags::WRONLY), Err(Errno::ENXIO)));
        let Ok(FifoOpen::Done(reader)) = open_fifo(1, 3, nonblocking) else { panic!("at once") };
        let writer = open_fifo(1, 3, nonblocking | OpenFlags::WRONLY);
        assert!(matches!(writer, Ok(FifoOpen::Done(_))));
        drop(reader);
    }
}
