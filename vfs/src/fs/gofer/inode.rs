//! Objects of a gofer's tree: lookups, attributes, changes.

mod children;
mod descriptors;

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use abi::open::OpenFlags;
use abi::stat::{Attr, FileType};
use abi::{Errno, Result};
use base::lock::Mutex;
use gofer_protocol::wire::{DecodeError, Decoded, Reader};
use gofer_protocol::{AttrChange, NodeKind, Op, Owner, TimeChange, TreePath};

use super::client::Client;
use super::dir::GoferDir;
use super::errno;
use super::file::GoferFile;
use super::fs::Shared;
use super::known::Known;
use super::open_files::Kept;
use crate::context::VfsCx;
use crate::file::FileOps;
use crate::inode::{CachePolicy, Inode, NewNode, Ownership, RenameFlags, SetAttr, SetTime};
use crate::lock_order;

/// How long attributes in a writable tree are believed without asking: as long as one call takes, which looks an object
/// up, checks the way to it and then wants to know about it.
const FRESH: Duration = Duration::from_millis(1);

/// An object of the host, under the name it was found by.
pub struct GoferInode {
    pub(super) shared: Arc<Shared>,
    kind: FileType,
    this: Weak<Self>,
    state: Mutex<State, lock_order::InodeState>,
}

struct State {
    /// `None`: the root.
    parent: Option<Arc<GoferInode>>,
    name: Box<[u8]>,
    /// Unlinked, removed or replaced: the name is no longer ours.
    is_gone: bool,
    /// Believed in read-only trees; the last news in others.
    attr: Attr,
    /// When the news came, unless we have changed the object since; for writable trees.
    fresh_at: Option<Instant>,
    /// Text of a symbolic link, when known.
    link: Option<Box<[u8]>>,
    known: Option<Box<Known>>,
    /// Donated for reading, kept by the filesystem's cache or an open file.
    reading: Weak<Kept>,
    /// Donated for writing too, kept by open files only, so that the host sees a writer no longer than there is one.
    writing: Weak<OwnedFd>,
    /// The descriptor that creation gave, for the open that follows.
    created: Option<Arc<OwnedFd>>,
}

fn attr_only(mut fields: Reader<'_>, _fds: Vec<OwnedFd>) -> Decoded<Attr> {
    let attr = gofer_protocol::attr::attr(&mut fields)?;
    fields.finish()?;
    Ok(attr)
}

fn attr_and_fd(fields: Reader<'_>, fds: Vec<OwnedFd>) -> Decoded<(Attr, OwnedFd)> {
    let fd = fds.into_iter().next().ok_or(DecodeError::Truncated)?;
    attr_only(fields, Vec::new()).map(|attr| (attr, fd))
}

fn done(fields: Reader<'_>, _fds: Vec<OwnedFd>) -> Decoded<()> {
    fields.finish()
}

fn blob(mut fields: Reader<'_>, _fds: Vec<OwnedFd>) -> Decoded<Vec<u8>> {
    let bytes = fields.blob()?.to_vec();
    fields.finish()?;
    Ok(bytes)
}

const fn owner(own: Ownership) -> Owner {
    Owner { uid: own.uid, gid: own.gid, mode: own.mode & 0o7777 }
}

fn time_change(time: SetTime) -> TimeChange {
    match time {
        SetTime::Now => TimeChange::Now,
        SetTime::At(at) => TimeChange::At(at),
    }
}

fn is_same_object(a: &Attr, b: &Attr) -> bool {
    a.dev == b.dev && a.ino == b.ino && a.file_type() == b.file_type()
}

impl GoferInode {
    pub(super) fn root(shared: Arc<Shared>, attr: Attr) -> Arc<Self> {
        Self::new(shared, None, b"", attr)
    }

    fn new(shared: Arc<Shared>, parent: Option<Arc<Self>>, name: &[u8], attr: Attr) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            shared,
            kind: attr.file_type(),
            this: Weak::clone(this),
            state: Mutex::new(State {
                parent,
                name: name.into(),
                is_gone: false,
                attr,
                fresh_at: Some(Instant::now()),
                link: None,
                known: None,
                reading: Weak::new(),
                writing: Weak::new(),
                created: None,
            }),
        })
    }

    pub(super) fn arc(&self) -> Option<Arc<Self>> {
        self.this.upgrade()
    }

    /// The directory it is in and its name there; `None` for the root.
    pub(super) fn place(&self) -> Option<(Arc<Self>, Box<[u8]>)> {
        let state = self.state.lock();
        Some((state.parent.clone()?, state.name.clone()))
    }

    /// As of the last news.
    pub(super) fn known_size(&self) -> u64 {
        self.state.lock().attr.size
    }

    fn client(&self) -> &Client {
        &self.shared.client
    }

    /// Path of this object in its tree, with `names` below it.
    fn path_to(&self, names: &[&[u8]]) -> Result<Vec<u8>> {
        // Names are gathered from the inside out. One lock at a time: a rename in between makes a path that is
        // wrong, as it would have been a moment earlier or later.
        let mut above = Vec::new();
        let mut at = self.this.upgrade();
        while let Some(inode) = at {
            let state = inode.state.lock();
            if state.is_gone {
                return Err(Errno::ENOENT);
            }
            if state.parent.is_some() {
                above.push(state.name.clone());
            }
            at = state.parent.clone();
            drop(state);
        }
        let outer = above.iter().rev().map(|name| &name[..]);
        Ok(outer.chain(names.iter().copied()).collect::<Vec<_>>().join(&b'/'))
    }

    pub(super) fn path(&self) -> Result<Vec<u8>> {
        self.path_to(&[])
    }

    fn ask<T>(
        &self,
        op: Op<'_>,
        read: impl FnOnce(Reader<'_>, Vec<OwnedFd>) -> Decoded<T>,
    ) -> Result<T> {
        self.client().call(self.shared.tree, &self.path()?, op, read)
    }

    fn ask_about<T>(
        &self,
        name: &[u8],
        op: Op<'_>,
        read: impl FnOnce(Reader<'_>, Vec<OwnedFd>) -> Decoded<T>,
    ) -> Result<T> {
        self.client().call(self.shared.tree, &self.path_to(&[name])?, op, read)
    }

    /// What was opened must be what was looked up, as far as its kind goes; in a tree that others change it must be the
    /// very object, or the next lookup will tell.
    fn expect_same(&self, attr: &Attr) -> Result<()> {
        if attr.file_type() == self.kind { Ok(()) } else { Err(Errno::ESTALE) }
    }

    fn make(&self, name: &[u8], node: &NewNode<'_>, own: Ownership) -> Result<Arc<Self>> {
        let owner = owner(own);
        let mknod = |kind| Op::Mknod { kind, owner };
        let op = match *node {
            NewNode::Regular => {
                let created = self.ask_about(name, Op::Create { owner }, attr_and_fd);
                self.changed();
                // The file was made, but its descriptor found no place: the open that follows makes room.
                if matches!(created, Err(Errno::ENFILE)) {
                    return self.walk(&[name], false)?.pop().ok_or(Errno::EIO);
                }
                let (attr, fd) = created?;
                let inode = self.adopt(name, attr);
                inode.state.lock().created = Some(Arc::new(fd));
                return Ok(inode);
            }
            NewNode::Directory => Op::Mkdir { owner },
            NewNode::Symlink(target) => Op::Symlink { target, owner },
            NewNode::Fifo => mknod(NodeKind::Fifo),
            NewNode::Socket => mknod(NodeKind::Socket),
            // Devices of the host are no business of a sandbox.
            NewNode::Device { .. } => return Err(Errno::EPERM),
        };
        let attr = self.ask_about(name, op, attr_only)?;
        self.changed();
        Ok(self.adopt(name, attr))
    }

    fn of_gofer(inode: &Arc<dyn Inode>) -> Result<&Self> {
        inode.as_any().downcast_ref::<Self>().ok_or(Errno::EXDEV)
    }

    fn take_news(&self, attr: Attr) {
        let mut state = self.state.lock();
        state.attr = attr;
        state.fresh_at = Some(Instant::now());
    }

    /// We have changed the object, or something in it.
    pub(in crate::fs::gofer) fn changed(&self) {
        self.state.lock().fresh_at = None;
    }

    fn check_writable(&self) -> Result<()> {
        if self.shared.is_writable { Ok(()) } else { Err(Errno::EROFS) }
    }
}

impl Inode for GoferInode {
    fn attr(&self) -> Result<Attr> {
        let (last, fresh_at) = {
            let state = self.state.lock();
            (state.attr, state.fresh_at)
        };
        if !self.shared.is_writable {
            return Ok(last);
        }
        let attr = match self.any_fd() {
            Some(fd) => {
                let raw = rustix::fs::fstat(&*fd).map_err(errno)?;
                // Owners are not to be had here: the sentry's user namespace knows none but its own.
                Attr {
                    uid: last.uid,
                    gid: last.gid,
                    ..gofer_protocol::attr::from_stat(&raw, last.btime)
                }
            }
            None if fresh_at.is_some_and(|at| at.elapsed() < FRESH) => return Ok(last),
            None => match self.ask(Op::Attr, attr_only) {
                // It lives on somewhere without a name; the last news are all there is.
                Err(Errno::ENOENT) if self.state.lock().is_gone => return Ok(last),
                other => other?,
            },
        };
        self.expect_same(&attr)?;
        self.take_news(attr);
        Ok(attr)
    }

    fn file_type(&self) -> FileType {
        self.kind
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        self.check_writable()?;
        let SetAttr { mode, uid, gid, mut size, atime, mtime } = *change;
        if let Some(wanted) = size
            && let Some(fd) = self.fd_for_writing()
        {
            rustix::fs::ftruncate(&*fd, wanted).map_err(errno)?;
            size = None;
        }
        let change = AttrChange {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size,
            atime: atime.map(time_change),
            mtime: mtime.map(time_change),
        };
        if change == AttrChange::default() {
            return Ok(());
        }
        let attr = self.ask(Op::SetAttr { change }, attr_only)?;
        self.expect_same(&attr)?;
        self.take_news(attr);
        Ok(())
    }

    fn is_settled(&self) -> bool {
        // The tree is ours alone then.
        !self.shared.is_writable
    }

    fn following(&self, name: Option<&[u8]>, is_dir: bool) -> Option<(Arc<[u8]>, FileType)> {
        if self.shared.is_writable {
            return None;
        }
        self.state.lock().known.as_mut()?.following(name, is_dir)
    }

    fn is_listed(&self) -> bool {
        self.state.lock().known.as_ref().is_some_and(|known| known.is_complete())
    }

    fn cache_policy(&self) -> CachePolicy {
        if self.shared.is_writable { CachePolicy::Revalidate } else { CachePolicy::Forever }
    }

    fn lookup(&self, cx: &VfsCx<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        if self.kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if let Some(known) = self.recall(name, cx.will_open) {
            return known.map(|inode| inode as Arc<dyn Inode>);
        }
        if cx.will_open
            && let Some(opened) = self.open_named(name)
        {
            return Ok(opened as Arc<dyn Inode>);
        }
        if let Some(plus) = self.worth_listing(name) {
            // Whether it may be listed or not, the lookup goes on.
            let _ = GoferDir::learn_ahead(self, plus);
            if let Some(known) = self.recall(name, cx.will_open) {
                return known.map(|inode| inode as Arc<dyn Inode>);
            }
        }
        let found = self.walk(&[name], cx.will_open)?.pop().ok_or(Errno::EIO)?;
        Ok(found as Arc<dyn Inode>)
    }

    fn lookup_many(&self, cx: &VfsCx<'_>, names: &[&[u8]]) -> Result<Vec<Arc<dyn Inode>>> {
        if self.kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        let first = names.first().ok_or(Errno::ENOENT)?;
        match self.recall(first, cx.will_open && names.len() == 1) {
            // The walk goes on from there by itself, and may find more that is known.
            Some(known) => Ok(vec![known?]),
            None if names.len() == 1 => Ok(vec![self.lookup(cx, first)?]),
            None => Ok(self
                .walk(names, cx.will_open)?
                .into_iter()
                .map(|inode| inode as Arc<dyn Inode>)
                .collect()),
        }
    }

    fn create(&self, name: &[u8], node: NewNode<'_>, own: Ownership) -> Result<Arc<dyn Inode>> {
        self.check_writable()?;
        self.make(name, &node, own).map(|inode| inode as Arc<dyn Inode>)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        self.check_writable()?;
        let target = Self::of_gofer(target)?;
        let existing = target.path()?;
        let op = Op::Link { existing: TreePath::new(&existing)? };
        self.ask_about(name, op, attr_only)?;
        self.changed();
        target.changed();
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.check_writable()?;
        self.keep_alive(name);
        self.ask_about(name, Op::Unlink, done)?;
        self.changed();
        if let Some(child) = self.disown(name) {
            child.mark_gone();
        }
        Ok(())
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.check_writable()?;
        self.ask_about(name, Op::Rmdir, done)?;
        self.changed();
        if let Some(child) = self.disown(name) {
            child.mark_gone();
        }
        Ok(())
    }

    fn rename(
        &self,
        old: &[u8],
        new_dir: &Arc<dyn Inode>,
        new: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        self.check_writable()?;
        let new_dir = Self::of_gofer(new_dir)?;
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        if !flags.contains(RenameFlags::EXCHANGE) {
            new_dir.keep_alive(new);
        }
        let to = new_dir.path_to(&[new])?;
        let op = Op::Rename { to: TreePath::new(&to)?, flags: flags.bits() };
        self.ask_about(old, op, done)?;
        self.changed();
        new_dir.changed();
        let (moved, replaced) = (self.disown(old), new_dir.disown(new));
        if let Some(moved) = &moved {
            new_dir.settle(new, moved);
        }
        match replaced {
            // Two names of one object: rename(2) does nothing then, and both remain.
            Some(replaced) if moved.as_ref().is_some_and(|moved| Arc::ptr_eq(moved, &replaced)) => {
            }
            Some(replaced) if flags.contains(RenameFlags::EXCHANGE) => self.settle(old, &replaced),
            Some(replaced) => replaced.mark_gone(),
            None => {}
        }
        Ok(())
    }

    fn readlink(&self, _cx: &VfsCx<'_>) -> Result<Vec<u8>> {
        if self.kind != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        if let Some(text) = &self.state.lock().link {
            // A link's text never changes; another link under its name is another inode.
            return Ok(text.to_vec());
        }
        let text = self.ask(Op::ReadLink, blob)?;
        self.state.lock().link = Some(text.clone().into());
        Ok(text)
    }

    fn open(self: Arc<Self>, _cx: &VfsCx<'_>, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        match self.kind {
            FileType::Directory => Ok(Arc::new(GoferDir::new(self))),
            FileType::Regular if flags.writes() => {
                self.check_writable()?;
                let fd = self.open_for_writing(flags)?;
                Ok(Arc::new(GoferFile::new(self, fd, true)))
            }
            FileType::Regular => {
                let fd = self.fd_for_reading()?;
                Ok(Arc::new(GoferFile::new(self, fd, false)))
            }
            FileType::Symlink => Err(Errno::ELOOP),
            // Fifos are ours; sockets cannot be opened; devices of the host are not served.
            FileType::Fifo | FileType::Socket | FileType::Character | FileType::Block => {
                Err(Errno::ENXIO)
            }
        }
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.ask(Op::GetXattr { name }, blob)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        self.check_writable()?;
        if value.len() > gofer_protocol::MAX_VALUE {
            return Err(Errno::E2BIG);
        }
        self.ask(Op::SetXattr { name, value, flags }, done)
    }

    fn list_xattr(&self) -> Result<Vec<u8>> {
        self.ask(Op::ListXattr, blob)
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.check_writable()?;
        self.ask(Op::RemoveXattr { name }, done)
    }

    fn cached_bytes(&self) -> usize {
        // What a directory knows has its own bound.
        size_of::<Self>() + size_of::<[usize; 2]>() + self.state.lock().name.len()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for GoferInode {
    fn drop(&mut self) {
        if let Some(known) = self.state.get_mut().known.take() {
            self.shared.budget.forgot(known.bytes());
        }
    }
}

impl std::fmt::Debug for GoferInode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GoferInode({:?})", self.kind)
    }
}
