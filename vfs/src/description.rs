//! File descriptions: what open(2) makes. The generic layer above [`FileOps`]: access mode, position, limits.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use abi::open::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};
use base::lock::Mutex;
use base::{Sink, Source};

use crate::context::VfsCx;
use crate::dentry::Path;
use crate::file::{CURRENT_POSITION, DirEntry, FileOps, Whence};
use crate::fs::devfs::MemDevice;
use crate::fs::tmpfs::TmpInode;
use crate::inode::Inode;
use crate::loans::{Habit, Place, Position};
use crate::lock_order;
use crate::mount::MountFlags;
use crate::notify::{self, Events};
use crate::record_lock::{self, InodeLocks};

/// Largest offset of a file.
const MAX_OFFSET: u64 = i64::MAX as u64;

/// A file description: shared by dup(2) and fork(2), referred to by descriptors.
pub struct File {
    ops: Arc<dyn FileOps>,
    inode: Arc<dyn Inode>,
    /// Where it was opened; anonymous files have a path in no mount.
    path: Path,
    /// `O_*` status flags and access mode (without creation flags and `O_CLOEXEC`).
    flags: AtomicU32,
    pos: Mutex<Place, lock_order::FilePosition>,
    habit: Habit,
    /// Set by the first lock operation.
    locks: OnceLock<Arc<InodeLocks>>,
}

impl File {
    #[must_use]
    pub fn new(
        ops: Arc<dyn FileOps>,
        inode: Arc<dyn Inode>,
        path: Path,
        flags: OpenFlags,
    ) -> Arc<Self> {
        let kept = flags
            - (OpenFlags::CREAT | OpenFlags::EXCL | OpenFlags::NOCTTY | OpenFlags::TRUNC)
            - OpenFlags::CLOEXEC;
        Arc::new(Self {
            ops,
            inode,
            path,
            flags: AtomicU32::new(kept.bits()),
            pos: Mutex::default(),
            habit: Habit::default(),
            locks: OnceLock::new(),
        })
    }

    pub fn ops(&self) -> &dyn FileOps {
        &*self.ops
    }

    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn flags(&self) -> OpenFlags {
        OpenFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    /// fcntl(F_SETFL): only `O_APPEND`, `O_ASYNC`, `O_DIRECT`, `O_NOATIME`, `O_NONBLOCK` change.
    pub fn set_status_flags(&self, new: OpenFlags) {
        let settable = OpenFlags::APPEND
            | OpenFlags::ASYNC
            | OpenFlags::DIRECT
            | OpenFlags::NOATIME
            | OpenFlags::NONBLOCK;
        // What is lent is of plain flags.
        self.end_loan();
        if let Some(memory) = self.ops.as_any().downcast_ref::<TmpInode>() {
            memory.end_trust();
        }
        let kept = self.flags() - settable;
        self.flags.store((kept | (new & settable)).bits(), Ordering::Relaxed);
    }

    pub fn is_nonblocking(&self) -> bool {
        self.flags().contains(OpenFlags::NONBLOCK)
    }

    /// False when reads must leave the access time alone.
    pub fn wants_atime(&self) -> bool {
        let quiet = MountFlags::NOATIME | MountFlags::RDONLY;
        !self.flags().contains(OpenFlags::NOATIME) && !self.path.mount.flags().intersects(quiet)
    }

    /// The position; held over a whole read or write as Linux does (f_pos_lock).
    pub fn position(&self) -> Position<'_> {
        Position::of(&self.pos)
    }

    /// Notes a read that was made by a call. True: it is to be looked whether the file can be lent to guest code, or is.
    pub fn note_read(&self, count: usize) -> bool {
        self.habit.note(count)
    }

    /// Points for the reads so far: one each, more for large ones.
    pub fn reading_score(&self) -> u32 {
        self.habit.score()
    }

    /// It is not to be thought of again.
    pub fn never_lend(&self) {
        self.habit.never();
    }

    pub(crate) fn note_loan(&self, is_brought: bool) {
        if is_brought { self.habit.brought() } else { self.habit.lent() }
    }

    /// Whether guest code got its front when it was opened, and nothing ended that by intent.
    pub fn is_brought(&self) -> bool {
        self.habit.is_brought()
    }

    /// Guest code reads it by calls only, from now on; when that is over already, reads count for a new loan again.
    pub fn end_loan(&self) {
        if self.habit.is_lent() {
            self.position().end_loan();
            self.habit.ended();
        }
    }

    /// Whether nobody can tell when it is closed, as long as no other process refers to it: it is no stream, was not opened for writing
    /// (or keeps nothing), and holds no lock.
    pub(crate) fn goes_unnoticed(&self) -> bool {
        let is_still = matches!(self.inode.file_type(), FileType::Regular | FileType::Directory);
        let keeps_nothing = self.ops.as_any().is::<MemDevice>();
        let is_quiet = is_still && self.ops.is_seekable() && !self.flags().writes();
        (is_quiet || keeps_nothing) && self.locks.get().is_none()
    }

    pub(crate) fn locks(&self, make: impl FnOnce() -> Arc<InodeLocks>) -> &Arc<InodeLocks> {
        self.locks.get_or_init(make)
    }

    fn check_readable(&self) -> Result<()> {
        if !self.flags().reads() {
            return Err(Errno::EBADF);
        }
        if self.inode.file_type() == FileType::Directory { Err(Errno::EISDIR) } else { Ok(()) }
    }

    fn check_writable(&self) -> Result<()> {
        if self.flags().writes() { Ok(()) } else { Err(Errno::EBADF) }
    }

    /// What `read` and `write` pass as position when it is not ours: streams have none, others keep their own.
    fn fixed_position(&self) -> Option<u64> {
        if !self.ops.is_seekable() {
            return Some(0);
        }
        self.ops.keeps_position().then_some(CURRENT_POSITION)
    }

    /// read(2), one try.
    ///
    /// # Errors
    /// `EBADF` when not open for reading, `EISDIR`, `EAGAIN` when it would block, and the file's own.
    pub fn read(&self, cx: &VfsCx<'_>, sink: &mut dyn Sink) -> Result<usize> {
        self.check_readable()?;
        let count = if let Some(pos) = self.fixed_position() {
            self.ops.read(cx, self, sink, pos)?
        } else {
            let mut pos = self.position();
            let count = self.ops.read(cx, self, sink, *pos)?;
            *pos = pos.saturating_add(count as u64);
            count
        };
        self.tell(count, Events::ACCESS);
        Ok(count)
    }

    /// write(2), one try. After a partial write more may have been taken from `source` than was written: the count
    /// tells.
    ///
    /// # Errors
    /// `EBADF` when not open for writing, `EFBIG` beyond the size limits, `EAGAIN`, and the file's own.
    pub fn write(&self, cx: &VfsCx<'_>, source: &mut dyn Source) -> Result<usize> {
        self.check_writable()?;
        let count = if let Some(pos) = self.fixed_position() {
            self.ops.write(cx, self, source, pos)?
        } else {
            let mut pos = self.position();
            let count = self.write_at(cx, source, *pos)?;
            *pos = if self.flags().contains(OpenFlags::APPEND) && count > 0 {
                self.inode.attr()?.size
            } else {
                pos.saturating_add(count as u64)
            };
            count
        };
        self.tell(count, Events::MODIFY);
        Ok(count)
    }

    /// pread(2).
    ///
    /// # Errors
    /// As [`Self::read`]; `ESPIPE` without a position.
    pub fn pread(&self, cx: &VfsCx<'_>, sink: &mut dyn Sink, pos: u64) -> Result<usize> {
        if !self.ops.is_seekable() {
            return Err(Errno::ESPIPE);
        }
        self.check_readable()?;
        let count = self.ops.read(cx, self, sink, pos)?;
        self.tell(count, Events::ACCESS);
        Ok(count)
    }

    /// pwrite(2). With `O_APPEND` it appends whatever `pos` says, as Linux does.
    ///
    /// # Errors
    /// As [`Self::write`]; `ESPIPE` without a position.
    pub fn pwrite(&self, cx: &VfsCx<'_>, source: &mut dyn Source, pos: u64) -> Result<usize> {
        if !self.ops.is_seekable() {
            return Err(Errno::ESPIPE);
        }
        self.check_writable()?;
        let count = self.write_at(cx, source, pos)?;
        self.tell(count, Events::MODIFY);
        Ok(count)
    }

    fn write_at(&self, cx: &VfsCx<'_>, source: &mut dyn Source, pos: u64) -> Result<usize> {
        if self.inode.file_type() != FileType::Regular || source.remaining() == 0 {
            return self.ops.write(cx, self, source, pos);
        }
        let limit = cx.file_size_limit.min(MAX_OFFSET);
        let is_limited = limit < MAX_OFFSET;
        let begin = if is_limited && self.flags().contains(OpenFlags::APPEND) {
            self.inode.attr()?.size
        } else {
            pos
        };
        let room = limit.checked_sub(begin).filter(|room| *room > 0).ok_or(Errno::EFBIG)?;
        if source.remaining() as u64 <= room {
            return self.ops.write(cx, self, source, pos);
        }
        let left = usize::try_from(room).unwrap_or(usize::MAX);
        self.ops.write(cx, self, &mut Limited { source, left }, pos)
    }

    fn tell(&self, count: usize, events: Events) {
        if count > 0 && notify::is_watched() {
            notify::object(&self.path, events);
        }
    }

    /// lseek(2).
    ///
    /// # Errors
    /// `ESPIPE` without a position, `EINVAL` before the beginning, `ENXIO` from `Data` and `Hole`.
    pub fn seek(&self, offset: i64, whence: Whence) -> Result<u64> {
        if !self.ops.is_seekable() {
            return Err(Errno::ESPIPE);
        }
        if self.ops.keeps_position() {
            return self.ops.seek(self, offset, whence);
        }
        let mut pos = self.position();
        let new = match whence {
            Whence::Set => u64::try_from(offset).map_err(|_| Errno::EINVAL)?,
            Whence::Current => pos.checked_add_signed(offset).ok_or(Errno::EINVAL)?,
            _ => self.ops.seek(self, offset, whence)?,
        };
        if new > MAX_OFFSET {
            return Err(Errno::EINVAL);
        }
        *pos = new;
        Ok(new)
    }

    /// Gives directory entries from the position on to `emit` until it returns false, and moves the position past
    /// those that were taken.
    ///
    /// # Errors
    /// `ENOTDIR`, `ENOENT` for a removed directory, and the directory's own.
    pub fn readdir(
        &self,
        cx: &VfsCx<'_>,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()> {
        self.readdir_to(cx, emit, &mut Ok)
    }

    /// As [`File::readdir`], for who can fail to pass on what was taken: `give` gets the position after that and answers the one after
    /// what it has passed on. When it fails, the position stays.
    ///
    /// # Errors
    /// Also those of `give`.
    pub fn readdir_to(
        &self,
        cx: &VfsCx<'_>,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
        give: &mut dyn FnMut(u64) -> Result<u64>,
    ) -> Result<()> {
        if self.flags().contains(OpenFlags::PATH) {
            return Err(Errno::EBADF);
        }
        if self.inode.file_type() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        let mut pos = self.position();
        if self.path.dentry.is_deleted() {
            return Err(Errno::ENOENT);
        }
        let mut next = *pos;
        let result = self.ops.readdir(cx, self, *pos, &mut |entry| {
            let taken = emit(entry);
            if taken {
                next = entry.next;
            }
            taken
        });
        let given = if result.is_ok() { give(next) } else { Ok(next) };
        if let Ok(next) = given {
            *pos = next;
        }
        drop(pos);
        if notify::is_watched() {
            notify::object(&self.path, Events::ACCESS);
        }
        result.and(given.map(drop))
    }

    /// Inode number of "..", for filesystems that emit it.
    #[must_use]
    pub fn parent_ino(&self) -> u64 {
        let parent = self.path.dentry.parent();
        let inode = parent.as_ref().map_or(&self.inode, |parent| parent.inode());
        inode.attr().map_or(1, |attr| attr.ino)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Some(locks) = self.locks.get() {
            record_lock::release_description(self, locks);
        }
        if notify::is_watched() && !self.flags().contains(OpenFlags::PATH) {
            let event =
                if self.flags().writes() { Events::CLOSE_WRITE } else { Events::CLOSE_NOWRITE };
            notify::object(&self.path, event);
        }
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "File({:?}, {:?})", self.path, self.flags())
    }
}

/// At most `left` bytes of a source.
struct Limited<'a> {
    source: &'a mut dyn Source,
    left: usize,
}

impl Source for Limited<'_> {
    fn remaining(&self) -> usize {
        self.source.remaining().min(self.left)
    }

    fn take(&mut self, into: &mut [u8]) -> Result<usize> {
        let count = into.len().min(self.left);
        let Some(into) = into.get_mut(..count) else { return Ok(0) };
        let taken = self.source.take(into)?;
        self.left -= taken.min(self.left);
        Ok(taken)
    }
}
