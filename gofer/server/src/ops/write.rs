//! Creating, removing, renaming, changing. Only ever reached for writable trees (`Sync` also for others).

use std::os::fd::{AsFd, OwnedFd};

use abi::stat::{Attr, FileType};
use abi::{Errno, Result};
use gofer_protocol::{AttrChange, NodeKind, Owner, SyncScope, TimeChange, TreePath};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid,
};

use super::read::{put_attr, put_attr_of};
use crate::session::Session;
use crate::tree::{ServedTree, attr_in, attr_of, errno, resolve, resolve_new};

const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Gives a new object its owner and exact mode. A gofer without the right to give files away leaves them to its
/// own user: an ordinary user's sandbox can own nothing else on the host.
fn settle(object: impl AsFd, owner: Owner) -> Result<Attr> {
    let attr = attr_of(&object)?;
    if attr.uid != owner.uid || attr.gid != owner.gid {
        match change_owner(&object, Some(owner.uid), Some(owner.gid)) {
            Ok(()) | Err(Errno::EPERM) => {}
            Err(reason) => return Err(reason),
        }
    }
    if attr.file_type() != FileType::Symlink {
        let mode = attr_of(&object)?.mode & 0o7777;
        if mode != owner.mode {
            change_mode(&object, owner.mode)?;
        }
    }
    attr_of(&object)
}

fn change_owner(
    object: impl AsFd,
    uid: Option<abi::ids::Uid>,
    gid: Option<abi::ids::Gid>,
) -> Result<()> {
    // The all-ones id means "leave alone" to the host.
    if uid.is_some_and(|uid| uid.0 == u32::MAX) || gid.is_some_and(|gid| gid.0 == u32::MAX) {
        return Err(Errno::EINVAL);
    }
    let (uid, gid) = (uid.map(|uid| Uid::from_raw(uid.0)), gid.map(|gid| Gid::from_raw(gid.0)));
    rustix::fs::chownat(object, "", uid, gid, AtFlags::EMPTY_PATH).map_err(errno)
}

fn change_mode(object: impl AsFd, mode: u32) -> Result<()> {
    match host::chmod::chmod_object(&object, mode) {
        // Before Linux 6.6 an O_PATH descriptor does not do; one that was opened does.
        Err(rustix::io::Errno::NOSYS) => {
            rustix::fs::fchmod(object, Mode::from_raw_mode(mode)).map_err(errno)
        }
        other => other.map_err(errno),
    }
}

pub fn create(
    tree: &ServedTree,
    path: TreePath<'_>,
    owner: Owner,
    out: &mut Vec<u8>,
) -> Result<OwnedFd> {
    let (dir, name) = tree.place(path)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = resolve_new(dir, name, flags, Mode::from_raw_mode(owner.mode & 0o777))?;
    put_attr(&settle(&fd, owner)?, out);
    Ok(fd)
}

pub fn mkdir(tree: &ServedTree, path: TreePath<'_>, owner: Owner, out: &mut Vec<u8>) -> Result<()> {
    let (dir, name) = existing_is(tree, path)?;
    rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(owner.mode & 0o777)).map_err(errno)?;
    settle_entry(dir, name, owner, out)
}

/// The place of a new entry; the root of a tree already exists.
fn existing_is<'t, 'p>(
    tree: &'t ServedTree,
    path: TreePath<'p>,
) -> Result<(crate::tree::Dir<'t>, &'p [u8])> {
    if path.is_root() { Err(Errno::EEXIST) } else { tree.entry(path) }
}

fn settle_entry(dir: impl AsFd, name: &[u8], owner: Owner, out: &mut Vec<u8>) -> Result<()> {
    let object = resolve(dir, name, PLACE)?;
    put_attr(&settle(object, owner)?, out);
    Ok(())
}

pub fn symlink(
    tree: &ServedTree,
    path: TreePath<'_>,
    target: &[u8],
    owner: Owner,
    out: &mut Vec<u8>,
) -> Result<()> {
    let (dir, name) = existing_is(tree, path)?;
    rustix::fs::symlinkat(target, &dir, name).map_err(errno)?;
    settle_entry(dir, name, owner, out)
}

pub fn link(
    tree: &ServedTree,
    existing: TreePath<'_>,
    path: TreePath<'_>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let (from, old) = tree.entry(existing)?;
    let (dir, name) = existing_is(tree, path)?;
    rustix::fs::linkat(from, old, &dir, name, AtFlags::empty()).map_err(errno)?;
    put_attr(&attr_in(dir, name)?, out);
    Ok(())
}

pub fn unlink(tree: &ServedTree, path: TreePath<'_>) -> Result<()> {
    let (dir, name) = tree.entry(path)?;
    rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(errno)
}

pub fn rmdir(tree: &ServedTree, path: TreePath<'_>) -> Result<()> {
    let (dir, name) = tree.entry(path)?;
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(errno)
}

pub fn rename(tree: &ServedTree, from: TreePath<'_>, to: TreePath<'_>, flags: u32) -> Result<()> {
    let allowed = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE;
    let flags = RenameFlags::from_bits(flags).filter(|flags| allowed.contains(*flags));
    let flags = flags.ok_or(Errno::EINVAL)?;
    let (old_dir, old) = tree.entry(from)?;
    let (new_dir, new) = tree.entry(to)?;
    rustix::fs::renameat_with(old_dir, old, new_dir, new, flags).map_err(errno)
}

pub fn mknod(
    tree: &ServedTree,
    path: TreePath<'_>,
    kind: NodeKind,
    owner: Owner,
    out: &mut Vec<u8>,
) -> Result<()> {
    let (dir, name) = existing_is(tree, path)?;
    let kind = match kind {
        NodeKind::Regular => rustix::fs::FileType::RegularFile,
        NodeKind::Fifo => rustix::fs::FileType::Fifo,
        NodeKind::Socket => rustix::fs::FileType::Socket,
    };
    let mode = Mode::from_raw_mode(owner.mode & 0o777);
    rustix::fs::mknodat(&dir, name, kind, mode, 0).map_err(errno)?;
    settle_entry(dir, name, owner, out)
}

/// Size first (it may fail for space), mode after owner (a change of owner clears set-id bits), times last (the
/// others set them).
pub fn set_attr(
    session: &mut Session,
    tree: &ServedTree,
    path: TreePath<'_>,
    change: &AttrChange,
    out: &mut Vec<u8>,
) -> Result<()> {
    let object = tree.object(path)?;
    if let Some(size) = change.size {
        let (file, _) = session.open_object(tree, path, OFlags::WRONLY)?;
        rustix::fs::ftruncate(file, size).map_err(errno)?;
    }
    if change.uid.is_some() || change.gid.is_some() {
        change_owner(&object, change.uid, change.gid)?;
    }
    if let Some(mode) = change.mode {
        match host::chmod::chmod_object(&object, mode) {
            Err(rustix::io::Errno::NOSYS) => {
                change_mode(session.open_object(tree, path, OFlags::RDONLY)?.0, mode)?;
            }
            other => other.map_err(errno)?,
        }
    }
    if change.atime.is_some() || change.mtime.is_some() {
        let times = Timestamps {
            last_access: host_time(change.atime),
            last_modification: host_time(change.mtime),
        };
        let (dir, name) = tree.place(path)?;
        rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(errno)?;
    }
    put_attr_of(object, out)
}

fn host_time(change: Option<TimeChange>) -> Timespec {
    match change {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(TimeChange::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(TimeChange::At(at)) => Timespec { tv_sec: at.sec, tv_nsec: at.nsec },
    }
}

pub fn sync(
    session: &mut Session,
    tree: &ServedTree,
    path: TreePath<'_>,
    scope: SyncScope,
) -> Result<()> {
    let (file, _) = session.open_object(tree, path, OFlags::RDONLY)?;
    match scope {
        SyncScope::Object => rustix::fs::fsync(file),
        SyncScope::Data => rustix::fs::fdatasync(file),
        SyncScope::FileSystem => rustix::fs::syncfs(file),
    }
    .map_err(errno)
}
