//! /proc. See proc(5).
//!
//! Everything is about the guest's own world: its tasks, the memory and CPUs it may use, its mounts. Facts come
//! through the traits in `view`, which the sentry implements; formats are Linux's to the byte where programs parse
//! them.
//!
//! | module | what |
//! | --- | --- |
//! | `view` | what the sentry must tell |
//! | `root` | the top directory: fixed entries and processes |
//! | `task` | /proc/PID and /proc/PID/task/TID |
//! | `system` | meminfo, cpuinfo, stat and the like |
//! | `sys` | /proc/sys |
//! | `net` | /proc/PID/net |

mod net;
mod root;
mod sys;
mod system;
mod task;
#[cfg(test)]
mod tests;
pub mod view;

use std::sync::Arc;

use abi::Result;
use abi::stat::{FileType, makedev};
use abi::time::Timespec;

use crate::filesystem::FileSystem;
use crate::fs::kernfs::Node;
use crate::inode::{Inode, StatFs};
use view::SystemView;

const DEV: u64 = makedev(0, 20);
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// What every inode of one instance needs.
struct Shared {
    view: Arc<dyn SystemView>,
    boot: Timespec,
}

impl Shared {
    /// An inode's attributes with a number of its own.
    fn node(&self, kind: FileType, mode: u32) -> Node {
        Node::numbered(DEV, kind, mode).born_at(self.boot)
    }
}

/// The filesystem.
pub struct ProcFs {
    root: Arc<dyn Inode>,
}

impl ProcFs {
    #[must_use]
    pub fn new(view: Arc<dyn SystemView>) -> Arc<Self> {
        let boot = Timespec { sec: view.boot_time() as i64, nsec: 0 };
        let shared = Arc::new(Shared { view, boot });
        Arc::new(Self { root: root::make(&shared) })
    }
}

impl FileSystem for ProcFs {
    fn name(&self) -> &'static str {
        "proc"
    }

    fn root(&self) -> Arc<dyn Inode> {
        Arc::clone(&self.root)
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { magic: PROC_SUPER_MAGIC, block_size: 4096, name_max: 255, ..StatFs::default() })
    }

    fn dev(&self) -> u64 {
        DEV
    }
}
