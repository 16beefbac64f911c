use std::sync::Arc;

use abi::Errno;
use abi::open::OpenFlags;
use abi::stat::Attr;

use super::*;
use crate::file::MapSource;
use crate::fs::tmpfs::{Options, TmpFs};
use crate::inode::{RenameFlags, SetTime};
use crate::ops;
use crate::test_support::{HostClock, World};

const RDWR: OpenFlags = OpenFlags::RDWR;

/// A lower tree made by `fill`, seen directly and through an overlay.
fn worlds(fill: impl FnOnce(&World)) -> (World, World) {
    let options = Options { mode: 0o755, ..Options::default() };
    let lower = TmpFs::new(Arc::new(HostClock), options);
    let below = World::new(Arc::clone(&lower) as _);
    fill(&below);
    let overlay = OverlayFs::new(lower, Arc::new(HostClock), None).unwrap();
    (below, World::new(overlay))
}

fn attr(world: &World, path: &str) -> Attr {
    world.lpath(path).unwrap().inode().attr().unwrap()
}

#[test]
fn writes_stay_above() {
    let (below, world) = worlds(|w| w.write("/f", b"lower bytes").unwrap());
    let before = attr(&world, "/f");
    let reader = world.open("/f", OpenFlags::empty()).unwrap();
    let file = world.open("/f", RDWR).unwrap();
    file.pwrite(&world.cx(), &mut &b"UPPER"[..], 0).unwrap();
    assert_eq!(world.read("/f").unwrap(), b"UPPER bytes");
    assert_eq!(world.read_file(&reader).unwrap(), b"UPPER bytes");
    assert_eq!(below.read("/f").unwrap(), b"lower bytes");
    let after = attr(&world, "/f");
    assert_eq!((before.ino, before.dev, before.btime), (after.ino, after.dev, after.btime));
    assert!(after.mtime > before.mtime);
}

#[test]
fn a_change_of_attributes_keeps_bytes_and_times() {
    let (below, world) = worlds(|w| {
        w.write("/f", b"bytes").unwrap();
        ops::set_xattr(&w.cx(), &w.path("/f").unwrap(), b"user.a", b"1", 0).unwrap();
    });
    let before = attr(&world, "/f");
    ops::chmod(&world.cx(), &world.path("/f").unwrap(), 0o600).unwrap();
    let after = attr(&world, "/f");
    assert_eq!(after.mode & 0o7777, 0o600);
    assert_eq!((before.size, before.mtime), (after.size, after.mtime));
    assert_eq!(world.read("/f").unwrap(), b"bytes");
    let path = world.path("/f").unwrap();
    assert_eq!(ops::get_xattr(&world.cx(), &path, b"user.a").unwrap(), b"1");
    assert_eq!(attr(&below, "/f").mode & 0o7777, 0o644);
    let time = abi::time::Timespec { sec: 5, nsec: 0 };
    ops::utimens(&world.cx(), &path, None, Some(SetTime::At(time))).unwrap();
    world.open("/f", RDWR).unwrap().pwrite(&world.cx(), &mut &b"!"[..], 5).unwrap();
    assert_eq!(world.read("/f").unwrap(), b"bytes!");
}

#[test]
fn removed_names_are_gone_and_can_come_back() {
    let (below, world) = worlds(|w| {
        w.mkdir("/d").unwrap();
        w.write("/d/a", b"a").unwrap();
        w.write("/d/b", b"b").unwrap();
    });
    world.unlink("/d/a").unwrap();
    assert_eq!(world.read("/d/a"), Err(Errno::ENOENT));
    assert_eq!(world.list("/d").unwrap(), ["b"]);
    assert_eq!(world.rmdir("/d").unwrap_err(), Errno::ENOTEMPTY);
    world.write("/d/a", b"new").unwrap();
    assert_eq!(world.list("/d").unwrap(), ["a", "b"]);
    assert_eq!(world.read("/d/a").unwrap(), b"new");
    world.unlink("/d/a").unwrap();
    world.unlink("/d/b").unwrap();
    assert_eq!(world.list("/d").unwrap(), [""; 0]);
    world.rmdir("/d").unwrap();
    assert_eq!(world.list("/").unwrap(), [""; 0]);
    world.mkdir("/d").unwrap();
    assert_eq!(world.list("/d").unwrap(), [""; 0]);
    assert_eq!(below.list("/d").unwrap(), ["a", "b"]);
}

#[test]
fn directories_move_with_what_is_in_them() {
    let (below, world) = worlds(|w| {
        w.mkdir("/d").unwrap();
        w.mkdir("/d/e").unwrap();
        w.write("/d/e/f", b"deep").unwrap();
        w.mkdir("/other").unwrap();
    });
    let ino = attr(&world, "/d").ino;
    world.write("/d/e/new", b"new").unwrap();
    world.rename("/d", "/other/moved").unwrap();
    assert_eq!(world.list("/").unwrap(), ["other"]);
    assert_eq!(world.list("/other/moved/e").unwrap(), ["f", "new"]);
    assert_eq!(world.read("/other/moved/e/f").unwrap(), b"deep");
    assert_eq!(attr(&world, "/other/moved").ino, ino);
    assert_eq!((attr(&world, "/").nlink, attr(&world, "/other").nlink), (3, 3));
    world.write("/other/moved/e/f", b"changed").unwrap();
    world.rename("/other/moved", "/d").unwrap();
    assert_eq!(world.read("/d/e/f").unwrap(), b"changed");
    assert_eq!(below.read("/d/e/f").unwrap(), b"deep");
    assert_eq!(world.rename("/d", "/d/e/x"), Err(Errno::EINVAL));
}

#[test]
fn renaming_over_a_lower_name_hides_it() {
    let (_, world) = worlds(|w| {
        w.write("/a", b"a").unwrap();
        w.write("/b", b"b").unwrap();
        w.mkdir("/empty").unwrap();
        w.mkdir("/full").unwrap();
        w.write("/full/x", b"").unwrap();
    });
    world.rename("/a", "/b").unwrap();
    assert_eq!(world.read("/b").unwrap(), b"a");
    assert_eq!(world.list("/").unwrap(), ["b", "empty", "full"]);
    world.unlink("/b").unwrap();
    assert_eq!(world.list("/").unwrap(), ["empty", "full"]);
    assert_eq!(world.rename("/empty", "/full"), Err(Errno::ENOTEMPTY));
    world.rename("/full", "/empty").unwrap();
    assert_eq!(world.list("/empty").unwrap(), ["x"]);
    world.write("/c", b"c").unwrap();
    world.rename_flags("/c", "/empty", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(world.read("/empty").unwrap(), b"c");
    assert_eq!(world.list("/c").unwrap(), ["x"]);
}

#[test]
fn hard_links_stay_one_file_after_copy_up() {
    let (_, world) = worlds(|w| {
        w.write("/a", b"one").unwrap();
        w.link("/a", "/b").unwrap();
    });
    assert_eq!((attr(&world, "/a").ino, attr(&world, "/a").nlink), (attr(&world, "/b").ino, 2));
    world.write("/a", b"two").unwrap();
    assert_eq!(world.read("/b").unwrap(), b"two");
    world.link("/b", "/c").unwrap();
    assert_eq!(attr(&world, "/a").nlink, 3);
    world.unlink("/a").unwrap();
    assert_eq!(attr(&world, "/c").nlink, 2);
    assert_eq!(world.read("/c").unwrap(), b"two");
}

#[test]
fn truncation_does_not_copy_what_it_drops() {
    let (below, world) = worlds(|w| w.write("/f", &[7; 100_000]).unwrap());
    let file = world.open("/f", RDWR).unwrap();
    ops::ftruncate(&world.cx(), &file, 10).unwrap();
    assert_eq!(world.read("/f").unwrap(), [7; 10]);
    ops::ftruncate(&world.cx(), &file, 20).unwrap();
    assert_eq!(world.read("/f").unwrap(), [&[7; 10][..], &[0; 10]].concat());
    assert_eq!(below.read("/f").unwrap().len(), 100_000);
}

#[test]
fn large_files_are_copied_in_pieces() {
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 253) as u8).collect();
    let (_, world) = worlds(|w| w.write("/f", &bytes).unwrap());
    let file = world.open("/f", OpenFlags::WRONLY | OpenFlags::APPEND).unwrap();
    file.write(&world.cx(), &mut &b"tail"[..]).unwrap();
    let all = world.read("/f").unwrap();
    assert_eq!(all.len(), 3_000_004);
    assert_eq!(&all[..3_000_000], &bytes[..]);
    assert_eq!(&all[3_000_000..], b"tail");
}

#[test]
fn private_mappings_use_the_lower_file_and_shared_ones_copy() {
    let (below, world) = worlds(|w| w.write("/f", b"mapped").unwrap());
    let fd_of = |source| match source {
        MapSource::Host { fd, .. } => rustix::fs::fstat(&fd).unwrap().st_ino,
        MapSource::Anonymous => panic!(),
    };
    let lower = below.open("/f", OpenFlags::empty()).unwrap();
    let lower = fd_of(lower.ops().mappable(&lower, false).unwrap());
    let file = world.open("/f", RDWR).unwrap();
    assert_eq!(fd_of(file.ops().mappable(&file, false).unwrap()), lower);
    assert_ne!(fd_of(file.ops().mappable(&file, true).unwrap()), lower);
}

#[test]
fn listings_go_on_while_entries_are_removed() {
    let (_, world) = worlds(|w| {
        w.mkdir("/d").unwrap();
        for at in 0..500 {
            w.write(&format!("/d/lower{at}"), b"").unwrap();
        }
    });
    for at in 0..500 {
        world.write(&format!("/d/upper{at}"), b"").unwrap();
    }
    let dir = world.open("/d", OpenFlags::DIRECTORY).unwrap();
    let mut count = 0;
    loop {
        let mut batch = Vec::new();
        dir.readdir(&world.cx(), &mut |entry| {
            if batch.len() == 7 {
                return false;
            }
            batch.push(String::from_utf8(entry.name.to_vec()).unwrap());
            true
        })
        .unwrap();
        if batch.is_empty() {
            break;
        }
        for name in batch.iter().filter(|name| !name.starts_with('.')) {
            world.unlink(&format!("/d/{name}")).unwrap();
            count += 1;
        }
    }
    assert_eq!(count, 1000);
    world.rmdir("/d").unwrap();
}

#[test]
fn a_tree_deeper_than_the_stack_goes_without_harm() {
    let (_, world) = worlds(|_| {});
    for _ in 0..20_000 {
        world.mkdir("d").unwrap();
        let next = world.path("d").unwrap();
        world.fs.state.lock().cwd = next;
    }
    drop(world);
}

#[test]
fn symlinks_and_open_files_survive_removal() {
    let (_, world) = worlds(|w| {
        w.write("/f", b"still here").unwrap();
        w.symlink("f", "/l").unwrap();
    });
    let file = world.open("/l", RDWR).unwrap();
    world.unlink("/f").unwrap();
    assert_eq!(world.text(file.path()), "/f (deleted)");
    assert_eq!(file.inode().attr().unwrap().nlink, 0);
    file.pwrite(&world.cx(), &mut &b"S"[..], 0).unwrap();
    assert_eq!(world.read_file(&file).unwrap(), b"Still here");
    assert_eq!(world.read("/l"), Err(Errno::ENOENT));
    assert_eq!(attr(&world, "/l").size, 1);
}

/// Debug builds check the order of locks; a deadlock would hang here.
#[test]
fn many_threads_may_do_anything_at_once() {
    let (_, world) = worlds(|w| {
        for dir in ["/a", "/b", "/a/x", "/b/y"] {
            w.mkdir(dir).unwrap();
            for at in 0..8 {
                w.write(&format!("{dir}/{at}"), b"lower").unwrap();
            }
        }
    });
    let dirs = ["/a", "/b", "/a/x", "/b/y", "/a/m", "/b/m", "/a/x/m"];
    std::thread::scope(|scope| {
        for seed in 1..=4_u64 {
            let world = &world;
            scope.spawn(move || {
                let mut state = seed;
                let mut random = move |below: u64| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 33) % below
                };
                for _ in 0..3000 {
                    let mut dir = || dirs[usize::try_from(random(7)).unwrap()];
                    let (from, to) = (dir(), dir());
                    let (a, b) = (format!("{from}/{}", random(8)), format!("{to}/{}", random(8)));
                    match random(10) {
                        0 => drop(world.rename(from, to)),
                        1 => drop(world.mkdir(from)),
                        2 => drop(world.unlink(&a)),
                        3 => drop(world.link(&a, &b)),
                        4 => drop(world.list(from)),
                        5 => drop(world.rename_flags(&a, &b, RenameFlags::EXCHANGE)),
                        6 => drop(world.rename(&a, &b)),
                        7 => drop(world.rmdir(from)),
                        8 => drop(world.read(&a)),
                        _ => drop(world.write(&a, b"upper")),
                    }
                }
            });
        }
    });
    check(&world, "");
}

/// What a fresh look finds is what the cache and the listings say.
fn check(world: &World, dir: &str) {
    let root = if dir.is_empty() { "/" } else { dir };
    let inode = Arc::clone(world.path(root).unwrap().inode());
    let mut subdirs = 0;
    for name in world.list(root).unwrap() {
        let path = format!("{dir}/{name}");
        let found = world.lpath(&path).unwrap();
        let fresh = inode.lookup(&world.cx(), name.as_bytes()).unwrap();
        assert_eq!(fresh.attr().unwrap().ino, found.inode().attr().unwrap().ino, "{path}");
        assert_eq!(world.text(&found), path);
        if fresh.attr().unwrap().is_dir() {
            subdirs += 1;
            check(world, &path);
        }
    }
    assert_eq!(inode.attr().unwrap().nlink, subdirs + 2, "{root}");
}
