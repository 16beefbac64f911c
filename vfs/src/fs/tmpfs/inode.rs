//! Objects of a tmpfs.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use abi::fcntl::Seals;
use abi::ids::{Gid, Uid};
use abi::open::OpenFlags;
use abi::stat::{Attr, FileType};
use abi::time::Timespec;
use abi::{Errno, Result};
use base::lock::Mutex;

use super::contents::Contents;
use super::dir::Entries;
use super::trusted::Trusted;
use super::{Shared, Xattrs};
use crate::context::VfsCx;
use crate::file::FileOps;
use crate::fs::devfs::MemDevice;
use crate::inode::{Inode, InodeSlot, NewNode, Ownership, RenameFlags, SetAttr, SetTime};
use crate::lock_order;

/// What an entry adds to a directory's size, as Linux's tmpfs counts.
const ENTRY_SIZE: u64 = 20;
/// Seconds after which relatime updates an access time anyway.
const ATIME_DAY: i64 = 24 * 60 * 60;

/// S_ISUID and S_ISGID.
pub(super) const SET_ID: u32 = 0o6000;

/// An object in memory.
pub struct TmpInode {
    pub(super) shared: Arc<Shared>,
    pub(super) ino: u64,
    pub(super) kind: FileType,
    rdev: u64,
    btime: Timespec,
    nlink: AtomicU32,
    pub(super) state: Mutex<State, lock_order::InodeState>,
    /// [`State::trusted`] is there.
    pub(super) has_trusted: AtomicBool,
    slot: InodeSlot,
}

/// What changes.
pub(super) struct State {
    pub mode: u32,
    pub uid: Uid,
    pub gid: Gid,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    pub xattrs: Xattrs,
    /// Pages that the quota has counted for `xattrs`.
    xattr_pages: u64,
    /// Guest code writes to it on its own.
    pub trusted: Option<Trusted>,
    /// How often any of this may have changed.
    pub changes: u64,
    pub body: Body,
}

pub(super) enum Body {
    Regular(Contents),
    Directory(Directory),
    Symlink(Box<[u8]>),
    Special,
}

#[derive(Default)]
pub(super) struct Directory {
    pub entries: Entries<Arc<TmpInode>>,
    pub subdirs: u32,
    /// Removed: nothing may be made in it any more.
    pub is_dead: bool,
}

impl State {
    pub(super) fn contents(&mut self) -> Result<&mut Contents> {
        match &mut self.body {
            Body::Regular(contents) => Ok(contents),
            Body::Directory(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    pub(super) fn dir(&mut self) -> Result<&mut Directory> {
        match &mut self.body {
            Body::Directory(dir) => Ok(dir),
            _ => Err(Errno::ENOTDIR),
        }
    }

    pub(super) fn modified(&mut self, now: Timespec) {
        self.mtime = now;
        self.ctime = now;
    }

    /// relatime; see mount(8).
    pub(super) fn accessed(&mut self, now: Timespec) {
        let is_old = self.atime <= self.mtime || self.atime <= self.ctime;
        if is_old || now.sec.saturating_sub(self.atime.sec) >= ATIME_DAY {
            self.atime = now;
        }
    }
}

fn pages_of(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(abi::addr::PAGE_SIZE)
}

impl TmpInode {
    pub(super) fn root(shared: &Arc<Shared>, own: Ownership) -> Arc<Self> {
        shared.quota.force_inode();
        Self::build(shared, &NewNode::Directory, own)
    }

    pub(super) fn create(
        shared: &Arc<Shared>,
        node: &NewNode<'_>,
        own: Ownership,
    ) -> Result<Arc<Self>> {
        shared.quota.take_inode()?;
        Ok(Self::build(shared, node, own))
    }

    fn build(shared: &Arc<Shared>, node: &NewNode<'_>, own: Ownership) -> Arc<Self> {
        let now = shared.now();
        let (kind, rdev, body) = match node {
            NewNode::Regular => {
                let contents = Contents::new(Arc::clone(&shared.quota));
                (FileType::Regular, 0, Body::Regular(contents))
            }
            NewNode::Directory => (FileType::Directory, 0, Body::Directory(Directory::default())),
            NewNode::Symlink(text) => (FileType::Symlink, 0, Body::Symlink(Box::from(*text))),
            NewNode::Fifo => (FileType::Fifo, 0, Body::Special),
            NewNode::Socket => (FileType::Socket, 0, Body::Special),
            NewNode::Device { kind, rdev } => (*kind, *rdev, Body::Special),
        };
        let state = State {
            mode: own.mode & 0o7777,
            uid: own.uid,
            gid: own.gid,
            atime: now,
            mtime: now,
            ctime: now,
            xattrs: Xattrs::default(),
            xattr_pages: 0,
            trusted: None,
            changes: 0,
            body,
        };
        Arc::new(Self {
            shared: Arc::clone(shared),
            ino: shared.next_ino.fetch_add(1, Ordering::Relaxed),
            kind,
            rdev,
            btime: now,
            nlink: AtomicU32::new(1),
            state: Mutex::new(state),
            has_trusted: AtomicBool::new(false),
            slot: InodeSlot::default(),
        })
    }

    fn own(inode: &Arc<dyn Inode>) -> Result<&Self> {
        inode.as_any().downcast_ref().ok_or(Errno::EXDEV)
    }

    fn arc(inode: &Arc<dyn Inode>) -> Result<Arc<Self>> {
        let any: Arc<dyn Any + Send + Sync> = Arc::clone(inode) as _;
        any.downcast().map_err(|_| Errno::EXDEV)
    }

    /// It has one name less; its change time tells.
    pub(super) fn unlinked(&self) {
        let lowered = |links: u32| Some(links.saturating_sub(1));
        let _ = self.nlink.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lowered);
        self.changing().ctime = self.shared.now();
    }

    /// Sets everything that chmod, chown and utimens can, and the birth-to-now times, from another object.
    pub(crate) fn copy_attr(&self, from: &Attr) {
        let mut state = self.changing();
        state.mode = from.mode & 0o7777;
        (state.uid, state.gid) = (from.uid, from.gid);
        (state.atime, state.mtime, state.ctime) = (from.atime, from.mtime, from.ctime);
    }

    /// Moves the bytes into a memfd before much is written to them.
    pub(crate) fn prefer_memfd(&self) -> Result<()> {
        self.untrusted().contents()?.share().map(drop)
    }

    /// Writes without any trace in the times, for copies; zero pages stay holes.
    pub(crate) fn fill(&self, pos: u64, bytes: &[u8]) -> Result<()> {
        let mut state = self.changing();
        let contents = state.contents()?;
        let mut at = pos;
        for page in bytes.chunks(abi::addr::PAGE_SIZE as usize) {
            let mut rest = if page.iter().all(|byte| *byte == 0) { &[][..] } else { page };
            let mut to = at;
            while !rest.is_empty() {
                let done = contents.write(to, rest)?;
                rest = &rest[done..];
                to += done as u64;
            }
            at += page.len() as u64;
        }
        Ok(())
    }

    /// Sets the size without any trace in the times.
    pub(crate) fn resize(&self, size: u64) -> Result<()> {
        self.changing().contents()?.truncate(size)
    }

    pub(crate) fn ino(&self) -> u64 {
        self.ino
    }

    /// The directory changed: for owners that keep the entries themselves.
    pub(crate) fn touch_modified(&self) {
        let now = self.shared.now();
        self.changing().modified(now);
    }

    pub(crate) fn touch_changed(&self) {
        let now = self.shared.now();
        self.changing().ctime = now;
    }

    pub(super) fn allow_seals(&self) {
        if let Ok(contents) = self.untrusted().contents() {
            contents.seals = Seals::empty();
        }
    }

    pub(super) fn seals(&self) -> Result<Seals> {
        self.state.lock().contents().map(|contents| contents.seals).map_err(|_| Errno::EINVAL)
    }

    pub(super) fn add_seals(&self, seals: Seals) -> Result<()> {
        self.state.lock().contents().map_err(|_| Errno::EINVAL)?.add_seals(seals)
    }

    /// Gives back what was counted for attributes beyond what they take.
    fn settle_xattrs(&self, state: &mut State) {
        let needed = pages_of(state.xattrs.bytes()).min(state.xattr_pages);
        self.shared.quota.give_pages(state.xattr_pages - needed);
        state.xattr_pages = needed;
    }
}

impl Inode for TmpInode {
    fn attr(&self) -> Result<Attr> {
        let state = self.settled();
        let (size, pages, nlink) = match &state.body {
            Body::Regular(contents) => (contents.size(), contents.pages(), 0),
            Body::Directory(dir) => {
                (ENTRY_SIZE * (dir.entries.len() as u64 + 2), 0, 1 + dir.subdirs)
            }
            Body::Symlink(text) => (text.len() as u64, 0, 0),
            Body::Special => (0, 0, 0),
        };
        Ok(Attr {
            dev: self.shared.dev,
            ino: self.ino,
            mode: self.kind as u32 | state.mode,
            nlink: match self.nlink.load(Ordering::Relaxed) {
                0 => 0,
                links => links + nlink,
            },
            uid: state.uid,
            gid: state.gid,
            rdev: self.rdev,
            size,
            blksize: 4096,
            blocks: pages * 8,
            atime: state.atime,
            mtime: state.mtime,
            ctime: state.ctime,
            btime: self.btime,
        })
    }

    fn file_type(&self) -> FileType {
        self.kind
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        let now = self.shared.now();
        let time = |set: SetTime| match set {
            SetTime::Now => now,
            SetTime::At(time) => time,
        };
        let is_risky = change.mode.is_some_and(|mode| mode & SET_ID != 0);
        let mut state = if is_risky { self.untrusted() } else { self.changing() };
        if let Some(size) = change.size {
            let contents = state.contents()?;
            // open(2) with O_TRUNC tells of it even when nothing was there.
            contents.truncate(size)?;
            state.modified(now);
        }
        state.mode = change.mode.map_or(state.mode, |mode| mode & 0o7777);
        state.uid = change.uid.unwrap_or(state.uid);
        state.gid = change.gid.unwrap_or(state.gid);
        state.atime = change.atime.map_or(state.atime, time);
        state.mtime = change.mtime.map_or(state.mtime, time);
        state.ctime = now;
        Ok(())
    }

    fn lookup(&self, _cx: &VfsCx<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        self.entry(name).map(|inode| inode as Arc<dyn Inode>)
    }

    fn create(&self, name: &[u8], node: NewNode<'_>, own: Ownership) -> Result<Arc<dyn Inode>> {
        let child = Self::create(&self.shared, &node, own)?;
        self.put_entry(name, &child, false)?;
        Ok(child)
    }

    fn tmpfile(&self, own: Ownership) -> Result<Arc<dyn Inode>> {
        let inode = Self::create(&self.shared, &NewNode::Regular, own)?;
        inode.unlinked();
        Ok(inode)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let child = Self::arc(target)?;
        if child.nlink.load(Ordering::Relaxed) == u32::MAX {
            return Err(Errno::EMLINK);
        }
        self.put_entry(name, &child, false)?;
        child.nlink.fetch_add(1, Ordering::Relaxed);
        child.touch_changed();
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        if self.entry(name)?.kind == FileType::Directory {
            return Err(Errno::EISDIR);
        }
        self.remove_entry(name)?.unlinked();
        Ok(())
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.entry(name)?.bury()?;
        self.remove_entry(name)?.unlinked();
        Ok(())
    }

    fn rename(
        &self,
        old: &[u8],
        new_dir: &Arc<dyn Inode>,
        new: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        self.rename_to(old, Self::own(new_dir)?, new, flags)
    }

    fn readlink(&self, _cx: &VfsCx<'_>) -> Result<Vec<u8>> {
        match &self.state.lock().body {
            Body::Symlink(text) => Ok(text.to_vec()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(self: Arc<Self>, _cx: &VfsCx<'_>, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        match self.kind {
            FileType::Regular | FileType::Directory => Ok(self),
            FileType::Character => {
                MemDevice::from_rdev(self.rdev).map(MemDevice::open).ok_or(Errno::ENXIO)
            }
            _ => Err(Errno::ENXIO),
        }
    }

    fn slot(&self) -> Option<&InodeSlot> {
        Some(&self.slot)
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.state.lock().xattrs.get(name)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        let now = self.shared.now();
        let mut state = self.changing();
        let cost = pages_of(name.len() + value.len());
        self.shared.quota.take_pages(cost)?;
        state.xattr_pages += cost;
        let done = state.xattrs.set(name, value, flags);
        self.settle_xattrs(&mut state);
        done?;
        state.ctime = now;
        Ok(())
    }

    fn list_xattr(&self) -> Result<Vec<u8>> {
        Ok(self.state.lock().xattrs.list())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let now = self.shared.now();
        let mut state = self.changing();
        state.xattrs.remove(name)?;
        self.settle_xattrs(&mut state);
        state.ctime = now;
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for TmpInode {
    /// Iterative: a guest can build trees far deeper than our stack.
    fn drop(&mut self) {
        self.shared.quota.give_inode();
        self.shared.quota.give_pages(self.state.get_mut().xattr_pages);
        let mut work: Vec<Arc<Self>> = Vec::new();
        if let Body::Directory(dir) = &mut self.state.get_mut().body {
            work.extend(dir.entries.drain());
        }
        while let Some(inode) = work.pop() {
            let Some(mut inode) = Arc::into_inner(inode) else { continue };
            if let Body::Directory(dir) = &mut inode.state.get_mut().body {
                work.extend(dir.entries.drain());
            }
        }
    }
}
