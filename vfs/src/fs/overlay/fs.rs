//! The filesystem, and which node stands for which lower inode.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use abi::Result;
use abi::stat::Attr;
use abi::time::Timespec;
use base::clock::Clock;
use base::cred::Credentials;
use base::lock::Mutex;

use super::inode::OverlayInode;
use crate::context::{Caller, FsContext, VfsCx};
use crate::dentry::Path;
use crate::filesystem::FileSystem;
use crate::fs::tmpfs::Nameless;
use crate::inode::{Inode, StatFs};
use crate::lock_order;
use crate::name_hash::NameHasher;

const OVERLAYFS_MAGIC: u64 = 0x794c_7630;
/// Inode numbers of new objects: far above what lower filesystems use, and exact in a double.
const FIRST_INO: u64 = 1 << 50;

/// Identity of a lower object; the birth time tells a number that was used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LowerId {
    dev: u64,
    ino: u64,
    btime: Timespec,
}

impl LowerId {
    pub(super) fn of(attr: &Attr) -> Self {
        Self { dev: attr.dev, ino: attr.ino, btime: attr.btime }
    }
}

/// What a node takes in the table of nodes.
pub(super) const KNOWN_BYTES: usize = size_of::<(LowerId, Known)>() * 3 / 2;

enum Known {
    /// In use somewhere.
    Used(Weak<OverlayInode>),
    /// Has changes that nothing else may keep.
    Pinned(Arc<OverlayInode>),
}

/// What all nodes share.
pub(super) struct Layers {
    pub store: Nameless,
    lower: Arc<dyn FileSystem>,
    lower_dev: u64,
    known: Mutex<HashMap<LowerId, Known, NameHasher>, lock_order::OverlayKnown>,
    /// The kernel itself as a caller, for what no task asked for.
    kernel: (Credentials, Arc<FsContext>),
}

impl Layers {
    pub(super) fn kernel_cx(&self) -> VfsCx<'_> {
        let (cred, fs) = &self.kernel;
        VfsCx { cred, fs, caller: Caller::default(), file_size_limit: u64::MAX, will_open: false }
    }

    /// Device number that nodes of this lower device report.
    pub(super) fn dev_of(&self, lower_dev: u64) -> u64 {
        if lower_dev == self.lower_dev { self.store.dev() } else { lower_dev }
    }

    /// The node that stands for a lower inode.
    pub(super) fn wrap(self: &Arc<Self>, lower: Arc<dyn Inode>) -> Result<Arc<OverlayInode>> {
        let attr = lower.attr()?;
        let id = LowerId::of(&attr);
        let mut known = self.known.lock();
        let found = match known.get(&id) {
            Some(Known::Pinned(node)) => Some(Arc::clone(node)),
            Some(Known::Used(node)) => node.upgrade(),
            None => None,
        };
        if let Some(node) = found {
            return Ok(node);
        }
        let node = OverlayInode::from_lower(self, lower, &attr, id);
        known.insert(id, Known::Used(Arc::downgrade(&node)));
        Ok(node)
    }

    pub(super) fn pin(&self, id: LowerId, node: Arc<OverlayInode>) {
        let old = self.known.lock().insert(id, Known::Pinned(node));
        drop(old);
    }

    pub(super) fn unpin(&self, id: LowerId, node: &Arc<OverlayInode>) {
        let old = self.known.lock().insert(id, Known::Used(Arc::downgrade(node)));
        drop(old);
    }

    /// The node of `id` came to its end; another may have taken its place already.
    pub(super) fn forget(&self, id: LowerId) {
        let mut known = self.known.lock();
        if let Some(Known::Used(node)) = known.get(&id)
            && node.strong_count() == 0
        {
            known.remove(&id);
        }
    }
}

/// See the module.
pub struct OverlayFs {
    layers: Arc<Layers>,
    root: Arc<OverlayInode>,
}

impl OverlayFs {
    /// Changes to `lower`, in memory and at most `size` bytes of file contents.
    ///
    /// # Errors
    /// Those of the lower root's attributes.
    pub fn new(
        lower: Arc<dyn FileSystem>,
        clock: Arc<dyn Clock>,
        size: Option<u64>,
    ) -> Result<Arc<Self>> {
        let lower_root = lower.root();
        let nowhere = Path::anonymous(b"", Arc::clone(&lower_root));
        let layers = Arc::new(Layers {
            store: Nameless::new(clock, size, FIRST_INO),
            lower,
            lower_dev: lower_root.attr()?.dev,
            known: Mutex::default(),
            kernel: (Credentials::root(), FsContext::new(nowhere.clone(), nowhere, 0)),
        });
        let root = layers.wrap(lower_root)?;
        Ok(Arc::new(Self { layers, root }))
    }
}

impl Drop for OverlayFs {
    /// Pinned nodes and the table keep each other.
    fn drop(&mut self) {
        let known = std::mem::take(&mut *self.layers.known.lock());
        drop(known);
    }
}

impl FileSystem for OverlayFs {
    fn name(&self) -> &'static str {
        "overlay"
    }

    fn root(&self) -> Arc<dyn Inode> {
        Arc::clone(&self.root) as Arc<dyn Inode>
    }

    /// The lower layer's figures, with no more room available than memory has.
    fn statfs(&self) -> Result<StatFs> {
        let lower = self.layers.lower.statfs()?;
        let upper = self.layers.store.statfs();
        let mut figures = StatFs { magic: OVERLAYFS_MAGIC, ..lower };
        if upper.blocks > 0 && lower.block_size > 0 {
            let room = upper.blocks_free.saturating_mul(upper.block_size) / lower.block_size;
            figures.blocks_available = lower.blocks_available.min(room);
        }
        Ok(figures)
    }

    fn dev(&self) -> u64 {
        self.layers.store.dev()
    }
}
