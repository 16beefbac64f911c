use abi::Errno;
use abi::ids::Fd;
use abi::open::OpenFlags;

use super::*;
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
