//! The same calls on the host and here, over a tree with one of everything: same errors, same tree after.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use abi::open::OpenFlags;
use abi::{Errno, Result};
use base::cred::Access;
use rustix::fs::{AtFlags, Dir, FileType as HostType, Mode, OFlags, RenameFlags as HostRename};

use crate::dentry::Path;
use crate::file::File;
use crate::fs::overlay::OverlayFs;
use crate::fs::tmpfs::{Options, TmpFs};
use crate::inode::RenameFlags;
use crate::ops::{self, OpenHow};
use crate::path::{LookupFlags, resolve};
use crate::test_support::{HostClock, World};

const LONG: &str = concat!(
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
);

const PATHS: &[&str] = &[
    "", ".", "..", "./", "f", "f/", "f/x", "f/.", "f/..", "d", "d/", "d/.", "d/..", "d/sub", "d/f",
    "d//sub/", "e", "e/", "e/.", "e/..", "e/x", "e/x/", "l", "l/", "l/x", "ld", "ld/", "ld/.",
    "ld/sub", "ld/x", "dang", "dang/", "dang/x", "loop", "loop/", "loop/x", "none", "none/",
    "none/x", "none/.", "p", "p/", "lle", "lle/", "lle/x", "ldslash", "ldslash/", "lfslash", LONG,
];

/// Fewer, for calls that take two.
const PAIRED: &[&str] = &[
    "", ".", "f", "f/", "f/x", "d", "d/", "d/..", "d/sub", "d/f", "d/sub/x", "e", "e/x", "e/x/",
    "l", "l/", "ld/", "ld/x", "dang", "loop/x", "none", "none/", "none/x", "lle", LONG,
];

fn host_errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// One side of the comparison.
trait Side {
    fn open(&self, path: &str, flags: OpenFlags) -> Result<()>;
    fn mkdir(&self, path: &str) -> Result<()>;
    fn mkfifo(&self, path: &str) -> Result<()>;
    fn symlink(&self, target: &str, path: &str) -> Result<()>;
    fn link(&self, old: &str, new: &str, follow: bool) -> Result<()>;
    fn unlink(&self, path: &str) -> Result<()>;
    fn rmdir(&self, path: &str) -> Result<()>;
    fn rename(&self, old: &str, new: &str, flags: u32) -> Result<()>;
    fn stat(&self, path: &str, follow: bool) -> Result<u32>;
    fn readlink(&self, path: &str) -> Result<Vec<u8>>;
    fn access(&self, path: &str) -> Result<()>;
    fn write(&self, path: &str, pos: u64, bytes: &[u8]) -> Result<()>;
    fn read(&self, path: &str) -> Result<Vec<u8>>;
    fn truncate(&self, path: &str, len: u64) -> Result<()>;
    /// Names and types of all there is.
    fn tree(&self) -> Vec<String>;

    fn fill(&self) {
        self.open("f", OpenFlags::CREAT).unwrap();
        self.mkdir("d").unwrap();
        self.mkdir("d/sub").unwrap();
        self.open("d/f", OpenFlags::CREAT).unwrap();
        self.mkdir("e").unwrap();
        self.mkfifo("p").unwrap();
        for (target, path) in [
            ("f", "l"),
            ("d", "ld"),
            ("nowhere", "dang"),
            ("loop", "loop"),
            ("ld/../e", "lle"),
            ("d/", "ldslash"),
            ("f/", "lfslash"),
        ] {
            self.symlink(target, path).unwrap();
        }
    }
}

struct Host {
    dir: OwnedFd,
    path: std::path::PathBuf,
}

impl Host {
    fn new(tag: &str) -> Self {
        let name = format!("vfs-ops-{}-{tag}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("t")).unwrap();
        let dir = rustix::fs::open(path.join("t"), OFlags::DIRECTORY, Mode::empty()).unwrap();
        Self { dir, path }
    }

    fn clear(&mut self) {
        std::fs::remove_dir_all(self.path.join("t")).unwrap();
        std::fs::create_dir_all(self.path.join("t")).unwrap();
        let t = self.path.join("t");
        self.dir = rustix::fs::open(t, OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn host_tree(dir: BorrowedFd<'_>, prefix: &str, into: &mut Vec<String>) {
    for entry in Dir::read_from(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_str().unwrap();
        if matches!(name, "." | "..") {
            continue;
        }
        let path = format!("{prefix}{name}");
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let kind = stat.st_mode >> 12;
        into.push(format!("{path} {kind} {}", if kind == 4 { 0 } else { stat.st_nlink }));
        if entry.file_type() == HostType::Directory {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let sub = rustix::fs::openat(dir, name, flags, Mode::empty()).unwrap();
            host_tree(sub.as_fd(), &format!("{path}/"), into);
        }
    }
}

impl Side for Host {
    fn open(&self, path: &str, flags: OpenFlags) -> Result<()> {
        let flags = OFlags::from_bits_retain((flags | OpenFlags::NONBLOCK).bits());
        rustix::fs::openat(&self.dir, path, flags, Mode::from_raw_mode(0o666))
            .map(drop)
            .map_err(host_errno)
    }
    fn mkdir(&self, path: &str) -> Result<()> {
        rustix::fs::mkdirat(&self.dir, path, Mode::from_raw_mode(0o777)).map_err(host_errno)
    }
    fn mkfifo(&self, path: &str) -> Result<()> {
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(&self.dir, path, HostType::Fifo, mode, 0).map_err(host_errno)
    }
    fn symlink(&self, target: &str, path: &str) -> Result<()> {
        rustix::fs::symlinkat(target, &self.dir, path).map_err(host_errno)
    }
    fn link(&self, old: &str, new: &str, follow: bool) -> Result<()> {
        let flags = if follow { AtFlags::SYMLINK_FOLLOW } else { AtFlags::empty() };
        rustix::fs::linkat(&self.dir, old, &self.dir, new, flags).map_err(host_errno)
    }
    fn unlink(&self, path: &str) -> Result<()> {
        rustix::fs::unlinkat(&self.dir, path, AtFlags::empty()).map_err(host_errno)
    }
    fn rmdir(&self, path: &str) -> Result<()> {
        rustix::fs::unlinkat(&self.dir, path, AtFlags::REMOVEDIR).map_err(host_errno)
    }
    fn rename(&self, old: &str, new: &str, flags: u32) -> Result<()> {
        let flags = HostRename::from_bits_retain(flags);
        rustix::fs::renameat_with(&self.dir, old, &self.dir, new, flags).map_err(host_errno)
    }
    fn stat(&self, path: &str, follow: bool) -> Result<u32> {
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        rustix::fs::statat(&self.dir, path, flags).map(|stat| stat.st_mode).map_err(host_errno)
    }
    fn readlink(&self, path: &str) -> Result<Vec<u8>> {
        let text = rustix::fs::readlinkat(&self.dir, path, Vec::new());
        text.map(std::ffi::CString::into_bytes).map_err(host_errno)
    }
    fn access(&self, path: &str) -> Result<()> {
        let access = rustix::fs::Access::WRITE_OK;
        rustix::fs::accessat(&self.dir, path, access, AtFlags::empty()).map_err(host_errno)
    }
    fn write(&self, path: &str, pos: u64, bytes: &[u8]) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(&self.dir, path, flags, Mode::empty()).map_err(host_errno)?;
        rustix::io::pwrite(fd, bytes, pos).map(drop).map_err(host_errno)
    }
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(&self.dir, path, flags, Mode::empty()).map_err(host_errno)?;
        let mut bytes = vec![0; 100_000];
        let count = rustix::io::read(fd, &mut bytes).map_err(host_errno)?;
        bytes.truncate(count);
        Ok(bytes)
    }
    fn truncate(&self, path: &str, len: u64) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(&self.dir, path, flags, Mode::empty()).map_err(host_errno)?;
        rustix::fs::ftruncate(fd, len).map_err(host_errno)
    }
    fn tree(&self) -> Vec<String> {
        let mut all = Vec::new();
        host_tree(self.dir.as_fd(), "", &mut all);
        all.sort();
        all
    }
}

struct Guest {
    world: World,
    start: Path,
}

impl Guest {
    fn new(world: World) -> Self {
        let start = world.mkdir("/t").unwrap();
        Self { world, start }
    }

    fn at(&self, path: &str, flags: LookupFlags) -> Result<Path> {
        resolve(&self.world.cx(), Some(&self.start), path.as_bytes(), flags)
    }

    fn file(&self, path: &str, flags: OpenFlags) -> Result<Arc<File>> {
        let flags = flags | OpenFlags::NONBLOCK;
        let how = OpenHow { flags, mode: 0o666, resolve: LookupFlags::empty() };
        ops::open(&self.world.cx(), Some(&self.start), path.as_bytes(), how)?.now()
    }

    fn below(&self, dir: &str, prefix: &str, into: &mut Vec<String>) {
        let world = &self.world;
        for name in world.list(dir).unwrap() {
            let attr = world.lpath(&format!("{dir}/{name}")).unwrap().inode().attr().unwrap();
            let kind = attr.mode >> 12;
            into.push(format!("{prefix}{name} {kind} {}", if kind == 4 { 0 } else { attr.nlink }));
            if attr.is_dir() {
                self.below(&format!("{dir}/{name}"), &format!("{prefix}{name}/"), into);
            }
        }
    }
}

impl Side for Guest {
    fn open(&self, path: &str, flags: OpenFlags) -> Result<()> {
        self.file(path, flags).map(drop)
    }
    fn mkdir(&self, path: &str) -> Result<()> {
        ops::mkdir(&self.world.cx(), Some(&self.start), path.as_bytes(), 0o777).map(drop)
    }
    fn mkfifo(&self, path: &str) -> Result<()> {
        let mode = abi::stat::S_IFIFO | 0o666;
        ops::mknod(&self.world.cx(), Some(&self.start), path.as_bytes(), mode, 0).map(drop)
    }
    fn symlink(&self, target: &str, path: &str) -> Result<()> {
        let (cx, start) = (self.world.cx(), Some(&self.start));
        ops::symlink(&cx, target.as_bytes(), start, path.as_bytes())
    }
    fn link(&self, old: &str, new: &str, follow: bool) -> Result<()> {
        let flags = if follow { LookupFlags::FOLLOW } else { LookupFlags::empty() };
        let (cx, start) = (self.world.cx(), Some(&self.start));
        ops::link(&cx, start, old.as_bytes(), start, new.as_bytes(), flags)
    }
    fn unlink(&self, path: &str) -> Result<()> {
        ops::unlink(&self.world.cx(), Some(&self.start), path.as_bytes())
    }
    fn rmdir(&self, path: &str) -> Result<()> {
        ops::rmdir(&self.world.cx(), Some(&self.start), path.as_bytes())
    }
    fn rename(&self, old: &str, new: &str, flags: u32) -> Result<()> {
        let (cx, start) = (self.world.cx(), Some(&self.start));
        let flags = RenameFlags::from_bits_retain(flags);
        ops::rename(&cx, start, old.as_bytes(), start, new.as_bytes(), flags)
    }
    fn stat(&self, path: &str, follow: bool) -> Result<u32> {
        let flags = if follow { LookupFlags::FOLLOW } else { LookupFlags::empty() };
        ops::stat(&self.at(path, flags)?).map(|attr| attr.mode)
    }
    fn readlink(&self, path: &str) -> Result<Vec<u8>> {
        // readlinkat(2) alone accepts an empty text, and means the directory then.
        let flags = LookupFlags::EMPTY_PATH;
        let found = self.at(path, flags)?;
        let errno = if path.is_empty() { Errno::ENOENT } else { Errno::EINVAL };
        ops::readlink(&self.world.cx(), &found).map_err(|_| errno)
    }
    fn access(&self, path: &str) -> Result<()> {
        let path = self.at(path, LookupFlags::FOLLOW)?;
        ops::access(&self.world.cx(), &path, Access::WRITE, false)
    }
    fn write(&self, path: &str, pos: u64, bytes: &[u8]) -> Result<()> {
        let file = self.file(path, OpenFlags::WRONLY)?;
        file.pwrite(&self.world.cx(), &mut &*bytes, pos).map(drop)
    }
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.world.read_file(&*self.file(path, OpenFlags::empty())?)
    }
    fn truncate(&self, path: &str, len: u64) -> Result<()> {
        ops::ftruncate(&self.world.cx(), &*self.file(path, OpenFlags::WRONLY)?, len)
    }
    fn tree(&self) -> Vec<String> {
        let mut all = Vec::new();
        self.below("/t", "", &mut all);
        all.sort();
        all
    }
}

fn tmpfs_guest() -> Guest {
    Guest::new(World::tmpfs())
}

/// The tree is in the lower layer already.
fn overlay_guest() -> Guest {
    let lower = TmpFs::new(Arc::new(HostClock), Options { mode: 0o755, ..Options::default() });
    let below = Guest::new(World::new(Arc::clone(&lower) as _));
    below.fill();
    let world = World::new(OverlayFs::new(lower, Arc::new(HostClock), None).unwrap());
    let start = world.path("/t").unwrap();
    Guest { world, start }
}

/// Runs `call` on a fresh tree of each side.
fn compare<T: PartialEq + std::fmt::Debug>(
    host: &mut Host,
    what: &str,
    changes: bool,
    call: impl Fn(&dyn Side) -> Result<T>,
) -> Option<String> {
    if changes {
        host.clear();
        host.fill();
    }
    let tmpfs = tmpfs_guest();
    tmpfs.fill();
    let native = call(host);
    let mut wrong = String::new();
    for (name, guest) in [("tmpfs", tmpfs), ("overlay", overlay_guest())] {
        let ours = call(&guest);
        if ours != native {
            wrong += &format!("{what}: host {native:?}, {name} {ours:?}\n");
        } else if changes && host.tree() != guest.tree() {
            wrong +=
                &format!("{what}: trees differ on {name}: {:?} {:?}\n", host.tree(), guest.tree());
        }
    }
    (!wrong.is_empty()).then_some(wrong)
}

fn assert_none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.concat());
}

fn short(path: &str) -> &str {
    &path[..path.len().min(12)]
}

#[test]
fn looking_gives_the_hosts_answers() {
    let mut host = Host::new("look");
    host.fill();
    let mut wrong = Vec::new();
    for path in PATHS {
        let name = short(path);
        wrong.extend(compare(&mut host, &format!("stat {name}"), false, |side| {
            side.stat(path, true).map(|mode| mode >> 12)
        }));
        wrong.extend(compare(&mut host, &format!("lstat {name}"), false, |side| {
            side.stat(path, false).map(|mode| mode >> 12)
        }));
        wrong.extend(compare(&mut host, &format!("readlink {name}"), false, |side| {
            side.readlink(path)
        }));
        wrong
            .extend(compare(&mut host, &format!("access {name}"), false, |side| side.access(path)));
    }
    assert_none(wrong);
}

#[test]
fn opening_gives_the_hosts_answers() {
    let mut host = Host::new("open");
    let creat = OpenFlags::CREAT;
    let excl = creat | OpenFlags::EXCL;
    let variants = [
        OpenFlags::empty(),
        OpenFlags::WRONLY,
        OpenFlags::RDWR,
        OpenFlags::TRUNC,
        OpenFlags::NOFOLLOW,
        OpenFlags::DIRECTORY,
        OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW,
        OpenFlags::PATH,
        OpenFlags::PATH | OpenFlags::NOFOLLOW,
        OpenFlags::TMPFILE | OpenFlags::RDWR,
        OpenFlags::TMPFILE,
        creat,
        creat | OpenFlags::RDWR,
        creat | OpenFlags::NOFOLLOW,
        creat | OpenFlags::DIRECTORY,
        creat | OpenFlags::RDWR | OpenFlags::TRUNC,
        excl,
        excl | OpenFlags::RDWR,
        excl | OpenFlags::NOFOLLOW,
    ];
    let mut wrong = Vec::new();
    for flags in variants {
        for path in PATHS {
            let what = format!("open {} {flags:?}", short(path));
            wrong.extend(compare(&mut host, &what, true, |side| side.open(path, flags)));
        }
    }
    assert_none(wrong);
}

#[test]
fn making_and_removing_gives_the_hosts_answers() {
    let mut host = Host::new("make");
    let mut wrong = Vec::new();
    for path in PATHS {
        let name = short(path);
        let mut check = |what: &str, call: &dyn Fn(&dyn Side) -> Result<()>| {
            wrong.extend(compare(&mut host, &format!("{what} {name}"), true, call));
        };
        check("mkdir", &|side| side.mkdir(path));
        check("mkfifo", &|side| side.mkfifo(path));
        check("symlink", &|side| side.symlink("x", path));
        check("link from", &|side| side.link(path, "new", false));
        check("link from, follow", &|side| side.link(path, "new", true));
        check("link to", &|side| side.link("f", path, false));
        check("unlink", &|side| side.unlink(path));
        check("rmdir", &|side| side.rmdir(path));
    }
    assert_none(wrong);
}

#[test]
fn renaming_gives_the_hosts_answers() {
    let mut host = Host::new("rename");
    let mut wrong = Vec::new();
    for flags in 0..=2 {
        for old in PAIRED {
            for new in PAIRED {
                let what = format!("rename {flags} {} {}", short(old), short(new));
                wrong.extend(compare(&mut host, &what, true, |side| side.rename(old, new, flags)));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn truncate_takes_only_files() {
    let guest = tmpfs_guest();
    guest.fill();
    let truncate = |path| {
        let path = guest.at(path, LookupFlags::FOLLOW)?;
        ops::truncate(&guest.world.cx(), &path, 3)
    };
    assert_eq!(truncate("d"), Err(Errno::EISDIR));
    assert_eq!(truncate("p"), Err(Errno::EINVAL));
    assert_eq!(truncate("f/"), Err(Errno::ENOTDIR));
    assert_eq!(truncate("l"), Ok(()));
}

/// A step of a random walk; the text says what it was.
fn random_step(side: &dyn Side, random: &mut dyn FnMut(usize) -> usize) -> String {
    const NAMES: &[&str] = &["f", "d", "e", "l", "ld", "x", "y"];
    let mut path = || {
        let names: Vec<_> = (0..=random(3)).map(|_| NAMES[random(NAMES.len())]).collect();
        names.join("/")
    };
    let (a, b) = (path(), path());
    let creat = OpenFlags::CREAT | OpenFlags::WRONLY;
    let (what, result) = match random(16) {
        0 | 1 => ("create", side.open(&a, creat)),
        2 => ("truncate on open", side.open(&a, OpenFlags::TRUNC | OpenFlags::WRONLY)),
        3 | 4 => ("mkdir", side.mkdir(&a)),
        5 => ("symlink", side.symlink(&b, &a)),
        6 => ("link", side.link(&a, &b, random(2) == 0)),
        7 => ("unlink", side.unlink(&a)),
        8 => ("rmdir", side.rmdir(&a)),
        9..=11 => ("rename", side.rename(&a, &b, 0)),
        12 => ("exchange", side.rename(&a, &b, 2)),
        13 => {
            let pos = random(9000) as u64;
            ("write", side.write(&a, pos, &[b'a' + random(26) as u8; 100]))
        }
        14 => ("truncate", side.truncate(&a, random(9000) as u64)),
        _ => return format!("read {a}: {:?}", side.read(&a)),
    };
    format!("{what} {a} {b}: {result:?}")
}

#[test]
fn random_walks_go_where_the_host_goes() {
    let mut host = Host::new("random");
    for seed in 1..=12_u64 {
        host.clear();
        host.fill();
        let tmpfs = tmpfs_guest();
        tmpfs.fill();
        let guests = [("tmpfs", tmpfs), ("overlay", overlay_guest())];
        for step in 0..300_u64 {
            let dice = || {
                let mut state = seed << 32 | step;
                move |below: usize| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                    usize::try_from(state >> 33).unwrap() % below
                }
            };
            let native = random_step(&host, &mut dice());
            for (name, guest) in &guests {
                assert_eq!(random_step(guest, &mut dice()), native, "{name}, {seed}, {step}");
            }
        }
        for (name, guest) in &guests {
            assert_eq!(guest.tree(), host.tree(), "{name}, {seed}");
        }
    }
}
