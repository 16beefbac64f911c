//! The mounted filesystem: one tree of a gofer.

use std::sync::Arc;

use abi::{Errno, Result};
use gofer_protocol::{Op, SyncScope, TreeInfo};

use super::client::Client;
use super::explored;
use super::foresight::Foresight;
use super::inode::GoferInode;
use super::known::KnownBudget;
use super::open_files::OpenFiles;
use super::subtree::{GoingOn, ListedDirs};
use crate::filesystem::FileSystem;
use crate::inode::{Inode, StatFs};

/// What the inodes of one tree share.
pub struct Shared {
    pub client: Arc<Client>,
    pub tree: u16,
    pub is_writable: bool,
    pub open_files: OpenFiles,
    pub listed_dirs: ListedDirs,
    pub going_on: GoingOn,
    pub budget: KnownBudget,
    pub foresight: Foresight,
}

/// A tree of a gofer as a filesystem.
pub struct GoferFs {
    shared: Arc<Shared>,
    root: Arc<GoferInode>,
    info: TreeInfo,
    /// Holds what is known of them.
    _explored: Vec<Arc<GoferInode>>,
}

impl GoferFs {
    /// # Errors
    /// `ENODEV` when the gofer serves no such tree.
    pub fn new(client: Arc<Client>, tree: u16) -> Result<Arc<Self>> {
        let info = *client.trees().get(usize::from(tree)).ok_or(Errno::ENODEV)?;
        let shared = Arc::new(Shared {
            client,
            tree,
            is_writable: info.writable,
            open_files: OpenFiles::default(),
            listed_dirs: ListedDirs::default(),
            going_on: GoingOn::default(),
            budget: KnownBudget::default(),
            foresight: Foresight::default(),
        });
        let root = GoferInode::root(Arc::clone(&shared), info.root);
        let explored = if tree == 0 { shared.client.take_explored() } else { Vec::new() };
        // Of a tree that others change, nothing was to be told.
        let explored = if info.writable { Vec::new() } else { explored::learn(&root, explored) };
        Ok(Arc::new(Self { shared, root, info, _explored: explored }))
    }

    /// Bytes that the directories of a read-only tree take to know their entries; bounded.
    #[must_use]
    pub fn known_bytes(&self) -> usize {
        self.shared.budget.bytes()
    }
}

impl FileSystem for GoferFs {
    fn name(&self) -> &'static str {
        "gofer"
    }

    fn root(&self) -> Arc<dyn Inode> {
        Arc::clone(&self.root) as Arc<dyn Inode>
    }

    fn statfs(&self) -> Result<StatFs> {
        let figures =
            self.shared.client.call(self.shared.tree, b"", Op::StatFs, |mut fields, _| {
                let figures = gofer_protocol::attr::figures(&mut fields)?;
                fields.finish()?;
                Ok(figures)
            })?;
        Ok(StatFs {
            magic: figures.magic,
            block_size: figures.block_size,
            blocks: figures.blocks,
            blocks_free: figures.blocks_free,
            blocks_available: figures.blocks_available,
            files: figures.files,
            files_free: figures.files_free,
            name_max: figures.name_max,
        })
    }

    fn dev(&self) -> u64 {
        self.info.root.dev
    }

    fn is_read_only(&self) -> bool {
        !self.info.writable
    }

    fn sync(&self) -> Result<()> {
        if !self.info.writable {
            return Ok(());
        }
        let op = Op::Sync { scope: SyncScope::FileSystem };
        self.shared.client.call(self.shared.tree, b"", op, |fields, _| fields.finish())
    }
}
