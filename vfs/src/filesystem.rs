//! The trait of a mounted filesystem.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

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

/// A device number of its own for a filesystem without a device.
#[must_use]
pub fn new_dev() -> u64 {
    static NEXT_MINOR: AtomicU32 = AtomicU32::new(40);
    abi::stat::makedev(0, NEXT_MINOR.fetch_add(1, Ordering::Relaxed))
}
