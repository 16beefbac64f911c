//! The trait of a mounted filesystem.

use std::sync::Arc;

use abi::Result;

use crate::inode::{Inode, StatFs};

/// One instance of a filesystem; may be mounted several times.
pub trait FileSystem: Send + Sync {
    /// Type as /proc/mounts shows it.
    fn name(&self) -> &'static str;

    fn root(&self) -> Arc<dyn Inode>;

    fn statfs(&self) -> Result<StatFs>;

    /// Device number that `stat` reports.
    fn dev(&self) -> u64;

    /// Options for /proc/mounts, such as `size=1024k`, without `rw`/`ro`.
    fn options(&self) -> String {
        String::new()
    }

    /// True when nothing on it can be changed, whatever the mount says.
    fn is_read_only(&self) -> bool {
        false
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}
