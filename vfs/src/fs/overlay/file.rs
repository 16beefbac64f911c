//! Open regular files that began in the lower layer.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::open::OpenFlags;
use abi::{Errno, Result};
use base::{Sink, Source};

use super::copy_up::open_lower;
use super::inode::OverlayInode;
use crate::context::VfsCx;
use crate::description::File;
use crate::file::{FileOps, MapSource, Whence};

/// Reads the lower half until there is an upper one with the bytes, which the first write makes.
pub(super) struct OverlayFile {
    node: Arc<OverlayInode>,
    lower: Arc<File>,
}

impl OverlayFile {
    pub(super) fn open(node: Arc<OverlayInode>, cx: &VfsCx<'_>, flags: OpenFlags) -> Result<Self> {
        let inode = Arc::clone(&node.lower.as_ref().ok_or(Errno::EIO)?.inode);
        // Also for writing only: the copy-up is going to read, and had better fail now.
        let lower = open_lower(&inode, cx, flags)?;
        Ok(Self { node, lower })
    }
}

impl FileOps for OverlayFile {
    fn read(&self, cx: &VfsCx<'_>, file: &File, sink: &mut dyn Sink, pos: u64) -> Result<usize> {
        match self.node.data() {
            Some(upper) => upper.read(cx, file, sink, pos),
            None => self.lower.ops().read(cx, &self.lower, sink, pos),
        }
    }

    fn write(
        &self,
        cx: &VfsCx<'_>,
        file: &File,
        source: &mut dyn Source,
        pos: u64,
    ) -> Result<usize> {
        if source.remaining() == 0 {
            return Ok(0);
        }
        self.node.copy_up_data(None)?.write(cx, file, source, pos)
    }

    fn seek(&self, file: &File, offset: i64, whence: Whence) -> Result<u64> {
        match self.node.data() {
            Some(upper) => FileOps::seek(&**upper, file, offset, whence),
            None => self.lower.ops().seek(&self.lower, offset, whence),
        }
    }

    fn sync(&self, _data_only: bool) -> Result<()> {
        Ok(())
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        self.node.copy_up_data(None)?.allocate(mode, offset, len)
    }

    fn mappable(&self, file: &File, writable_shared: bool) -> Result<MapSource> {
        if writable_shared {
            return self.node.copy_up_data(None)?.mappable(file, true);
        }
        match self.node.data() {
            Some(upper) => upper.mappable(file, false),
            None => self.lower.ops().mappable(&self.lower, false),
        }
    }

    fn lendable(&self) -> Option<Arc<OwnedFd>> {
        if self.node.data().is_some() { None } else { self.lower.ops().lendable() }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
