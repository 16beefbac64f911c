//! Directories listed before anybody opens them.
//!
//! Who walks a tree lists a directory, then what is below it, then the ones beside it. Once directories of a read-only tree
//! were listed in that order, each request for a listing brings those of the next ones, and opens the files in them if files
//! are being opened in order, too. What is learnt so has the bounds of all that directories know.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::{Errno, Result};
use base::lock::Mutex;
use gofer_protocol::wire::{Decoded, Reader};
use gofer_protocol::{MAX_OPEN, Op, Plus, Section, Sections, TreePath};

use super::dir::{Brought, Piece};
use super::inode::GoferInode;
use super::open_files::Kept;
use crate::lock_order;

/// Directories that are held because they were listed ahead.
const LIMIT: usize = 128;

/// The ones that were listed ahead last: without them what they know would be forgotten at once, for the rest of a
/// filesystem holds what is in use only.
#[derive(Default)]
pub struct ListedDirs(Mutex<VecDeque<Arc<GoferInode>>, lock_order::GoferCaches>);

impl ListedDirs {
    fn hold(&self, dirs: impl Iterator<Item = Arc<GoferInode>>) {
        let mut held = self.0.lock();
        held.extend(dirs);
        let excess = held.len().saturating_sub(LIMIT);
        let dropped: Vec<_> = held.drain(..excess).collect();
        drop(held);
        drop(dropped);
    }
}

/// A directory to list, and those likely to be next.
pub struct Subtree<'i> {
    inode: &'i GoferInode,
    parent: Arc<GoferInode>,
    name: Box<[u8]>,
    siblings: Vec<Arc<[u8]>>,
    /// Directories to list beside it, in it or in its siblings.
    count: usize,
}

/// A directory of the answer.
struct Told {
    /// As in [`Section`].
    dir: usize,
    name: Box<[u8]>,
    piece: Arc<Piece>,
    brought: Vec<Brought>,
}

impl Told {
    fn decode(section: Section<'_>) -> Decoded<Self> {
        let Section { dir, name, listing } = section;
        let (piece, brought) = Piece::decode(0, listing)?;
        Ok(Self { dir: dir.into(), name: name.into(), piece: Arc::new(piece), brought })
    }
}

impl<'i> Subtree<'i> {
    /// `None` when nothing says what comes after `inode`.
    pub fn next(inode: &'i GoferInode) -> Option<Self> {
        if inode.shared.is_writable {
            return None;
        }
        let (parent, name) = inode.place()?;
        let (count, siblings) = parent.list_ahead(&name)?;
        Some(Self { inode, parent, name, siblings, count })
    }

    /// Lists and learns; answers the directory's own listing, or its first piece. `None`: it has to be asked for alone.
    pub fn fetch(&self, plus: Plus) -> Result<Option<Arc<Piece>>> {
        let shared = &self.inode.shared;
        let names: Vec<&[u8]> = std::iter::once(&self.name[..])
            .chain(self.siblings.iter().map(|name| &name[..]))
            .collect();
        let joined = names.join(&b'/');
        let open = if shared.foresight.files.sure_after() == 0 { MAX_OPEN as u16 } else { 0 };
        let dirs = u16::try_from(self.count + 1).unwrap_or(u16::MAX);
        let op = Op::ReadTree { names: TreePath::new(&joined)?, plus, dirs, open };
        let decode = |fields: Reader<'_>, fds: Vec<OwnedFd>| {
            let told = Sections::decode(fields).map(|section| Told::decode(section?));
            Ok((told.collect::<Decoded<Vec<_>>>()?, fds))
        };
        let (told, fds) = match shared.client.call(shared.tree, &self.parent.path()?, op, decode) {
            // There was no place for the descriptors.
            Err(Errno::ENFILE) => return Ok(None),
            other => other?,
        };
        Ok(self.learn(told, fds))
    }

    fn learn(&self, told: Vec<Told>, fds: Vec<OwnedFd>) -> Option<Arc<Piece>> {
        let own = Arc::clone(&told.first()?.piece);
        let shared = &self.inode.shared;
        let files = shared.foresight.files.had(fds.len());
        let count = shared.foresight.dirs.had(told.len().saturating_sub(1));
        let mut fds = fds.into_iter();
        let mut dirs: Vec<Option<Arc<GoferInode>>> = Vec::with_capacity(told.len());
        for (index, Told { dir, name, piece, brought }) in told.into_iter().enumerate() {
            let inode = if index == 0 {
                self.inode.arc()
            } else {
                let parent = match dir.checked_sub(1) {
                    None => Some(&self.parent),
                    Some(at) => dirs.get(at).and_then(Option::as_ref),
                };
                parent.and_then(|parent| parent.unlisted_dir(&name))
            };
            if let Some(inode) = &inode {
                inode.learn_piece(&piece, &brought);
                if index > 0 {
                    inode.was_listed_ahead(Arc::clone(&count));
                }
            }
            for Brought { row, attr, .. } in brought.into_iter().filter(|row| row.is_open) {
                // The last ones are missing when there was no place for them.
                let Some(fd) = fds.next() else { break };
                if let Some(inode) = &inode {
                    let name = piece.name_of(row);
                    inode.opened_ahead(name, attr, Kept::ahead(Arc::new(fd), Arc::clone(&files)));
                }
            }
            dirs.push(inode);
        }
        shared.listed_dirs.hold(dirs.into_iter().skip(1).flatten());
        Some(own)
    }
}
