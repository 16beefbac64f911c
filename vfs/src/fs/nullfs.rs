//! A filesystem with one empty, unchangeable directory. Anonymous paths live in a mount of it.

use std::any::Any;
use std::sync::Arc;

use abi::open::OpenFlags;
use abi::stat::{Attr, FileType, S_IFDIR};
use abi::{Errno, Result};

use crate::context::VfsCx;
use crate::file::FileOps;
use crate::filesystem::FileSystem;
use crate::inode::{Inode, StatFs};

/// See the module.
pub struct NullFs;

impl FileSystem for NullFs {
    fn name(&self) -> &'static str {
        "none"
    }

    fn root(&self) -> Arc<dyn Inode> {
        Arc::new(NullDir)
    }

    fn statfs(&self) -> Result<StatFs> {
        // ANON_INODE_FS_MAGIC
        Ok(StatFs { magic: 0x0904_1934, block_size: 4096, name_max: 255, ..StatFs::default() })
    }

    fn dev(&self) -> u64 {
        0
    }
}

struct NullDir;

impl Inode for NullDir {
    fn attr(&self) -> Result<Attr> {
        Ok(Attr { ino: 1, mode: S_IFDIR | 0o555, nlink: 2, blksize: 4096, ..Attr::default() })
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn lookup(&self, _cx: &VfsCx<'_>, _name: &[u8]) -> Result<Arc<dyn Inode>> {
        Err(Errno::ENOENT)
    }

    fn open(self: Arc<Self>, _cx: &VfsCx<'_>, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Err(Errno::EACCES)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
