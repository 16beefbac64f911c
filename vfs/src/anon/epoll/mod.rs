//! Many files to wait for at once. See epoll(7).
//!
//! An [`Item`](item::Item) watches one file for one epoll: it is an observer of the file's wait queue, and when it is told of
//! something that it was asked for it puts itself at the end of the epoll's ready list (once) and tells the epoll's own
//! queue. `wait` takes items from the list and polls their files: only that says what is true.
//!
//! 1. An item is marked unqueued *before* its file is polled, so what happens during the poll queues it again.
//! 2. A level-triggered item that was reported goes back to the list; one that was not ready leaves it.
//! 3. Files are held weakly: a file description that is closed ends its items, which go when they are met next.
//! 4. No lock is held while a file is polled or a queue is told.

mod depth;
mod item;
mod ready;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

use abi::epoll::{EPOLLET, EPOLLEXCLUSIVE, EPOLLONESHOT, EPOLLWAKEUP};
use abi::ids::Fd;
use abi::poll::PollEvents;
use abi::{Errno, Result};
use base::WaitQueue;
use base::lock::Mutex;

use crate::context::VfsCx;
use crate::file::{File, FileOps};
use crate::lock_order;
use item::Item;
use ready::ReadyList;

/// How many epolls may watch each other in a chain.
const MAX_NESTING: u32 = 5;

/// What to watch a file for, and what to say then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    /// `EPOLL*` bits.
    pub events: u32,
    pub data: u64,
}

/// One descriptor of one file description. The address stays unique because the item keeps the allocation.
type Key = (Fd, usize);

/// An epoll instance.
pub struct Epoll {
    items: Mutex<Items, lock_order::FileState>,
    ready: Arc<ReadyList>,
}

#[derive(Default)]
struct Items {
    map: BTreeMap<Key, Arc<Item>>,
    /// Items of closed files are swept when the map has grown to this.
    sweep_at: usize,
}

/// Serialises additions of epolls to epolls, so that no two of them close a loop together.
static NESTING: LazyLock<Mutex<(), lock_order::EpollNesting>> = LazyLock::new(Mutex::default);

fn key(fd: Fd, file: &Arc<File>) -> Key {
    (fd, Arc::as_ptr(file) as usize)
}

/// The epoll behind a file.
#[must_use]
pub fn of(file: &File) -> Option<&Epoll> {
    file.ops().as_any().downcast_ref()
}

impl Epoll {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { items: Mutex::default(), ready: ReadyList::new() })
    }

    /// EPOLL_CTL_ADD.
    ///
    /// # Errors
    /// `EINVAL`: itself, or flags that do not go together; `EPERM`: always ready; `ELOOP`; `EEXIST`.
    pub fn add(&self, cx: &VfsCx<'_>, fd: Fd, file: &Arc<File>, interest: Interest) -> Result<()> {
        let queue = file.ops().wait_queue().ok_or(Errno::EPERM)?;
        let nested = of(file);
        check_exclusive(interest, nested.is_some())?;
        let _nesting = match nested {
            Some(other) if std::ptr::eq(other, self) => return Err(Errno::EINVAL),
            Some(other) => {
                let guard = NESTING.lock();
                other.check_nesting(self)?;
                Some(guard)
            }
            None => None,
        };
        let item = Item::new(fd, file, interest, &self.ready);
        let (swept, taken) = {
            let mut items = self.items.lock();
            let swept = items.sweep();
            let taken = items.map.contains_key(&key(fd, file));
            if !taken {
                items.map.insert(key(fd, file), Arc::clone(&item));
            }
            (swept, taken)
        };
        drop(swept);
        if taken {
            return Err(Errno::EEXIST);
        }
        drop(_nesting);
        // Registered first, looked at then.
        item.register(queue);
        item.look(cx);
        Ok(())
    }

    /// EPOLL_CTL_MOD.
    ///
    /// # Errors
    /// `ENOENT`; `EINVAL` for an exclusive item.
    pub fn modify(
        &self,
        cx: &VfsCx<'_>,
        fd: Fd,
        file: &Arc<File>,
        interest: Interest,
    ) -> Result<()> {
        let item = self.items.lock().map.get(&key(fd, file)).cloned().ok_or(Errno::ENOENT)?;
        if (interest.events | item.interest().events) & EPOLLEXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        item.set_interest(interest);
        item.look(cx);
        Ok(())
    }

    /// EPOLL_CTL_DEL.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn remove(&self, fd: Fd, file: &Arc<File>) -> Result<()> {
        let item = self.items.lock().map.remove(&key(fd, file)).ok_or(Errno::ENOENT)?;
        self.ready.forget(&item);
        item.end();
        Ok(())
    }

    /// Up to `max` events that are true now; level-triggered ones stay.
    pub fn wait(&self, cx: &VfsCx<'_>, max: usize) -> Vec<Interest> {
        let mut found = Vec::new();
        let mut again = Vec::new();
        for _ in 0..self.ready.len() {
            if found.len() == max {
                break;
            }
            let Some(item) = self.ready.pop() else { break };
            let Some(file) = item.file() else {
                self.discard(&item);
                continue;
            };
            let events = file.ops().poll(cx, &file);
            let Some((event, stays)) = item.report(events) else { continue };
            found.push(event);
            if stays {
                again.push(item);
            }
        }
        let leftover = !again.is_empty() || self.ready.len() > 0;
        for item in again {
            self.ready.push(&item);
        }
        if leftover && !found.is_empty() {
            // Others who wait may report the same, as on Linux.
            self.ready.tell();
        }
        found
    }

    /// Whether it is watched itself, or waited for.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        !self.ready.queue().is_empty()
    }

    /// What it watches a descriptor for, if it does.
    #[must_use]
    pub fn interest_in(&self, fd: Fd, file: &Arc<File>) -> Option<Interest> {
        self.items.lock().map.get(&key(fd, file)).map(|item| item.interest())
    }

    fn discard(&self, item: &Arc<Item>) {
        let gone = self.items.lock().map.remove(&item.key());
        item.end();
        drop(gone);
    }

    /// `ELOOP` when we watch `target`, directly or not, or the chain gets too long. Each epoll is visited once per
    /// depth, however many ways lead to it.
    fn check_nesting(&self, target: &Self) -> Result<()> {
        let mut level = self.nested();
        if std::ptr::eq(self, target) {
            return Err(Errno::ELOOP);
        }
        for _ in 1..MAX_NESTING {
            if level.is_empty() {
                return Ok(());
            }
            let mut next = BTreeMap::new();
            for inner in level.values().filter_map(|file| of(file)) {
                if std::ptr::eq(inner, target) {
                    return Err(Errno::ELOOP);
                }
                next.extend(inner.nested());
            }
            level = next;
        }
        if level.is_empty() { Ok(()) } else { Err(Errno::ELOOP) }
    }

    /// The epolls that we watch, by address.
    fn nested(&self) -> BTreeMap<usize, Arc<File>> {
        let items: Vec<Arc<Item>> = self.items.lock().map.values().cloned().collect();
        let files = items.iter().filter_map(|item| item.file());
        files
            .filter(|file| of(file).is_some())
            .map(|file| (Arc::as_ptr(&file) as usize, file))
            .collect()
    }
}

/// EPOLLEXCLUSIVE goes with few other flags, and not with another epoll.
fn check_exclusive(interest: Interest, is_nested: bool) -> Result<()> {
    let allowed = EPOLLEXCLUSIVE
        | EPOLLET
        | EPOLLWAKEUP
        | (PollEvents::IN | PollEvents::OUT | PollEvents::ERR | PollEvents::HUP).bits();
    let is_exclusive = interest.events & EPOLLEXCLUSIVE != 0;
    if is_exclusive && (is_nested || interest.events & !allowed != 0) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

impl Items {
    /// Takes out items whose file is gone, now and then: constant work per addition.
    fn sweep(&mut self) -> Vec<Arc<Item>> {
        if self.map.len() < self.sweep_at.max(16) {
            return Vec::new();
        }
        let gone: Vec<Key> =
            self.map.iter().filter(|(_, item)| item.is_orphan()).map(|(key, _)| *key).collect();
        let swept = gone.iter().filter_map(|key| self.map.remove(key)).collect();
        self.sweep_at = self.map.len() * 2;
        swept
    }
}

impl FileOps for Epoll {
    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, cx: &VfsCx<'_>, _: &File) -> PollEvents {
        let Some(_depth) = depth::enter() else { return PollEvents::empty() };
        for item in self.ready.snapshot() {
            item.is_told.store(false, Ordering::Relaxed);
            let file = item.file();
            let events = file.as_ref().map(|file| file.ops().poll(cx, file));
            if events.is_some_and(|events| item.wants(events)) {
                return PollEvents::IN | PollEvents::RDNORM;
            }
            // Looked at once per change, not once per poll.
            self.ready.forget_unless_told(&item);
        }
        PollEvents::empty()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.ready.queue())
    }

    fn fdinfo(&self) -> String {
        let items: Vec<Arc<Item>> = self.items.lock().map.values().cloned().collect();
        let line = |item: &Arc<Item>| {
            let Interest { events, data } = item.interest();
            let ino = item.file().and_then(|file| file.inode().attr().ok()).map_or(0, |a| a.ino);
            let fd = item.key().0;
            format!("tfd: {fd:8} events: {events:8x} data: {data:16x}  pos:0 ino:{ino:x} sdev:f\n")
        };
        items.iter().map(line).collect()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// True for bits that say how to watch, not what for.
const HOW: u32 = EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | EPOLLWAKEUP;
