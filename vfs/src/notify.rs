//! Who is told about changes: the core below inotify(7).
//!
//! Watches hang on inodes and are found by an inode's address, which a watch keeps alive. As long as nobody watches
//! anything, an event costs one atomic load.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use abi::stat::FileType;
use base::lock::Mutex;

use crate::dentry::{Dentry, Path};
use crate::inode::Inode;
use crate::loans;
use crate::lock_order;

bitflags::bitflags! {
    /// Events, with the values of inotify(7).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Events: u32 {
        const ACCESS = 0x1;
        const MODIFY = 0x2;
        const ATTRIB = 0x4;
        const CLOSE_WRITE = 0x8;
        const CLOSE_NOWRITE = 0x10;
        const OPEN = 0x20;
        const MOVED_FROM = 0x40;
        const MOVED_TO = 0x80;
        const CREATE = 0x100;
        const DELETE = 0x200;
        const DELETE_SELF = 0x400;
        const MOVE_SELF = 0x800;
        const UNMOUNT = 0x2000;
        const ISDIR = 0x4000_0000;
    }
}

/// One thing that happened.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    pub events: Events,
    /// Pairs MOVED_FROM with MOVED_TO; else 0.
    pub cookie: u32,
    /// The entry, when the watched inode is the directory; `None` when it is the object itself.
    pub name: Option<&'a [u8]>,
    /// The entry it happened under was unlinked already (IN_EXCL_UNLINK).
    pub is_unlinked: bool,
}

/// Someone who watches; called with no lock held.
pub trait Watcher: Send + Sync {
    fn event(&self, event: &Event<'_>);
}

/// Keeps a watch; dropping it ends it.
pub struct Watch {
    inode: Arc<dyn Inode>,
    id: u64,
}

impl Watch {
    #[must_use]
    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }
}

struct Entry {
    id: u64,
    mask: Events,
    watcher: Arc<dyn Watcher>,
}

type Table = HashMap<usize, Vec<Entry>>;

static TABLE: LazyLock<Mutex<Table, lock_order::Watches>> = LazyLock::new(Mutex::default);
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn key(inode: &Arc<dyn Inode>) -> usize {
    Arc::as_ptr(inode).cast::<()>() as usize
}

/// Tells `watcher` what happens to `inode`, and if it is a directory to its entries, as far as in `mask`.
#[must_use = "dropping the watch ends it"]
pub fn watch(inode: &Arc<dyn Inode>, mask: Events, watcher: Arc<dyn Watcher>) -> Watch {
    static NEXT_ID: AtomicU64 = AtomicU64::new(1);
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    TABLE.lock().entry(key(inode)).or_default().push(Entry { id, mask, watcher });
    COUNT.fetch_add(1, Ordering::SeqCst);
    // What guest code reads by itself nobody would hear of.
    loans::end_all();
    Watch { inode: Arc::clone(inode), id }
}

impl Watch {
    /// Another mask for the same watch.
    pub fn set_mask(&self, mask: Events) {
        if let Some(list) = TABLE.lock().get_mut(&key(&self.inode)) {
            for entry in list.iter_mut().filter(|entry| entry.id == self.id) {
                entry.mask = mask;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let gone: Vec<Entry> = {
            let mut table = TABLE.lock();
            let Some(list) = table.get_mut(&key(&self.inode)) else { return };
            let gone = list.extract_if(.., |entry| entry.id == self.id).collect();
            if list.is_empty() {
                table.remove(&key(&self.inode));
            }
            gone
        };
        COUNT.fetch_sub(gone.len(), Ordering::SeqCst);
    }
}

/// False when there are no watches at all.
#[must_use]
pub fn is_watched() -> bool {
    COUNT.load(Ordering::SeqCst) > 0
}

/// A fresh cookie for a pair of move events.
#[must_use]
pub fn next_cookie() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Something happened to `inode` itself, or to its entry `event.name`.
pub fn emit(inode: &Arc<dyn Inode>, event: &Event<'_>) {
    if !is_watched() {
        return;
    }
    let told: Vec<Arc<dyn Watcher>> = {
        let table = TABLE.lock();
        let Some(list) = table.get(&key(inode)) else { return };
        let wanted = list.iter().filter(|entry| entry.mask.intersects(event.events));
        wanted.map(|entry| Arc::clone(&entry.watcher)).collect()
    };
    for watcher in told {
        watcher.event(event);
    }
}

/// An entry of `dir` changed.
pub(crate) fn entry(
    dir: &Dentry,
    name: &[u8],
    inode: &Arc<dyn Inode>,
    events: Events,
    cookie: u32,
) {
    if !is_watched() {
        return;
    }
    let events = events | dir_bit(inode);
    let event = Event { events, cookie, name: Some(name), is_unlinked: false };
    emit(dir.inode(), &event);
}

/// The object itself changed, which only its own watchers hear.
pub(crate) fn itself(inode: &Arc<dyn Inode>, events: Events) {
    if !is_watched() {
        return;
    }
    let events = events | dir_bit(inode);
    emit(inode, &Event { events, cookie: 0, name: None, is_unlinked: false });
}

/// The object at `path` was used or changed: its directory hears of the entry, its own watchers of it.
pub fn object(path: &Path, events: Events) {
    if !is_watched() {
        return;
    }
    let inode = path.inode();
    let events = events | dir_bit(inode);
    let is_unlinked = path.dentry.is_deleted();
    if let Some(parent) = path.dentry.parent() {
        let name = path.dentry.name();
        emit(parent.inode(), &Event { events, cookie: 0, name: Some(&name), is_unlinked });
    }
    emit(inode, &Event { events, cookie: 0, name: None, is_unlinked });
}

fn dir_bit(inode: &Arc<dyn Inode>) -> Events {
    if inode.file_type() == FileType::Directory { Events::ISDIR } else { Events::empty() }
}

#[cfg(test)]
mod tests;
