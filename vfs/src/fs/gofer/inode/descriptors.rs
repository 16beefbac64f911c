//! Donated descriptors of an inode: at hand, kept, fetched.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::open::OpenFlags;
use abi::stat::{Attr, FileType};
use abi::{Errno, Result};
use gofer_protocol::{Op, OpenedFiles, TreePath};

use super::{GoferInode, attr_and_fd};
use crate::fs::gofer::open_files::Kept;

impl GoferInode {
    /// A descriptor that is at hand, whatever it was opened for.
    pub(super) fn any_fd(&self) -> Option<Arc<OwnedFd>> {
        let state = self.state.lock();
        let writing = state.created.clone().or_else(|| state.writing.upgrade());
        writing.or_else(|| state.reading.upgrade().map(|kept| Arc::clone(&kept.fd)))
    }

    pub(super) fn fd_for_writing(&self) -> Option<Arc<OwnedFd>> {
        let state = self.state.lock();
        state.created.clone().or_else(|| state.writing.upgrade())
    }

    /// A descriptor for reading: one that is at hand, or a fresh one that is then kept.
    pub(super) fn fd_for_reading(&self) -> Result<Arc<OwnedFd>> {
        {
            let mut state = self.state.lock();
            if let Some(kept) = state.reading.upgrade() {
                return Ok(kept.again());
            }
            if let Some(fd) = state.created.take() {
                state.writing = Arc::downgrade(&fd);
                return Ok(fd);
            }
        }
        let (attr, fd) = self.fetch_ahead()?;
        self.expect_same(&attr)?;
        let kept = Kept::new(Arc::new(fd));
        let fd = Arc::clone(&kept.fd);
        {
            let mut state = self.state.lock();
            state.attr = attr;
            state.reading = Arc::downgrade(&kept);
        }
        self.shared.open_files.keep(kept);
        Ok(fd)
    }

    pub(super) fn open_for_writing(&self, flags: OpenFlags) -> Result<Arc<OwnedFd>> {
        {
            let mut state = self.state.lock();
            if let Some(fd) = state.created.take().or_else(|| state.writing.upgrade()) {
                state.writing = Arc::downgrade(&fd);
                return Ok(fd);
            }
        }
        // Only a descriptor that also reads is shared: it serves either kind of open.
        let access = OpenFlags::from_bits_retain(flags.bits() & OpenFlags::ACCMODE);
        let (attr, fd) = self.fetch(access)?;
        self.expect_same(&attr)?;
        let fd = Arc::new(fd);
        let mut state = self.state.lock();
        state.attr = attr;
        if access == OpenFlags::RDWR {
            state.writing = Arc::downgrade(&fd);
        }
        drop(state);
        Ok(fd)
    }

    /// A descriptor for reading, and those of the files that are likely to be opened next.
    fn fetch_ahead(&self) -> Result<(Attr, OwnedFd)> {
        let (parent, name) = {
            let state = self.state.lock();
            (state.parent.clone(), state.name.clone())
        };
        let Some(parent) = parent else { return self.fetch(OpenFlags::empty()) };
        match parent.open_several(&name)? {
            Some(own) => Ok(own),
            None => self.fetch(OpenFlags::empty()),
        }
    }

    /// Opens the file `name` in here and those that are likely to be opened next; `None` when it has to be asked for alone.
    fn open_several(&self, name: &[u8]) -> Result<Option<(Attr, OwnedFd)>> {
        let ahead = self.open_ahead(name);
        if ahead.is_empty() {
            return Ok(None);
        }
        let names: Vec<&[u8]> =
            std::iter::once(name).chain(ahead.iter().map(|name| &name[..])).collect();
        let joined = names.join(&b'/');
        let op = Op::OpenFiles { names: TreePath::new(&joined)? };
        let opened =
            self.ask(op, |fields, fds| Ok((OpenedFiles::decode(fields, names.len())?.0, fds)));
        let (results, fds) = match opened {
            Ok(opened) => opened,
            // No room for so many.
            Err(Errno::ENFILE) => return Ok(None),
            Err(reason) => return Err(reason),
        };
        let mut results = results.into_iter();
        let mut fds = fds.into_iter();
        // Without a descriptor it was opened, but there was no place for it.
        let own = results.next().ok_or(Errno::EIO)?.map(|attr| fds.next().map(|fd| (attr, fd)));
        let count = self.shared.foresight.files.had(fds.len());
        for (name, result) in ahead.iter().zip(results) {
            let Ok(attr) = result else { continue };
            let Some(fd) = fds.next() else { break };
            let kept = Kept::ahead(Arc::new(fd), Arc::clone(&count));
            self.opened_ahead(name, attr, kept);
        }
        own
    }

    /// The file `name`, of which a listing has told nothing else, opened along with those that are likely to be next.
    pub(super) fn open_named(&self, name: &[u8]) -> Option<Arc<Self>> {
        if self.shared.is_writable || !self.is_named_file(name) {
            return None;
        }
        // What goes wrong is told when it is asked for alone.
        let (attr, fd) = self.open_several(name).ok()??;
        let inode = self.adopt(name, attr);
        if inode.kind == FileType::Regular {
            inode.keep_opened(fd);
        }
        Some(inode)
    }

    /// Asks for a descriptor. When the sentry's own table is full, those kept for later make room.
    pub(super) fn fetch(&self, flags: OpenFlags) -> Result<(Attr, OwnedFd)> {
        match self.ask(Op::Open { flags }, attr_and_fd) {
            Err(Errno::ENFILE) => {
                self.shared.open_files.clear();
                self.ask(Op::Open { flags }, attr_and_fd)
            }
            other => other,
        }
    }

    /// Before `name` loses its name: an inode that somebody holds gets a descriptor, if it can, to live on through.
    pub(super) fn keep_alive(&self, name: &[u8]) {
        if let Some(child) = self.known_child(name)
            && child.kind == FileType::Regular
            && Arc::strong_count(&child) > 2
            && child.any_fd().is_none()
        {
            // Without the right to read it there is no way; its users then get ENOENT.
            let _ = child.fd_for_reading();
        }
    }
}
