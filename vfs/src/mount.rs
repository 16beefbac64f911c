//! Mounts: a filesystem at a place.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use base::lock::Mutex;

use crate::dentry::{Dentry, DentryCache, Path};
use crate::filesystem::FileSystem;
use crate::fs::nullfs::NullFs;
use crate::{lock_order, names};

bitflags::bitflags! {
    /// Per-mount flags; the values of statfs(2)'s `ST_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MountFlags: u32 {
        const RDONLY = 1;
        const NOSUID = 2;
        const NODEV = 4;
        const NOEXEC = 8;
        const NOATIME = 1024;
        const NODIRATIME = 2048;
        const RELATIME = 4096;
    }
}

/// What all mounts of one filesystem instance share.
pub(crate) struct SuperBlock {
    pub fs: Arc<dyn FileSystem>,
    pub cache: DentryCache,
    pub root: Arc<Dentry>,
    /// Held over a rename between directories, so that the tree above them stands still.
    pub renames: Mutex<(), lock_order::Renames>,
}

impl SuperBlock {
    pub(crate) fn new(fs: Arc<dyn FileSystem>) -> Arc<Self> {
        let root = Dentry::root(fs.root());
        Arc::new(Self { fs, cache: DentryCache::default(), root, renames: Mutex::new(()) })
    }
}

impl Drop for SuperBlock {
    /// Parents and cached children keep each other.
    fn drop(&mut self) {
        self.root.prune();
    }
}

/// A filesystem, or a part of one, at a place.
pub struct Mount {
    id: u64,
    pub(crate) sb: Arc<SuperBlock>,
    root: Arc<Dentry>,
    /// What mount(2) was given as source; shown in /proc/mounts.
    source: Vec<u8>,
    flags: AtomicU32,
    state: Mutex<MountState, lock_order::Mounts>,
}

#[derive(Default)]
struct MountState {
    /// Where this is mounted; `None` for the root of a namespace and for detached mounts.
    point: Option<Path>,
    /// Mounts on dentries of this mount, by the dentry's address (which `point` keeps alive).
    children: HashMap<usize, Arc<Mount>>,
}

fn key(dentry: &Arc<Dentry>) -> usize {
    Arc::as_ptr(dentry) as usize
}

impl Mount {
    pub(crate) fn new(
        sb: Arc<SuperBlock>,
        root: Arc<Dentry>,
        source: Vec<u8>,
        flags: MountFlags,
    ) -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(20);
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            sb,
            root,
            source,
            flags: AtomicU32::new(flags.bits()),
            state: Mutex::new(MountState::default()),
        })
    }

    /// The internal mount that anonymous paths are in; never part of a namespace.
    pub(crate) fn anonymous() -> Arc<Self> {
        static ANONYMOUS: LazyLock<Arc<Mount>> = LazyLock::new(|| {
            let sb = SuperBlock::new(Arc::new(NullFs));
            let root = Arc::clone(&sb.root);
            Mount::new(sb, root, b"none".to_vec(), MountFlags::empty())
        });
        Arc::clone(&ANONYMOUS)
    }

    /// Unique, as mountinfo and statx(2) show it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    #[must_use]
    pub fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.sb.fs
    }

    #[must_use]
    pub fn source(&self) -> &[u8] {
        &self.source
    }

    #[must_use]
    pub fn root_dentry(&self) -> &Arc<Dentry> {
        &self.root
    }

    #[must_use]
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }

    /// True when nothing below it may be changed.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.flags().contains(MountFlags::RDONLY) || self.sb.fs.is_read_only()
    }

    /// Where it is mounted; `None` at the top of the tree.
    #[must_use]
    pub fn mount_point(&self) -> Option<Path> {
        self.state.lock().point.clone()
    }

    /// The mount directly on `dentry` of this mount.
    pub(crate) fn child_at(&self, dentry: &Arc<Dentry>) -> Option<Arc<Mount>> {
        self.state.lock().children.get(&key(dentry)).cloned()
    }

    pub(crate) fn children(&self) -> Vec<Arc<Mount>> {
        let mut children: Vec<_> = self.state.lock().children.values().cloned().collect();
        children.sort_by_key(|mount| mount.id);
        children
    }

    pub(crate) fn attach(self: &Arc<Self>, point: &Path) {
        point.dentry.mounted.fetch_add(1, Ordering::Relaxed);
        self.state.lock().point = Some(point.clone());
        point.mount.state.lock().children.insert(key(&point.dentry), Arc::clone(self));
        names::changed();
    }

    pub(crate) fn detach(self: &Arc<Self>) {
        let Some(point) = self.state.lock().point.take() else { return };
        let removed = point.mount.state.lock().children.remove(&key(&point.dentry));
        point.dentry.mounted.fetch_sub(1, Ordering::Relaxed);
        drop(removed);
        names::changed();
    }
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mount({} {})", self.id, self.sb.fs.name())
    }
}
