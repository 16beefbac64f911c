//! What one connection remembers, so that a request costs few calls: directories of read-only trees, and mounts.
//!
//! Only trees that nobody is to change have their directories kept: a path that led somewhere once leads there for
//! good (`vfs::fs::gofer` believes the same). In a writable tree every request is resolved from the root.
//! Of a mount it is remembered that it is no kernel interface, by a number that the host never uses again.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use abi::stat::{Attr, FileType};
use abi::{Errno, Result};
use gofer_protocol::TreePath;
use rustix::fs::OFlags;

use crate::ops::read_tree::Paused;
use crate::tree::{
    Dir, PLACE, Seen, ServedTree, is_kernel_interface, refuse_unopenable, resolve,
    resolve_on_mount, see, see_in,
};

/// Directories kept by a connection.
const DIRS: usize = 16;
/// Were the object exchanged after it was looked at, these flags keep an open from blocking and from acting.
const CAREFUL: OFlags =
    OFlags::NONBLOCK.union(OFlags::NOCTTY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Mounts remembered by a connection.
const MOUNTS: usize = 64;

struct KeptDir {
    tree: usize,
    path: Box<[u8]>,
    fd: Rc<OwnedFd>,
}

/// See the module.
#[derive(Default)]
pub struct Session {
    /// The ones used last come last.
    dirs: VecDeque<KeptDir>,
    /// Mounts that are no kernel interface.
    ordinary: VecDeque<u64>,
    /// Where the last walk stopped.
    pub walk: Option<Paused>,
}

impl Session {
    fn kept(&mut self, tree: &ServedTree, path: TreePath<'_>) -> Option<Rc<OwnedFd>> {
        let is_it = |kept: &KeptDir| kept.tree == tree.index() && *kept.path == *path.bytes();
        let at = self.dirs.iter().rposition(is_it)?;
        let kept = self.dirs.remove(at)?;
        let fd = Rc::clone(&kept.fd);
        self.dirs.push_back(kept);
        Some(fd)
    }

    /// Keeps the directory `fd`, which is at `path`, when its tree stays as it is.
    pub fn keep(&mut self, tree: &ServedTree, path: TreePath<'_>, fd: OwnedFd) -> Dir<'static> {
        if tree.is_writable() || path.is_root() {
            return Dir::Opened(fd);
        }
        let fd = Rc::new(fd);
        if self.dirs.len() >= DIRS {
            self.dirs.pop_front();
        }
        let (tree, path) = (tree.index(), path.bytes().into());
        self.dirs.push_back(KeptDir { tree, path, fd: Rc::clone(&fd) });
        Dir::Kept(fd)
    }

    /// The directory at `path`.
    pub fn dir<'t>(&mut self, tree: &'t ServedTree, path: TreePath<'_>) -> Result<Dir<'t>> {
        if let Some(fd) = self.kept(tree, path) {
            return Ok(Dir::Kept(fd));
        }
        match tree.dir(path)? {
            Dir::Opened(fd) => Ok(self.keep(tree, path, fd)),
            other => Ok(other),
        }
    }

    /// As [`ServedTree::place`].
    pub fn place<'p>(
        &mut self,
        tree: &'p ServedTree,
        path: TreePath<'p>,
    ) -> Result<(Dir<'p>, &'p [u8])> {
        match path.split_last() {
            None => Ok(tree.place_of_root()),
            Some((dir, name)) => Ok((self.dir(tree, dir)?, name.bytes())),
        }
    }

    /// Opens the regular file or directory at `path`.
    pub fn open_object(
        &mut self,
        tree: &ServedTree,
        path: TreePath<'_>,
        access: OFlags,
    ) -> Result<(OwnedFd, Attr)> {
        let (dir, name) = self.place(tree, path)?;
        self.open_in(tree, &dir, name, access)
    }

    /// Opens the regular file or directory `name` of `dir`. Anything else is refused before it is opened, because
    /// opening may block (fifos) or act (devices); and what was opened is looked at again before it is given away.
    pub fn open_in(
        &mut self,
        tree: &ServedTree,
        dir: &Dir<'_>,
        name: &[u8],
        access: OFlags,
    ) -> Result<(OwnedFd, Attr)> {
        let seen = see_in(dir, name)?;
        refuse_unopenable(&seen.attr, access)?;
        if !seen.attr.is_dir() && !tree.is_interface() {
            self.refuse_interface(dir, name, &seen)?;
        }
        let fd = resolve(dir, name, access | CAREFUL)?;
        let opened = see(&fd)?;
        refuse_unopenable(&opened.attr, access)?;
        if opened.mount != seen.mount || opened.attr.dev != seen.attr.dev {
            return Err(Errno::ESTALE);
        }
        Ok((fd, opened.attr))
    }

    /// Opens the regular file `name` for reading, of which a listing has just said that it is one, in `dir`, of which
    /// [`Self::is_ordinary`] is true. Where it lies on the same mount, that is all there is to know before it is opened.
    pub fn open_listed(
        &mut self,
        tree: &ServedTree,
        dir: &Dir<'_>,
        name: &[u8],
    ) -> Result<(OwnedFd, Attr)> {
        let (fd, attr) = match resolve_on_mount(dir, name, OFlags::RDONLY | CAREFUL) {
            Ok(fd) => {
                let attr = see(&fd)?.attr;
                (fd, attr)
            }
            Err(Errno::EXDEV) => self.open_in(tree, dir, name, OFlags::RDONLY)?,
            Err(reason) => return Err(reason),
        };
        if attr.file_type() == FileType::Regular { Ok((fd, attr)) } else { Err(Errno::ESTALE) }
    }

    /// Whether `dir` lies on a mount that is no kernel interface, or in one that was to be served.
    pub fn is_ordinary(&mut self, tree: &ServedTree, dir: &Dir<'_>) -> bool {
        if tree.is_interface() {
            return true;
        }
        let Ok(seen) = see(dir) else { return false };
        let is_known = seen.mount.is_some_and(|mount| self.ordinary.contains(&mount));
        is_known || self.refuse_object(dir, seen.mount).is_ok()
    }

    /// `EACCES` for a file of a kernel interface.
    fn refuse_interface(&mut self, dir: &Dir<'_>, name: &[u8], seen: &Seen) -> Result<()> {
        let is_remembered = |mount| self.ordinary.contains(&mount);
        // What lies on a block device is no kernel interface either; those have device numbers of their own (major 0).
        if seen.mount.is_some_and(is_remembered) || abi::statbuf::major(seen.attr.dev) != 0 {
            return Ok(());
        }
        let object = resolve(dir.as_fd(), name, PLACE)?;
        // The number goes with what was looked at just now.
        let mount = see(&object)?.mount;
        self.refuse_object(&object, mount)
    }

    /// `EACCES` for an object of a kernel interface; remembers the mount of another.
    fn refuse_object(&mut self, object: impl AsFd, mount: Option<u64>) -> Result<()> {
        if is_kernel_interface(object)? {
            return Err(Errno::EACCES);
        }
        if let Some(mount) = mount {
            if self.ordinary.len() >= MOUNTS {
                self.ordinary.pop_front();
            }
            self.ordinary.push_back(mount);
        }
        Ok(())
    }
}
