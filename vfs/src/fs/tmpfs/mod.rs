//! tmpfs: files in memory. See tmpfs(5).
//!
//! Linux keeps the pages in its page cache; here a regular file's bytes lie on the sentry's heap, where reads and
//! writes are cheapest, until somebody maps it: then they move into a memfd, once and for good, because only a host
//! descriptor can be mapped into a guest. Directories, links and attributes are always on the heap.
//!
//! | module | what |
//! | --- | --- |
//! | `inode` | an object: attributes, xattrs, opening |
//! | `dir`, `names` | entries with stable positions; putting, removing and moving them |
//! | `file` | what an open object does |
//! | `contents` | bytes of a regular file |
//! | `quota` | limits |
//! | `trusted` | what guest code writes on its own |

mod contents;
pub(crate) mod dir;
pub(crate) mod file;
mod inode;
mod names;
mod quota;
#[cfg(test)]
mod tests;
mod trusted;
mod xattrs;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use abi::fcntl::Seals;
use abi::ids::{Gid, Uid};
use abi::open::OpenFlags;
use abi::time::Timespec;
use abi::{Errno, Result};
use base::clock::Clock;

use crate::dentry::Path;
use crate::description::File;
use crate::filesystem::{FileSystem, new_dev};
use crate::inode::{Inode, NewNode, Ownership, StatFs};

pub use inode::TmpInode;
use quota::Quota;
pub(crate) use quota::Reserve;
pub(crate) use xattrs::Xattrs;

const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Mount options.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes; `None` is no limit.
    pub size: Option<u64>,
    /// Inodes; `None` is one for each page of `size`, since they cost memory too.
    pub inodes: Option<u64>,
    /// Of the root directory.
    pub mode: u32,
    pub uid: Uid,
    pub gid: Gid,
}

impl Default for Options {
    fn default() -> Self {
        Self { size: None, inodes: None, mode: 0o1777, uid: Uid::ROOT, gid: Gid::ROOT }
    }
}

/// What all inodes of one tmpfs share.
pub(crate) struct Shared {
    clock: Arc<dyn Clock>,
    dev: u64,
    next_ino: AtomicU64,
    quota: Arc<Quota>,
}

impl Shared {
    fn now(&self) -> Timespec {
        Timespec::from_nanos(self.clock.realtime())
    }
}

/// A filesystem in memory.
pub struct TmpFs {
    shared: Arc<Shared>,
    root: Arc<TmpInode>,
    size: Option<u64>,
}

impl TmpFs {
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, options: Options) -> Arc<Self> {
        let shared = Self::shared(clock, options.size, options.inodes, 1);
        let own = Ownership { uid: options.uid, gid: options.gid, mode: options.mode & 0o7777 };
        let root = TmpInode::root(&shared, own);
        Arc::new(Self { shared, root, size: options.size })
    }

    fn shared(
        clock: Arc<dyn Clock>,
        size: Option<u64>,
        inodes: Option<u64>,
        first_ino: u64,
    ) -> Arc<Shared> {
        let pages = size.map_or(u64::MAX, |size| size.div_ceil(abi::addr::PAGE_SIZE));
        Arc::new(Shared {
            clock,
            dev: new_dev(),
            next_ino: AtomicU64::new(first_ino),
            quota: Arc::new(Quota::new(pages, inodes.unwrap_or(pages))),
        })
    }
}

impl FileSystem for TmpFs {
    fn name(&self) -> &'static str {
        "tmpfs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        Arc::clone(&self.root) as Arc<dyn Inode>
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(statfs_of(&self.shared.quota))
    }

    fn dev(&self) -> u64 {
        self.shared.dev
    }

    fn options(&self) -> String {
        self.size.map(|size| format!("size={}k", size / 1024)).unwrap_or_default()
    }
}

fn statfs_of(quota: &Quota) -> StatFs {
    let [page_limit, pages, inode_limit, inodes] = quota.figures();
    // Without a limit Linux says 0 for all.
    let limited = |limit: u64| if limit == u64::MAX { 0 } else { limit };
    let free = limited(page_limit).saturating_sub(pages);
    StatFs {
        magic: TMPFS_MAGIC,
        block_size: abi::addr::PAGE_SIZE,
        blocks: limited(page_limit),
        blocks_free: free,
        blocks_available: free,
        files: limited(inode_limit),
        files_free: limited(inode_limit).saturating_sub(inodes),
        name_max: 255,
    }
}

/// A store of nameless tmpfs inodes, for filesystems that keep names themselves (overlay, memfd).
#[derive(Clone)]
pub struct Nameless {
    shared: Arc<Shared>,
}

impl Nameless {
    /// `first_ino`: where its inode numbers begin.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, size: Option<u64>, first_ino: u64) -> Self {
        Self { shared: TmpFs::shared(clock, size, None, first_ino) }
    }

    /// # Errors
    /// `ENOSPC`.
    pub fn create(&self, node: &NewNode<'_>, own: Ownership) -> Result<Arc<TmpInode>> {
        TmpInode::create(&self.shared, node, own)
    }

    #[must_use]
    pub fn dev(&self) -> u64 {
        self.shared.dev
    }

    /// Figures as statfs(2) gives them.
    #[must_use]
    pub fn statfs(&self) -> StatFs {
        statfs_of(&self.shared.quota)
    }

    /// memfd_create(2): `name` is shown as "/memfd:NAME (deleted)". The store's inodes are all that it shares with
    /// other files.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub fn memfd(&self, own: Ownership, name: &[u8], may_seal: bool) -> Result<Arc<File>> {
        let inode = self.create(&NewNode::Regular, own)?;
        inode.unlinked();
        if may_seal {
            inode.allow_seals();
        }
        let text = [&b"/memfd:"[..], name, b" (deleted)"].concat();
        let path = Path::anonymous(&text, Arc::clone(&inode) as Arc<dyn Inode>);
        let flags = OpenFlags::RDWR | OpenFlags::LARGEFILE;
        Ok(File::new(Arc::clone(&inode) as _, inode, path, flags))
    }
}

fn sealable(file: &File) -> Result<&TmpInode> {
    file.inode().as_any().downcast_ref::<TmpInode>().ok_or(Errno::EINVAL)
}

/// fcntl(F_GET_SEALS).
///
/// # Errors
/// `EINVAL` for what is no file in memory.
pub fn seals(file: &File) -> Result<Seals> {
    sealable(file)?.seals()
}

/// fcntl(F_ADD_SEALS).
///
/// # Errors
/// `EINVAL` for what is no file in memory, `EPERM` when not open for writing or sealed already, `EBUSY`.
pub fn add_seals(file: &File, seals: Seals) -> Result<()> {
    if !file.flags().writes() {
        return Err(Errno::EPERM);
    }
    sealable(file)?.add_seals(seals)
}
