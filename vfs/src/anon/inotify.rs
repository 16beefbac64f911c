//! Changes of files as events to read. See inotify(7).
//!
//! A watch is a marker on an inode (`notify`); what it hears goes into the instance's queue, in order, equal events in
//! a row once.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use abi::ioctl::FIONREAD;
use abi::poll::PollEvents;
use abi::{Errno, Result, UserAddr};
use base::lock::Mutex;
use base::{Sink, WaitQueue};

use crate::context::VfsCx;
use crate::file::{File, FileOps, UserMemory};
use crate::inode::Inode;
use crate::lock_order;
use crate::notify::{self, Event, Events, Watch, Watcher};

/// `/proc/sys/fs/inotify/max_queued_events`.
const MAX_QUEUED: usize = 16_384;
/// `/proc/sys/fs/inotify/max_user_watches`.
const MAX_WATCHES: usize = 193_000;
/// Bytes of `struct inotify_event`; names are padded to multiples of it.
const HEADER: usize = 16;

bitflags::bitflags! {
    /// What is to be watched, and how: the mask of inotify_add_watch(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct WatchMask: u32 {
        const ALL_EVENTS = 0xfff;
        const UNMOUNT = 0x2000;
        const Q_OVERFLOW = 0x4000;
        const IGNORED = 0x8000;
        /// Only if the path is a directory; the caller's to check.
        const ONLYDIR = 0x0100_0000;
        /// The caller's too.
        const DONT_FOLLOW = 0x0200_0000;
        /// Nothing of entries that were unlinked.
        const EXCL_UNLINK = 0x0400_0000;
        /// `EEXIST` when there is a watch.
        const MASK_CREATE = 0x1000_0000;
        /// In addition to what is watched already.
        const MASK_ADD = 0x2000_0000;
        const ISDIR = 0x4000_0000;
        /// Once.
        const ONESHOT = 0x8000_0000;
    }
}

/// An inotify instance.
pub struct Inotify {
    state: Mutex<State, lock_order::FileState>,
    queue: WaitQueue,
    myself: Weak<Self>,
}

#[derive(Default)]
struct State {
    last_wd: i32,
    watches: BTreeMap<i32, Marked>,
    events: VecDeque<Queued>,
    /// Bytes that all queued events take.
    bytes: usize,
}

struct Marked {
    mask: WatchMask,
    watch: Watch,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Queued {
    wd: i32,
    mask: u32,
    cookie: u32,
    name: Option<Box<[u8]>>,
}

impl Queued {
    /// The name with at least one NUL, padded.
    fn name_len(&self) -> usize {
        self.name.as_ref().map_or(0, |name| (name.len() + 1).next_multiple_of(HEADER))
    }

    fn len(&self) -> usize {
        HEADER + self.name_len()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        bytes.extend_from_slice(&self.wd.to_ne_bytes());
        bytes.extend_from_slice(&self.mask.to_ne_bytes());
        bytes.extend_from_slice(&self.cookie.to_ne_bytes());
        bytes.extend_from_slice(&(self.name_len() as u32).to_ne_bytes());
        bytes.extend_from_slice(self.name.as_deref().unwrap_or_default());
        bytes.resize(self.len(), 0);
        bytes
    }
}

/// What hangs on an inode.
struct Marker {
    inotify: Weak<Inotify>,
    wd: i32,
}

impl Watcher for Marker {
    fn event(&self, event: &Event<'_>) {
        if let Some(inotify) = self.inotify.upgrade() {
            inotify.hear(self.wd, event);
        }
    }
}

/// Events that the mask asks for, and those that end a watch.
fn heard(mask: WatchMask) -> Events {
    Events::from_bits_truncate(mask.bits() & WatchMask::ALL_EVENTS.bits())
        | Events::DELETE_SELF
        | Events::UNMOUNT
}

impl Inotify {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new_cyclic(|myself| Self {
            state: Mutex::default(),
            queue: WaitQueue::new(),
            myself: Weak::clone(myself),
        })
    }

    /// inotify_add_watch(2): the watch descriptor of `inode`, whose mask is replaced or extended if it has one.
    ///
    /// # Errors
    /// `EINVAL`: no event asked for; `EEXIST`: `MASK_CREATE`; `ENOSPC`: too many watches.
    pub fn add_watch(&self, inode: &Arc<dyn Inode>, mask: WatchMask) -> Result<i32> {
        let both = WatchMask::MASK_ADD | WatchMask::MASK_CREATE;
        if !mask.intersects(WatchMask::ALL_EVENTS) || mask.contains(both) {
            return Err(Errno::EINVAL);
        }
        let mut state = self.state.lock();
        let known =
            state.watches.iter_mut().find(|(_, marked)| Arc::ptr_eq(marked.watch.inode(), inode));
        if let Some((wd, marked)) = known {
            if mask.contains(WatchMask::MASK_CREATE) {
                return Err(Errno::EEXIST);
            }
            let added = mask.contains(WatchMask::MASK_ADD);
            marked.mask = if added { marked.mask | mask } else { mask };
            marked.watch.set_mask(heard(marked.mask));
            return Ok(*wd);
        }
        if state.watches.len() >= MAX_WATCHES {
            return Err(Errno::ENOSPC);
        }
        state.last_wd = state.last_wd.checked_add(1).ok_or(Errno::ENOSPC)?;
        let wd = state.last_wd;
        let marker = Arc::new(Marker { inotify: Weak::clone(&self.myself), wd });
        let watch = notify::watch(inode, heard(mask), marker);
        state.watches.insert(wd, Marked { mask, watch });
        Ok(wd)
    }

    /// inotify_rm_watch(2).
    ///
    /// # Errors
    /// `EINVAL`: no such watch.
    pub fn remove_watch(&self, wd: i32) -> Result<()> {
        let gone = {
            let mut state = self.state.lock();
            let gone = state.watches.remove(&wd).ok_or(Errno::EINVAL)?;
            state.push(Queued { wd, mask: WatchMask::IGNORED.bits(), cookie: 0, name: None });
            gone
        };
        drop(gone);
        self.tell();
        Ok(())
    }

    fn hear(&self, wd: i32, event: &Event<'_>) {
        let gone = {
            let mut state = self.state.lock();
            let Some(mask) = state.watches.get(&wd).map(|marked| marked.mask) else { return };
            // Of entries that are gone, and of the watched object itself, differently asked for.
            let is_child = event.name.is_some();
            if is_child && event.is_unlinked && mask.contains(WatchMask::EXCL_UNLINK) {
                return;
            }
            let ends = Events::DELETE_SELF | Events::UNMOUNT;
            let is_end = !is_child && event.events.intersects(ends);
            let always = Events::UNMOUNT.bits();
            let is_wanted =
                event.events.bits() & (mask.bits() | always) & !Events::ISDIR.bits() != 0;
            if is_wanted {
                let (mask, cookie) = (event.events.bits(), event.cookie);
                state.push(Queued { wd, mask, cookie, name: event.name.map(Box::from) });
            }
            if is_end || (is_wanted && mask.contains(WatchMask::ONESHOT)) {
                state.push(Queued { wd, mask: WatchMask::IGNORED.bits(), cookie: 0, name: None });
                state.watches.remove(&wd)
            } else if is_wanted {
                None
            } else {
                return;
            }
        };
        drop(gone);
        self.tell();
    }

    fn tell(&self) {
        self.queue.notify(PollEvents::IN | PollEvents::RDNORM);
    }
}

impl State {
    fn push(&mut self, event: Queued) {
        if self.events.back() == Some(&event) {
            return;
        }
        let event = if self.events.len() < MAX_QUEUED {
            event
        } else {
            let mask = WatchMask::Q_OVERFLOW.bits();
            let overflow = Queued { wd: -1, mask, cookie: 0, name: None };
            if self.events.back() == Some(&overflow) {
                return;
            }
            overflow
        };
        self.bytes += event.len();
        self.events.push_back(event);
    }
}

impl FileOps for Inotify {
    fn read(&self, _: &VfsCx<'_>, _: &File, sink: &mut dyn Sink, _pos: u64) -> Result<usize> {
        let mut taken = Vec::new();
        {
            let mut state = self.state.lock();
            let Some(first) = state.events.front() else { return Err(Errno::EAGAIN) };
            if first.len() > sink.remaining() {
                return Err(Errno::EINVAL);
            }
            while let Some(event) = state.events.front()
                && taken.len() + event.len() <= sink.remaining()
            {
                taken.extend(event.bytes());
                state.bytes -= event.len();
                state.events.pop_front();
            }
        }
        base::io_buf::put_all(sink, &taken)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: &VfsCx<'_>, _: &File) -> PollEvents {
        if self.state.lock().events.is_empty() {
            PollEvents::empty()
        } else {
            PollEvents::IN | PollEvents::RDNORM
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn ioctl(
        &self,
        _: &VfsCx<'_>,
        _: &File,
        command: u32,
        arg: u64,
        memory: &dyn UserMemory,
    ) -> Result<u64> {
        if command != FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let bytes = self.state.lock().bytes as u32;
        memory.write(UserAddr(arg), &bytes.to_ne_bytes())?;
        Ok(0)
    }

    fn fdinfo(&self) -> String {
        let watches: Vec<(i32, u32, Arc<dyn Inode>)> = {
            let state = self.state.lock();
            let all = state.watches.iter();
            all.map(|(wd, marked)| (*wd, marked.mask.bits(), Arc::clone(marked.watch.inode())))
                .collect()
        };
        let line = |(wd, mask, inode): (i32, u32, Arc<dyn Inode>)| {
            let (ino, dev) = inode.attr().map_or((0, 0), |attr| (attr.ino, attr.dev));
            format!("inotify wd:{wd:x} ino:{ino:x} sdev:{dev:x} mask:{mask:x} ignored_mask:0\n")
        };
        watches.into_iter().map(line).collect()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use abi::open::OpenFlags;

    use super::*;
    use crate::fs::anonfs;
    use crate::test_support::World;

    struct Setup {
        world: World,
        inotify: Arc<Inotify>,
        file: Arc<File>,
    }

    fn setup() -> Setup {
        let inotify = Inotify::new();
        let file = anonfs::new_file(inotify.clone(), "inotify", OpenFlags::empty());
        Setup { world: World::tmpfs(), inotify, file }
    }

    impl Setup {
        fn watch(&self, path: &str, mask: u32) -> i32 {
            let inode = Arc::clone(self.world.path(path).unwrap().inode());
            self.inotify.add_watch(&inode, WatchMask::from_bits_retain(mask)).unwrap()
        }

        /// Watch, mask and name of everything queued.
        fn events(&self) -> Vec<(i32, u32, String)> {
            let mut buffer = [0; 4096];
            let Ok(count) = self.file.read(&self.world.cx(), &mut &mut buffer[..]) else {
                return Vec::new();
            };
            let mut events = Vec::new();
            let mut rest = &buffer[..count];
            while !rest.is_empty() {
                let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().unwrap());
                let end = HEADER + word(12) as usize;
                let name = String::from_utf8(rest[HEADER..end].to_vec()).unwrap();
                events.push((word(0) as i32, word(4), name.trim_end_matches('\0').to_owned()));
                rest = &rest[end..];
            }
            events
        }
    }

    #[test]
    fn directories_tell_of_their_entries() {
        let s = setup();
        s.world.mkdir("/d").unwrap();
        let wd = s.watch("/d", 0x100 | 0x200 | 0x2);
        s.world.write("/d/f", b"x").unwrap();
        s.world.mkdir("/d/sub").unwrap();
        s.world.unlink("/d/f").unwrap();
        let f = || "f".to_owned();
        let expected =
            [(wd, 0x100, f()), (wd, 0x2, f()), (wd, 0x4000_0100, "sub".into()), (wd, 0x200, f())];
        assert_eq!(s.events(), expected);
    }

    #[test]
    fn the_end_of_an_object_ends_its_watch() {
        let s = setup();
        s.world.write("/f", b"").unwrap();
        let wd = s.watch("/f", 0x400);
        s.world.unlink("/f").unwrap();
        let empty = String::new;
        assert_eq!(s.events(), [(wd, 0x400, empty()), (wd, 0x8000, empty())]);
        assert_eq!(s.inotify.remove_watch(wd), Err(Errno::EINVAL));
    }

    #[test]
    fn watches_are_per_inode_and_removable() {
        let s = setup();
        s.world.mkdir("/d").unwrap();
        let wd = s.watch("/d", 0x100);
        assert_eq!(s.watch("/d", 0x2000_0200), wd);
        assert_eq!(s.inotify.remove_watch(wd), Ok(()));
        s.world.write("/d/f", b"").unwrap();
        assert_eq!(s.events(), [(wd, 0x8000, String::new())]);
        assert_eq!(s.watch("/d", 0x100), wd + 1);
    }

    #[test]
    fn small_buffers_are_refused() {
        let s = setup();
        s.watch("/", 0x100);
        s.world.write("/f", b"").unwrap();
        let mut small = [0; 20];
        assert_eq!(s.file.read(&s.world.cx(), &mut &mut small[..]), Err(Errno::EINVAL));
        let mut enough = [0; 32];
        assert_eq!(s.file.read(&s.world.cx(), &mut &mut enough[..]), Ok(32));
    }
}
