//! Resolving of paths below a tree's root.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use abi::stat::{Attr, FileType};
use abi::{Errno, Result};
use gofer_protocol::TreePath;
use gofer_protocol::attr::from_statx;
use host::namespace::{
    MOUNT_NO_DEVICES, MOUNT_NO_SUID, MOUNT_READ_ONLY, clone_mount_tree, restrict_mount_tree,
};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};

use crate::{ConfineOptions, Error, Tree};

const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
/// For the place of an object; opens nothing, so it can neither block nor act.
pub const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// For a directory; without `O_NOFOLLOW`, so that a link in its place is `ELOOP` and not `ENOTDIR`.
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Longest path the host takes in one call.
const HOST_PATH_MAX: usize = 4095;

/// An error of the host, as it goes over the wire.
pub fn errno(host: rustix::io::Errno) -> Errno {
    Errno::from_raw(host.raw_os_error())
}

fn host_errno(errno: Errno) -> rustix::io::Errno {
    rustix::io::Errno::from_raw_os_error(errno.raw())
}

/// A directory: the tree's root, an opened one, or one that its connection has at hand.
pub enum Dir<'a> {
    Root(BorrowedFd<'a>),
    Opened(OwnedFd),
    Kept(Rc<OwnedFd>),
}

impl AsFd for Dir<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => *fd,
            Self::Opened(fd) => fd.as_fd(),
            Self::Kept(fd) => fd.as_fd(),
        }
    }
}

/// Filesystems whose files are doors into the kernel or into other processes: procfs, sysfs, debugfs, tracefs,
/// securityfs, configfs, bpf, cgroup, cgroup2, binfmt_misc, efivarfs, pstore. A sandbox has its own of those that programs need;
/// of the host's, one that serves "/" would otherwise hand out the memory of its user's other processes.
const KERNEL_INTERFACES: &[u64] = &[
    0x9fa0,
    0x6265_6572,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x6265_6570,
    0xcafe_4a11,
    0x0027_e0eb,
    0x6367_7270,
    0x4249_4e4d,
    0xde5e_81e4,
    0x6165_676c,
];

pub fn is_kernel_interface(fd: impl AsFd) -> Result<bool> {
    let magic = rustix::fs::fstatfs(fd).map_err(errno)?.f_type;
    Ok(u64::try_from(magic).is_ok_and(|magic| KERNEL_INTERFACES.contains(&magic)))
}

/// A tree that is being served.
pub struct ServedTree {
    /// Position among the trees.
    index: usize,
    /// `O_PATH` descriptor.
    root: OwnedFd,
    /// For a tree that is a single file: where to open it.
    file: Option<(OwnedFd, Vec<u8>)>,
    writable: bool,
    /// The tree itself is (in) a kernel interface: somebody wanted it served.
    is_interface: bool,
}

impl ServedTree {
    pub fn open(
        index: usize,
        tree: &Tree,
        options: ConfineOptions,
    ) -> std::result::Result<Self, Error> {
        let failed = |source| Error::OpenTree { path: tree.host_path.clone(), source };
        let path = OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::open(&tree.host_path, path, Mode::empty()).map_err(failed)?;
        let attr = attr_of(&root).map_err(|reason| failed(host_errno(reason)))?;
        let writable = tree.writable;
        let is_interface = is_kernel_interface(&root).unwrap_or(false);
        if !attr.is_dir() {
            // Resolved, so that the parent is the file's own and not that of a link to it.
            let real = std::fs::canonicalize(&tree.host_path);
            let real = real.map_err(|_| failed(rustix::io::Errno::NOENT))?;
            let (Some(dir), Some(name)) = (real.parent(), real.file_name()) else {
                return Err(failed(rustix::io::Errno::ISDIR));
            };
            let dir = rustix::fs::open(dir, path | OFlags::DIRECTORY, Mode::empty());
            let file = Some((dir.map_err(failed)?, name.as_bytes().to_vec()));
            return Ok(Self { index, root, file, writable, is_interface });
        }
        let copy = if options.detach_mounts { Self::detach(tree)? } else { None };
        Ok(Self { index, root: copy.unwrap_or(root), file: None, writable, is_interface })
    }

    /// A detached copy of the mounts below the tree, where the host allows it: what is not in the tree is then out
    /// of reach even for a gofer that runs foreign code, and the kernel itself refuses writes, devices and set-uid bits.
    fn detach(tree: &Tree) -> std::result::Result<Option<OwnedFd>, Error> {
        let path = CString::new(tree.host_path.as_os_str().as_bytes())
            .map_err(|_| Error::BadPath { path: tree.host_path.clone() })?;
        let read_only = if tree.writable { 0 } else { MOUNT_READ_ONLY };
        let copy = clone_mount_tree(&path).and_then(|copy| {
            let attributes = MOUNT_NO_SUID | MOUNT_NO_DEVICES | read_only;
            restrict_mount_tree(&copy, attributes).map(|()| copy)
        });
        Ok(copy
            .inspect_err(|reason| {
                let path = tree.host_path.display();
                tracing::debug!(%path, %reason, "mounts are not detached");
            })
            .ok())
    }

    pub const fn index(&self) -> usize {
        self.index
    }

    /// The tree itself is (in) a kernel interface.
    pub const fn is_interface(&self) -> bool {
        self.is_interface
    }

    pub const fn is_writable(&self) -> bool {
        self.writable
    }

    /// True when the tree is a single file.
    pub const fn is_file(&self) -> bool {
        self.file.is_some()
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Where `path`'s last step starts, and that step. Only very long paths need more than one call.
    fn descend<'p>(&self, mut path: TreePath<'p>) -> Result<(Dir<'_>, TreePath<'p>)> {
        let mut dir = Dir::Root(self.root.as_fd());
        while path.bytes().len() > HOST_PATH_MAX {
            let (head, rest) = path.split_within(HOST_PATH_MAX).ok_or(Errno::ENAMETOOLONG)?;
            dir = Dir::Opened(resolve(&dir, head.bytes(), DIRECTORY)?);
            path = rest;
        }
        Ok((dir, path))
    }

    /// The directory at `path`.
    pub fn dir(&self, path: TreePath<'_>) -> Result<Dir<'_>> {
        if path.is_root() {
            return Ok(Dir::Root(self.root.as_fd()));
        }
        let (from, rest) = self.descend(path)?;
        resolve(&from, rest.bytes(), DIRECTORY).map(Dir::Opened)
    }

    /// The directory that holds the last name of `path`, and that name; "." in itself for the root. A name is one
    /// component, so a call with it that does not follow links stays in the tree.
    pub fn place<'p>(&'p self, path: TreePath<'p>) -> Result<(Dir<'p>, &'p [u8])> {
        match path.split_last() {
            None => Ok(self.place_of_root()),
            Some((dir, name)) => Ok((self.dir(dir)?, name.bytes())),
        }
    }

    pub fn place_of_root(&self) -> (Dir<'_>, &[u8]) {
        match &self.file {
            None => (Dir::Root(self.root.as_fd()), b"."),
            Some((dir, name)) => (Dir::Root(dir.as_fd()), name),
        }
    }

    /// Where to open `path` from, and what to open there.
    pub fn locate<'p>(&'p self, path: TreePath<'p>) -> Result<(Dir<'p>, &'p [u8])> {
        if path.is_root() {
            return Ok(self.place_of_root());
        }
        self.descend(path).map(|(dir, rest)| (dir, rest.bytes()))
    }

    /// As [`Self::place`], for an operation on a directory entry, which the root is not.
    pub fn entry<'p>(&self, path: TreePath<'p>) -> Result<(Dir<'_>, &'p [u8])> {
        let (dir, name) = path.split_last().ok_or(Errno::EBUSY)?;
        Ok((self.dir(dir)?, name.bytes()))
    }

    /// An `O_PATH` descriptor of the object at `path`, a symbolic link included.
    pub fn object(&self, path: TreePath<'_>) -> Result<OwnedFd> {
        let (from, rest) = self.locate(path)?;
        resolve(&from, rest, PLACE)
    }
}

/// `ELOOP` for a link, `EISDIR` for writing to a directory, `ENXIO` for what is no file, as open(2) says for a
/// socket.
pub fn refuse_unopenable(attr: &Attr, access: OFlags) -> Result<()> {
    match attr.file_type() {
        FileType::Regular => Ok(()),
        FileType::Directory if access.intersects(OFlags::RWMODE | OFlags::TRUNC) => {
            Err(Errno::EISDIR)
        }
        FileType::Directory => Ok(()),
        FileType::Symlink => Err(Errno::ELOOP),
        FileType::Fifo | FileType::Socket | FileType::Character | FileType::Block => {
            Err(Errno::ENXIO)
        }
    }
}

/// The one call that opens anything for a request.
pub fn resolve(from: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    resolve_new(from, path, flags, Mode::empty())
}

/// As [`resolve`], with the mode of a file that `O_CREAT` makes.
pub fn resolve_new(from: impl AsFd, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    resolve_how(from, path, flags, mode, RESOLVE)
}

/// As [`resolve`], and `EXDEV` for what is on another mount.
pub fn resolve_on_mount(from: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    resolve_how(from, path, flags, Mode::empty(), RESOLVE.union(ResolveFlags::NO_XDEV))
}

fn resolve_how(
    from: impl AsFd,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
    how: ResolveFlags,
) -> Result<OwnedFd> {
    // EAGAIN: the host renamed or mounted during the walk; see openat2(2). It also means a lease, hence the bound.
    for _ in 0..16 {
        match openat2(from.as_fd(), path, flags, mode, how) {
            Err(rustix::io::Errno::AGAIN) => {}
            other => return other.map_err(errno),
        }
    }
    Err(Errno::EAGAIN)
}

/// What statx(2) tells of an object.
pub struct Seen {
    pub attr: Attr,
    /// Number of its mount, when the host gives numbers that are never used again (since Linux 6.8).
    pub mount: Option<u64>,
}

/// Attributes of what a descriptor stands for.
pub fn attr_of(fd: impl AsFd) -> Result<Attr> {
    see(fd).map(|seen| seen.attr)
}

/// Attributes of `name` in `dir`, a symbolic link's own.
pub fn attr_in(dir: impl AsFd, name: &[u8]) -> Result<Attr> {
    see_in(dir, name).map(|seen| seen.attr)
}

pub fn see(fd: impl AsFd) -> Result<Seen> {
    see_at(fd, b"", AtFlags::EMPTY_PATH)
}

pub fn see_in(dir: impl AsFd, name: &[u8]) -> Result<Seen> {
    see_at(dir, name, AtFlags::empty())
}

fn see_at(fd: impl AsFd, name: &[u8], flags: AtFlags) -> Result<Seen> {
    /// `STATX_MNT_ID_UNIQUE`; older hosts ignore it.
    const UNIQUE_MOUNT: StatxFlags = StatxFlags::from_bits_retain(0x4000);
    let flags = flags | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME | UNIQUE_MOUNT;
    let raw = statx(fd.as_fd(), name, flags, mask).map_err(errno)?;
    let has_mount = raw.stx_mask & UNIQUE_MOUNT.bits() != 0;
    Ok(Seen { attr: from_statx(&raw), mount: has_mount.then_some(raw.stx_mnt_id) })
}
