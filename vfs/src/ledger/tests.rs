use std::sync::Mutex;

use super::*;
use crate::fs::tmpfs::{Options, TmpFs};
use crate::record_lock::Held;
use crate::test_support::{HostClock, World};

/// A guest that enters what it is told to, whatever its rights are.
#[derive(Default)]
struct Guest {
    rights: Mutex<Rights>,
    acts: Mutex<Vec<(u32, Act<'static>)>>,
}

impl base::Ledger for Guest {
    fn trust(&self, _descriptor: u32, rights: Rights) {
        *self.rights.lock().unwrap() = rights;
    }

    fn distrust(&self, _descriptor: u32) {
        *self.rights.lock().unwrap() = Rights::default();
    }

    fn tell(&self, _descriptor: u32, _stat: &[u8; STAT_BYTES]) {}

    fn untell(&self, _descriptor: u32) {}

    fn take(&self, each: &mut dyn FnMut(Entry<'_>)) {
        let acts = std::mem::take(&mut *self.acts.lock().unwrap());
        acts.into_iter().for_each(|(descriptor, act)| each(Entry { descriptor, act }));
    }

    fn is_empty(&self) -> bool {
        self.acts.lock().unwrap().is_empty()
    }

    fn descriptors(&self) -> u32 {
        64
    }

    fn most_pages(&self) -> u64 {
        10
    }
}

impl Guest {
    fn enter(&self, descriptor: Fd, act: Act<'static>) {
        self.acts.lock().unwrap().push((descriptor.0.cast_unsigned(), act));
    }

    fn rights(&self) -> Rights {
        *self.rights.lock().unwrap()
    }
}

const ME: Tid = Tid(1);

struct Case {
    world: World,
    guest: Arc<Guest>,
    ledger: Arc<Ledger>,
    files: Arc<FdTable>,
    file: Arc<File>,
    fd: Fd,
}

impl Case {
    fn new(world: World) -> Self {
        let guest = Arc::new(Guest::default());
        let ledger = Ledger::new(Arc::clone(&guest) as Arc<dyn base::Ledger>);
        let files = FdTable::new();
        let file = world.open("/f", OpenFlags::RDWR | OpenFlags::CREAT).unwrap();
        let fd = files.install(Arc::clone(&file), false, Fd(0), 100).unwrap();
        Self { world, guest, ledger, files, file, fd }
    }

    fn own(&self) -> OwnFile<'_> {
        OwnFile { files: &self.files, fd: self.fd, file: &self.file, process: ME }
    }

    fn store(&self, pos: u64, bytes: &'static [u8]) {
        self.guest.enter(self.fd, Act::Stored { pos, bytes, age_ns: 0 });
    }
}

fn small(pages: u64) -> World {
    let size = Some(pages * abi::addr::PAGE_SIZE);
    World::new(TmpFs::new(Arc::new(HostClock), Options { size, ..Options::default() }))
}

#[test]
fn what_was_written_is_there_for_whoever_looks() {
    let case = Case::new(World::tmpfs());
    case.ledger.entrust_stores(case.own());
    assert!(case.guest.rights().stores && !case.guest.rights().locks);
    case.store(3, b"abc");
    assert_eq!(case.file.inode().attr().unwrap().size, 6);
    case.store(0, b"xyz");
    assert_eq!(case.world.read("/f").unwrap(), b"xyzabc");
    case.store(6, b"!");
    case.files.close(case.fd).unwrap();
    assert!(!case.guest.rights().stores);
    assert_eq!(case.world.read("/f").unwrap(), b"xyzabc!");
}

#[test]
fn a_mapping_ends_it() {
    let case = Case::new(World::tmpfs());
    case.ledger.entrust_stores(case.own());
    case.store(0, b"abc");
    case.file.ops().mappable(&case.file, true).unwrap();
    assert!(!case.guest.rights().stores);
    assert_eq!(case.world.read("/f").unwrap(), b"abc");
    case.ledger.entrust_stores(case.own());
    assert!(!case.guest.rights().stores);
}

#[test]
fn what_nobody_was_trusted_with_is_not_done() {
    let case = Case::new(World::tmpfs());
    let lock = Act::Locked { kind: Lock::Exclusive, start: 0, len: 0 };
    case.store(0, b"abc");
    case.guest.enter(case.fd, lock);
    case.ledger.settle();
    case.ledger.entrust_stores(case.own());
    case.guest.enter(case.fd, lock);
    case.guest.enter(Fd(9), Act::Stored { pos: 0, bytes: b"abc", age_ns: 0 });
    case.store(i64::MAX as u64 - 1, b"abc");
    case.ledger.settle();
    assert_eq!(case.world.read("/f").unwrap(), b"");
    let owner = Owner::Process(Tid(2));
    assert_eq!(record_lock::test(&case.file, owner, LockKind::Exclusive, Range::ALL), None);
}

#[test]
fn room_is_kept_for_what_may_be_written() {
    let case = Case::new(small(640));
    case.ledger.entrust_stores(case.own());
    assert!(case.guest.rights().stores);
    // Of 640 pages 10 are reserved.
    let error = case.world.write("/other", &[1; 631 * 4096]).unwrap_err();
    assert_eq!(error, abi::Errno::ENOSPC);
    for page in 0..10 {
        case.store(page * 4096, b"x");
    }
    case.ledger.settle();
    assert_eq!(case.file.inode().attr().unwrap().blocks, 80);
    // There is no room for as much again.
    assert!(!case.guest.rights().stores);
    // Who writes little is not to miss it.
    let case = Case::new(small(639));
    case.ledger.entrust_stores(case.own());
    assert!(!case.guest.rights().stores);
    let case = Case::new(small(640));
    case.world.write("/other", &[1; 321 * 4096]).unwrap();
    case.ledger.entrust_stores(case.own());
    assert!(!case.guest.rights().stores);
}

#[test]
fn locks_are_its_own_until_another_asks() {
    let case = Case::new(World::tmpfs());
    let (me, other) = (Owner::Process(ME), Owner::Process(Tid(2)));
    let range = Range::new(0, 10).unwrap();
    for _ in 0..3 {
        case.ledger.entrust_locks(case.own());
        assert!(!case.guest.rights().locks);
        record_lock::set(&case.file, me, Some(LockKind::Shared), range).unwrap();
    }
    case.ledger.entrust_locks(case.own());
    assert!(case.guest.rights().locks);
    case.guest.enter(case.fd, Act::Locked { kind: Lock::Exclusive, start: 5, len: 10 });
    let held = record_lock::test(&case.file, other, LockKind::Shared, Range::ALL);
    let expected = Held { owner: me, kind: LockKind::Exclusive, range: Range::new(5, 10).unwrap() };
    assert_eq!(held, Some(expected));
    // From now on each call is needed: who waits is told of it.
    assert!(!case.guest.rights().locks);
    case.ledger.entrust_locks(case.own());
    assert!(!case.guest.rights().locks);
    record_lock::release_process(&case.file, ME);
}
