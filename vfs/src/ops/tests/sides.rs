//! The two sides of a comparison: a directory of the host, and one of ours.

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

fn host_errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// One side of the comparison.
pub trait Side {
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

pub struct Host {
    dir: OwnedFd,
    path: std::path::PathBuf,
}

impl Host {
    pub fn new(tag: &str) -> Self {
        let name = format!("vfs-ops-{}-{tag}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("t")).unwrap();
        let dir = rustix::fs::open(path.join("t"), OFlags::DIRECTORY, Mode::empty()).unwrap();
        Self { dir, path }
    }

    pub fn clear(&mut self) {
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

pub struct Guest {
    pub world: World,
    start: Path,
}

impl Guest {
    fn new(world: World) -> Self {
        let start = world.mkdir("/t").unwrap();
        Self { world, start }
    }

    pub fn at(&self, path: &str, flags: LookupFlags) -> Result<Path> {
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

pub fn tmpfs_guest() -> Guest {
    Guest::new(World::tmpfs())
}

/// The tree is in the lower layer already.
pub fn overlay_guest() -> Guest {
    let lower = TmpFs::new(Arc::new(HostClock), Options { mode: 0o755, ..Options::default() });
    let below = Guest::new(World::new(Arc::clone(&lower) as _));
    below.fill();
    let world = World::new(OverlayFs::new(lower, Arc::new(HostClock), None).unwrap());
    let start = world.path("/t").unwrap();
    Guest { world, start }
}
