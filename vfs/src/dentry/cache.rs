//! The bounded set of cached entries of one filesystem: first in, first considered, with a second chance for what
//! was used since.
//!
//! What counts is bytes: those of the dentry, of its places in its parent's map and in the queue, and of the inode that
//! only the dentry keeps (see [`Inode::cached_bytes`](crate::Inode::cached_bytes)). An entry counts as long as it is in
//! the queue, also when its name has gone meanwhile: its turn comes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::{Child, Dentry, Name};

/// Bytes of one filesystem's entries before the oldest that nobody uses go.
const LIMIT: usize = 64 << 20;

/// What an entry takes beside its name and inode: a dentry (absent names have none, and are not told apart), its users'
/// counts and the name's, its place in a map that is two thirds full, and in the queue.
const ENTRY_BYTES: usize = size_of::<Dentry>()
    + 2 * size_of::<[usize; 2]>()
    + size_of::<(Name, Child)>() * 3 / 2
    + size_of::<Queued>();

struct Queued {
    parent: Weak<Dentry>,
    name: Name,
    bytes: usize,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Queued>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, entry: Queued) {
        self.bytes += entry.bytes;
        self.entries.push_back(entry);
    }

    fn pop(&mut self) -> Option<Queued> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.bytes;
        Some(entry)
    }
}

/// See the module.
pub(crate) struct DentryCache {
    /// Counts changes by operations anywhere in the filesystem, each before the directory's own generation moves.
    changes: AtomicU64,
    limit: usize,
    queue: parking_lot::Mutex<Queue>,
}

impl Default for DentryCache {
    fn default() -> Self {
        Self::with_limit(LIMIT)
    }
}

impl DentryCache {
    pub(crate) fn with_limit(limit: usize) -> Self {
        Self { changes: AtomicU64::new(0), limit, queue: parking_lot::Mutex::default() }
    }

    /// For batched fills: what was learnt before a change may not be cached after it.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Bytes of all entries, as the limit counts them.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.queue.lock().bytes
    }

    /// Counts a new entry in (`inode_bytes`: what its inode takes), and evicts old ones beyond the limit.
    pub(super) fn admit(&self, parent: &Arc<Dentry>, name: Name, inode_bytes: usize) {
        let bytes = ENTRY_BYTES + name.len() + inode_bytes;
        let mut considered = {
            let mut queue = self.queue.lock();
            queue.push(Queued { parent: Arc::downgrade(parent), name, bytes });
            if queue.bytes <= self.limit {
                return;
            }
            let mut considered = smallvec::SmallVec::<[Queued; 4]>::new();
            considered.extend(queue.pop());
            considered.extend(queue.pop());
            considered
        };
        considered.retain(|entry| {
            entry.parent.upgrade().is_some_and(|parent| !evict(&parent, &entry.name))
        });
        let mut queue = self.queue.lock();
        considered.into_iter().for_each(|entry| queue.push(entry));
    }
}

/// Drops the entry unless somebody uses or recently used it; false when it has to stay for now.
fn evict(parent: &Dentry, name: &Name) -> bool {
    let mut children = parent.children.lock();
    let gone = match children.map.get(&**name) {
        None | Some(Child::Absent(_)) => children.map.remove(&**name),
        // New references to a dentry come from this map (locked here) or from other references: one means unused.
        Some(Child::Present(child))
            if Arc::strong_count(child) == 1
                && !child.referenced.swap(false, Ordering::Relaxed) =>
        {
            children.map.remove(&**name)
        }
        Some(Child::Present(_)) => return false,
    };
    drop(children);
    super::mark_of(gone.as_ref()).ends();
    drop(gone);
    true
}

#[cfg(test)]
mod tests {
    use abi::open::OpenFlags;

    use super::*;
    use crate::Inode;
    use crate::test_support::World;

    fn root() -> (World, Arc<Dentry>) {
        let world = World::tmpfs();
        let root = Arc::clone(world.ns.root().dentry.inode());
        (world, Dentry::root(root))
    }

    fn listed(dir: &Dentry) -> usize {
        dir.children.lock().map.len()
    }

    #[test]
    fn entries_are_counted_in_bytes_and_the_oldest_unused_go() {
        let (world, dir) = root();
        let limit = 100 * (ENTRY_BYTES + 8);
        let cache = DentryCache::with_limit(limit);
        let inode = || -> Arc<dyn Inode> { Arc::clone(world.ns.root().inode()) };
        let fill = |name: String| {
            dir.fill(name.as_bytes(), inode(), 0, &cache).unwrap();
        };
        let held = dir.fill(b"held", inode(), 0, &cache).unwrap();
        for number in 0..10_000 {
            fill(format!("{number:08}"));
            dir.fill_absent(format!("-{number:07}").as_bytes(), 0, &cache);
            assert!(cache.bytes() <= limit + 2 * (ENTRY_BYTES + 8), "{number}");
        }
        assert!(listed(&dir) <= 102, "{}", listed(&dir));
        assert!(
            matches!(dir.cached(b"held").0, Some(Child::Present(at)) if Arc::ptr_eq(&at, &held))
        );
        assert!(dir.cached(b"00000000").0.is_none());
    }

    #[test]
    fn a_directory_stays_as_long_as_one_of_its_entries() {
        let (world, dir) = root();
        let cache = DentryCache::with_limit(10 * ENTRY_BYTES);
        let inode = || -> Arc<dyn Inode> { Arc::clone(world.ns.root().inode()) };
        let sub = dir.fill(b"sub", inode(), 0, &cache).unwrap();
        let leaf = sub.fill(b"leaf", inode(), 0, &cache).unwrap();
        drop(sub);
        for number in 0..1000 {
            dir.fill_absent(number.to_string().as_bytes(), 0, &cache);
        }
        let parent = leaf.parent().unwrap();
        assert!(
            matches!(dir.cached(b"sub").0, Some(Child::Present(at)) if Arc::ptr_eq(&at, &parent))
        );
    }

    #[test]
    fn what_was_evicted_is_found_again_and_absence_ends_with_creation() {
        let world = World::tmpfs();
        for number in 0..200 {
            world.write(&format!("/file-{number}"), b"x").unwrap();
        }
        let root = world.ns.root();
        root.dentry.prune();
        assert_eq!(listed(&root.dentry), 0);
        assert!(world.path("/file-7").is_ok());
        assert_eq!(world.open("/later", OpenFlags::empty()).err(), Some(abi::Errno::ENOENT));
        assert!(matches!(root.dentry.cached(b"later").0, Some(Child::Absent(_))));
        world.write("/later", b"here").unwrap();
        assert!(world.path("/later").is_ok());
        crate::ops::unlink(&world.cx(), None, b"/later").unwrap();
        assert_eq!(world.path("/later").err(), Some(abi::Errno::ENOENT));
    }
}
