use abi::Errno;
use abi::fcntl::Seals;
use abi::open::OpenFlags;

use super::*;
use crate::file::{MapSource, Whence};
use crate::ops;
use crate::test_support::{HostClock, World};

const RDWR: OpenFlags = OpenFlags::RDWR;

#[test]
fn bytes_come_back_also_across_holes_and_pages() {
    let world = World::tmpfs();
    let file = world.open("/f", RDWR | OpenFlags::CREAT).unwrap();
    let cx = world.cx();
    file.pwrite(&cx, &mut &b"end"[..], 10_000).unwrap();
    file.pwrite(&cx, &mut &b"begin"[..], 0).unwrap();
    let bytes = world.read("/f").unwrap();
    assert_eq!(bytes.len(), 10_003);
    assert_eq!(&bytes[..5], b"begin");
    assert_eq!(&bytes[10_000..], b"end");
    assert!(bytes[5..10_000].iter().all(|byte| *byte == 0));
    assert_eq!(world.path("/f").unwrap().inode().attr().unwrap().blocks, 16);
    assert_eq!(file.seek(5, Whence::Hole).unwrap(), 4096);
    assert_eq!(file.seek(4096, Whence::Data).unwrap(), 8192);
    assert_eq!(file.seek(10_003, Whence::Data), Err(Errno::ENXIO));
}

#[test]
fn a_large_file_is_the_same_on_the_heap_and_in_a_memfd() {
    let world = World::tmpfs();
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|at| (at * 7 % 251) as u8).collect();
    world.write("/f", &bytes).unwrap();
    assert_eq!(world.read("/f").unwrap(), bytes);
    let file = world.open("/f", RDWR).unwrap();
    let MapSource::Host { fd, .. } = file.ops().mappable(&file, true).unwrap() else { panic!() };
    assert_eq!(rustix::fs::fstat(&fd).unwrap().st_size, 1_000_000);
    assert_eq!(world.read("/f").unwrap(), bytes);
    file.pwrite(&world.cx(), &mut &b"x"[..], 1_000_000).unwrap();
    assert_eq!(file.inode().attr().unwrap().size, 1_000_001);
    ops::ftruncate(&world.cx(), &file, 3).unwrap();
    assert_eq!(world.read("/f").unwrap(), &bytes[..3]);
    ops::ftruncate(&world.cx(), &file, 10).unwrap();
    assert_eq!(&world.read("/f").unwrap()[3..], &[0; 7]);
}

#[test]
fn shrinking_and_growing_again_reads_zeros() {
    let world = World::tmpfs();
    world.write("/f", &[7; 5000]).unwrap();
    let file = world.open("/f", RDWR).unwrap();
    ops::ftruncate(&world.cx(), &file, 100).unwrap();
    ops::ftruncate(&world.cx(), &file, 5000).unwrap();
    let bytes = world.read("/f").unwrap();
    assert!(bytes[..100].iter().all(|byte| *byte == 7));
    assert!(bytes[100..].iter().all(|byte| *byte == 0));
    ops::allocate(&world.cx(), &file, 3, 10, 20).unwrap();
    assert_eq!(&world.read("/f").unwrap()[8..32], &[&[7; 2][..], &[0; 20], &[7; 2]].concat()[..]);
}

#[test]
fn append_ignores_the_position() {
    let world = World::tmpfs();
    world.write("/f", b"abc").unwrap();
    let file = world.open("/f", OpenFlags::WRONLY | OpenFlags::APPEND).unwrap();
    file.write(&world.cx(), &mut &b"de"[..]).unwrap();
    assert_eq!(file.seek(0, Whence::Current).unwrap(), 5);
    file.pwrite(&world.cx(), &mut &b"f"[..], 0).unwrap();
    assert_eq!(world.read("/f").unwrap(), b"abcdef");
    assert_eq!(file.read(&world.cx(), &mut &mut [0; 4][..]), Err(Errno::EBADF));
}

#[test]
fn the_size_limit_holds_and_room_comes_back() {
    let options = Options { size: Some(16 * 4096), ..Options::default() };
    let world = World::new(TmpFs::new(Arc::new(HostClock), options));
    assert_eq!(world.write("/f", &[1; 17 * 4096]), Err(Errno::ENOSPC));
    assert_eq!(world.path("/f").unwrap().inode().attr().unwrap().size, 16 * 4096);
    let statfs = ops::statfs(&world.path("/").unwrap()).unwrap();
    assert_eq!((statfs.blocks, statfs.blocks_free), (16, 0));
    world.unlink("/f").unwrap();
    assert_eq!(ops::statfs(&world.path("/").unwrap()).unwrap().blocks_free, 16);
    world.write("/g", &[1; 4096]).unwrap();
}

#[test]
fn positions_of_a_directory_stay_true_while_entries_go() {
    let world = World::tmpfs();
    world.mkdir("/d").unwrap();
    for at in 0..1000 {
        world.write(&format!("/d/{at}"), b"").unwrap();
    }
    let dir = world.open("/d", OpenFlags::DIRECTORY).unwrap();
    let mut seen = std::collections::HashSet::new();
    loop {
        let mut batch = Vec::new();
        dir.readdir(&world.cx(), &mut |entry| {
            batch.push(String::from_utf8(entry.name.to_vec()).unwrap());
            batch.len() < 10
        })
        .unwrap();
        // The one that was refused comes again.
        let refused = if batch.len() == 10 { batch.pop() } else { None };
        for name in batch {
            assert!(seen.insert(name.clone()), "{name} twice");
            if !name.starts_with('.') {
                world.unlink(&format!("/d/{name}")).unwrap();
            }
        }
        if refused.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 1002);
    world.rmdir("/d").unwrap();
}

#[test]
fn links_and_directories_are_counted() {
    let world = World::tmpfs();
    let nlink = |path: &str| world.path(path).unwrap().inode().attr().unwrap().nlink;
    world.mkdir("/d").unwrap();
    world.mkdir("/d/e").unwrap();
    assert_eq!((nlink("/d"), nlink("/d/e")), (3, 2));
    world.write("/a", b"").unwrap();
    world.link("/a", "/b").unwrap();
    assert_eq!(nlink("/a"), 2);
    world.unlink("/a").unwrap();
    assert_eq!(nlink("/b"), 1);
    world.rename("/d/e", "/e").unwrap();
    assert_eq!((nlink("/d"), nlink("/e")), (2, 2));
    assert_eq!(world.rmdir("/").unwrap_err(), Errno::EBUSY);
}

#[test]
fn a_file_without_a_name_can_get_one() {
    let world = World::tmpfs();
    let file = world.open("/", RDWR | OpenFlags::TMPFILE).unwrap();
    file.write(&world.cx(), &mut &b"hello"[..]).unwrap();
    assert_eq!(file.inode().attr().unwrap().nlink, 0);
    assert!(world.text(file.path()).ends_with(" (deleted)"));
    ops::link_file(&world.cx(), file.path(), None, b"/named").unwrap();
    assert_eq!(world.read("/named").unwrap(), b"hello");
    let gone = world.open("/named2", RDWR | OpenFlags::CREAT).unwrap();
    world.unlink("/named2").unwrap();
    assert_eq!(ops::link_file(&world.cx(), gone.path(), None, b"/x"), Err(Errno::ENOENT));
    let exclusive = world.open("/", RDWR | OpenFlags::TMPFILE | OpenFlags::EXCL).unwrap();
    assert_eq!(ops::link_file(&world.cx(), exclusive.path(), None, b"/x"), Err(Errno::ENOENT));
    assert_eq!(file.inode().attr().unwrap().nlink, 1);
}

#[test]
fn seals_refuse_what_they_forbid() {
    let world = World::tmpfs();
    let store = Nameless::new(Arc::new(HostClock), None, 1);
    let own = Ownership { uid: Uid::ROOT, gid: Gid::ROOT, mode: 0o777 };
    let file = store.memfd(own, b"x", true).unwrap();
    assert_eq!(world.text(file.path()), "/memfd:x (deleted)");
    file.write(&world.cx(), &mut &b"abc"[..]).unwrap();
    add_seals(&file, Seals::SHRINK | Seals::GROW).unwrap();
    assert_eq!(ops::ftruncate(&world.cx(), &file, 1), Err(Errno::EPERM));
    assert_eq!(file.pwrite(&world.cx(), &mut &b"abcd"[..], 0), Err(Errno::EPERM));
    file.pwrite(&world.cx(), &mut &b"xyz"[..], 0).unwrap();
    add_seals(&file, Seals::WRITE | Seals::SEAL).unwrap();
    assert_eq!(file.pwrite(&world.cx(), &mut &b"a"[..], 0), Err(Errno::EPERM));
    assert_eq!(add_seals(&file, Seals::WRITE), Err(Errno::EPERM));
    assert_eq!(seals(&file).unwrap().bits(), 0xf);
    let MapSource::Host { fd, .. } = file.ops().mappable(&file, false).unwrap() else { panic!() };
    assert!(rustix::io::write(&fd, b"x").is_err());
}

#[test]
fn a_tree_deeper_than_the_stack_goes_without_harm() {
    let world = World::tmpfs();
    for _ in 0..50_000 {
        world.mkdir("d").unwrap();
        let next = world.path("d").unwrap();
        world.fs.state.lock().cwd = next;
    }
    drop(world);
}

#[test]
fn extended_attributes_are_kept() {
    let world = World::tmpfs();
    world.write("/f", b"").unwrap();
    let (cx, path) = (world.cx(), world.path("/f").unwrap());
    ops::set_xattr(&cx, &path, b"user.a", b"1", 0).unwrap();
    assert_eq!(ops::set_xattr(&cx, &path, b"user.a", b"2", 1), Err(Errno::EEXIST));
    assert_eq!(ops::set_xattr(&cx, &path, b"user.b", b"2", 2), Err(Errno::ENODATA));
    assert_eq!(ops::get_xattr(&cx, &path, b"user.a").unwrap(), b"1");
    assert_eq!(ops::get_xattr(&cx, &path, b"other.a"), Err(Errno::EOPNOTSUPP));
    assert_eq!(ops::list_xattr(&cx, &path).unwrap(), b"user.a\0");
    ops::remove_xattr(&cx, &path, b"user.a").unwrap();
    assert_eq!(ops::remove_xattr(&cx, &path, b"user.a"), Err(Errno::ENODATA));
}
