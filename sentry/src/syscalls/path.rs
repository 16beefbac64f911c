//! Names: making, removing, renaming; and changing attributes, sizes and the directories a task stands in.

use abi::ids::{Fd, Gid, Uid};
use abi::open::AtFlags;
use abi::stat::FileType;
use abi::time::{Timespec, Timeval, UTIME_NOW, UTIME_OMIT, Utimbuf};
use abi::{Errno, Result};
use base::cred::{Access, Caps};
use vfs::dentry::cwd_string;
use vfs::inode::{RenameFlags, SetTime};
use vfs::{LookupFlags, Path, ops};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::{UserCStr, UserRef};
use crate::strict_flags_arg;
use crate::syscalls::args::{DirFd, Mode, OutSlice};
use crate::syscalls::stat::lookup;

strict_flags_arg!(RenameFlags as "RENAME_");

/// mkdir. See [mkdir(2)](https://man7.org/linux/man-pages/man2/mkdir.2.html).
pub fn mkdir(cx: &mut Cx<'_>, path: UserCStr, mode: Mode) -> SysResult {
    mkdirat(cx, DirFd::CWD, path, mode)
}

/// mkdirat. See [mkdirat(2)](https://man7.org/linux/man-pages/man2/mkdirat.2.html).
pub fn mkdirat(cx: &mut Cx<'_>, dir: DirFd, path: UserCStr, mode: Mode) -> SysResult {
    let at = cx.path_at(dir, path)?;
    cx.with_vfs(|vfs| ops::mkdir(vfs, at.start(), &at.text, mode.0))?;
    Ok(0)
}

/// mknod. See [mknod(2)](https://man7.org/linux/man-pages/man2/mknod.2.html).
pub fn mknod(cx: &mut Cx<'_>, path: UserCStr, mode: Mode, dev: u32) -> SysResult {
    mknodat(cx, DirFd::CWD, path, mode, dev)
}

/// mknodat. See [mknodat(2)](https://man7.org/linux/man-pages/man2/mknodat.2.html).
pub fn mknodat(cx: &mut Cx<'_>, dir: DirFd, path: UserCStr, mode: Mode, dev: u32) -> SysResult {
    let at = cx.path_at(dir, path)?;
    let rdev = u64::from(dev);
    cx.with_vfs(|vfs| ops::mknod(vfs, at.start(), &at.text, mode.0, rdev))?;
    Ok(0)
}

/// rmdir. See [rmdir(2)](https://man7.org/linux/man-pages/man2/rmdir.2.html).
pub fn rmdir(cx: &mut Cx<'_>, path: UserCStr) -> SysResult {
    unlinkat(cx, DirFd::CWD, path, AtFlags::REMOVEDIR)
}

/// unlink. See [unlink(2)](https://man7.org/linux/man-pages/man2/unlink.2.html).
pub fn unlink(cx: &mut Cx<'_>, path: UserCStr) -> SysResult {
    unlinkat(cx, DirFd::CWD, path, AtFlags::empty())
}

/// unlinkat. See [unlinkat(2)](https://man7.org/linux/man-pages/man2/unlinkat.2.html).
pub fn unlinkat(cx: &mut Cx<'_>, dir: DirFd, path: UserCStr, flags: AtFlags) -> SysResult {
    if !AtFlags::REMOVEDIR.contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let at = cx.path_at(dir, path)?;
    cx.with_vfs(|vfs| {
        if flags.contains(AtFlags::REMOVEDIR) {
            ops::rmdir(vfs, at.start(), &at.text)
        } else {
            ops::unlink(vfs, at.start(), &at.text)
        }
    })?;
    Ok(0)
}

/// rename. See [rename(2)](https://man7.org/linux/man-pages/man2/rename.2.html).
pub fn rename(cx: &mut Cx<'_>, old: UserCStr, new: UserCStr) -> SysResult {
    renameat2(cx, DirFd::CWD, old, DirFd::CWD, new, RenameFlags::empty())
}

/// renameat. See [renameat(2)](https://man7.org/linux/man-pages/man2/renameat.2.html).
pub fn renameat(
    cx: &mut Cx<'_>,
    old_dir: DirFd,
    old: UserCStr,
    new_dir: DirFd,
    new: UserCStr,
) -> SysResult {
    renameat2(cx, old_dir, old, new_dir, new, RenameFlags::empty())
}

/// renameat2. See [renameat2(2)](https://man7.org/linux/man-pages/man2/renameat2.2.html).
pub fn renameat2(
    cx: &mut Cx<'_>,
    old_dir: DirFd,
    old: UserCStr,
    new_dir: DirFd,
    new: UserCStr,
    flags: RenameFlags,
) -> SysResult {
    let (old, new) = (cx.path_at(old_dir, old)?, cx.path_at(new_dir, new)?);
    cx.with_vfs(|vfs| ops::rename(vfs, old.start(), &old.text, new.start(), &new.text, flags))?;
    Ok(0)
}

/// link. See [link(2)](https://man7.org/linux/man-pages/man2/link.2.html).
pub fn link(cx: &mut Cx<'_>, old: UserCStr, new: UserCStr) -> SysResult {
    linkat(cx, DirFd::CWD, old, DirFd::CWD, new, AtFlags::empty())
}

/// linkat. See [linkat(2)](https://man7.org/linux/man-pages/man2/linkat.2.html).
pub fn linkat(
    cx: &mut Cx<'_>,
    old_dir: DirFd,
    old: UserCStr,
    new_dir: DirFd,
    new: UserCStr,
    flags: AtFlags,
) -> SysResult {
    let known = AtFlags::SYMLINK_FOLLOW | AtFlags::EMPTY_PATH;
    if !known.contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let (old, new) = (cx.path_at(old_dir, old)?, cx.path_at(new_dir, new)?);
    if old.text.is_empty()
        && flags.contains(AtFlags::EMPTY_PATH)
        && !cx.cred().has(Caps::DAC_READ_SEARCH)
    {
        return Err(Errno::ENOENT.into());
    }
    let mut walk = LookupFlags::empty();
    walk.set(LookupFlags::FOLLOW, flags.contains(AtFlags::SYMLINK_FOLLOW));
    walk.set(LookupFlags::EMPTY_PATH, flags.contains(AtFlags::EMPTY_PATH));
    cx.with_vfs(|vfs| ops::link(vfs, old.start(), &old.text, new.start(), &new.text, walk))?;
    Ok(0)
}

/// symlink. See [symlink(2)](https://man7.org/linux/man-pages/man2/symlink.2.html).
pub fn symlink(cx: &mut Cx<'_>, target: UserCStr, path: UserCStr) -> SysResult {
    symlinkat(cx, target, DirFd::CWD, path)
}

/// symlinkat. See [symlinkat(2)](https://man7.org/linux/man-pages/man2/symlinkat.2.html).
pub fn symlinkat(cx: &mut Cx<'_>, target: UserCStr, dir: DirFd, path: UserCStr) -> SysResult {
    let target = target.read_path(&cx.mm())?;
    let at = cx.path_at(dir, path)?;
    cx.with_vfs(|vfs| ops::symlink(vfs, &target, at.start(), &at.text))?;
    Ok(0)
}

/// chmod. See [chmod(2)](https://man7.org/linux/man-pages/man2/chmod.2.html).
pub fn chmod(cx: &mut Cx<'_>, path: UserCStr, mode: Mode) -> SysResult {
    fchmodat2(cx, DirFd::CWD, path, mode, AtFlags::empty())
}

/// fchmod. See [fchmod(2)](https://man7.org/linux/man-pages/man2/fchmod.2.html).
pub fn fchmod(cx: &mut Cx<'_>, fd: Fd, mode: Mode) -> SysResult {
    let file = cx.file(fd)?;
    cx.with_vfs(|vfs| ops::chmod(vfs, file.path(), mode.0))?;
    Ok(0)
}

/// fchmodat: the call has no flags. See [fchmodat(2)](https://man7.org/linux/man-pages/man2/fchmodat.2.html).
pub fn fchmodat(cx: &mut Cx<'_>, dir: DirFd, path: UserCStr, mode: Mode) -> SysResult {
    fchmodat2(cx, dir, path, mode, AtFlags::empty())
}

/// fchmodat2. See [fchmodat(2)](https://man7.org/linux/man-pages/man2/fchmodat.2.html).
pub fn fchmodat2(
    cx: &mut Cx<'_>,
    dir: DirFd,
    path: UserCStr,
    mode: Mode,
    flags: AtFlags,
) -> SysResult {
    if !(AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let at = lookup(cx, dir, path, flags)?;
    cx.with_vfs(|vfs| ops::chmod(vfs, &at, mode.0))?;
    Ok(0)
}

/// chown. See [chown(2)](https://man7.org/linux/man-pages/man2/chown.2.html).
pub fn chown(cx: &mut Cx<'_>, path: UserCStr, uid: Uid, gid: Gid) -> SysResult {
    fchownat(cx, DirFd::CWD, path, uid, gid, AtFlags::empty())
}

/// lchown. See [lchown(2)](https://man7.org/linux/man-pages/man2/lchown.2.html).
pub fn lchown(cx: &mut Cx<'_>, path: UserCStr, uid: Uid, gid: Gid) -> SysResult {
    fchownat(cx, DirFd::CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
}

/// fchown. See [fchown(2)](https://man7.org/linux/man-pages/man2/fchown.2.html).
pub fn fchown(cx: &mut Cx<'_>, fd: Fd, uid: Uid, gid: Gid) -> SysResult {
    let file = cx.file(fd)?;
    set_owner(cx, file.path(), uid, gid)
}

/// fchownat. See [fchownat(2)](https://man7.org/linux/man-pages/man2/fchownat.2.html).
pub fn fchownat(
    cx: &mut Cx<'_>,
    dir: DirFd,
    path: UserCStr,
    uid: Uid,
    gid: Gid,
    flags: AtFlags,
) -> SysResult {
    if !(AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let at = lookup(cx, dir, path, flags)?;
    set_owner(cx, &at, uid, gid)
}

fn set_owner(cx: &Cx<'_>, at: &Path, uid: Uid, gid: Gid) -> SysResult {
    // -1 leaves an id alone.
    let uid = (uid.0 != u32::MAX).then_some(uid);
    let gid = (gid.0 != u32::MAX).then_some(gid);
    cx.with_vfs(|vfs| ops::chown(vfs, at, uid, gid))?;
    Ok(0)
}

/// utime. See [utime(2)](https://man7.org/linux/man-pages/man2/utime.2.html).
pub fn utime(cx: &mut Cx<'_>, path: UserCStr, times: UserRef<Utimbuf>) -> SysResult {
    let times = match times.optional() {
        None => NOW,
        Some(times) => {
            let times = times.read(&cx.mm())?;
            let at = |sec| Some(SetTime::At(Timespec { sec, nsec: 0 }));
            (at(times.actime), at(times.modtime))
        }
    };
    set_times(cx, &lookup(cx, DirFd::CWD, path, AtFlags::empty())?, times)
}

/// utimes. See [utimes(2)](https://man7.org/linux/man-pages/man2/utimes.2.html).
pub fn utimes(cx: &mut Cx<'_>, path: UserCStr, times: UserRef<[Timeval; 2]>) -> SysResult {
    futimesat(cx, DirFd::CWD, path, times)
}

/// futimesat. See [futimesat(2)](https://man7.org/linux/man-pages/man2/futimesat.2.html).
pub fn futimesat(
    cx: &mut Cx<'_>,
    dir: DirFd,
    path: UserCStr,
    times: UserRef<[Timeval; 2]>,
) -> SysResult {
    let times = match times.optional() {
        None => NOW,
        Some(times) => {
            let [atime, mtime] = times.read(&cx.mm())?;
            (Some(micros(atime)?), Some(micros(mtime)?))
        }
    };
    // A null path is the descriptor itself.
    if path.addr.is_null() && !dir.is_cwd() {
        let file = cx.file(dir.0)?;
        return set_times(cx, file.path(), times);
    }
    set_times(cx, &lookup(cx, dir, path, AtFlags::empty())?, times)
}

/// utimensat. See [utimensat(2)](https://man7.org/linux/man-pages/man2/utimensat.2.html).
pub fn utimensat(
    cx: &mut Cx<'_>,
    dir: DirFd,
    path: UserCStr,
    times: UserRef<[Timespec; 2]>,
    flags: AtFlags,
) -> SysResult {
    let times = match times.optional() {
        None => NOW,
        Some(times) => {
            let [atime, mtime] = times.read(&cx.mm())?;
            (nanos(atime)?, nanos(mtime)?)
        }
    };
    if times == (None, None) {
        return Ok(0);
    }
    if !(AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    if path.addr.is_null() && !dir.is_cwd() {
        if !flags.is_empty() {
            return Err(Errno::EINVAL.into());
        }
        let file = cx.file(dir.0)?;
        return set_times(cx, file.path(), times);
    }
    set_times(cx, &lookup(cx, dir, path, flags)?, times)
}

/// New access and modification time; `None` leaves one alone.
type Times = (Option<SetTime>, Option<SetTime>);

const NOW: Times = (Some(SetTime::Now), Some(SetTime::Now));

fn micros(time: Timeval) -> Result<SetTime> {
    if !(0..1_000_000).contains(&time.usec) {
        return Err(Errno::EINVAL);
    }
    Ok(SetTime::At(Timespec { sec: time.sec, nsec: time.usec * 1000 }))
}

fn nanos(time: Timespec) -> Result<Option<SetTime>> {
    match time.nsec {
        UTIME_NOW => Ok(Some(SetTime::Now)),
        UTIME_OMIT => Ok(None),
        0..1_000_000_000 => Ok(Some(SetTime::At(time))),
        _ => Err(Errno::EINVAL),
    }
}

fn set_times(cx: &Cx<'_>, at: &Path, (atime, mtime): Times) -> SysResult {
    cx.with_vfs(|vfs| ops::utimens(vfs, at, atime, mtime))?;
    Ok(0)
}

/// truncate. See [truncate(2)](https://man7.org/linux/man-pages/man2/truncate.2.html).
pub fn truncate(cx: &mut Cx<'_>, path: UserCStr, len: i64) -> SysResult {
    let len = u64::try_from(len).map_err(|_| Errno::EINVAL)?;
    let at = lookup(cx, DirFd::CWD, path, AtFlags::empty())?;
    cx.with_vfs(|vfs| ops::truncate(vfs, &at, len))?;
    Ok(0)
}

/// ftruncate. See [ftruncate(2)](https://man7.org/linux/man-pages/man2/ftruncate.2.html).
pub fn ftruncate(cx: &mut Cx<'_>, fd: Fd, len: i64) -> SysResult {
    let len = u64::try_from(len).map_err(|_| Errno::EINVAL)?;
    let file = cx.file(fd)?;
    cx.with_vfs(|vfs| ops::ftruncate(vfs, &file, len))?;
    Ok(0)
}

/// chdir. See [chdir(2)](https://man7.org/linux/man-pages/man2/chdir.2.html).
pub fn chdir(cx: &mut Cx<'_>, path: UserCStr) -> SysResult {
    let at = lookup(cx, DirFd::CWD, path, AtFlags::empty())?;
    enterable(cx, &at)?;
    // What was there is dropped after the lock.
    let old = std::mem::replace(&mut cx.thread.fs().state.lock().cwd, at);
    drop(old);
    Ok(0)
}

/// fchdir. See [fchdir(2)](https://man7.org/linux/man-pages/man2/fchdir.2.html).
pub fn fchdir(cx: &mut Cx<'_>, fd: Fd) -> SysResult {
    let at = cx.path_file(fd)?.path().clone();
    enterable(cx, &at)?;
    // What was there is dropped after the lock.
    let old = std::mem::replace(&mut cx.thread.fs().state.lock().cwd, at);
    drop(old);
    Ok(0)
}

/// chroot. See [chroot(2)](https://man7.org/linux/man-pages/man2/chroot.2.html).
pub fn chroot(cx: &mut Cx<'_>, path: UserCStr) -> SysResult {
    let at = lookup(cx, DirFd::CWD, path, AtFlags::empty())?;
    enterable(cx, &at)?;
    if !cx.cred().has(Caps::SYS_CHROOT) {
        return Err(Errno::EPERM.into());
    }
    // What was there is dropped after the lock.
    let old = std::mem::replace(&mut cx.thread.fs().state.lock().root, at);
    drop(old);
    cx.thread.forget_paths();
    cx.context.know_paths(false);
    Ok(0)
}

/// A directory that the caller may search.
fn enterable(cx: &Cx<'_>, at: &Path) -> Result<()> {
    if at.inode().file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    at.inode().permission(&cx.cred(), Access::EXEC)
}

/// getcwd. See [getcwd(2)](https://man7.org/linux/man-pages/man2/getcwd.2.html).
pub fn getcwd(cx: &mut Cx<'_>, buf: OutSlice) -> SysResult {
    let state = cx.thread.fs().state.lock().clone();
    let mut text = cwd_string(&state.root, &state.cwd)?;
    text.push(0);
    if text.len() > buf.0.len {
        return Err(Errno::ERANGE.into());
    }
    cx.mm().write(buf.0.addr, &text)?;
    Ok(text.len() as u64)
}

/// umask. See [umask(2)](https://man7.org/linux/man-pages/man2/umask.2.html).
pub fn umask(cx: &mut Cx<'_>, mask: Mode) -> SysResult {
    let fs = cx.thread.fs();
    let mut state = fs.state.lock();
    Ok(u64::from(std::mem::replace(&mut state.umask, mask.0 & 0o777)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_nanoseconds_and_bad_ones() {
        let at = |nsec| nanos(Timespec { sec: 1, nsec });
        assert_eq!(at(UTIME_NOW), Ok(Some(SetTime::Now)));
        assert_eq!(at(UTIME_OMIT), Ok(None));
        assert_eq!(at(1_000_000_000), Err(Errno::EINVAL));
        assert_eq!(at(-1), Err(Errno::EINVAL));
        assert_eq!(micros(Timeval { sec: 0, usec: 1_000_000 }), Err(Errno::EINVAL));
    }
}
