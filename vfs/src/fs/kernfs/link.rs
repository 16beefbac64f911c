//! Synthetic symbolic links.

use std::any::Any;
use std::sync::Arc;

use abi::open::OpenFlags;
use abi::stat::{Attr, FileType};
use abi::{Errno, Result};

use super::node::Node;
use crate::context::VfsCx;
use crate::file::FileOps;
use crate::inode::{Inode, LinkTarget};

type Text = dyn Fn(&VfsCx<'_>) -> Result<Vec<u8>> + Send + Sync;
type Target = dyn Fn(&VfsCx<'_>) -> Result<LinkTarget> + Send + Sync;

/// A link whose text, and perhaps target, is computed.
pub struct LinkInode {
    node: Node,
    /// What stat(2) reports: the text's length where that is fixed, else 0 as in Linux's procfs.
    size: u64,
    text: Box<Text>,
    /// Where a magic link jumps.
    target: Option<Box<Target>>,
}

impl LinkInode {
    /// A link that is walked like any other.
    #[must_use]
    pub fn new(
        node: Node,
        text: impl Fn(&VfsCx<'_>) -> Result<Vec<u8>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { node, size: 0, text: Box::new(text), target: None })
    }

    /// A link to a fixed text.
    #[must_use]
    pub fn to(node: Node, text: impl Into<Vec<u8>>) -> Arc<Self> {
        let text = text.into();
        let size = text.len() as u64;
        Arc::new(Self { node, size, text: Box::new(move |_| Ok(text.clone())), target: None })
    }

    /// A link that jumps to an object whatever its text says.
    #[must_use]
    pub fn magic(
        node: Node,
        text: impl Fn(&VfsCx<'_>) -> Result<Vec<u8>> + Send + Sync + 'static,
        target: impl Fn(&VfsCx<'_>) -> Result<LinkTarget> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { node, size: 0, text: Box::new(text), target: Some(Box::new(target)) })
    }
}

impl Inode for LinkInode {
    fn attr(&self) -> Result<Attr> {
        Ok(self.node.attr(1, self.size))
    }

    fn file_type(&self) -> FileType {
        FileType::Symlink
    }

    fn readlink(&self, cx: &VfsCx<'_>) -> Result<Vec<u8>> {
        (self.text)(cx)
    }

    fn follow(&self, cx: &VfsCx<'_>) -> Result<LinkTarget> {
        match &self.target {
            Some(target) => target(cx),
            None => self.readlink(cx).map(LinkTarget::Text),
        }
    }

    fn open(self: Arc<Self>, _: &VfsCx<'_>, _: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Err(Errno::ELOOP)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
