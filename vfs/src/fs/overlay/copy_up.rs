//! From the lower half to the upper one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::open::OpenFlags;
use abi::stat::{Attr, FileType};
use abi::{Errno, Result};

use super::inode::{Lower, OverlayInode};
use crate::dentry::Path;
use crate::description::File;
use crate::fs::tmpfs::TmpInode;
use crate::inode::{Inode, NewNode, Ownership};
use crate::loans;

/// Bytes copied at once.
const CHUNK: usize = 256 * 1024;
/// Files above this go to a memfd right away: the heap is for small ones.
const MEMFD_FROM: u64 = 1024 * 1024;

/// Opens the lower half for reading.
pub(super) fn open_lower(
    lower: &Arc<dyn Inode>,
    cx: &crate::context::VfsCx<'_>,
    flags: OpenFlags,
) -> Result<Arc<File>> {
    let kept = flags & (OpenFlags::DIRECTORY | OpenFlags::NOATIME | OpenFlags::LARGEFILE);
    let ops = Arc::clone(lower).open(cx, kept)?;
    let path = Path::anonymous(b"", Arc::clone(lower));
    Ok(File::new(ops, Arc::clone(lower), path, kept))
}

impl OverlayInode {
    /// The upper half, with the lower one's attributes, link text and xattrs when there was none.
    pub(super) fn copy_up_attr(&self) -> Result<&Arc<TmpInode>> {
        if let Some(upper) = self.upper.get() {
            return Ok(upper);
        }
        let _copying = self.copying.lock();
        self.copy_up_attr_locked()
    }

    fn copy_up_attr_locked(&self) -> Result<&Arc<TmpInode>> {
        if let Some(upper) = self.upper.get() {
            return Ok(upper);
        }
        let lower = self.lower.as_ref().ok_or(Errno::EIO)?;
        let upper = self.copy_of(lower)?;
        let upper = self.upper.get_or_init(|| upper);
        // Attributes that guest code was given are going to change.
        loans::end_of(self);
        self.pin();
        Ok(upper)
    }

    fn copy_of(&self, lower: &Lower) -> Result<Arc<TmpInode>> {
        let attr = lower.inode.attr()?;
        let own = Ownership { uid: attr.uid, gid: attr.gid, mode: attr.mode & 0o7777 };
        let text;
        let node = match self.kind() {
            FileType::Regular => NewNode::Regular,
            FileType::Directory => NewNode::Directory,
            FileType::Fifo => NewNode::Fifo,
            FileType::Socket => NewNode::Socket,
            kind @ (FileType::Character | FileType::Block) => {
                NewNode::Device { kind, rdev: attr.rdev }
            }
            FileType::Symlink => {
                text = lower.inode.readlink(&self.layers.kernel_cx())?;
                NewNode::Symlink(&text)
            }
        };
        let upper = self.layers.store.create(&node, own)?;
        copy_xattrs(&lower.inode, &upper)?;
        upper.copy_attr(&attr);
        Ok(upper)
    }

    /// Makes the upper half hold the bytes, of which only the first `keep` are going to be wanted.
    pub(super) fn copy_up_data(&self, keep: Option<u64>) -> Result<&Arc<TmpInode>> {
        if let Some(upper) = self.data() {
            return Ok(upper);
        }
        let _copying = self.copying.lock();
        let upper = self.copy_up_attr_locked()?;
        if self.kind() != FileType::Regular || self.data().is_some() {
            return Ok(upper);
        }
        let lower = self.lower.as_ref().ok_or(Errno::EIO)?;
        let attr = lower.inode.attr()?;
        let copied =
            if keep == Some(0) { Ok(()) } else { self.copy_bytes(lower, &attr, upper, keep) };
        if let Err(errno) = copied {
            upper.resize(0)?;
            return Err(errno);
        }
        self.has_data.store(true, Ordering::SeqCst);
        // Before anything of it changes.
        loans::end_of(self);
        Ok(upper)
    }

    fn copy_bytes(
        &self,
        lower: &Lower,
        attr: &Attr,
        upper: &TmpInode,
        keep: Option<u64>,
    ) -> Result<()> {
        let size = attr.size.min(keep.unwrap_or(u64::MAX));
        if size > MEMFD_FROM {
            // Without a descriptor to spare the heap will do.
            let _ = upper.prefer_memfd();
        }
        let cx = self.layers.kernel_cx();
        let file = open_lower(&lower.inode, &cx, OpenFlags::NOATIME)?;
        let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK))];
        let mut pos = 0;
        while pos < size {
            let want = buffer.len().min(usize::try_from(size - pos).unwrap_or(CHUNK));
            let got = file.ops().read(&cx, &file, &mut &mut buffer[..want], pos)?;
            if got == 0 {
                break;
            }
            upper.fill(pos, &buffer[..got])?;
            pos += got as u64;
        }
        upper.resize(size)
    }
}

fn copy_xattrs(lower: &Arc<dyn Inode>, upper: &TmpInode) -> Result<()> {
    // A lower layer that cannot tell has none.
    let Ok(names) = lower.list_xattr() else { return Ok(()) };
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(value) = lower.get_xattr(name) else { continue };
        match upper.set_xattr(name, &value, 0) {
            // POSIX ACLs are not kept.
            Ok(()) | Err(Errno::EOPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
