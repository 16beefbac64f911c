//! /sys, as far as programs ask for it: processors, memory nodes, huge pages, the loopback device, the limits of the
//! one control group. See sysfs(5).
//!
//! | module | what |
//! | --- | --- |
//! | `tree` | building directories from paths |
//! | `cpu` | /sys/devices/system/{cpu,node} |
//! | `cgroup` | /sys/fs/cgroup |
//! | `constant` | what never changes |

mod cgroup;
mod constant;
mod cpu;
#[cfg(test)]
mod tests;
mod tree;

use std::sync::Arc;

use abi::Result;
use abi::stat::{FileType, makedev};

use crate::filesystem::FileSystem;
use crate::fs::kernfs::{DirInode, LateDir, Node};
use crate::inode::{Inode, StatFs};
use tree::Tree;

const DEV: u64 = makedev(0, 21);
const SYSFS_MAGIC: u64 = 0x6265_6572;

/// What the guest's machine looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    pub cpus: u32,
    /// Bytes.
    pub memory: u64,
    /// Of the sandbox as a whole; `None` is no limit.
    pub memory_limit: Option<u64>,
    pub pids_limit: Option<u32>,
}

/// The filesystem.
pub struct SysFs {
    root: Arc<dyn Inode>,
}

impl SysFs {
    #[must_use]
    pub fn new(machine: &Machine) -> Arc<Self> {
        let machine = *machine;
        let children = LateDir::new(move || {
            let mut tree = Tree::default();
            constant::add_to(&mut tree);
            cpu::add_to(&mut tree, &machine);
            cgroup::add_to(&mut tree, &machine);
            tree.children()
        });
        let node = Node::numbered(DEV, FileType::Directory, 0o755);
        Arc::new(Self { root: DirInode::new(node, children) })
    }
}

impl FileSystem for SysFs {
    fn name(&self) -> &'static str {
        "sysfs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        Arc::clone(&self.root)
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { magic: SYSFS_MAGIC, block_size: 4096, name_max: 255, ..StatFs::default() })
    }

    fn dev(&self) -> u64 {
        DEV
    }
}
