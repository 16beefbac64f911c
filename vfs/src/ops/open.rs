//! open(2), openat2(2).

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::open::OpenFlags;
use abi::poll::PollEvents;
use abi::stat::FileType;
use abi::{Errno, Result};
use base::WaitQueue;
use base::cred::Access;

use crate::context::VfsCx;
use crate::dentry::{Dentry, Path};
use crate::file::{File, FileOps};
use crate::fs::pipefs::{self, FifoOpen, FifoWait};
use crate::inode::{Inode, NewNode, SetAttr};
use crate::mount::MountFlags;
use crate::notify::{self, Events};
use crate::ops::create::{Creation, may_create, new_ownership};
use crate::path::{LastKind, LookupFlags, Walk, look_up_child, resolve, want_write};
use crate::text_busy;

/// How to open: the arguments of openat2(2).
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenHow {
    pub flags: OpenFlags,
    /// Permission bits of a new file, before the umask.
    pub mode: u32,
    /// Only `RESOLVE_*` bits count.
    pub resolve: LookupFlags,
}

/// What an open gives.
pub enum Opened {
    File(Arc<File>),
    /// A FIFO that nobody has opened at its other end yet.
    Fifo(PendingFifo),
}

impl Opened {
    /// For callers that never wait.
    ///
    /// # Errors
    /// `EAGAIN` for a FIFO without a peer.
    pub fn now(self) -> Result<Arc<File>> {
        match self {
            Self::File(file) => Ok(file),
            Self::Fifo(_) => Err(Errno::EAGAIN),
        }
    }
}

/// An open that waits for the FIFO's peer; dropping it gives up.
pub struct PendingFifo {
    wait: FifoWait,
    path: Path,
    flags: OpenFlags,
}

impl PendingFifo {
    /// Told when [`Self::finish`] may succeed.
    #[must_use]
    pub fn wait_queue(&self) -> WaitQueue {
        self.wait.wait_queue()
    }

    /// The file, once a peer has come.
    ///
    /// # Errors
    /// Itself, when there is still no peer.
    pub fn finish(self) -> core::result::Result<Arc<File>, Self> {
        let Self { wait, path, flags } = self;
        match wait.finish() {
            Ok(ops) => Ok(new_file(ops, path, flags)),
            Err(wait) => Err(Self { wait, path, flags }),
        }
    }
}

/// Opens, and with `O_CREAT` creates.
///
/// # Errors
/// Those of open(2).
pub fn open(cx: &VfsCx<'_>, start: Option<&Path>, path: &[u8], how: OpenHow) -> Result<Opened> {
    let flags = how.flags;
    let mut lookup = how.resolve & LookupFlags::RESOLVE;
    let excl_create = flags.contains(OpenFlags::CREAT | OpenFlags::EXCL);
    if !flags.contains(OpenFlags::NOFOLLOW) && !excl_create {
        lookup |= LookupFlags::FOLLOW;
    }
    if flags.contains(OpenFlags::DIRECTORY) {
        lookup |= LookupFlags::DIRECTORY;
    }
    if flags.contains(OpenFlags::PATH) {
        let path = resolve(cx, start, path, lookup)?;
        let kept = OpenFlags::PATH | (flags & (OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW));
        return Ok(Opened::File(new_file_quiet(Arc::new(PathOnly), path, kept)));
    }
    if flags.contains(OpenFlags::TMPFILE) {
        return open_tmpfile(cx, start, path, how, lookup);
    }
    if !flags.contains(OpenFlags::CREAT) {
        let looking = VfsCx { will_open: !flags.writes(), ..*cx };
        return open_path(cx, &resolve(&looking, start, path, lookup)?, flags);
    }
    if flags.contains(OpenFlags::DIRECTORY) {
        return Err(Errno::EINVAL);
    }
    let mut walk = Walk::new(cx, start, path, lookup)?;
    loop {
        let parent = walk.parent()?;
        if parent.kind != LastKind::Normal {
            let excl = flags.contains(OpenFlags::EXCL);
            return Err(if excl { Errno::EEXIST } else { Errno::EISDIR });
        }
        if parent.trailing_slash {
            return Err(Errno::EISDIR);
        }
        let found = match walk.lookup_last(&parent) {
            Ok(found) => found,
            Err(Errno::ENOENT) => match create(cx, &parent.dir, &parent.name, how)? {
                Creation::New(path) => return open_new(cx, &path, flags),
                Creation::Exists(path) => path,
            },
            Err(errno) => return Err(errno),
        };
        if excl_create {
            return Err(Errno::EEXIST);
        }
        match found.inode().file_type() {
            FileType::Symlink if lookup.contains(LookupFlags::FOLLOW) => {
                walk.push_link(&parent, &found)?;
                if walk.is_done() {
                    return open_path(cx, &walk.position(), flags);
                }
            }
            FileType::Directory => return Err(Errno::EISDIR),
            _ => return open_path(cx, &found, flags),
        }
    }
}

/// Something that was opened for reading before anybody asked for it: nobody has heard of it yet.
pub struct OpenedAhead {
    ops: Arc<dyn FileOps>,
    path: Path,
}

impl OpenedAhead {
    /// As `open` with `O_RDONLY` and `O_NOFOLLOW` and `name`, one component and no dots, in `dir`, but only of a regular file or directory
    /// that is in the same mount and [settled](Inode::is_settled).
    ///
    /// # Errors
    /// Those of open(2); `EPERM` for all else.
    pub fn new(cx: &VfsCx<'_>, dir: &Path, name: &[u8]) -> Result<Self> {
        dir.inode().permission(cx.cred, Access::EXEC)?;
        let looking = VfsCx { will_open: true, ..*cx };
        let child = look_up_child(&looking, dir, name)?;
        let path = Path::new(Arc::clone(&dir.mount), child);
        let inode = path.inode();
        let is_thing = matches!(inode.file_type(), FileType::Regular | FileType::Directory);
        let is_mount_point = path.dentry.mounted.load(Ordering::Relaxed) > 0;
        if !is_thing || !inode.is_settled() || is_mount_point {
            return Err(Errno::EPERM);
        }
        may_open(cx, &path, OpenFlags::empty())?;
        let ops = Arc::clone(inode).open(cx, OpenFlags::empty())?;
        Ok(Self { ops, path })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn ops(&self) -> &dyn FileOps {
        &*self.ops
    }

    /// The entries of a directory, as getdents64(2) gives them, at most `most` bytes of records.
    ///
    /// # Errors
    /// As [`File::readdir`]; `EFBIG` when there are more.
    pub fn list(&self, cx: &VfsCx<'_>, most: usize, out: &mut Vec<u8>) -> Result<()> {
        let ops = Arc::clone(&self.ops);
        let file = new_file_quiet(ops, self.path.clone(), OpenFlags::DIRECTORY);
        let mut is_full = false;
        match self.ops.records(cx, &file, out) {
            Err(Errno::EOPNOTSUPP) => file.readdir(cx, &mut |entry| {
                is_full = !entry.push_record(most, out);
                !is_full
            })?,
            told => told?,
        }
        if is_full || out.len() > most { Err(Errno::EFBIG) } else { Ok(()) }
    }

    /// Somebody has opened it, with these flags, when nobody could notice.
    #[must_use]
    pub fn finish(self, flags: OpenFlags) -> Arc<File> {
        new_file_quiet(self.ops, self.path, flags)
    }
}

/// Makes a regular file, unless somebody was faster.
fn create(cx: &VfsCx<'_>, dir: &Path, name: &[u8], how: OpenHow) -> Result<Creation> {
    want_write(dir)?;
    let _ops = dir.dentry.lock_ops();
    match look_up_child(cx, dir, name) {
        Ok(child) => return Ok(Creation::Exists(Path::new(Arc::clone(&dir.mount), child))),
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    may_create(cx, dir)?;
    let own = new_ownership(cx, dir, how.mode & 0o7777, false)?;
    let inode = dir.inode().create(name, NewNode::Regular, own)?;
    let child = dir.dentry.created(name, inode, &dir.mount.sb.cache);
    Ok(Creation::New(Path::new(Arc::clone(&dir.mount), child)))
}

/// Opens what this call has just made: its mode does not matter.
fn open_new(cx: &VfsCx<'_>, path: &Path, flags: OpenFlags) -> Result<Opened> {
    if let Some(parent) = path.dentry.parent() {
        notify::entry(&parent, &path.name(), path.inode(), Events::CREATE, 0);
    }
    let ops = Arc::clone(path.inode()).open(cx, flags)?;
    Ok(Opened::File(new_file(ops, path.clone(), flags)))
}

fn open_tmpfile(
    cx: &VfsCx<'_>,
    start: Option<&Path>,
    path: &[u8],
    how: OpenHow,
    lookup: LookupFlags,
) -> Result<Opened> {
    if !how.flags.writes() {
        return Err(Errno::EINVAL);
    }
    let dir = resolve(cx, start, path, lookup | LookupFlags::DIRECTORY)?;
    want_write(&dir)?;
    dir.inode().permission(cx.cred, Access::WRITE | Access::EXEC)?;
    let own = new_ownership(cx, &dir, how.mode & 0o7777, false)?;
    let inode = dir.inode().tmpfile(own)?;
    let name = format!("#{}", inode.attr()?.ino);
    let may_link = !how.flags.contains(OpenFlags::EXCL);
    let dentry = Dentry::temporary(&dir.dentry, name.as_bytes(), inode, may_link);
    let path = Path::new(Arc::clone(&dir.mount), dentry);
    let ops = Arc::clone(path.inode()).open(cx, how.flags)?;
    Ok(Opened::File(new_file(ops, path, how.flags)))
}

/// Opens the object at `path` (open(2) after the walk; also for execve and /proc/PID/fd).
///
/// # Errors
/// Those of open(2).
pub fn open_path(cx: &VfsCx<'_>, path: &Path, flags: OpenFlags) -> Result<Opened> {
    let inode = path.inode();
    let kind = inode.file_type();
    if flags.contains(OpenFlags::DIRECTORY) && kind != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    may_open(cx, path, flags)?;
    if flags.contains(OpenFlags::TRUNC) && kind == FileType::Regular {
        truncate_on_open(cx, path)?;
    }
    match kind {
        FileType::Fifo if !inode.opens_itself() => {
            let attr = inode.attr()?;
            match pipefs::open_fifo(attr.dev, attr.ino, flags)? {
                FifoOpen::Done(ops) => Ok(Opened::File(new_file(ops, path.clone(), flags))),
                FifoOpen::Wait(wait) => {
                    Ok(Opened::Fifo(PendingFifo { wait, path: path.clone(), flags }))
                }
            }
        }
        FileType::Socket if !inode.opens_itself() => Err(Errno::ENXIO),
        _ => {
            let ops = Arc::clone(inode).open(cx, flags)?;
            Ok(Opened::File(new_file(ops, path.clone(), flags)))
        }
    }
}

fn may_open(cx: &VfsCx<'_>, path: &Path, flags: OpenFlags) -> Result<()> {
    let inode = path.inode();
    let kind = inode.file_type();
    let mut access = Access::empty();
    // Mode 3 asks for both permissions and gives neither.
    let mode = flags.bits() & OpenFlags::ACCMODE;
    if mode == 0 || mode >= 2 {
        access |= Access::READ;
    }
    if mode >= 1 || flags.contains(OpenFlags::TRUNC) {
        access |= Access::WRITE;
    }
    let mount_flags = path.mount.flags();
    let changes_fs = matches!(kind, FileType::Regular | FileType::Directory);
    match kind {
        FileType::Symlink => return Err(Errno::ELOOP),
        FileType::Directory if access.contains(Access::WRITE) => return Err(Errno::EISDIR),
        FileType::Character | FileType::Block if mount_flags.contains(MountFlags::NODEV) => {
            return Err(Errno::EACCES);
        }
        _ => {}
    }
    let writes = access.contains(Access::WRITE) && changes_fs;
    if writes && path.mount.fs().is_read_only() {
        return Err(Errno::EROFS);
    }
    inode.permission(cx.cred, access)?;
    if flags.contains(OpenFlags::NOATIME) && !cx.cred.owns(&inode.attr()?) {
        return Err(Errno::EPERM);
    }
    if writes {
        want_write(path)?;
    }
    let is_program = access.contains(Access::WRITE) && kind == FileType::Regular;
    if is_program { text_busy::check(inode) } else { Ok(()) }
}

fn truncate_on_open(cx: &VfsCx<'_>, path: &Path) -> Result<()> {
    let change = SetAttr { size: Some(0), ..super::attr::without_privileges(cx, path.inode())? };
    path.inode().set_attr(&change)?;
    notify::object(path, Events::MODIFY);
    Ok(())
}

fn new_file(ops: Arc<dyn FileOps>, path: Path, flags: OpenFlags) -> Arc<File> {
    notify::object(&path, Events::OPEN);
    new_file_quiet(ops, path, flags)
}

fn new_file_quiet(ops: Arc<dyn FileOps>, path: Path, flags: OpenFlags) -> Arc<File> {
    let inode: Arc<dyn Inode> = Arc::clone(path.inode());
    File::new(ops, inode, path, flags)
}

/// What `O_PATH` opens: a place, no file.
struct PathOnly;

impl FileOps for PathOnly {
    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _cx: &VfsCx<'_>, _file: &File) -> PollEvents {
        PollEvents::NVAL
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
