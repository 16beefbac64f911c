//! A device as an inode.

use std::any::Any;
use std::sync::Arc;

use abi::Result;
use abi::open::OpenFlags;
use abi::stat::{Attr, FileType};

use super::mem::MemDevice;
use crate::context::VfsCx;
use crate::file::FileOps;
use crate::fs::kernfs::Node;
use crate::inode::{Inode, SetAttr};

/// What stands behind a device node.
pub trait Device: Send + Sync + 'static {
    fn open(&self, cx: &VfsCx<'_>, flags: OpenFlags) -> Result<Arc<dyn FileOps>>;
}

impl Device for MemDevice {
    fn open(&self, _: &VfsCx<'_>, _: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Ok(Self::open(*self))
    }
}

/// A device node.
pub struct DeviceInode {
    node: Node,
    device: Arc<dyn Device>,
}

impl DeviceInode {
    #[must_use]
    pub fn new(node: Node, device: Arc<dyn Device>) -> Arc<Self> {
        Arc::new(Self { node, device })
    }
}

impl Inode for DeviceInode {
    fn attr(&self) -> Result<Attr> {
        Ok(self.node.attr(1, 0))
    }

    fn file_type(&self) -> FileType {
        self.node.kind()
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        self.node.set_attr(change)
    }

    fn open(self: Arc<Self>, cx: &VfsCx<'_>, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        self.device.open(cx, flags)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
