//! /dev: the devices every program expects, the usual links, and mount points for pts and shm.
//!
//! Nodes cannot be made or removed here; mode and owner can be changed.
//!
//! | module | what |
//! | --- | --- |
//! | `mem` | null, zero, full, random, urandom |
//! | `node` | a device as an inode |

mod mem;
mod node;

use std::sync::Arc;

use abi::Result;
use abi::stat::{FileType, makedev};
use abi::time::Timespec;

pub use mem::MemDevice;
pub use node::{Device, DeviceInode};

use crate::filesystem::FileSystem;
use crate::fs::kernfs::{DirInode, FixedDir, LinkInode, Node};
use crate::inode::{Inode, StatFs};

const DEV: u64 = makedev(0, 5);
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// A device that someone else drives (tty, console), to be put into /dev.
pub struct ExtraDevice {
    pub name: &'static str,
    pub rdev: u64,
    pub mode: u32,
    pub device: Arc<dyn Device>,
}

/// The filesystem.
pub struct DevFs {
    root: Arc<dyn Inode>,
}

impl DevFs {
    /// /dev with the memory devices and `extra`; every node was made at `born`.
    #[must_use]
    pub fn new(extra: Vec<ExtraDevice>, born: Timespec) -> Arc<Self> {
        let node = |kind, mode| Node::numbered(DEV, kind, mode).born_at(born);
        let mut root = FixedDir::new();
        for (name, device) in [
            ("null", MemDevice::Null),
            ("zero", MemDevice::Zero),
            ("full", MemDevice::Full),
            ("random", MemDevice::Random),
            ("urandom", MemDevice::Urandom),
        ] {
            let node = node(FileType::Character, 0o666).device(device.rdev());
            root = root.with(name, DeviceInode::new(node, Arc::new(device)));
        }
        for ExtraDevice { name, rdev, mode, device } in extra {
            let node = node(FileType::Character, mode).device(rdev);
            root = root.with(name, DeviceInode::new(node, device));
        }
        for (name, target) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("core", "/proc/kcore"),
            ("ptmx", "pts/ptmx"),
        ] {
            root = root.with(name, LinkInode::to(node(FileType::Symlink, 0o777), target));
        }
        for name in ["pts", "shm", "mqueue"] {
            let node = node(FileType::Directory, 0o755);
            root = root.with(name, DirInode::new(node, FixedDir::new()));
        }
        Arc::new(Self { root: DirInode::new(node(FileType::Directory, 0o755), root) })
    }
}

impl FileSystem for DevFs {
    fn name(&self) -> &'static str {
        "devtmpfs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        Arc::clone(&self.root)
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { magic: TMPFS_MAGIC, block_size: 4096, name_max: 255, ..StatFs::default() })
    }

    fn dev(&self) -> u64 {
        DEV
    }

    fn options(&self) -> String {
        "mode=755".into()
    }
}
