use std::sync::Arc;

use abi::Errno;
use abi::open::OpenFlags;
use base::cred::Credentials;

use super::*;
use crate::dentry::{cwd_string, path_string};
use crate::fs::tmpfs::{Options, TmpFs};
use crate::ops;
use crate::test_support::{HostClock, World};

fn tmpfs() -> Arc<TmpFs> {
    TmpFs::new(Arc::new(HostClock), Options { mode: 0o755, ..Options::default() })
}

#[test]
fn forty_links_are_followed_and_no_more() {
    let world = World::tmpfs();
    world.write("/f", b"x").unwrap();
    world.symlink("/f", "/l1").unwrap();
    for at in 2..=41 {
        world.symlink(&format!("l{}", at - 1), &format!("/l{at}")).unwrap();
    }
    assert_eq!(world.read("/l40").unwrap(), b"x");
    assert_eq!(world.read("/l41"), Err(Errno::ELOOP));
}

#[test]
fn lengths_are_limited() {
    let world = World::tmpfs();
    let name = "n".repeat(255);
    world.write(&format!("/{name}"), b"").unwrap();
    assert_eq!(world.write(&format!("/{name}n"), b""), Err(Errno::ENAMETOOLONG));
    let long = "./".repeat(2047);
    assert!(world.path(&long).is_ok());
    assert_eq!(world.path(&format!("{long}./")).unwrap_err(), Errno::ENAMETOOLONG);
}

#[test]
fn mounts_are_crossed_both_ways() {
    let world = World::tmpfs();
    world.mkdir("/mnt").unwrap();
    world.mkdir("/mnt/hidden").unwrap();
    let at = world.path("/mnt").unwrap();
    world.ns.mount(&at, tmpfs(), b"tmp", MountFlags::empty()).unwrap();
    assert_eq!(world.path("/mnt/hidden").unwrap_err(), Errno::ENOENT);
    world.mkdir("/mnt/sub").unwrap();
    let sub = world.path("/mnt/sub").unwrap();
    assert_eq!(world.text(&sub), "/mnt/sub");
    assert!(world.path("/mnt/sub/../..").unwrap().is_same(&world.path("/").unwrap()));
    assert!(world.path("/../..").unwrap().is_same(&world.path("/").unwrap()));
    assert_eq!(world.rename("/mnt/sub", "/sub"), Err(Errno::EXDEV));
    assert_eq!(world.rmdir("/mnt"), Err(Errno::EBUSY));
    assert_eq!(world.rename("/mnt", "/other"), Err(Errno::EBUSY));
    let xdev = LookupFlags::NO_XDEV;
    assert_eq!(resolve(&world.cx(), None, b"/mnt/sub", xdev).unwrap_err(), Errno::EXDEV);
    let list = world.ns.list(&world.path("/").unwrap());
    assert_eq!(list.iter().map(|mount| &mount.point[..]).collect::<Vec<_>>(), [&b"/"[..], b"/mnt"]);
    assert_eq!(list[1].parent_id, list[0].id);
    assert_eq!(world.ns.umount(&world.path("/mnt").unwrap(), false), Err(Errno::EBUSY));
    drop(sub);
    world.ns.umount(&world.path("/mnt").unwrap(), false).unwrap();
    assert!(world.path("/mnt/hidden").is_ok());
    assert_eq!(world.ns.umount(&world.path("/mnt").unwrap(), false), Err(Errno::EINVAL));
}

#[test]
fn a_bind_mount_shows_the_same_objects_and_may_be_read_only() {
    let world = World::tmpfs();
    world.mkdir("/a").unwrap();
    world.mkdir("/b").unwrap();
    world.write("/a/f", b"x").unwrap();
    let (a, b) = (world.path("/a").unwrap(), world.path("/b").unwrap());
    let mount = world.ns.bind(&a, &b, false).unwrap();
    assert_eq!(world.read("/b/f").unwrap(), b"x");
    assert_eq!(world.text(&world.path("/b/f").unwrap()), "/b/f");
    world.write("/b/g", b"y").unwrap();
    mount.set_flags(MountFlags::RDONLY);
    assert_eq!(world.write("/b/g", b"z"), Err(Errno::EROFS));
    assert_eq!(world.unlink("/b/none"), Err(Errno::EROFS));
    assert_eq!(world.write("/a/g", b"z"), Ok(()));
    assert_eq!(world.read("/b/g").unwrap(), b"z");
    assert_eq!(world.link("/a/g", "/b/h"), Err(Errno::EROFS));
    assert_eq!(world.ns.list(&world.path("/").unwrap())[1].root, b"/a");
}

#[test]
fn texts_tell_of_removal_and_reach() {
    let world = World::tmpfs();
    world.mkdir("/d").unwrap();
    world.mkdir("/d/e").unwrap();
    let (root, e) = (world.path("/").unwrap(), world.path("/d/e").unwrap());
    assert_eq!(cwd_string(&root, &e).unwrap(), b"/d/e");
    let jail = world.path("/d").unwrap();
    assert_eq!(cwd_string(&jail, &e).unwrap(), b"/e");
    assert_eq!(cwd_string(&e, &jail).unwrap(), b"(unreachable)/d");
    world.rename("/d/e", "/f").unwrap();
    assert_eq!(world.text(&e), "/f");
    world.rmdir("/f").unwrap();
    assert_eq!(world.text(&e), "/f (deleted)");
    assert_eq!(cwd_string(&root, &e), Err(Errno::ENOENT));
    world.fs.state.lock().cwd = e;
    assert_eq!(world.write("x", b""), Err(Errno::ENOENT));
    assert!(world.path("..").unwrap().is_same(&root));
    let pipe = Path::anonymous(b"pipe:[7]", Arc::clone(root.inode()));
    assert_eq!(path_string(&root, &pipe), b"pipe:[7]");
}

#[test]
fn confined_walks_stay_below_their_start() {
    let world = World::tmpfs();
    world.mkdir("/jail").unwrap();
    world.mkdir("/jail/sub").unwrap();
    world.write("/secret", b"").unwrap();
    world.write("/jail/secret", b"").unwrap();
    world.symlink("/secret", "/jail/abs").unwrap();
    world.symlink("../secret", "/jail/rel").unwrap();
    let jail = world.path("/jail").unwrap();
    let walk = |path: &str, flags| {
        let flags = flags | LookupFlags::FOLLOW;
        let found = resolve(&world.cx(), Some(&jail), path.as_bytes(), flags)?;
        Ok::<_, Errno>(world.text(&found))
    };
    let (beneath, in_root) = (LookupFlags::BENEATH, LookupFlags::IN_ROOT);
    assert_eq!(walk("sub/..", beneath).unwrap(), "/jail");
    assert_eq!(walk("..", beneath), Err(Errno::EXDEV));
    assert_eq!(walk("/secret", beneath), Err(Errno::EXDEV));
    assert_eq!(walk("abs", beneath), Err(Errno::EXDEV));
    assert_eq!(walk("rel", beneath), Err(Errno::EXDEV));
    for path in ["/secret", "abs", "rel", "../../secret"] {
        assert_eq!(walk(path, in_root).unwrap(), "/jail/secret");
    }
    assert_eq!(walk("abs", LookupFlags::NO_SYMLINKS), Err(Errno::ELOOP));
}

#[test]
fn modes_are_obeyed() {
    let mut world = World::tmpfs();
    world.mkdir("/private").unwrap();
    world.write("/private/f", b"").unwrap();
    world.mkdir("/tmp").unwrap();
    world.write("/tmp/roots", b"x").unwrap();
    world.symlink("roots", "/tmp/link").unwrap();
    let chmod = |world: &World, path: &str, mode| {
        ops::chmod(&world.cx(), &world.path(path).unwrap(), mode).unwrap();
    };
    chmod(&world, "/private", 0o700);
    chmod(&world, "/tmp", 0o1777);
    world.cred = Credentials::new(abi::ids::Uid(7), abi::ids::Gid(7), Arc::from([]));
    assert_eq!(world.path("/private/f").unwrap_err(), Errno::EACCES);
    assert_eq!(world.path("/private/none").unwrap_err(), Errno::EACCES);
    assert_eq!(world.unlink("/private/f"), Err(Errno::EACCES));
    assert_eq!(world.write("/tmp/roots", b""), Err(Errno::EACCES));
    assert_eq!(world.unlink("/tmp/roots"), Err(Errno::EPERM));
    assert_eq!(world.rename("/tmp/roots", "/tmp/x"), Err(Errno::EPERM));
    assert_eq!(world.link("/tmp/roots", "/tmp/x"), Err(Errno::EPERM));
    // Its owner owns the directory too.
    assert_eq!(world.read("/tmp/link").unwrap(), b"x");
    world.write("/tmp/mine", b"").unwrap();
    world.unlink("/tmp/mine").unwrap();
    assert_eq!(world.write("/new", b""), Err(Errno::EACCES));
    let path = world.path("/tmp/roots").unwrap();
    assert_eq!(ops::chmod(&world.cx(), &path, 0o777), Err(Errno::EPERM));
    assert_eq!(ops::chown(&world.cx(), &path, Some(abi::ids::Uid(7)), None), Err(Errno::EPERM));
    let now = Some(crate::inode::SetTime::Now);
    assert_eq!(ops::utimens(&world.cx(), &path, now, now), Err(Errno::EACCES));
    assert_eq!(ops::utimens(&world.cx(), &path, now, None), Err(Errno::EPERM));
    assert_eq!(world.open("/tmp/roots", OpenFlags::NOATIME).unwrap_err(), Errno::EPERM);
}

#[test]
fn writes_by_others_than_root_clear_set_id_bits() {
    let mut world = World::tmpfs();
    world.write("/f", b"").unwrap();
    let path = world.path("/f").unwrap();
    let user = abi::ids::Uid(7);
    ops::chown(&world.cx(), &path, Some(user), Some(abi::ids::Gid(7))).unwrap();
    ops::chmod(&world.cx(), &path, 0o6755).unwrap();
    world.cred = Credentials::new(user, abi::ids::Gid(7), Arc::from([]));
    let file = world.open("/f", OpenFlags::WRONLY).unwrap();
    file.write(&world.cx(), &mut &b"x"[..]).unwrap();
    assert_eq!(file.inode().attr().unwrap().mode & 0o7777, 0o755);
    ops::chmod(&world.cx(), &path, 0o6755).unwrap();
    ops::chown(&world.cx(), &path, None, Some(abi::ids::Gid(7))).unwrap();
    assert_eq!(file.inode().attr().unwrap().mode & 0o7777, 0o755);
}

#[test]
fn absent_names_are_counted_and_believed_until_they_are_made() {
    let lower = tmpfs();
    World::new(Arc::clone(&lower) as _).mkdir("/d").unwrap();
    let overlay = crate::fs::overlay::OverlayFs::new(lower, Arc::new(HostClock), None).unwrap();
    let world = World::new(overlay);
    let held = world.path("/d").unwrap();
    let cache = &held.mount.sb.cache;
    let before = cache.bytes();
    for at in 0..1000 {
        assert_eq!(world.path(&format!("/d/{at}")).unwrap_err(), Errno::ENOENT);
    }
    assert_eq!(held.dentry.children.lock().map.len(), 1000);
    let each = (cache.bytes() - before) / 1000;
    assert!((100..1000).contains(&each), "{each} bytes each");
    world.write("/d/0", b"zero").unwrap();
    assert_eq!(world.read("/d/0").unwrap(), b"zero");
    ops::rename(&world.cx(), None, b"/d/0", None, b"/d/1", crate::inode::RenameFlags::empty())
        .unwrap();
    assert_eq!(world.path("/d/0").unwrap_err(), Errno::ENOENT);
    assert_eq!(world.read("/d/1").unwrap(), b"zero");
    ops::unlink(&world.cx(), None, b"/d/1").unwrap();
    assert_eq!(world.path("/d/1").unwrap_err(), Errno::ENOENT);
    ops::mkdir(&world.cx(), None, b"/d/1", 0o755).unwrap();
    assert!(world.path("/d/1").is_ok());
    assert_eq!(world.text(&held), "/d");
}

/// `cargo test --release -p vfs figures -- --ignored --nocapture`
#[test]
#[ignore = "measures"]
fn figures() {
    let lower = tmpfs();
    let below = World::new(Arc::clone(&lower) as _);
    fill_for_figures(&below);
    measure("tmpfs", &below);
    let overlay = crate::fs::overlay::OverlayFs::new(lower, Arc::new(HostClock), None).unwrap();
    measure("overlay", &World::new(overlay));
}

fn fill_for_figures(world: &World) {
    for dir in ["/usr", "/usr/lib", "/usr/lib/python3", "/usr/lib/python3/json", "/big"] {
        world.mkdir(dir).unwrap();
    }
    world.write("/usr/lib/python3/json/decoder.py", &[1; 8192]).unwrap();
    for at in 0..100_000 {
        world.write(&format!("/big/{at}"), b"").unwrap();
    }
}

/// Time that this thread had a CPU, whatever else the machine does.
fn cpu_time() -> std::time::Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    std::time::Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap())
}

fn measure(name: &str, world: &World) {
    let cx = world.cx();
    let time = |what: &str, count: u32, call: &mut dyn FnMut()| {
        let begin = cpu_time();
        (0..count).for_each(|_| call());
        println!("{name} {what}: {:?}", (cpu_time() - begin) / count);
    };
    let file = "/usr/lib/python3/json/decoder.py";
    time("stat, 5 components", 1_000_000, &mut || {
        let path = resolve(&cx, None, file.as_bytes(), LookupFlags::FOLLOW).unwrap();
        std::hint::black_box(ops::stat(&path).unwrap());
    });
    time("stat of a missing name", 1_000_000, &mut || {
        assert!(resolve(&cx, None, b"/usr/lib/python3/json/none", LookupFlags::FOLLOW).is_err());
    });
    time("open and close", 1_000_000, &mut || drop(world.open(file, OpenFlags::empty()).unwrap()));
    let open = world.open(file, OpenFlags::empty()).unwrap();
    let mut buffer = [0; 4096];
    time("pread of 1 byte", 1_000_000, &mut || {
        open.pread(&cx, &mut &mut buffer[..1], 5).unwrap();
    });
    time("pread of 4 KiB", 1_000_000, &mut || {
        open.pread(&cx, &mut &mut buffer[..], 0).unwrap();
    });
    let table = crate::FdTable::new();
    let fd = table.install(open, false, abi::ids::Fd(0), 1024).unwrap();
    time("descriptor lookup", 1_000_000, &mut || drop(table.get(fd).unwrap()));
    time("create, write 1 byte, unlink", 200_000, &mut || {
        world.write("/usr/x", b"x").unwrap();
        world.unlink("/usr/x").unwrap();
    });
    let big = world.open("/big", OpenFlags::DIRECTORY).unwrap();
    time("list 100,000 entries", 5, &mut || {
        big.seek(0, crate::file::Whence::Set).unwrap();
        let mut count = 0;
        big.readdir(&cx, &mut |_| {
            count += 1;
            true
        })
        .unwrap();
        assert_eq!(count, 100_002);
    });
}
