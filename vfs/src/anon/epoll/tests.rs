//! Level, edge and oneshot; nesting; files that go away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::Errno;
use abi::epoll::{EPOLLET, EPOLLONESHOT};
use abi::ids::Fd;
use abi::open::OpenFlags;
use abi::poll::PollEvents;
use base::Observer;

use super::{Epoll, Interest};
use crate::file::{File, FileOps};
use crate::fs::anonfs;
use crate::fs::pipefs::new_pipe;
use crate::test_support::World;

const IN: u32 = PollEvents::IN.bits();

struct Setup {
    world: World,
    epoll: Arc<Epoll>,
    reader: Arc<File>,
    writer: Arc<File>,
}

fn setup(events: u32) -> Setup {
    let world = World::tmpfs();
    let (reader, writer) = new_pipe(&world.cred, OpenFlags::empty());
    let epoll = Epoll::new();
    epoll.add(&world.cx(), Fd(3), &reader, Interest { events, data: 7 }).unwrap();
    Setup { world, epoll, reader, writer }
}

impl Setup {
    fn write(&self) {
        self.writer.write(&self.world.cx(), &mut &b"x"[..]).unwrap();
    }

    fn wait(&self) -> Vec<u32> {
        self.epoll.wait(&self.world.cx(), 8).iter().map(|event| event.events).collect()
    }
}

fn file_of(epoll: &Arc<Epoll>) -> Arc<File> {
    let ops: Arc<dyn FileOps> = epoll.clone();
    anonfs::new_file(ops, "[eventpoll]", OpenFlags::RDWR)
}

#[test]
fn level_reports_until_it_is_read() {
    let s = setup(IN);
    assert_eq!(s.wait(), []);
    s.write();
    assert_eq!(s.wait(), [IN]);
    assert_eq!(s.wait(), [IN]);
    s.reader.read(&s.world.cx(), &mut &mut [0u8; 8][..]).unwrap();
    assert_eq!(s.wait(), []);
}

#[test]
fn edge_reports_once_per_change() {
    let s = setup(IN | EPOLLET);
    s.write();
    assert_eq!(s.wait(), [IN]);
    assert_eq!(s.wait(), []);
    s.write();
    assert_eq!(s.wait(), [IN]);
}

#[test]
fn oneshot_reports_once_until_it_is_modified() {
    let s = setup(IN | EPOLLONESHOT);
    s.write();
    assert_eq!(s.wait(), [IN]);
    s.write();
    assert_eq!(s.wait(), []);
    let again = Interest { events: IN, data: 1 };
    s.epoll.modify(&s.world.cx(), Fd(3), &s.reader, again).unwrap();
    assert_eq!(s.wait(), [IN]);
}

#[test]
fn hang_up_is_always_reported() {
    let mut s = setup(0);
    let (_, writer) = new_pipe(&s.world.cred, OpenFlags::empty());
    drop(std::mem::replace(&mut s.writer, writer));
    assert_eq!(s.wait(), [PollEvents::HUP.bits()]);
}

#[test]
fn closed_files_leave() {
    let mut s = setup(IN);
    s.write();
    let (reader, _) = new_pipe(&s.world.cred, OpenFlags::empty());
    drop(std::mem::replace(&mut s.reader, reader));
    assert_eq!(s.wait(), []);
    assert!(s.epoll.items.lock().map.is_empty());
}

#[test]
fn same_descriptor_twice_is_refused() {
    let s = setup(IN);
    let interest = Interest { events: IN, data: 0 };
    assert_eq!(s.epoll.add(&s.world.cx(), Fd(3), &s.reader, interest), Err(Errno::EEXIST));
    assert_eq!(s.epoll.add(&s.world.cx(), Fd(4), &s.reader, interest), Ok(()));
    assert_eq!(s.epoll.remove(Fd(5), &s.reader), Err(Errno::ENOENT));
}

#[test]
fn epolls_nest_without_loops() {
    let s = setup(IN);
    let cx = s.world.cx();
    let interest = Interest { events: IN, data: 0 };
    let outer = Epoll::new();
    let (outer_file, inner_file) = (file_of(&outer), file_of(&s.epoll));
    outer.add(&cx, Fd(4), &inner_file, interest).unwrap();
    assert_eq!(s.epoll.add(&cx, Fd(5), &outer_file, interest), Err(Errno::ELOOP));
    assert_eq!(s.epoll.add(&cx, Fd(6), &inner_file, interest), Err(Errno::EINVAL));
    assert_eq!(outer.wait(&cx, 8), []);
    s.write();
    assert_eq!(outer.wait(&cx, 8).len(), 1);
    assert_eq!(s.wait(), [IN]);
}

#[test]
fn whoever_waits_is_told() {
    struct Count(AtomicU32);
    impl Observer for Count {
        fn notify(&self, _: PollEvents) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let s = setup(IN);
    let count = Arc::new(Count(AtomicU32::new(0)));
    let queue = s.epoll.wait_queue().unwrap();
    let _registration = queue.register(PollEvents::IN, count.clone());
    s.write();
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
}

#[test]
fn chains_built_from_the_top_do_not_exhaust_the_stack() {
    let s = setup(IN);
    let cx = s.world.cx();
    let interest = Interest { events: IN, data: 0 };
    let mut epolls = vec![Epoll::new()];
    let mut files = vec![file_of(&epolls[0])];
    for _ in 0..5000 {
        let below = Epoll::new();
        let file = file_of(&below);
        epolls.last().unwrap().add(&cx, Fd(4), &file, interest).unwrap();
        epolls.push(below);
        files.push(file);
    }
    epolls.last().unwrap().add(&cx, Fd(5), &s.reader, interest).unwrap();
    s.write();
    assert_eq!(epolls.last().unwrap().wait(&cx, 8).len(), 1);
    assert_eq!(epolls[0].wait(&cx, 8), []);
}
