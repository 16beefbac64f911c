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
use gofer_protocol::{MAX_OPEN, Op, Paths, Plus, Section, Sections, TreePath};

use super::client::later::{Asked, Later, Patience};
use super::dir::{Brought, Piece};
use super::inode::GoferInode;
use super::open_files::Kept;
use crate::lock_order;

/// Directories that are held because they were listed ahead.
const LIMIT: usize = 128;

/// Directories that are asked for while nobody wants one.
const MOST_AHEAD: usize = 32;

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

/// Directories to list one after the other, each with those in it: the parts of a walk.
struct Level {
    parent: Arc<GoferInode>,
    names: Vec<Arc<[u8]>>,
}

/// A directory to list, and those likely to be next.
pub struct Subtree {
    inode: Arc<GoferInode>,
    /// Somebody wants its listing now.
    is_wanted: bool,
    /// It, and those beside it.
    beside: Level,
    /// Those beside what it is in, and so on.
    above: Vec<Level>,
    /// Directories to list, at most.
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

fn decode(fields: Reader<'_>, fds: Vec<OwnedFd>, above: usize) -> Decoded<Answer> {
    let above = u16::try_from(above).unwrap_or(0);
    let told = Sections::decode(fields, above).map(|section| Told::decode(section?));
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
        let names = std::iter::once(name.into()).chain(siblings).collect();
        let (inode, beside) = (inode.arc()?, Level { parent, names });
        Some(Self { inode, is_wanted: true, beside, above: Vec::new(), count: count + 1 })
    }

    /// Lists and learns; answers the directory's own listing, or its first piece. `None`: it has to be asked for alone.
    pub fn fetch(&self, plus: Plus) -> Result<Option<Arc<Piece>>> {
        let shared = &self.inode.shared;
        let (names, above) = self.names();
        let op = self.op(TreePath::new(&names)?, Paths::new(&above)?, plus);
        let path = self.beside.parent.path()?;
        let decode = |fields: Reader<'_>, fds| decode(fields, fds, self.above.len());
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
        let decode = |fields: Reader<'_>, fds| decode(fields, fds, ahead.above.len());
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
        let (names, above) = ahead.names();
        let (Ok(path), Ok(names), Ok(above)) =
            (ahead.beside.parent.path(), TreePath::new(&names), Paths::new(&above))
        else {
            return;
        };
        if let Some(asked) = shared.client.ask(shared.tree, &path, ahead.op(names, above, plus)) {
            shared.going_on.put(asked, ahead);
        }
    }

    /// What a walk comes to after `last`: in it, beside it, beside what it is in.
    fn after(last: Arc<GoferInode>) -> Option<Self> {
        let mut left = MOST_AHEAD;
        let in_it = last.dirs_after(None, left)?;
        left -= in_it.len();
        let mut levels = vec![Level { parent: Arc::clone(&last), names: in_it }];
        let mut dir = last;
        while left > 0 && levels.len() < Paths::MOST {
            let Some((parent, name)) = dir.place() else { break };
            let Some(names) = parent.dirs_after(Some(&name), left) else { break };
            left -= names.len();
            levels.push(Level { parent: Arc::clone(&parent), names });
            dir = parent;
        }
        let mut levels = levels.into_iter().skip_while(|level| level.names.is_empty());
        let beside = levels.next()?;
        let inode = beside.parent.unlisted_dir(beside.names.first()?)?;
        let above = levels.collect();
        Some(Self { inode, is_wanted: false, beside, above, count: MOST_AHEAD })
    }

    /// The names of `beside`, and those of `above`, as a request has them.
    fn names(&self) -> (Vec<u8>, Vec<u8>) {
        let mut above = Vec::new();
        for level in &self.above {
            above.extend(level.names.join(&b'/'));
            above.push(0);
        }
        (self.beside.names.join(&b'/'), above)
    }

    fn op<'n>(&self, names: TreePath<'n>, above: Paths<'n>, plus: Plus) -> Op<'n> {
        let opens = self.inode.shared.foresight.files.sure_after() == 0;
        let open = if opens { MAX_OPEN as u16 } else { 0 };
        let dirs = u16::try_from(self.count).unwrap_or(u16::MAX);
        Op::ReadTree { names, above, plus, dirs, open }
    }

    /// What has the number `dir` in a [`Section`], after those of `dirs`.
    fn numbered<'d>(
        &'d self,
        dir: usize,
        dirs: &'d [Option<Arc<GoferInode>>],
    ) -> Option<&'d Arc<GoferInode>> {
        match (dir, dir.checked_sub(usize::from(Section::ABOVE) + 1)) {
            (0, _) => Some(&self.beside.parent),
            (_, Some(above)) => self.above.get(above).map(|level| &level.parent),
            (_, None) => dirs.get(dir - 1)?.as_ref(),
        }
    }

    fn learn(&self, (told, fds): Answer, plus: Plus) -> Option<Arc<Piece>> {
        let own = Arc::clone(&told.first()?.piece);
        let shared = &self.inode.shared;
        let is_wanted = self.is_wanted;
        let files = shared.foresight.files.had(fds.len());
        let count = shared.foresight.dirs.had(told.len() - usize::from(is_wanted));
        let mut fds = fds.into_iter();
        let mut dirs: Vec<Option<Arc<GoferInode>>> = Vec::with_capacity(told.len());
        for (index, Told { dir, name, piece, brought }) in told.into_iter().enumerate() {
            let inode = if index == 0 && is_wanted {
                Some(Arc::clone(&self.inode))
            } else {
                self.numbered(dir, &dirs).and_then(|parent| parent.unlisted_dir(&name))
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
