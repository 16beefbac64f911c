//! Attributes of files and filesystems: reading them.

use abi::ids::Fd;
use abi::open::AtFlags;
use abi::stat::Attr;
use abi::statbuf::{AT_STATX_SYNC_TYPE, STATX_ATTR_MOUNT_ROOT, Stat, Statfs, Statx, StatxMask};
use abi::{Errno, Result, mount};
use base::cred::Access;
use vfs::{LookupFlags, MountFlags, Path, ops, path};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::known_paths::{self, Question};
use crate::loose_flags_arg;
use crate::mm::UserCStr;
use crate::syscalls::args::{DirFd, Out, OutSlice};
use crate::syscalls::descriptor::PathAt;
use crate::syscalls::names::AccessMode;
use crate::{ledger, path_stats};

loose_flags_arg!(StatxMask as "STATX_");

/// stat. See [stat(2)](https://man7.org/linux/man-pages/man2/stat.2.html).
pub fn stat(cx: &mut Cx<'_>, path: UserCStr, out: Out<Stat>) -> SysResult {
    newfstatat(cx, DirFd::CWD, path, out, AtFlags::empty())
}

/// lstat. See [lstat(2)](https://man7.org/linux/man-pages/man2/lstat.2.html).
pub fn lstat(cx: &mut Cx<'_>, path: UserCStr, out: Out<Stat>) -> SysResult {
    newfstatat(cx, DirFd::CWD, path, out, AtFlags::SYMLINK_NOFOLLOW)
}

/// fstat. See [fstat(2)](https://man7.org/linux/man-pages/man2/fstat.2.html).
pub fn fstat(cx: &mut Cx<'_>, fd: Fd, out: Out<Stat>) -> SysResult {
    let file = cx.path_file(fd)?;
    let attr = file.inode().attr()?;
    ledger::after_look(cx, fd, &file);
    write_stat(cx, out, &attr)
}

/// newfstatat. See [fstatat(2)](https://man7.org/linux/man-pages/man2/fstatat.2.html).
pub fn newfstatat(
    cx: &mut Cx<'_>,
    dir: DirFd,
    path: UserCStr,
    out: Out<Stat>,
    flags: AtFlags,
) -> SysResult {
    let known = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    if !known.contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let names = vfs::names::generation();
    let attr = match named_file(cx, dir, path, flags)? {
        Named::File(attr) => attr,
        Named::Path(at, text) => {
            let attr = ops::stat(&at)?;
            let follows = !flags.contains(AtFlags::SYMLINK_NOFOLLOW);
            path_stats::after_stat(cx, names, &text, follows, &at, &attr);
            attr
        }
    };
    write_stat(cx, out, &attr)
}

fn write_stat(cx: &Cx<'_>, out: Out<Stat>, attr: &Attr) -> SysResult {
    out.write(&cx.mm(), &Stat::from(attr))?;
    Ok(0)
}

/// What an *at call names.
enum Named {
    /// An open file by its descriptor alone.
    File(Attr),
    /// And the text that led to it.
    Path(Path, Vec<u8>),
}

/// Resolves the path of an *at call; `AT_EMPTY_PATH` with an empty (or null) path is the descriptor itself.
fn named_file(cx: &Cx<'_>, dir: DirFd, path: UserCStr, flags: AtFlags) -> Result<Named> {
    let takes_empty = flags.contains(AtFlags::EMPTY_PATH);
    let text =
        if takes_empty && path.addr.is_null() { Vec::new() } else { path.read_path(&cx.mm())? };
    if text.is_empty() && takes_empty && !dir.is_cwd() {
        let file = cx.path_file(dir.0)?;
        let attr = file.inode().attr()?;
        ledger::after_look(cx, dir.0, &file);
        return Ok(Named::File(attr));
    }
    let start = if text.first() == Some(&b'/') { None } else { cx.start_of(dir)? };
    let at = PathAt { start, text };
    let found = resolve_at(cx, &at, flags);
    if matches!(found, Ok(_) | Err(Errno::ENOENT)) {
        let follows = !flags.contains(AtFlags::SYMLINK_NOFOLLOW);
        let question = Question::Attributes { follows };
        known_paths::after_question(cx, &at.text, question, found.is_ok());
    }
    found.map(|found| Named::Path(found, at.text))
}

/// Walks a path with the `AT_*` flags that concern the walk.
///
/// # Errors
/// Those of path_resolution(7).
pub fn resolve_at(cx: &Cx<'_>, at: &PathAt, flags: AtFlags) -> Result<Path> {
    let mut lookup = LookupFlags::empty();
    lookup.set(LookupFlags::FOLLOW, !flags.contains(AtFlags::SYMLINK_NOFOLLOW));
    lookup.set(LookupFlags::EMPTY_PATH, flags.contains(AtFlags::EMPTY_PATH));
    cx.with_vfs(|vfs| path::resolve(vfs, at.start(), &at.text, lookup))
}

/// Reads and walks a path argument.
///
/// # Errors
/// Those of path_resolution(7).
pub fn lookup(cx: &Cx<'_>, dir: DirFd, path: UserCStr, flags: AtFlags) -> Result<Path> {
    resolve_at(cx, &cx.path_at(dir, path)?, flags)
}

/// statx. See [statx(2)](https://man7.org/linux/man-pages/man2/statx.2.html).
pub fn statx(
    cx: &mut Cx<'_>,
    dir: DirFd,
    path: UserCStr,
    flags: AtFlags,
    mask: StatxMask,
    out: Out<Statx>,
) -> SysResult {
    let sync = AtFlags::from_bits_retain(AT_STATX_SYNC_TYPE);
    let known = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH | sync;
    if mask.bits() & StatxMask::RESERVED != 0 || !known.contains(flags) || flags.contains(sync) {
        return Err(Errno::EINVAL.into());
    }
    let text = if flags.contains(AtFlags::EMPTY_PATH) && path.addr.is_null() {
        Vec::new()
    } else {
        path.read_path(&cx.mm())?
    };
    let answer = if text.is_empty() && flags.contains(AtFlags::EMPTY_PATH) && !dir.is_cwd() {
        let file = cx.path_file(dir.0)?;
        full_statx(&file.inode().attr()?, file.path())
    } else {
        let start = if text.first() == Some(&b'/') { None } else { cx.start_of(dir)? };
        let at = resolve_at(cx, &PathAt { start, text }, flags)?;
        full_statx(&ops::stat(&at)?, &at)
    };
    out.write(&cx.mm(), &answer)?;
    Ok(0)
}

fn full_statx(attr: &Attr, at: &Path) -> Statx {
    let mut answer = Statx::from(attr);
    answer.mask |= StatxMask::MNT_ID.bits();
    answer.mnt_id = at.mount.id();
    answer.attributes_mask = STATX_ATTR_MOUNT_ROOT;
    if std::sync::Arc::ptr_eq(&at.dentry, at.mount.root_dentry()) {
        answer.attributes |= STATX_ATTR_MOUNT_ROOT;
    }
    answer
}

/// access. See [access(2)](https://man7.org/linux/man-pages/man2/access.2.html).
pub fn access(cx: &mut Cx<'_>, path: UserCStr, mode: AccessMode) -> SysResult {
    check_access(cx, DirFd::CWD, path, mode, AtFlags::empty())
}

/// faccessat: the call has no flags. See [faccessat(2)](https://man7.org/linux/man-pages/man2/faccessat.2.html).
pub fn faccessat(cx: &mut Cx<'_>, dir: DirFd, path: UserCStr, mode: AccessMode) -> SysResult {
    check_access(cx, dir, path, mode, AtFlags::empty())
}

/// faccessat2. See [faccessat2(2)](https://man7.org/linux/man-pages/man2/faccessat2.2.html).
pub fn faccessat2(
    cx: &mut Cx<'_>,
    dir: DirFd,
    path: UserCStr,
    mode: AccessMode,
    flags: AtFlags,
) -> SysResult {
    check_access(cx, dir, path, mode, flags)
}

/// `AT_EACCESS`, which has the value of `AT_REMOVEDIR`.
const EACCESS: AtFlags = AtFlags::REMOVEDIR;

fn check_access(
    cx: &Cx<'_>,
    dir: DirFd,
    path: UserCStr,
    mode: AccessMode,
    flags: AtFlags,
) -> SysResult {
    let access = Access::from_bits(mode.bits()).ok_or(Errno::EINVAL)?;
    let known = EACCESS | AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    if !known.contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let at = cx.path_at(dir, path)?;
    let found = resolve_at(cx, &at, flags);
    let question = match access.is_empty() {
        true => Question::Kind,
        false => Question::Attributes { follows: !flags.contains(AtFlags::SYMLINK_NOFOLLOW) },
    };
    if matches!(found, Ok(_) | Err(Errno::ENOENT)) && !access.contains(Access::WRITE) {
        known_paths::after_question(cx, &at.text, question, found.is_ok());
    }
    cx.with_vfs(|vfs| ops::access(vfs, &found?, access, flags.contains(EACCESS)))?;
    Ok(0)
}

/// readlink. See [readlink(2)](https://man7.org/linux/man-pages/man2/readlink.2.html).
pub fn readlink(cx: &mut Cx<'_>, path: UserCStr, buf: OutSlice) -> SysResult {
    readlinkat(cx, DirFd::CWD, path, buf)
}

/// readlinkat. See [readlinkat(2)](https://man7.org/linux/man-pages/man2/readlinkat.2.html).
pub fn readlinkat(cx: &mut Cx<'_>, dir: DirFd, path: UserCStr, buf: OutSlice) -> SysResult {
    let len = i32::try_from(buf.0.len as u32).map_err(|_| Errno::EINVAL)?;
    if len <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let at = cx.path_at(dir, path)?;
    // An empty path is the link that an O_PATH descriptor stands for.
    let is_empty = at.text.is_empty();
    if is_empty && at.start.is_none() {
        return Err(Errno::ENOENT.into());
    }
    let link = resolve_at(cx, &at, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH);
    let text = link.and_then(|link| cx.with_vfs(|vfs| ops::readlink(vfs, &link)));
    if matches!(text, Err(Errno::EINVAL | Errno::ENOENT)) {
        known_paths::after_question(cx, &at.text, Question::Kind, text != Err(Errno::ENOENT));
    }
    let text = text
        .map_err(|errno| if is_empty && errno == Errno::EINVAL { Errno::ENOENT } else { errno })?;
    let shown = text.get(..len.cast_unsigned() as usize).unwrap_or(&text);
    cx.mm().write(buf.0.addr, shown)?;
    Ok(shown.len() as u64)
}

/// statfs. See [statfs(2)](https://man7.org/linux/man-pages/man2/statfs.2.html).
pub fn statfs(cx: &mut Cx<'_>, path: UserCStr, out: Out<Statfs>) -> SysResult {
    let at = lookup(cx, DirFd::CWD, path, AtFlags::empty())?;
    write_statfs(cx, &at, out)
}

/// fstatfs. See [fstatfs(2)](https://man7.org/linux/man-pages/man2/fstatfs.2.html).
pub fn fstatfs(cx: &mut Cx<'_>, fd: Fd, out: Out<Statfs>) -> SysResult {
    let file = cx.path_file(fd)?;
    write_statfs(cx, file.path(), out)
}

fn write_statfs(cx: &Cx<'_>, at: &Path, out: Out<Statfs>) -> SysResult {
    let known = ops::statfs(at)?;
    let dev = at.mount.fs().dev();
    let answer = Statfs {
        kind: known.magic.cast_signed(),
        bsize: known.block_size.cast_signed(),
        blocks: known.blocks,
        bfree: known.blocks_free,
        bavail: known.blocks_available,
        files: known.files,
        ffree: known.files_free,
        fsid: [dev as i32, (dev >> 32) as i32],
        namelen: known.name_max.cast_signed(),
        frsize: known.block_size.cast_signed(),
        flags: statfs_flags(at).cast_signed(),
        spare: [0; 4],
    };
    out.write(&cx.mm(), &answer)?;
    Ok(0)
}

fn statfs_flags(at: &Path) -> u64 {
    let mut flags = u64::from(at.mount.flags().bits()) | mount::ST_VALID;
    if at.mount.fs().is_read_only() {
        flags |= u64::from(MountFlags::RDONLY.bits());
    }
    flags
}
