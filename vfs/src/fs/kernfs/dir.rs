//! Synthetic directories.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use abi::open::OpenFlags;
use abi::stat::{Attr, FileType};
use abi::{Errno, Result};

use super::node::Node;
use crate::context::VfsCx;
use crate::file::{DirEntry, File, FileOps};
use crate::inode::{CachePolicy, Inode, SetAttr};

/// What is in a directory.
pub trait Children: Send + Sync + 'static {
    /// `ENOENT` when there is no such entry.
    fn lookup(&self, cx: &VfsCx<'_>, name: &[u8]) -> Result<Arc<dyn Inode>>;

    /// Emits entries whose `key` is at least `from`, in rising order of `key`, until `emit` returns false.
    /// `DirEntry::next` is ignored: the position after an entry follows from its key.
    fn list(
        &self,
        cx: &VfsCx<'_>,
        from: u64,
        emit: &mut dyn FnMut(u64, DirEntry<'_>) -> bool,
    ) -> Result<()>;

    /// Directories among the children, for the link count.
    fn subdirectories(&self) -> u32 {
        0
    }

    fn cache_policy(&self) -> CachePolicy {
        CachePolicy::Never
    }
}

/// A directory.
pub struct DirInode<C> {
    node: Node,
    children: C,
}

impl<C: Children> DirInode<C> {
    #[must_use]
    pub fn new(node: Node, children: C) -> Arc<Self> {
        Arc::new(Self { node, children })
    }

    pub fn children(&self) -> &C {
        &self.children
    }
}

impl<C: Children> Inode for DirInode<C> {
    fn attr(&self) -> Result<Attr> {
        Ok(self.node.attr(2 + self.children.subdirectories(), 0))
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        self.node.set_attr(change)
    }

    fn cache_policy(&self) -> CachePolicy {
        self.children.cache_policy()
    }

    fn lookup(&self, cx: &VfsCx<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        self.children.lookup(cx, name)
    }

    fn open(self: Arc<Self>, _: &VfsCx<'_>, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        if flags.writes() {
            return Err(Errno::EISDIR);
        }
        Ok(Arc::new(OpenDir { dir: self }))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct OpenDir<C> {
    dir: Arc<DirInode<C>>,
}

/// Positions 0 and 1 are "." and ".."; a child's is its key plus this.
const FIRST_CHILD: u64 = 2;

impl<C: Children> FileOps for OpenDir<C> {
    fn read(&self, _: &VfsCx<'_>, _: &File, _: &mut dyn base::Sink, _pos: u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn readdir(
        &self,
        cx: &VfsCx<'_>,
        _: &File,
        pos: u64,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()> {
        let ino = self.dir.node.ino();
        for (at, name) in [(0, &b"."[..]), (1, b"..")] {
            let entry = DirEntry { ino, next: at + 1, kind: FileType::Directory, name };
            if pos <= at && !emit(entry) {
                return Ok(());
            }
        }
        let from = pos.saturating_sub(FIRST_CHILD);
        self.dir.children.list(cx, from, &mut |key, entry| {
            emit(DirEntry { next: key.saturating_add(FIRST_CHILD + 1), ..entry })
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Children that never change.
#[derive(Default)]
pub struct FixedDir {
    entries: Vec<(Vec<u8>, Arc<dyn Inode>)>,
}

impl FixedDir {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn with(mut self, name: impl Into<Vec<u8>>, inode: Arc<dyn Inode>) -> Self {
        self.entries.push((name.into(), inode));
        self
    }
}

impl Children for FixedDir {
    fn lookup(&self, _: &VfsCx<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let found = self.entries.iter().find(|(entry, _)| entry == name);
        found.map(|(_, inode)| Arc::clone(inode)).ok_or(Errno::ENOENT)
    }

    fn list(
        &self,
        _: &VfsCx<'_>,
        from: u64,
        emit: &mut dyn FnMut(u64, DirEntry<'_>) -> bool,
    ) -> Result<()> {
        let skipped = usize::try_from(from).unwrap_or(usize::MAX);
        for (key, (name, inode)) in self.entries.iter().enumerate().skip(skipped) {
            let ino = inode.attr().map_or(1, |attr| attr.ino);
            let entry = DirEntry { ino, next: 0, kind: inode.file_type(), name };
            if !emit(key as u64, entry) {
                break;
            }
        }
        Ok(())
    }

    fn subdirectories(&self) -> u32 {
        let is_dir =
            |entry: &&(Vec<u8>, Arc<dyn Inode>)| entry.1.file_type() == FileType::Directory;
        self.entries.iter().filter(is_dir).count() as u32
    }

    fn cache_policy(&self) -> CachePolicy {
        CachePolicy::Forever
    }
}

/// Children that never change and are made when somebody looks at them: most programs never do.
pub struct LateDir {
    make: Box<dyn Fn() -> FixedDir + Send + Sync>,
    children: OnceLock<FixedDir>,
}

impl LateDir {
    pub fn new(make: impl Fn() -> FixedDir + Send + Sync + 'static) -> Self {
        Self { make: Box::new(make), children: OnceLock::new() }
    }

    fn children(&self) -> &FixedDir {
        self.children.get_or_init(|| (self.make)())
    }
}

impl Children for LateDir {
    fn lookup(&self, cx: &VfsCx<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        self.children().lookup(cx, name)
    }

    fn list(
        &self,
        cx: &VfsCx<'_>,
        from: u64,
        emit: &mut dyn FnMut(u64, DirEntry<'_>) -> bool,
    ) -> Result<()> {
        self.children().list(cx, from, emit)
    }

    fn subdirectories(&self) -> u32 {
        self.children().subdirectories()
    }

    fn cache_policy(&self) -> CachePolicy {
        CachePolicy::Forever
    }
}
