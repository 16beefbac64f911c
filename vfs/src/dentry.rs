//! Dentries: names in directories, cached; and paths, places in the mount tree.
//!
//! A dentry stands for one existing object under one name; its inode never changes. A parent keeps its children
//! (strongly, until they are evicted) and what it knows to be absent; a child keeps its parent. Removing or
//! renaming an entry re-labels the dentry, so whoever still holds it (an open file, a working directory) keeps a
//! true picture: its place, or that it is deleted.
//!
//! Who may change a children map: fillers after a lookup (only when the directory's generation is still the one they
//! started from) and operations that hold the directory's `ops` lock. So a stale answer is never cached.

mod cache;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use base::lock::{Mutex, MutexGuard};

use crate::inode::{CachePolicy, Inode};
use crate::lock_order;
use crate::name_hash::NameHasher;
use crate::names::{Mark, SharedMark};

pub(crate) use cache::DentryCache;

pub use crate::mount::Mount;
pub use crate::path_text::{cwd_string, path_string};

/// A shared name of one component.
pub type Name = Arc<[u8]>;

/// A place in the tree: a mount and a dentry in it.
#[derive(Clone)]
pub struct Path {
    pub mount: Arc<Mount>,
    pub dentry: Arc<Dentry>,
}

impl Path {
    #[must_use]
    pub fn new(mount: Arc<Mount>, dentry: Arc<Dentry>) -> Self {
        Self { mount, dentry }
    }

    /// A place in no directory, for pipes, sockets and anonymous inodes; `text` is all that readlink of
    /// /proc/PID/fd/N says, such as `pipe:[12]` or `anon_inode:[eventfd]`.
    #[must_use]
    pub fn anonymous(text: &[u8], inode: Arc<dyn Inode>) -> Self {
        let dentry = Dentry::detached(inode, Arc::from(text), Kind::Anonymous);
        Self { mount: Mount::anonymous(), dentry }
    }

    #[must_use]
    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.dentry.inode
    }

    /// Tells it from all other places, as long as somebody holds it.
    #[must_use]
    pub fn key(&self) -> (usize, usize) {
        (Arc::as_ptr(&self.mount).addr(), Arc::as_ptr(&self.dentry).addr())
    }

    /// Last component; "/" for the root of a filesystem, the whole text of an anonymous path.
    #[must_use]
    pub fn name(&self) -> Name {
        self.dentry.name()
    }

    /// The same place, not merely the same object.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && Arc::ptr_eq(&self.dentry, &other.dentry)
    }

    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.dentry.kind == Kind::Anonymous
    }
}

impl std::fmt::Debug for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Path({})", String::from_utf8_lossy(&self.name()))
    }
}

/// How a dentry came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Root,
    Named,
    /// In no directory; the name is the whole text.
    Anonymous,
    /// Made without a name (`O_TMPFILE`), and may get one.
    Temporary,
}

/// Where a dentry is now.
pub(crate) struct Place {
    pub parent: Option<Arc<Dentry>>,
    pub name: Name,
    /// Unlinked or removed; parent and name say where it was.
    pub is_deleted: bool,
}

/// What a directory knows about one name.
#[derive(Clone)]
pub(crate) enum Child {
    Present(Arc<Dentry>),
    /// With a mark for who remembers that.
    Absent(Mark),
}

impl Child {
    /// As of when somebody has remembered it.
    fn mark(&self) -> Mark {
        match self {
            Self::Present(child) => child.remembered.get(),
            Self::Absent(mark) => *mark,
        }
    }
}

#[derive(Default)]
pub(crate) struct Children {
    pub map: HashMap<Name, Child, NameHasher>,
    /// Counts changes by operations; a lookup that saw another value must not fill the map.
    pub generation: u64,
}

/// A name in a directory, cached.
pub struct Dentry {
    pub(crate) inode: Arc<dyn Inode>,
    pub(crate) kind: Kind,
    /// Mounts on this dentry (in any mount of its filesystem): a hint for the walk.
    pub(crate) mounted: AtomicU32,
    /// Looked up since the cache last considered eviction.
    referenced: AtomicBool,
    /// As of when somebody has remembered that it is where it is.
    remembered: SharedMark,
    /// Serialises operations that change this directory.
    ops: Mutex<(), lock_order::DirectoryOps>,
    pub(crate) children: Mutex<Children, lock_order::Dentries>,
    place: Mutex<Place, lock_order::DentryPlace>,
}

impl Dentry {
    fn detached(inode: Arc<dyn Inode>, name: Name, kind: Kind) -> Arc<Self> {
        Self::with_parent(inode, name, kind, None)
    }

    fn with_parent(
        inode: Arc<dyn Inode>,
        name: Name,
        kind: Kind,
        parent: Option<Arc<Self>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            inode,
            kind,
            mounted: AtomicU32::new(0),
            referenced: AtomicBool::new(false),
            remembered: SharedMark::default(),
            ops: Mutex::new(()),
            children: Mutex::new(Children::default()),
            place: Mutex::new(Place { parent, name, is_deleted: false }),
        })
    }

    /// Top of a filesystem.
    #[must_use]
    pub fn root(inode: Arc<dyn Inode>) -> Arc<Self> {
        Self::detached(inode, Arc::from(&b"/"[..]), Kind::Root)
    }

    /// A child that its parent does not list: an entry that may not be cached.
    pub(crate) fn unlisted(parent: &Arc<Self>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Self> {
        Self::with_parent(inode, Arc::from(name), Kind::Named, Some(Arc::clone(parent)))
    }

    /// A file without a name in `parent`'s filesystem; `may_link` it later.
    pub(crate) fn temporary(
        parent: &Arc<Self>,
        name: &[u8],
        inode: Arc<dyn Inode>,
        may_link: bool,
    ) -> Arc<Self> {
        let kind = if may_link { Kind::Temporary } else { Kind::Named };
        let dentry = Self::with_parent(inode, Arc::from(name), kind, Some(Arc::clone(parent)));
        dentry.mark_deleted();
        dentry
    }

    #[must_use]
    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }

    #[must_use]
    pub fn name(&self) -> Name {
        Arc::clone(&self.place.lock().name)
    }

    /// `None` for a filesystem's root and for anonymous dentries.
    #[must_use]
    pub fn parent(&self) -> Option<Arc<Self>> {
        self.place.lock().parent.clone()
    }

    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.place.lock().is_deleted
    }

    /// It lost its name (or never had one).
    pub(crate) fn mark_deleted(&self) {
        self.place.lock().is_deleted = true;
    }

    /// True for this dentry and everything that lies below `ancestor`.
    #[must_use]
    pub fn is_within(self: &Arc<Self>, ancestor: &Arc<Self>) -> bool {
        let mut at = Arc::clone(self);
        loop {
            if Arc::ptr_eq(&at, ancestor) {
                return true;
            }
            match at.parent() {
                Some(parent) => at = parent,
                None => return false,
            }
        }
    }

    pub(crate) fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock()
    }

    /// Held by operations that change this directory, around the filesystem's work and the cache's update.
    pub(crate) fn lock_ops(&self) -> MutexGuard<'_, ()> {
        self.ops.lock()
    }

    /// For the second of two directories; the caller orders them: ancestors first, else by address.
    pub(crate) fn lock_ops_nested(&self) -> MutexGuard<'_, ()> {
        self.ops.lock_nested()
    }

    pub(crate) fn touch(&self) {
        if !self.referenced.load(Ordering::Relaxed) {
            self.referenced.store(true, Ordering::Relaxed);
        }
    }

    /// What the cache knows of `name`, and the generation a later fill must quote.
    pub(crate) fn cached(&self, name: &[u8]) -> (Option<Child>, u64) {
        let children = self.children.lock();
        let found = children.map.get(name).cloned();
        if let Some(Child::Present(child)) = &found {
            child.touch();
        }
        (found, children.generation)
    }

    /// What is listed as `name`, marked: who ends that says so from now on (see [`crate::names`]). `None` where names change without us,
    /// or when nothing is known.
    pub(crate) fn remember(&self, name: &[u8], generation: u64) -> Option<Child> {
        if self.inode.cache_policy() != CachePolicy::Forever {
            return None;
        }
        let mut children = self.children.lock();
        let child = children.map.get_mut(name)?;
        let new = Mark::new(generation);
        match child {
            Child::Present(child) => child.remembered.set(new),
            Child::Absent(mark) => *mark = new.max(*mark),
        }
        Some(child.clone())
    }

    /// The dentry of `name` after a lookup gave `inode`: the one that is there when it has the same inode (or when only
    /// we change the directory: then somebody was faster), else a new one. `None` when the directory changed since
    /// `generation`: look up again.
    pub(crate) fn fill(
        self: &Arc<Self>,
        name: &[u8],
        inode: Arc<dyn Inode>,
        generation: u64,
        cache: &DentryCache,
    ) -> Option<Arc<Self>> {
        let is_ours = self.inode.cache_policy() == CachePolicy::Forever;
        let (child, key) = {
            let mut children = self.children.lock();
            if let Some(Child::Present(child)) = children.map.get(name)
                && (is_ours || Arc::ptr_eq(&child.inode, &inode))
            {
                return Some(Arc::clone(child));
            }
            if children.generation != generation {
                return None;
            }
            let key: Name = Arc::from(name);
            let parent = Some(Arc::clone(self));
            let child = Self::with_parent(inode, Arc::clone(&key), Kind::Named, parent);
            let old = children.map.insert(Arc::clone(&key), Child::Present(Arc::clone(&child)));
            drop(children);
            orphan(old);
            (child, key)
        };
        cache.admit(self, key, child.inode.cached_bytes());
        Some(child)
    }

    /// Remembers that `name` does not exist, unless the directory changed since `generation`.
    pub(crate) fn fill_absent(self: &Arc<Self>, name: &[u8], generation: u64, cache: &DentryCache) {
        let key: Name = Arc::from(name);
        {
            let mut children = self.children.lock();
            if children.generation != generation || children.map.contains_key(name) {
                return;
            }
            children.map.insert(Arc::clone(&key), Child::Absent(Mark::default()));
        }
        cache.admit(self, key, 0);
    }

    /// After an operation made `name`: lists it. The caller holds `ops`.
    pub(crate) fn created(
        self: &Arc<Self>,
        name: &[u8],
        inode: Arc<dyn Inode>,
        cache: &DentryCache,
    ) -> Arc<Self> {
        let key: Name = Arc::from(name);
        let parent = Some(Arc::clone(self));
        let child = Self::with_parent(inode, Arc::clone(&key), Kind::Named, parent);
        cache.changed();
        let old = {
            let mut children = self.children.lock();
            children.generation += 1;
            children.map.insert(Arc::clone(&key), Child::Present(Arc::clone(&child)))
        };
        orphan(old);
        cache.admit(self, key, child.inode.cached_bytes());
        child
    }

    /// Forgets what is known about `name`: somebody else changed the directory.
    pub(crate) fn forget(&self, name: &[u8]) {
        let old = {
            let mut children = self.children.lock();
            children.map.remove(name)
        };
        orphan(old);
    }

    /// After an operation removed `name`. The caller holds `ops`; `keep_absence` when only we change the directory.
    pub(crate) fn removed(&self, name: &[u8], keep_absence: bool, cache: &DentryCache) {
        cache.changed();
        let old = {
            let mut children = self.children.lock();
            children.generation += 1;
            match children.map.get_mut(name) {
                Some(entry) if keep_absence => {
                    Some(std::mem::replace(entry, Child::Absent(Mark::default())))
                }
                Some(_) => children.map.remove(name),
                None => None,
            }
        };
        orphan(old);
    }

    /// After an operation moved this dentry: re-labels it and lists it in its new directory. The caller holds `ops`
    /// of both directories; what was listed under the new name is marked deleted.
    pub(crate) fn moved(self: &Arc<Self>, to: &Arc<Self>, name: &[u8], cache: &DentryCache) {
        cache.changed();
        let (from, old_name) = {
            let place = self.place.lock();
            (place.parent.clone(), Arc::clone(&place.name))
        };
        if let Some(from) = from {
            let mut children = from.children.lock();
            children.generation += 1;
            let is_self = matches!(children.map.get(&*old_name),
                Some(Child::Present(child)) if Arc::ptr_eq(child, self));
            if is_self {
                children.map.remove(&*old_name);
            }
        }
        let mark = self.remembered.get();
        let key: Name = Arc::from(name);
        let old_parent = {
            let mut place = self.place.lock();
            place.name = Arc::clone(&key);
            place.parent.replace(Arc::clone(to))
        };
        let replaced = {
            let mut children = to.children.lock();
            children.generation += 1;
            children.map.insert(Arc::clone(&key), Child::Present(Arc::clone(self)))
        };
        orphan(replaced);
        mark.ends();
        drop(old_parent);
        cache.admit(to, key, self.inode.cached_bytes());
    }

    /// After an operation swapped two entries. The caller holds `ops` of both directories.
    pub(crate) fn exchanged(a: &Arc<Self>, b: &Arc<Self>, cache: &DentryCache) {
        cache.changed();
        let place_of = |dentry: &Self| {
            let place = dentry.place.lock();
            (place.parent.clone(), Arc::clone(&place.name))
        };
        let (place_a, place_b) = (place_of(a), place_of(b));
        let mut mark = Mark::default();
        for (dentry, (parent, name)) in [(a, place_b), (b, place_a)] {
            let Some(parent) = parent else { continue };
            let old_parent = {
                let mut place = dentry.place.lock();
                place.name = Arc::clone(&name);
                place.parent.replace(Arc::clone(&parent))
            };
            let old = {
                let mut children = parent.children.lock();
                children.generation += 1;
                children.map.insert(name, Child::Present(Arc::clone(dentry)))
            };
            mark = mark.max(dentry.remembered.get()).max(mark_of(old.as_ref()));
            drop((old, old_parent));
        }
        mark.ends();
    }

    /// Drops every cached child, for the end of a mount.
    pub(crate) fn prune(self: &Arc<Self>) {
        let mut work = vec![Arc::clone(self)];
        while let Some(dentry) = work.pop() {
            let children = std::mem::take(&mut dentry.children.lock().map);
            for child in children.into_values() {
                child.mark().ends();
                if let Child::Present(child) = child {
                    work.push(child);
                }
            }
        }
    }
}

/// Marks a dentry that lost its entry as deleted, and drops it without any lock held. Ends what was remembered of the entry.
fn orphan(entry: Option<Child>) {
    let mark = mark_of(entry.as_ref());
    if let Some(Child::Present(child)) = entry {
        child.place.lock().is_deleted = true;
    }
    mark.ends();
}

fn mark_of(entry: Option<&Child>) -> Mark {
    entry.map_or_else(Mark::default, Child::mark)
}

impl Drop for Dentry {
    /// Iterative: a guest can build chains far deeper than our stack.
    fn drop(&mut self) {
        let mut parent = self.place.get_mut().parent.take();
        while let Some(arc) = parent {
            parent =
                Arc::into_inner(arc).and_then(|mut dentry| dentry.place.get_mut().parent.take());
        }
    }
}
