//! Directories listed before anybody opens them.
//!
//! Who walks a tree lists a directory, then what is below it, then the ones beside it. Once directories of a read-only tree
//! were listed in that order, each request for a listing brings those of the next ones, and opens the files in them if files
//! are being opened in order, too. What is learnt so has the bounds of all that directories know.
//!
//! Once that has paid, the next such request goes out as soon as an answer is there, and its answer is heard when a directory of
//! it is wanted: the gofer lists on one processor what comes next, while we and the guest are busy on another with what we have.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::{Errno, Result};
use base::lock::Mutex;
use gofer_protocol::wire::{Decoded, Reader};
use gofer_protocol::{MAX_OPEN, Op, Plus, Section, Sections, TreePath};

use super::client::later::{Asked, Later, Patience};
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
pub struct Subtree {
    inode: Arc<GoferInode>,
    /// Somebody wants its listing now.
    is_wanted: bool,
    parent: Arc<GoferInode>,
    name: Box<[u8]>,
    siblings: Vec<Arc<[u8]>>,
    /// Directories to list beside it, in it or in its siblings.
    count: usize,
}

/// The listings that a walk comes to next, when they were asked for already. There is one such request at a time.
#[derive(Default)]
pub struct GoingOn(Mutex<Option<(Asked, Subtree)>, lock_order::GoferCaches>);

impl GoingOn {
    fn take(&self) -> Option<(Asked, Subtree)> {
        self.0.lock().take()
    }

    fn put(&self, asked: Asked, subtree: Subtree) {
        let former = self.0.lock().replace((asked, subtree));
        drop(former);
    }

    fn is_asked(&self) -> bool {
        self.0.lock().is_some()
    }
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

/// Sections of an answer, and the descriptors that came along.
type Answer = (Vec<Told>, Vec<OwnedFd>);

fn decode(fields: Reader<'_>, fds: Vec<OwnedFd>) -> Decoded<Answer> {
    let told = Sections::decode(fields).map(|section| Told::decode(section?));
    Ok((told.collect::<Decoded<Vec<_>>>()?, fds))
}

impl Subtree {
    /// `None` when nothing says what comes after `inode`.
    pub fn next(inode: &GoferInode) -> Option<Self> {
        if inode.shared.is_writable {
            return None;
        }
        let (parent, name) = inode.place()?;
        let (count, siblings) = parent.list_ahead(&name)?;
        Some(Self { inode: inode.arc()?, is_wanted: true, parent, name, siblings, count })
    }

    /// Lists and learns; answers the directory's own listing, or its first piece. `None`: it has to be asked for alone.
    pub fn fetch(&self, plus: Plus) -> Result<Option<Arc<Piece>>> {
        let shared = &self.parent.shared;
        let names = self.names();
        let (path, op) = (self.parent.path()?, self.op(TreePath::new(&names)?, plus));
        match shared.client.call(shared.tree, &path, op, decode) {
            // There was no place for the descriptors.
            Err(Errno::ENFILE) => Ok(None),
            Err(reason) => Err(reason),
            Ok(answer) => Ok(self.learn(answer, plus)),
        }
    }

    /// Learns what was [asked for](Self::go_on), and answers the listing of `inode`, or its first piece, if that brought it.
    pub fn collect(inode: &GoferInode, plus: Plus) -> Option<Arc<Piece>> {
        let shared = &inode.shared;
        let (asked, ahead) = shared.going_on.take()?;
        let is_it = std::ptr::eq(&*ahead.inode, inode);
        let patience = if is_it { Patience::Wait } else { Patience::Look };
        match shared.client.hear(&asked, patience, decode).ok()? {
            Later::Answer(answer) => {
                let own = ahead.learn(answer, plus);
                inode.known_listing().or(own.filter(|_| is_it))
            }
            Later::NotYet => {
                shared.going_on.put(asked, ahead);
                None
            }
            Later::Lost => None,
        }
    }

    /// A walk has come to `last`: has the gofer list what comes after it while we are busy with what we know.
    fn go_on(last: Arc<GoferInode>, plus: Plus) {
        let shared = Arc::clone(&last.shared);
        if shared.foresight.dirs.sure_after() > 0 || shared.going_on.is_asked() {
            return;
        }
        let Some(ahead) = Self::after(last) else { return };
        let names = ahead.names();
        let (Ok(path), Ok(names)) = (ahead.parent.path(), TreePath::new(&names)) else { return };
        if let Some(asked) = shared.client.ask(shared.tree, &path, ahead.op(names, plus)) {
            shared.going_on.put(asked, ahead);
        }
    }

    /// What a walk comes to after `dir`: below it, beside it, beside what it is in.
    fn after(mut dir: Arc<GoferInode>) -> Option<Self> {
        /// Directories that are looked at.
        const MOST_STEPS: usize = 64;
        let mut after = None;
        for _ in 0..MOST_STEPS {
            let Some(name) = dir.dir_after(after.as_deref())? else {
                let (parent, name) = dir.place()?;
                (dir, after) = (parent, Some(name.into()));
                continue;
            };
            if let Some(inode) = dir.unlisted_dir(&name) {
                let (count, siblings) = dir.list_ahead(&name)?;
                let name = Box::from(&*name);
                return Some(Self { inode, is_wanted: false, parent: dir, name, siblings, count });
            }
            after = Some(name);
        }
        None
    }

    fn names(&self) -> Vec<u8> {
        let siblings = self.siblings.iter().map(|name| &name[..]);
        std::iter::once(&self.name[..]).chain(siblings).collect::<Vec<_>>().join(&b'/')
    }

    fn op<'n>(&self, names: TreePath<'n>, plus: Plus) -> Op<'n> {
        let opens = self.parent.shared.foresight.files.sure_after() == 0;
        let open = if opens { MAX_OPEN as u16 } else { 0 };
        let dirs = u16::try_from(self.count + 1).unwrap_or(u16::MAX);
        Op::ReadTree { names, plus, dirs, open }
    }

    fn learn(&self, (told, fds): Answer, plus: Plus) -> Option<Arc<Piece>> {
        let own = Arc::clone(&told.first()?.piece);
        let shared = &self.parent.shared;
        let is_wanted = self.is_wanted;
        let files = shared.foresight.files.had(fds.len());
        let count = shared.foresight.dirs.had(told.len() - usize::from(is_wanted));
        let mut fds = fds.into_iter();
        let mut dirs: Vec<Option<Arc<GoferInode>>> = Vec::with_capacity(told.len());
        for (index, Told { dir, name, piece, brought }) in told.into_iter().enumerate() {
            let inode = if index == 0 && is_wanted {
                Some(Arc::clone(&self.inode))
            } else {
                let parent = match dir.checked_sub(1) {
                    None => Some(&self.parent),
                    Some(at) => dirs.get(at).and_then(Option::as_ref),
                };
                parent.and_then(|parent| parent.unlisted_dir(&name))
            };
            if let Some(inode) = &inode {
                inode.learn_piece(&piece, &brought);
                if index > 0 || !is_wanted {
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
        let last = dirs.last().cloned().flatten();
        shared.listed_dirs.hold(dirs.into_iter().skip(usize::from(is_wanted)).flatten());
        if let Some(last) = last {
            Self::go_on(last, plus);
        }
        Some(own)
    }
}
