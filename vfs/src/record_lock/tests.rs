use abi::Errno;
use abi::ids::Tid;
use abi::open::OpenFlags;

use super::LockKind::{Exclusive, Shared};
use super::*;
use crate::test_support::World;

fn range(start: i64, len: i64) -> Range {
    Range::new(start, len).unwrap()
}

fn process(id: i32) -> Owner {
    Owner::Process(Tid(id))
}

#[test]
fn ranges_are_as_struct_flock_says() {
    assert_eq!(range(5, 0), Range { start: 5, end: u64::MAX });
    assert_eq!(range(5, 3), Range { start: 5, end: 8 });
    assert_eq!(range(5, -3), Range { start: 2, end: 5 });
    assert_eq!(Range::new(5, -6), Err(Errno::EINVAL));
    assert_eq!(Range::new(-1, 3), Err(Errno::EINVAL));
    assert_eq!(Range::new(i64::MAX, 2), Err(Errno::EOVERFLOW));
    assert_eq!(range(i64::MAX, 1), Range { start: i64::MAX as u64, end: 1 << 63 });
}

#[test]
fn record_locks_split_join_and_conflict() {
    let world = World::tmpfs();
    world.write("/f", b"").unwrap();
    let file = world.open("/f", OpenFlags::RDWR).unwrap();
    let (me, other) = (process(1), process(2));
    set(&file, me, Some(Exclusive), range(0, 100)).unwrap();
    assert_eq!(set(&file, other, Some(Shared), range(50, 1)), Err(Errno::EAGAIN));
    assert_eq!(test(&file, other, Shared, range(50, 1)).unwrap().range, range(0, 100));
    set(&file, me, None, range(40, 20)).unwrap();
    set(&file, other, Some(Shared), range(40, 20)).unwrap();
    assert_eq!(test(&file, other, Shared, range(0, 0)).unwrap().range, range(0, 40));
    assert_eq!(test(&file, other, Shared, range(60, 0)).unwrap().range, range(60, 40));
    assert!(test(&file, me, Shared, range(0, 0)).is_none());
    assert_eq!(test(&file, me, Exclusive, range(0, 0)).unwrap().owner, other);
    set(&file, me, Some(Shared), range(0, 0)).unwrap();
    let mine: Vec<_> =
        list().into_iter().map(|(_, _, held)| held).filter(|held| held.owner == me).collect();
    assert_eq!(mine, [Held { owner: me, kind: Shared, range: range(0, 0) }]);
    release_process(&file, Tid(1));
    set(&file, other, Some(Exclusive), range(0, 0)).unwrap();
    release_process(&file, Tid(2));
}

#[test]
fn flocks_belong_to_descriptions_and_go_with_them() {
    let world = World::tmpfs();
    world.write("/f", b"").unwrap();
    let open = || world.open("/f", OpenFlags::empty()).unwrap();
    let (a, b) = (open(), open());
    flock(&a, Some(Shared)).unwrap();
    flock(&b, Some(Shared)).unwrap();
    assert_eq!(flock(&a, Some(Exclusive)), Err(Errno::EAGAIN));
    // The failed conversion has cost the old lock, as on Linux.
    flock(&b, Some(Exclusive)).unwrap();
    assert_eq!(flock(&a, Some(Shared)), Err(Errno::EAGAIN));
    drop(b);
    flock(&a, Some(Exclusive)).unwrap();
    flock(&a, None).unwrap();
    flock(&open(), Some(Exclusive)).unwrap();
}

#[test]
fn waiters_hear_of_a_release() {
    use std::sync::atomic::{AtomicU32, Ordering};
    #[derive(Default)]
    struct Bell(AtomicU32);
    impl base::Observer for Bell {
        fn notify(&self, _events: PollEvents) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let world = World::tmpfs();
    world.write("/f", b"").unwrap();
    let open = || world.open("/f", OpenFlags::empty()).unwrap();
    let (a, b) = (open(), open());
    set(&a, Owner::of_file(&a), Some(Exclusive), Range::ALL).unwrap();
    let bell = Arc::new(Bell::default());
    let _heard = wait_queue(&b).register(PollEvents::IN, Arc::clone(&bell) as _);
    assert_eq!(set(&b, Owner::of_file(&b), Some(Shared), Range::ALL), Err(Errno::EAGAIN));
    drop(a);
    assert!(bell.0.load(Ordering::Relaxed) > 0);
    set(&b, Owner::of_file(&b), Some(Shared), Range::ALL).unwrap();
}
