use abi::Errno;
use abi::ids::Fd;
use abi::open::OpenFlags;

use super::*;
use crate::anon::epoll::{Epoll, Interest};
use crate::fs::anonfs;
use crate::fs::pipefs::new_pipe;
use crate::test_support::World;

const LIMIT: u64 = 64;

#[test]
fn descriptors_are_the_lowest_free_ones() {
    let world = World::tmpfs();
    let file = || world.open("/", OpenFlags::empty()).unwrap();
    let table = FdTable::new();
    let install = |lowest| table.install(file(), false, Fd(lowest), LIMIT);
    for fd in 0..4 {
        assert_eq!(install(0), Ok(Fd(fd)));
    }
    assert_eq!(install(10), Ok(Fd(10)));
    table.close(Fd(1)).unwrap();
    table.close(Fd(0)).unwrap();
    assert_eq!(install(1), Ok(Fd(1)));
    assert_eq!(install(0), Ok(Fd(0)));
    assert_eq!(install(0), Ok(Fd(4)));
    assert_eq!(install(64), Err(Errno::EINVAL));
    assert_eq!(table.get(Fd(-1)).unwrap_err(), Errno::EBADF);
    assert_eq!(table.close(Fd(9)).unwrap_err(), Errno::EBADF);
    for fd in (5..64).filter(|fd| *fd != 10) {
        assert_eq!(install(0), Ok(Fd(fd)));
    }
    assert_eq!(install(0), Err(Errno::EMFILE));
    assert_eq!(table.list().len(), 64);
    assert_eq!(table.close_range(3, u32::MAX).len(), 61);
    assert_eq!(install(0), Ok(Fd(3)));
}

#[test]
fn copies_share_the_file_and_have_their_own_flag() {
    let world = World::tmpfs();
    let table = FdTable::new();
    let file = world.open("/", OpenFlags::empty()).unwrap();
    table.install(file, false, Fd(0), LIMIT).unwrap();
    assert!(table.dup_to(Fd(0), Fd(5), true, LIMIT).unwrap().is_none());
    assert!(table.dup_to(Fd(0), Fd(5), true, LIMIT).unwrap().is_some());
    assert!(table.dup_to(Fd(0), Fd(0), true, LIMIT).unwrap().is_none());
    assert_eq!(table.dup_to(Fd(0), Fd(64), true, LIMIT).unwrap_err(), Errno::EBADF);
    assert_eq!(table.dup_to(Fd(1), Fd(2), true, LIMIT).unwrap_err(), Errno::EBADF);
    assert!(Arc::ptr_eq(&table.get(Fd(0)).unwrap(), &table.get(Fd(5)).unwrap()));
    let fork = table.duplicate();
    assert_eq!(table.close_on_exec().len(), 1);
    assert_eq!((table.list().len(), fork.list().len()), (1, 2));
    fork.set_cloexec_range(0, 3);
    assert_eq!((fork.is_cloexec(Fd(0)), table.is_cloexec(Fd(0))), (Ok(true), Ok(false)));
}

#[test]
fn path_descriptors_are_no_files() {
    let world = World::tmpfs();
    let table = FdTable::new();
    let file = world.open("/", OpenFlags::PATH).unwrap();
    let fd = table.install(file, false, Fd(0), LIMIT).unwrap();
    assert_eq!(table.get(fd).unwrap_err(), Errno::EBADF);
    assert!(table.get_path_ok(fd).is_ok());
}

#[test]
fn it_is_known_which_epoll_watches_a_descriptor() {
    let world = World::tmpfs();
    let table = FdTable::new();
    let put = |file, at| table.install(file, false, Fd(at), LIMIT).unwrap();
    let epolls = [Epoll::new(), Epoll::new()];
    for (at, epoll) in epolls.iter().enumerate() {
        put(anonfs::new_file(epoll.clone(), "[eventpoll]", OpenFlags::RDWR), at as i32);
    }
    let (reader, _writer) = new_pipe(&world.cred, OpenFlags::empty());
    put(reader, 5);
    put(world.open("/", OpenFlags::empty()).unwrap(), 6);
    let watch = |epoll: usize, events| {
        let reader = table.get(Fd(5)).unwrap();
        let interest = Interest { events, data: 0 };
        epolls[epoll].add(&world.cx(), Fd(5), &reader, interest).unwrap();
        table.note_watch(Fd(5), false);
    };
    let seen = |fd| {
        let seen = table.look(Fd(fd)).unwrap();
        (seen.is_epoll, seen.watch)
    };
    assert_eq!((seen(0), seen(5)), ((false, Watch::Unknown), (false, Watch::Unknown)));
    table.note_watch(Fd(5), false);
    assert_eq!(table.take_changed(), u64::MAX);
    assert_eq!((seen(0), seen(5)), ((true, Watch::Unknown), (false, Watch::Nowhere)));
    // What cannot be watched.
    assert_eq!(seen(6), (false, Watch::Unknown));
    watch(1, 1);
    assert_eq!((table.take_changed(), seen(5)), (1 << 5, (false, Watch::By(Fd(1)))));
    watch(0, 1);
    assert_eq!(seen(5), (false, Watch::Unknown));
    epolls[0].remove(Fd(5), &table.get(Fd(5)).unwrap()).unwrap();
    assert_eq!(seen(5), (false, Watch::By(Fd(1))));
    let copy = table.duplicate();
    assert_eq!((table.take_changed(), seen(1).0), (u64::MAX, false));
    drop(copy);
    assert!(seen(1).0);
    // One that is gone is asked no more, and all that it watched is to be looked at.
    table.close(Fd(1)).unwrap();
    assert_eq!((table.take_changed(), seen(5)), (u64::MAX, (false, Watch::Nowhere)));
    watch(0, EPOLLEXCLUSIVE);
    assert_eq!(seen(5), (false, Watch::Unknown));
    let _ = table.take_changed();
    table.dup_to(Fd(6), Fd(0), false, LIMIT).unwrap();
    assert_eq!(table.take_changed(), u64::MAX);
}

#[test]
fn an_epoll_that_is_watched_is_not_its_table_s_alone() {
    let world = World::tmpfs();
    let table = FdTable::new();
    let (inner, outer) = (Epoll::new(), Epoll::new());
    let file = anonfs::new_file(inner, "[eventpoll]", OpenFlags::RDWR);
    table.install(Arc::clone(&file), false, Fd(0), LIMIT).unwrap();
    let interest = Interest { events: 1, data: 0 };
    outer.add(&world.cx(), Fd(0), &file, interest).unwrap();
    table.note_watch(Fd(0), true);
    drop(file);
    assert!(!table.look(Fd(0)).unwrap().is_epoll);
    drop(outer);
    assert!(table.look(Fd(0)).unwrap().is_epoll);
}
