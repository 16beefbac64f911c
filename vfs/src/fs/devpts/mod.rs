//! /dev/pts: a node per pseudo-terminal, and the multiplexer that makes them. See pts(4).
//!
//! A pair lives as long as its master; its node goes with the master too.

mod dir;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use abi::Result;
use abi::stat::{FileType, makedev};
use base::cred::Credentials;

use crate::filesystem::FileSystem;
use crate::fs::devfs::DeviceInode;
use crate::fs::kernfs::{DirInode, Node};
use crate::inode::{Inode, StatFs};
use crate::tty::{Master, Terminals};
use dir::{Multiplexer, Nodes, PtsDir};

const DEV: u64 = makedev(0, 22);
const DEVPTS_MAGIC: u64 = 0x1cd1;
/// Device number of the multiplexer.
pub const PTMX: u64 = makedev(5, 2);

/// The filesystem.
pub struct DevPts {
    nodes: Arc<Nodes>,
    root: Arc<dyn Inode>,
}

impl DevPts {
    #[must_use]
    pub fn new(terminals: Arc<Terminals>) -> Arc<Self> {
        let nodes = Nodes::new(terminals);
        let node = Node::numbered(DEV, FileType::Character, 0o666).device(PTMX);
        let ptmx = DeviceInode::new(node, Arc::new(Multiplexer { nodes: Arc::clone(&nodes) }));
        let node = Node::numbered(DEV, FileType::Directory, 0o755);
        let root = DirInode::new(node, PtsDir { nodes: Arc::clone(&nodes), ptmx });
        Arc::new(Self { nodes, root })
    }

    /// A new pair that belongs to `cred`, unlocked: a console whose master the sentry serves.
    ///
    /// # Errors
    /// `ENOSPC`: too many.
    pub fn new_console(&self, cred: &Credentials) -> Result<Arc<Master>> {
        let master = self.nodes.new_pair(cred)?;
        master.unlock();
        Ok(master)
    }
}

impl FileSystem for DevPts {
    fn name(&self) -> &'static str {
        "devpts"
    }

    fn root(&self) -> Arc<dyn Inode> {
        Arc::clone(&self.root)
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { magic: DEVPTS_MAGIC, block_size: 4096, name_max: 255, ..StatFs::default() })
    }

    fn dev(&self) -> u64 {
        DEV
    }

    fn options(&self) -> String {
        "gid=5,mode=620,ptmxmode=666".into()
    }
}
