//! The trait of a filesystem object: what every filesystem implements.
//!
//! Inodes do no permission checks on their own (the path walk and `ops` do, from `attr` and credentials), never
//! follow symlinks, and are called with valid single-component names (no '/', NUL, "", "." or "..", at most 255 bytes).

use std::any::Any;
use std::sync::{Arc, OnceLock};

use abi::ids::{Gid, Uid};
use abi::open::OpenFlags;
use abi::stat::{Attr, FileType};
use abi::time::Timespec;
use abi::{Errno, Result};
use base::cred::{Access, Credentials};

use crate::context::VfsCx;
use crate::dentry::Path;
use crate::file::FileOps;

/// What to create under a name.
#[derive(Debug, Clone)]
pub enum NewNode<'a> {
    Regular,
    Directory,
    Symlink(&'a [u8]),
    Fifo,
    Socket,
    /// `kind` is `Character` or `Block`.
    Device {
        kind: FileType,
        rdev: u64,
    },
}

/// Owner and permission bits (umask applied, set-group-id of the parent considered) of a new object.
#[derive(Debug, Clone, Copy)]
pub struct Ownership {
    pub uid: Uid,
    pub gid: Gid,
    /// Permission bits only (07777).
    pub mode: u32,
}

/// A new value for a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    Now,
    At(Timespec),
}

/// Attribute changes; `None` leaves a field alone. Permission was checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<Uid>,
    pub gid: Option<Gid>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
}

/// Where a symbolic link leads.
pub enum LinkTarget {
    /// Text to be walked.
    Text(Vec<u8>),
    /// A place to jump to, as `/proc/PID/fd/N` does.
    Jump(Path),
}

/// How long a directory's entries (also negative ones) may be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CachePolicy {
    /// Only we change this directory.
    Forever,
    /// Others may change it: look up again each time; keep the dentry when the inode is the same object.
    Revalidate,
    /// Entries come and go by themselves (procfs): never keep a dentry longer than somebody uses it.
    Never,
}

bitflags::bitflags! {
    /// Flags of renameat2(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct RenameFlags: u32 {
        const NOREPLACE = 1;
        const EXCHANGE = 2;
        const WHITEOUT = 4;
    }
}

/// statfs(2), in kernel form.
#[derive(Debug, Clone, Copy, Default)]
pub struct StatFs {
    pub magic: u64,
    pub block_size: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
    pub name_max: u64,
}

/// A place on an inode where a subsystem may keep what belongs to it (the socket bound to a path, say).
pub type InodeSlot = OnceLock<Arc<dyn Any + Send + Sync>>;

/// A filesystem object. Defaults refuse as Linux does for an object of another kind.
pub trait Inode: Send + Sync + Any {
    fn attr(&self) -> Result<Attr>;

    /// Never changes during an inode's life.
    fn file_type(&self) -> FileType;

    fn set_attr(&self, _change: &SetAttr) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Permission check; procfs and devices may be stricter than mode bits.
    fn permission(&self, cred: &Credentials, access: Access) -> Result<()> {
        cred.check(&self.attr()?, access)
    }

    /// Whether bytes and attributes stay what they are until loans of the inode end: nobody else changes them.
    fn is_settled(&self) -> bool {
        false
    }

    // Directories.

    /// The regular file or directory in here, or the directory, that comes after `name` (`None`: the first one) in the order of the
    /// listing, as far as that is known without asking anybody.
    fn following(&self, name: Option<&[u8]>, is_dir: bool) -> Option<(Arc<[u8]>, FileType)> {
        let _ = (name, is_dir);
        None
    }

    /// Whether all names in here are known, so that [`following`](Self::following) leaves none out.
    fn is_listed(&self) -> bool {
        true
    }

    fn cache_policy(&self) -> CachePolicy {
        CachePolicy::Forever
    }

    /// `ENOENT` when there is no such entry.
    fn lookup(&self, _cx: &VfsCx<'_>, _name: &[u8]) -> Result<Arc<dyn Inode>> {
        Err(Errno::ENOTDIR)
    }

    /// Looks several components up at once: `names[0]` here, `names[1]` in what it is, and so on. Answers the inodes
    /// of a prefix of `names`, at least one; it may stop anywhere, and does at anything but a directory. For
    /// filesystems whose lookups are round trips.
    fn lookup_many(&self, cx: &VfsCx<'_>, names: &[&[u8]]) -> Result<Vec<Arc<dyn Inode>>> {
        let name = names.first().ok_or(Errno::ENOENT)?;
        Ok(vec![self.lookup(cx, name)?])
    }

    /// `EEXIST` when the name is taken. The caller has just looked `name` up and found nothing.
    fn create(&self, _name: &[u8], _node: NewNode<'_>, _own: Ownership) -> Result<Arc<dyn Inode>> {
        Err(Errno::EPERM)
    }

    /// An inode without a name (`O_TMPFILE`), which `link` may name later.
    fn tmpfile(&self, _own: Ownership) -> Result<Arc<dyn Inode>> {
        Err(Errno::EOPNOTSUPP)
    }

    fn link(&self, _name: &[u8], _target: &Arc<dyn Inode>) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Not for directories (`EISDIR`).
    fn unlink(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// `ENOTEMPTY` when it has entries.
    fn rmdir(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// `new_dir` belongs to the same filesystem. Replaces an existing `new` as rename(2) says.
    fn rename(
        &self,
        _old: &[u8],
        _new_dir: &Arc<dyn Inode>,
        _new: &[u8],
        _flags: RenameFlags,
    ) -> Result<()> {
        Err(Errno::EPERM)
    }

    // Symbolic links.

    /// The link's text, for readlink(2).
    fn readlink(&self, _cx: &VfsCx<'_>) -> Result<Vec<u8>> {
        Err(Errno::EINVAL)
    }

    /// Where following leads; differs from the text only for magic links.
    fn follow(&self, cx: &VfsCx<'_>) -> Result<LinkTarget> {
        self.readlink(cx).map(LinkTarget::Text)
    }

    // Opening.

    /// True for a FIFO or socket that `open` handles itself, such as a pipe behind /proc/PID/fd/N.
    fn opens_itself(&self) -> bool {
        false
    }

    /// Opens an object of any type but symlink, and but FIFO and socket, which `ops` handles unless
    /// [`Self::opens_itself`]. `flags` carries the access mode, `O_TRUNC` was already done.
    fn open(self: Arc<Self>, cx: &VfsCx<'_>, flags: OpenFlags) -> Result<Arc<dyn FileOps>>;

    /// `None` for inodes that nothing can be attached to.
    fn slot(&self) -> Option<&InodeSlot> {
        None
    }

    // Extended attributes; see xattr(7).

    fn get_xattr(&self, _name: &[u8]) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// `flags`: XATTR_CREATE 1, XATTR_REPLACE 2.
    fn set_xattr(&self, _name: &[u8], _value: &[u8], _flags: u32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Names, each with its NUL.
    fn list_xattr(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn remove_xattr(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Bytes of memory that only live as long as somebody refers to the inode, and that come back when it is looked up
    /// again: what dropping a cached name gives back. 0 for inodes that are kept anyway.
    fn cached_bytes(&self) -> usize {
        0
    }

    /// For filesystems to recognise their own.
    fn as_any(&self) -> &dyn Any;
}
