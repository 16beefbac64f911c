//! Questions about the layout: mincore(2), msync(2), futex keys.

use std::sync::Arc;

use abi::addr::{PAGE_SIZE, page_up};
use abi::mman::MsyncFlags;
use abi::{Errno, Result, UserAddr};
use vfs::{File, Inode};

use crate::mm::Mm;
use crate::mm::state::MmState;
use crate::mm::vma::{Content, VmaFlags};

/// Names a byte of memory that several address spaces may share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SharedKey {
    /// Private to the address space with this id.
    Private { space: u64, addr: u64 },
    /// In shared anonymous memory.
    Anonymous { object: u64, offset: u64 },
    /// In a file that is mapped shared.
    File { dev: u64, ino: u64, offset: u64 },
}

impl Mm {
    /// The identity of the byte at `addr`, for futexes without FUTEX_PRIVATE_FLAG.
    ///
    /// # Errors
    /// `EFAULT` when nothing is mapped there.
    pub fn shared_key(&self, addr: UserAddr) -> Result<SharedKey> {
        let content = self.with_state(|state| {
            let (start, vma) = state.tree.find(addr.0).ok_or(Errno::EFAULT)?;
            let shared = vma.is_shared().then(|| vma.content.advanced(addr.0 - start));
            Ok::<_, Errno>(shared)
        })?;
        Ok(match content {
            Some(Content::SharedAnonymous { object, offset }) => {
                SharedKey::Anonymous { object, offset }
            }
            Some(Content::File { file, offset }) => {
                let attr = inode_of(&file).attr()?;
                SharedKey::File { dev: attr.dev, ino: attr.ino, offset }
            }
            Some(Content::Anonymous) | None => {
                SharedKey::Private { space: self.space().id(), addr: addr.0 }
            }
        })
    }
}

fn inode_of(file: &File) -> &Arc<dyn Inode> {
    file.inode()
}

impl MmState {
    /// mincore(2): how many pages to report, from `addr` on. Every mapped page counts as resident: the host pages
    /// by itself, and what it swaps is as unknown to the guest as another tenant's pressure.
    ///
    /// # Errors
    /// `EINVAL`, `ENOMEM`; see mincore(2).
    pub fn incore_pages(&self, addr: u64, len: u64) -> Result<u64> {
        if !addr.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        if !self.is_guest_range(addr, len) {
            return Err(Errno::ENOMEM);
        }
        let end = addr + page_up(len).ok_or(Errno::ENOMEM)?;
        match self.tree.first_hole(addr..end) {
            Some(_) => Err(Errno::ENOMEM),
            None => Ok((end - addr) / PAGE_SIZE),
        }
    }

    /// msync(2): the files that have to be written back, and how the call ends when that succeeds.
    ///
    /// # Errors
    /// `EINVAL`, `EBUSY`, `ENOMEM`; see msync(2).
    pub fn plan_sync(
        &self,
        addr: u64,
        len: u64,
        flags: MsyncFlags,
    ) -> Result<(Vec<Arc<File>>, Result<u64>)> {
        if !addr.is_multiple_of(PAGE_SIZE) || flags.contains(MsyncFlags::ASYNC | MsyncFlags::SYNC) {
            return Err(Errno::EINVAL);
        }
        let end = page_up(len).and_then(|len| addr.checked_add(len)).ok_or(Errno::ENOMEM)?;
        let mut files: Vec<Arc<File>> = Vec::new();
        for (_, vma) in self.tree.overlapping(addr..end) {
            if flags.contains(MsyncFlags::INVALIDATE) && vma.flags.contains(VmaFlags::LOCKED) {
                return Err(Errno::EBUSY);
            }
            let Content::File { file, .. } = &vma.content else { continue };
            let known = files.iter().any(|seen| Arc::ptr_eq(seen, file));
            if flags.contains(MsyncFlags::SYNC) && vma.is_shared() && !known {
                files.push(Arc::clone(file));
            }
        }
        let holes = self.tree.first_hole(addr..end).is_some();
        Ok((files, if holes { Err(Errno::ENOMEM) } else { Ok(0) }))
    }
}
