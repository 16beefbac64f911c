//! Nodes: objects of the overlay.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use abi::open::OpenFlags;
use abi::stat::{Attr, FileType};
use abi::time::Timespec;
use abi::{Errno, Result};
use base::cred::{Access, Credentials};
use base::lock::Mutex;

use super::dir::{Change, Dir};
use super::dir_file::OverlayDirFile;
use super::file::OverlayFile;
use super::fs::{Layers, LowerId};
use crate::context::VfsCx;
use crate::file::FileOps;
use crate::fs::devfs::MemDevice;
use crate::fs::tmpfs::TmpInode;
use crate::inode::{Inode, InodeSlot, NewNode, Ownership, RenameFlags, SetAttr};
use crate::loans;
use crate::lock_order;

/// The lower half of a node.
pub(super) struct Lower {
    pub inode: Arc<dyn Inode>,
    pub id: LowerId,
    /// Links and birth time when the node was made.
    nlink: u32,
    btime: Timespec,
}

/// An object; see the module's head.
pub struct OverlayInode {
    pub(super) layers: Arc<Layers>,
    this: Weak<Self>,
    kind: FileType,
    dev: u64,
    ino: u64,
    pub(super) lower: Option<Lower>,
    /// Attributes; for what is no directory and has no lower half, or `has_data`, everything.
    pub(super) upper: OnceLock<Arc<TmpInode>>,
    /// The upper half has the bytes of a regular file. Set once, after they were copied.
    pub(super) has_data: AtomicBool,
    /// Links beyond the lower half's: names given minus names taken (for directories, subdirectories too).
    links: AtomicI64,
    /// Held over a copy-up.
    pub(super) copying: Mutex<(), lock_order::OverlayInode>,
    /// Only for directories.
    pub(super) dir: Option<Mutex<Dir, lock_order::OverlayEntries>>,
    slot: InodeSlot,
}

impl OverlayInode {
    pub(super) fn from_lower(
        layers: &Arc<Layers>,
        inode: Arc<dyn Inode>,
        attr: &Attr,
        id: LowerId,
    ) -> Arc<Self> {
        let kind = inode.file_type();
        let (dev, ino) = (layers.dev_of(attr.dev), attr.ino);
        let lower = Lower { inode, id, nlink: attr.nlink, btime: attr.btime };
        Self::build(layers, kind, (dev, ino), Some(lower), OnceLock::new(), 0)
    }

    /// A new object, with `links` names so far.
    pub(super) fn from_upper(layers: &Arc<Layers>, upper: Arc<TmpInode>, links: i64) -> Arc<Self> {
        let kind = upper.file_type();
        let ino = upper.ino();
        let dev = layers.store.dev();
        Self::build(layers, kind, (dev, ino), None, OnceLock::from(upper), links)
    }

    fn build(
        layers: &Arc<Layers>,
        kind: FileType,
        (dev, ino): (u64, u64),
        lower: Option<Lower>,
        upper: OnceLock<Arc<TmpInode>>,
        links: i64,
    ) -> Arc<Self> {
        let is_dir = kind == FileType::Directory;
        Arc::new_cyclic(|this| Self {
            layers: Arc::clone(layers),
            this: Weak::clone(this),
            kind,
            dev,
            ino,
            has_data: AtomicBool::new(lower.is_none()),
            lower,
            upper,
            links: AtomicI64::new(links),
            copying: Mutex::new(()),
            dir: is_dir.then(Mutex::default),
            slot: InodeSlot::default(),
        })
    }

    pub(super) fn kind(&self) -> FileType {
        self.kind
    }

    pub(super) fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    pub(super) fn ino(&self) -> u64 {
        self.ino
    }

    pub(super) fn arc(&self) -> Result<Arc<Self>> {
        self.this.upgrade().ok_or(Errno::EIO)
    }

    pub(super) fn own(inode: &Arc<dyn Inode>) -> Result<&Self> {
        inode.as_any().downcast_ref().ok_or(Errno::EXDEV)
    }

    /// The upper half when it has everything there is to read.
    pub(super) fn data(&self) -> Option<&Arc<TmpInode>> {
        if self.has_data.load(Ordering::SeqCst) { self.upper.get() } else { None }
    }

    pub(super) fn add_links(&self, count: i64) {
        self.links.fetch_add(count, Ordering::Relaxed);
        loans::end_of(self);
    }

    /// Keeps a changed node as long as its lower half may lead to it again.
    pub(super) fn pin(&self) {
        if let Some(lower) = &self.lower
            && let Some(this) = self.this.upgrade()
        {
            self.layers.pin(lower.id, this);
        }
    }

    /// One name less; the last one lets the node go.
    pub(super) fn lost_name(&self) {
        self.add_links(-1);
        if let Some(upper) = self.upper.get() {
            upper.touch_changed();
        }
        let (Some(lower), Some(this)) = (&self.lower, self.this.upgrade()) else { return };
        if self.nlink() == 0 {
            self.layers.unpin(lower.id, &this);
        } else {
            self.layers.pin(lower.id, this);
        }
    }

    fn nlink(&self) -> u32 {
        if self.is_dead() {
            return 0;
        }
        let base = self.lower.as_ref().map_or(0, |lower| i64::from(lower.nlink));
        // Some filesystems do not count directories' links and say 1.
        if self.is_dir() && base == 1 {
            return 1;
        }
        let links = base + self.links.load(Ordering::Relaxed);
        u32::try_from(links.max(0)).unwrap_or(u32::MAX)
    }

    fn is_dead(&self) -> bool {
        self.dir.as_ref().is_some_and(|dir| dir.lock().is_dead)
    }

    fn merged_attr(&self, upper: &TmpInode) -> Result<Attr> {
        let mut attr = upper.attr()?;
        attr.nlink = self.nlink();
        match &self.lower {
            None if self.is_dir() => (attr.size, attr.blocks) = (4096, 8),
            None => {}
            Some(lower) => {
                attr.btime = lower.btime;
                if self.is_dir() || self.data().is_none() {
                    let below = lower.inode.attr()?;
                    (attr.size, attr.blocks, attr.blksize) =
                        (below.size, below.blocks, below.blksize);
                }
            }
        }
        Ok(attr)
    }
}

impl Inode for OverlayInode {
    fn is_settled(&self) -> bool {
        self.upper.get().is_none()
            && self.lower.as_ref().is_some_and(|lower| lower.inode.is_settled())
    }

    fn following(&self, name: Option<&[u8]>, is_dir: bool) -> Option<(Arc<[u8]>, FileType)> {
        let lower = self.lower.as_ref().filter(|_| self.upper.get().is_none());
        lower?.inode.following(name, is_dir)
    }

    fn is_listed(&self) -> bool {
        self.lower.as_ref().is_none_or(|lower| lower.inode.is_listed())
    }

    fn attr(&self) -> Result<Attr> {
        let mut attr = match (self.upper.get(), &self.lower) {
            (Some(upper), _) => self.merged_attr(upper)?,
            (None, Some(lower)) => {
                let mut attr = lower.inode.attr()?;
                let links = self.links.load(Ordering::Relaxed);
                if links != 0 {
                    attr.nlink = self.nlink();
                }
                attr
            }
            (None, None) => return Err(Errno::EIO),
        };
        (attr.dev, attr.ino) = (self.dev, self.ino);
        Ok(attr)
    }

    /// Of the attributes that matter here the upper inode has all, when there is one.
    fn permission(&self, cred: &Credentials, access: Access) -> Result<()> {
        match self.upper.get() {
            Some(upper) => upper.permission(cred, access),
            None => cred.check(&self.attr()?, access),
        }
    }

    fn file_type(&self) -> FileType {
        self.kind
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        if let Some(size) = change.size {
            self.copy_up_data(Some(size))?;
        }
        self.copy_up_attr()?.set_attr(change)
    }

    fn lookup(&self, cx: &VfsCx<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        self.child(cx, name).map(|node| node as Arc<dyn Inode>)
    }

    fn lookup_many(&self, cx: &VfsCx<'_>, names: &[&[u8]]) -> Result<Vec<Arc<dyn Inode>>> {
        self.children(cx, names)
    }

    fn create(&self, name: &[u8], node: NewNode<'_>, own: Ownership) -> Result<Arc<dyn Inode>> {
        let upper = self.layers.store.create(&node, own)?;
        let links = if upper.file_type() == FileType::Directory { 2 } else { 1 };
        let child = Self::from_upper(&self.layers, upper, links);
        self.put(name, &child, false)?;
        Ok(child)
    }

    fn tmpfile(&self, own: Ownership) -> Result<Arc<dyn Inode>> {
        let upper = self.layers.store.create(&NewNode::Regular, own)?;
        Ok(Self::from_upper(&self.layers, upper, 0))
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let target = Self::own(target)?.arc()?;
        let upper = target.copy_up_attr()?;
        self.put(name, &target, false)?;
        target.add_links(1);
        upper.touch_changed();
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let child = self.child(&self.layers.kernel_cx(), name)?;
        if child.is_dir() {
            return Err(Errno::EISDIR);
        }
        self.take_out(name, &child)?;
        child.lost_name();
        Ok(())
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        let child = self.child(&self.layers.kernel_cx(), name)?;
        child.bury()?;
        self.take_out(name, &child)?;
        child.lost_name();
        Ok(())
    }

    fn rename(
        &self,
        old: &[u8],
        new_dir: &Arc<dyn Inode>,
        new: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        self.rename_to(old, Self::own(new_dir)?, new, flags)
    }

    fn readlink(&self, cx: &VfsCx<'_>) -> Result<Vec<u8>> {
        match (self.upper.get(), &self.lower) {
            (Some(upper), _) => upper.readlink(cx),
            (None, Some(lower)) => lower.inode.readlink(cx),
            (None, None) => Err(Errno::EIO),
        }
    }

    fn open(self: Arc<Self>, cx: &VfsCx<'_>, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        match self.kind {
            FileType::Regular => match self.data() {
                Some(upper) => Ok(Arc::clone(upper) as Arc<dyn FileOps>),
                None => Ok(Arc::new(OverlayFile::open(self, cx, flags)?)),
            },
            FileType::Directory => Ok(Arc::new(OverlayDirFile::new(self))),
            FileType::Character => {
                let device = MemDevice::from_rdev(self.attr()?.rdev).ok_or(Errno::ENXIO)?;
                Ok(device.open())
            }
            _ => Err(Errno::ENXIO),
        }
    }

    fn slot(&self) -> Option<&InodeSlot> {
        Some(&self.slot)
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        match (self.upper.get(), &self.lower) {
            (Some(upper), _) => upper.get_xattr(name),
            (None, Some(lower)) => lower.inode.get_xattr(name),
            (None, None) => Err(Errno::EIO),
        }
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        self.copy_up_attr()?.set_xattr(name, value, flags)
    }

    fn list_xattr(&self) -> Result<Vec<u8>> {
        match (self.upper.get(), &self.lower) {
            (Some(upper), _) => upper.list_xattr(),
            (None, Some(lower)) => lower.inode.list_xattr(),
            (None, None) => Err(Errno::EIO),
        }
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.copy_up_attr()?.remove_xattr(name)
    }

    /// Changed nodes are pinned, but that is their own business.
    fn cached_bytes(&self) -> usize {
        let lower = self.lower.as_ref().map_or(0, |lower| lower.inode.cached_bytes());
        size_of::<Self>() + size_of::<[usize; 2]>() + super::fs::KNOWN_BYTES + lower
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for OverlayInode {
    /// Iterative: a guest can build trees far deeper than our stack.
    fn drop(&mut self) {
        let mut work: Vec<Arc<Self>> = Vec::new();
        let drain = |dir: &mut Option<Mutex<Dir, _>>, work: &mut Vec<Arc<Self>>| {
            for change in dir.iter_mut().flat_map(|dir| dir.get_mut().changes.drain()) {
                if let Change::Node { node, .. } = change {
                    work.push(node);
                }
            }
        };
        drain(&mut self.dir, &mut work);
        while let Some(node) = work.pop() {
            if let Some(mut node) = Arc::into_inner(node) {
                drain(&mut node.dir, &mut work);
            }
        }
        if let Some(lower) = &self.lower {
            self.layers.forget(lower.id);
        }
    }
}
