//! The mount tree that a group of tasks sees. See mount_namespaces(7).

use std::sync::Arc;

use abi::{Errno, Result};

use crate::dentry::Path;
use crate::filesystem::FileSystem;
use crate::mount::{Mount, MountFlags, SuperBlock};
use crate::path_text::{dentry_string, path_string};

/// One line of /proc/PID/mounts or mountinfo, not yet rendered.
#[derive(Debug, Clone)]
pub struct MountInfo {
    pub id: u64,
    pub parent_id: u64,
    pub dev: u64,
    /// What part of the filesystem is mounted.
    pub root: Vec<u8>,
    /// Where, as seen from the asking task's root.
    pub point: Vec<u8>,
    pub flags: MountFlags,
    pub fs_type: &'static str,
    pub source: Vec<u8>,
    /// Options of the filesystem, without `rw`/`ro`.
    pub options: String,
    pub is_fs_read_only: bool,
}

/// A tree of mounts.
pub struct MountNamespace {
    root: Arc<Mount>,
}

impl MountNamespace {
    /// A tree with `fs` at "/".
    #[must_use]
    pub fn new(fs: Arc<dyn FileSystem>, source: &[u8], flags: MountFlags) -> Arc<Self> {
        let sb = SuperBlock::new(fs);
        let root = Arc::clone(&sb.root);
        Arc::new(Self { root: Mount::new(sb, root, source.to_vec(), flags) })
    }

    /// The top, below whatever is mounted over it.
    #[must_use]
    pub fn root(&self) -> Path {
        let root = Arc::clone(self.root.root_dentry());
        crate::path::follow_mounts(Path::new(Arc::clone(&self.root), root))
    }

    /// Mounts `fs` on `at`, which must be a directory (`ENOTDIR`) unless the filesystem's root is a file too.
    ///
    /// # Errors
    /// `ENOTDIR`, `ENOENT` when `at` was removed.
    pub fn mount(
        &self,
        at: &Path,
        fs: Arc<dyn FileSystem>,
        source: &[u8],
        flags: MountFlags,
    ) -> Result<Arc<Mount>> {
        let sb = SuperBlock::new(fs);
        let root = Arc::clone(&sb.root);
        let mount = Mount::new(sb, root, source.to_vec(), flags);
        attach(&mount, at)?;
        Ok(mount)
    }

    /// Makes `source` visible at `at` too (MS_BIND); with `is_recursive` what is mounted below it as well.
    ///
    /// # Errors
    /// As [`Self::mount`].
    pub fn bind(&self, source: &Path, at: &Path, is_recursive: bool) -> Result<Arc<Mount>> {
        let copy = clone_mount(&source.mount, &source.dentry);
        if is_recursive {
            copy_children(&source.mount, &copy)?;
        }
        attach(&copy, at)?;
        Ok(copy)
    }

    /// Takes away the mount whose root `path` is; `is_lazy` is MNT_DETACH.
    ///
    /// # Errors
    /// `EINVAL` when `path` is no mount's root, `EBUSY` when something is mounted below it or in use in it.
    pub fn umount(&self, path: &Path, is_lazy: bool) -> Result<()> {
        // Its parent and `path` itself hold it; whatever else does is an open file, a directory or a walk.
        const UNUSED: usize = 2;
        let mount = &path.mount;
        if !Arc::ptr_eq(&path.dentry, mount.root_dentry()) || mount.mount_point().is_none() {
            return Err(Errno::EINVAL);
        }
        let children = mount.children();
        let is_used = Arc::strong_count(mount) > UNUSED || !children.is_empty();
        if !is_lazy && is_used {
            return Err(Errno::EBUSY);
        }
        for child in children {
            let below = Path::new(Arc::clone(&child), Arc::clone(child.root_dentry()));
            self.umount(&below, true)?;
        }
        mount.detach();
        Ok(())
    }

    /// All mounts, parents before children, as seen from `root`; those it cannot reach are left out.
    #[must_use]
    pub fn list(&self, root: &Path) -> Vec<MountInfo> {
        let mut all = Vec::new();
        let mut work = vec![Arc::clone(&self.root)];
        while let Some(mount) = work.pop() {
            let mut children = mount.children();
            children.reverse();
            work.extend(children);
            all.push(info(&mount, root));
        }
        all.sort_by_key(|mount| mount.id);
        all
    }
}

fn info(mount: &Arc<Mount>, root: &Path) -> MountInfo {
    let top = Path::new(Arc::clone(mount), Arc::clone(mount.root_dentry()));
    let parent_id = mount.mount_point().map_or(mount.id(), |point| point.mount.id());
    let fs = mount.fs();
    MountInfo {
        id: mount.id(),
        parent_id,
        dev: fs.dev(),
        root: dentry_string(mount.root_dentry()),
        point: path_string(root, &top),
        flags: mount.flags(),
        fs_type: fs.name(),
        source: mount.source().to_vec(),
        options: fs.options(),
        is_fs_read_only: fs.is_read_only(),
    }
}

fn attach(mount: &Arc<Mount>, at: &Path) -> Result<()> {
    let is_dir = |path: &Path| path.inode().file_type() == abi::stat::FileType::Directory;
    let top = Path::new(Arc::clone(mount), Arc::clone(mount.root_dentry()));
    if is_dir(&top) != is_dir(at) {
        return Err(Errno::ENOTDIR);
    }
    if at.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    mount.attach(&crate::path::follow_mounts(at.clone()));
    Ok(())
}

fn clone_mount(mount: &Arc<Mount>, root: &Arc<crate::dentry::Dentry>) -> Arc<Mount> {
    let source = mount.source().to_vec();
    Mount::new(Arc::clone(&mount.sb), Arc::clone(root), source, mount.flags())
}

/// Copies what is mounted on `from` to the same places of `to`, as far as they lie below `to`'s root.
fn copy_children(from: &Arc<Mount>, to: &Arc<Mount>) -> Result<()> {
    let mut work = vec![(Arc::clone(from), Arc::clone(to))];
    while let Some((from, to)) = work.pop() {
        for child in from.children() {
            let Some(point) = child.mount_point() else { continue };
            if !point.dentry.is_within(to.root_dentry()) {
                continue;
            }
            let copy = clone_mount(&child, child.root_dentry());
            attach(&copy, &Path::new(Arc::clone(&to), point.dentry))?;
            work.push((child, copy));
        }
    }
    Ok(())
}
