//! Donated descriptors of an inode: at hand, kept, fetched.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::open::OpenFlags;
use abi::stat::{Attr, FileType};
use abi::{Errno, Result};
use gofer_protocol::Op;

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
        let (attr, fd) = self.fetch(OpenFlags::empty())?;
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
