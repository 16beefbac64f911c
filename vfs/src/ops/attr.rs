//! Attributes: stat, access, chmod, chown, utimens, truncate, fallocate, readlink, statfs.

use abi::ids::{Gid, Uid};
use abi::stat::{Attr, FileType, S_ISGID, S_ISUID};
use abi::{Errno, Result};
use base::cred::{Access, Caps, Credentials};

use crate::context::VfsCx;
use crate::dentry::Path;
use crate::file::File;
use crate::inode::{Inode, SetAttr, SetTime, StatFs};
use crate::mount::MountFlags;
use crate::notify::{self, Events};
use crate::path::want_write;
use crate::{names, text_busy};

use std::sync::Arc;

/// stat(2) and its kin; also of an open file, through its path.
///
/// # Errors
/// Those of the filesystem.
pub fn stat(path: &Path) -> Result<Attr> {
    path.inode().attr()
}

/// statfs(2); the mount's flags are at `path.mount.flags()`.
///
/// # Errors
/// Those of the filesystem.
pub fn statfs(path: &Path) -> Result<StatFs> {
    path.mount.fs().statfs()
}

/// readlink(2) of what `path` is.
///
/// # Errors
/// `EINVAL` for what is no symbolic link.
pub fn readlink(cx: &VfsCx<'_>, path: &Path) -> Result<Vec<u8>> {
    if path.inode().file_type() != FileType::Symlink {
        return Err(Errno::EINVAL);
    }
    path.inode().readlink(cx)
}

/// access(2): with the real ids unless `uses_effective` (`AT_EACCESS`). An empty `access` (F_OK) always succeeds.
///
/// # Errors
/// `EACCES`, `EROFS`.
pub fn access(cx: &VfsCx<'_>, path: &Path, access: Access, uses_effective: bool) -> Result<()> {
    if access.is_empty() {
        return Ok(());
    }
    let inode = path.inode();
    let kind = inode.file_type();
    let is_plain = matches!(kind, FileType::Regular | FileType::Directory | FileType::Symlink);
    if access.contains(Access::EXEC)
        && kind == FileType::Regular
        && path.mount.flags().contains(MountFlags::NOEXEC)
    {
        return Err(Errno::EACCES);
    }
    let writes = access.contains(Access::WRITE) && is_plain;
    if writes && path.mount.fs().is_read_only() {
        return Err(Errno::EROFS);
    }
    if uses_effective {
        inode.permission(cx.cred, access)?;
    } else {
        inode.permission(&real(cx.cred), access)?;
    }
    if writes { want_write(path) } else { Ok(()) }
}

/// Credentials as access(2) sees them.
fn real(cred: &Credentials) -> Credentials {
    let mut real = cred.clone();
    real.fsuid = cred.ruid;
    real.fsgid = cred.rgid;
    real.effective = if cred.ruid == Uid::ROOT { cred.permitted } else { Caps::empty() };
    real
}

/// Whether execve(2) may run the file at `path`.
///
/// # Errors
/// `EACCES`.
pub fn check_exec(cx: &VfsCx<'_>, path: &Path) -> Result<()> {
    if path.inode().file_type() != FileType::Regular
        || path.mount.flags().contains(MountFlags::NOEXEC)
    {
        return Err(Errno::EACCES);
    }
    path.inode().permission(cx.cred, Access::EXEC)
}

fn apply(path: &Path, change: &SetAttr) -> Result<()> {
    path.inode().set_attr(change)?;
    let is_about_rights = change.mode.is_some() || change.uid.is_some() || change.gid.is_some();
    if is_about_rights && path.inode().file_type() == FileType::Directory {
        // Others may go through it now, or not any more.
        names::changed();
    }
    notify::object(path, Events::ATTRIB);
    Ok(())
}

/// chmod(2).
///
/// # Errors
/// `EROFS`, `EPERM` for others than the owner, `EOPNOTSUPP` for a symbolic link.
pub fn chmod(cx: &VfsCx<'_>, path: &Path, mode: u32) -> Result<()> {
    want_write(path)?;
    let attr = path.inode().attr()?;
    if !cx.cred.owns(&attr) {
        return Err(Errno::EPERM);
    }
    if attr.file_type() == FileType::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut mode = mode & 0o7777;
    if !cx.cred.in_group(attr.gid) && !cx.cred.has(Caps::FSETID) {
        mode &= !S_ISGID;
    }
    apply(path, &SetAttr { mode: Some(mode), ..SetAttr::default() })
}

/// chown(2); `None` leaves an id alone. Clears the set-id bits of files.
///
/// # Errors
/// `EROFS`, `EPERM`.
pub fn chown(cx: &VfsCx<'_>, path: &Path, uid: Option<Uid>, gid: Option<Gid>) -> Result<()> {
    want_write(path)?;
    let attr = path.inode().attr()?;
    if !cx.cred.has(Caps::CHOWN) {
        let is_owner = cx.cred.fsuid == attr.uid;
        if uid.is_some_and(|uid| !is_owner || uid != attr.uid) {
            return Err(Errno::EPERM);
        }
        let may_give = |gid: Gid| is_owner && (gid == attr.gid || cx.cred.in_group(gid));
        if gid.is_some_and(|gid| !may_give(gid)) {
            return Err(Errno::EPERM);
        }
    }
    let mode = if attr.is_dir() { None } else { dropped_set_id(&attr) };
    apply(path, &SetAttr { mode, uid, gid, ..SetAttr::default() })
}

/// The permission bits without set-user-id and, where it means execution, set-group-id; `None` when nothing changes.
fn dropped_set_id(attr: &Attr) -> Option<u32> {
    let mut mode = attr.mode & 0o7777;
    mode &= !S_ISUID;
    if mode & 0o010 != 0 {
        mode &= !S_ISGID;
    }
    (mode != attr.mode & 0o7777).then_some(mode)
}

/// The permission bits that a write by this caller leaves; `None` when nothing changes.
pub(crate) fn dropped_set_id_bits(cred: &Credentials, mode: u32) -> Option<u32> {
    if mode & (S_ISUID | S_ISGID) == 0 || cred.has(Caps::FSETID) {
        return None;
    }
    dropped_set_id(&Attr { mode, ..Attr::default() })
}

/// What a change of data by this caller does to the mode: see inode(7), and file_remove_privs in Linux.
pub(super) fn without_privileges(cx: &VfsCx<'_>, inode: &Arc<dyn Inode>) -> Result<SetAttr> {
    let mode = if cx.cred.has(Caps::FSETID) { None } else { dropped_set_id(&inode.attr()?) };
    Ok(SetAttr { mode, ..SetAttr::default() })
}

/// utimensat(2); `None` leaves a time alone.
///
/// # Errors
/// `EROFS`; `EACCES` for "both now" without ownership or write permission; `EPERM` for other times without ownership.
pub fn utimens(
    cx: &VfsCx<'_>,
    path: &Path,
    atime: Option<SetTime>,
    mtime: Option<SetTime>,
) -> Result<()> {
    if atime.is_none() && mtime.is_none() {
        return Ok(());
    }
    want_write(path)?;
    let attr = path.inode().attr()?;
    if !cx.cred.owns(&attr) {
        if atime != Some(SetTime::Now) || mtime != Some(SetTime::Now) {
            return Err(Errno::EPERM);
        }
        path.inode().permission(cx.cred, Access::WRITE)?;
    }
    apply(path, &SetAttr { atime, mtime, ..SetAttr::default() })
}

/// truncate(2).
///
/// # Errors
/// `EISDIR`, `EINVAL`, `EROFS`, `EACCES`, `EFBIG`.
pub fn truncate(cx: &VfsCx<'_>, path: &Path, len: u64) -> Result<()> {
    match path.inode().file_type() {
        FileType::Regular => {}
        FileType::Directory => return Err(Errno::EISDIR),
        _ => return Err(Errno::EINVAL),
    }
    want_write(path)?;
    path.inode().permission(cx.cred, Access::WRITE)?;
    text_busy::check(path.inode())?;
    set_size(cx, path, len)
}

/// ftruncate(2).
///
/// # Errors
/// `EINVAL` when the file is not regular or not open for writing, `EFBIG`.
pub fn ftruncate(cx: &VfsCx<'_>, file: &File, len: u64) -> Result<()> {
    if !file.flags().writes() || file.inode().file_type() != FileType::Regular {
        return Err(Errno::EINVAL);
    }
    set_size(cx, file.path(), len)
}

fn set_size(cx: &VfsCx<'_>, path: &Path, len: u64) -> Result<()> {
    if len > i64::MAX as u64 {
        return Err(Errno::EINVAL);
    }
    if len > cx.file_size_limit && len > path.inode().attr()?.size {
        return Err(Errno::EFBIG);
    }
    let change = SetAttr { size: Some(len), ..without_privileges(cx, path.inode())? };
    path.inode().set_attr(&change)?;
    notify::object(path, Events::MODIFY);
    Ok(())
}

/// fallocate(2); `mode` as in [`abi::fcntl::FallocateMode`].
///
/// # Errors
/// Those of fallocate(2).
pub fn allocate(cx: &VfsCx<'_>, file: &File, mode: u32, offset: i64, len: i64) -> Result<()> {
    let (Ok(begin), Ok(count)) = (u64::try_from(offset), u64::try_from(len)) else {
        return Err(Errno::EINVAL);
    };
    if count == 0 {
        return Err(Errno::EINVAL);
    }
    if !file.flags().writes() {
        return Err(Errno::EBADF);
    }
    match file.inode().file_type() {
        FileType::Regular => {}
        FileType::Directory => return Err(Errno::EISDIR),
        FileType::Fifo => return Err(Errno::ESPIPE),
        _ => return Err(Errno::ENODEV),
    }
    let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
    let keeps_size = abi::fcntl::FallocateMode::KEEP_SIZE.bits();
    if mode & keeps_size == 0 && end as u64 > cx.file_size_limit {
        return Err(Errno::EFBIG);
    }
    file.ops().allocate(mode, begin, count)?;
    notify::object(file.path(), Events::MODIFY);
    Ok(())
}
