//! Writing back, reserving and advising.

use abi::fcntl::{FallocateMode, SyncRangeFlags};
use abi::ids::Fd;
use abi::open::OpenFlags;
use abi::siginfo::{SI_USER, SigInfo};
use abi::signal::Signal;
use abi::stat::FileType;
use abi::{Errno, Result};
use vfs::{File, ops};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::signal::send_to_thread;
use crate::strict_flags_arg;

strict_flags_arg!(SyncRangeFlags as "SYNC_FILE_RANGE_");
crate::loose_flags_arg!(FallocateMode as "FALLOC_FL_");

/// fsync. See [fsync(2)](https://man7.org/linux/man-pages/man2/fsync.2.html).
pub fn fsync(cx: &mut Cx<'_>, fd: Fd) -> SysResult {
    cx.file(fd)?.ops().sync(false)?;
    Ok(0)
}

/// fdatasync. See [fdatasync(2)](https://man7.org/linux/man-pages/man2/fdatasync.2.html).
pub fn fdatasync(cx: &mut Cx<'_>, fd: Fd) -> SysResult {
    cx.file(fd)?.ops().sync(true)?;
    Ok(0)
}

/// sync: every filesystem that the caller can see. See [sync(2)](https://man7.org/linux/man-pages/man2/sync.2.html).
pub fn sync(cx: &mut Cx<'_>) -> SysResult {
    let root = cx.thread.fs().state.lock().root.clone();
    // sync(2) has no way to tell of a failure.
    let _ = root.mount.fs().sync();
    Ok(0)
}

/// syncfs. See [syncfs(2)](https://man7.org/linux/man-pages/man2/syncfs.2.html).
pub fn syncfs(cx: &mut Cx<'_>, fd: Fd) -> SysResult {
    let file = cx.file(fd)?;
    file.path().mount.fs().sync()?;
    Ok(0)
}

/// sync_file_range: the host offers no finer unit than the file.
/// See [sync_file_range(2)](https://man7.org/linux/man-pages/man2/sync_file_range.2.html).
pub fn sync_file_range(
    cx: &mut Cx<'_>,
    fd: Fd,
    offset: i64,
    len: i64,
    flags: SyncRangeFlags,
) -> SysResult {
    let file = cx.file(fd)?;
    if offset < 0 || len < 0 || offset.checked_add(len).is_none() {
        return Err(Errno::EINVAL.into());
    }
    match file.inode().file_type() {
        FileType::Regular | FileType::Directory | FileType::Block | FileType::Symlink => {}
        _ => return Err(Errno::ESPIPE.into()),
    }
    if !flags.is_empty() {
        file.ops().sync(true)?;
    }
    Ok(0)
}

/// fallocate. See [fallocate(2)](https://man7.org/linux/man-pages/man2/fallocate.2.html).
pub fn fallocate(cx: &mut Cx<'_>, fd: Fd, mode: FallocateMode, offset: i64, len: i64) -> SysResult {
    let file = cx.file(fd)?;
    check_mode(mode)?;
    let done = cx.with_vfs(|vfs| ops::allocate(vfs, &file, mode.bits(), offset, len));
    if done == Err(Errno::EFBIG) && cx.with_vfs(|vfs| vfs.file_size_limit) != u64::MAX {
        let (tgid, uid) = (cx.thread.tgid(), cx.cred().ruid);
        // Lost when RLIMIT_SIGPENDING is reached, as on Linux.
        let _ = send_to_thread(cx.thread, SigInfo::user(Signal::SIGXFSZ, SI_USER, tgid, uid));
    }
    done?;
    Ok(0)
}

/// The combinations that vfs_fallocate of Linux takes.
fn check_mode(mode: FallocateMode) -> Result<()> {
    let keep = FallocateMode::KEEP_SIZE;
    let operation = mode - keep;
    let is_known = FallocateMode::all().contains(mode);
    let is_single = operation.bits().count_ones() <= 1;
    if !is_known || !is_single {
        return Err(Errno::EOPNOTSUPP);
    }
    if operation == FallocateMode::PUNCH_HOLE && !mode.contains(keep) {
        return Err(Errno::EOPNOTSUPP);
    }
    let moves = FallocateMode::COLLAPSE_RANGE | FallocateMode::INSERT_RANGE;
    if operation.intersects(moves) && mode.contains(keep) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// fadvise64: advice on a host page cache that is not the guest's to steer; only checked.
/// See [posix_fadvise(2)](https://man7.org/linux/man-pages/man2/posix_fadvise.2.html).
pub fn fadvise64(cx: &mut Cx<'_>, fd: Fd, _offset: i64, len: i64, advice: u32) -> SysResult {
    let file = cx.file(fd)?;
    if file.inode().file_type() == FileType::Fifo {
        return Err(Errno::ESPIPE.into());
    }
    if len < 0 || advice > 5 {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}

/// readahead: the host reads ahead by itself; only checked.
/// See [readahead(2)](https://man7.org/linux/man-pages/man2/readahead.2.html).
pub fn readahead(cx: &mut Cx<'_>, fd: Fd, _offset: i64, _count: usize) -> SysResult {
    let file = cx.file(fd)?;
    if !is_read_from_disk(&file) {
        return Err(Errno::EINVAL.into());
    }
    if !file.flags().intersects(OpenFlags::RDWR) && file.flags().contains(OpenFlags::WRONLY) {
        return Err(Errno::EBADF.into());
    }
    Ok(0)
}

fn is_read_from_disk(file: &File) -> bool {
    matches!(file.inode().file_type(), FileType::Regular | FileType::Block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fallocate_modes_exclude_each_other() {
        type M = FallocateMode;
        assert_eq!(check_mode(M::empty()), Ok(()));
        assert_eq!(check_mode(M::PUNCH_HOLE | M::KEEP_SIZE), Ok(()));
        assert_eq!(check_mode(M::PUNCH_HOLE), Err(Errno::EOPNOTSUPP));
        assert_eq!(check_mode(M::COLLAPSE_RANGE | M::KEEP_SIZE), Err(Errno::EINVAL));
        assert_eq!(check_mode(M::COLLAPSE_RANGE | M::INSERT_RANGE), Err(Errno::EOPNOTSUPP));
        assert_eq!(check_mode(M::from_bits_retain(0x1000)), Err(Errno::EOPNOTSUPP));
    }
}
