//! Directories listed before anybody opens them.
//!
//! Who walks a tree lists a directory, then what is below it, then the ones beside it. Once directories of a read-only tree
//! were listed in that order, each request for a listing brings those of the next ones, and opens the files in them if files
//! are being opened in order, too. What is learnt so has the bounds of all that directories know.
//!
//! Once that has paid, the next such request goes out as soon as an answer is there, and its answer is heard when a directory of
//! it is wanted: the gofer lists on one processor what comes next, while we and the guest are busy on another with what we have.
//! It goes on from there without being told where, so that it always has a request to work on.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::{Errno, Result};
use base::lock::Mutex;
use gofer_protocol::wire::{Decoded, Reader};
use gofer_protocol::{MAX_OPEN, MAX_PATH, Op, Paths, Plus, Section, Sections, TreePath};

use super::client::later::{Asked, Later, Patience};
use super::dir::{Brought, Piece};
use super::inode::GoferInode;
use super::open_files::Kept;
use crate::lock_order;

/// Directories that are held because they were listed ahead.
const LIMIT: usize = 128;

/// Directories of one answer that nobody wants yet.
const MOST_AHEAD: usize = 32;

/// Names that a walk is told to go on with, beside those it comes by.
const MOST_NAMES: usize = 256;
/// Bytes of these, which are to fit into a request's paths.
const MOST_NAME_BYTES: usize = MAX_PATH / 2;

/// Requests that the gofer has to work on.
const MOST_ASKED: usize = 2;

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
    /// Directories to list at a time, at most.
    count: usize,
    /// Those of the answers so far.
    told: Vec<Option<Arc<GoferInode>>>,
}

/// A walk whose next listings were asked for already.
struct Ahead {
    subtree: Subtree,
    /// The request that began it.
    walk: u32,
    asked: VecDeque<Asked>,
    /// What the next answer is expected to begin with.
    first: Option<Arc<GoferInode>>,
}

/// The listings that a walk comes to next, when they were asked for. There is one such walk at a time.
#[derive(Default)]
pub struct GoingOn(Mutex<Option<Ahead>, lock_order::GoferCaches>);

impl GoingOn {
    fn take(&self) -> Option<Ahead> {
        self.0.lock().take()
    }

    fn put(&self, ahead: Ahead) {
        let former = self.0.lock().replace(ahead);
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

/// Sections of an answer, the descriptors that came along, and whether the walk can go on.
struct Answer {
    told: Vec<Told>,
    fds: Vec<OwnedFd>,
    has_more: bool,
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
        let (above, told) = (Vec::new(), Vec::new());
        Some(Self { inode, is_wanted: true, beside, above, count: count + 1, told })
    }

    /// Lists and learns; answers the directory's own listing, or its first piece. `None`: it has to be asked for alone.
    pub fn fetch(mut self, plus: Plus) -> Result<Option<Arc<Piece>>> {
        let shared = Arc::clone(&self.inode.shared);
        let (names, above) = self.names();
        let op = self.op(TreePath::new(&names)?, Paths::new(&above)?, plus);
        let path = self.beside.parent.path()?;
        match shared.client.call(shared.tree, &path, op, |fields, fds| self.decode(fields, fds)) {
            // There was no place for the descriptors.
            Err(Errno::ENFILE) => Ok(None),
            Err(reason) => Err(reason),
            Ok(answer) => {
                let own = self.learn(answer);
                if let Some(last) = self.told.pop().flatten() {
                    Self::go_on(last, plus);
                }
                Ok(own)
            }
        }
    }

    fn decode(&self, fields: Reader<'_>, fds: Vec<OwnedFd>) -> Decoded<Answer> {
        let count = |count| u16::try_from(count).unwrap_or(0);
        let sections = Sections::decode(fields, count(self.above.len()), count(self.told.len()))?;
        let has_more = sections.has_more;
        let told = sections.map(|section| Told::decode(section?)).collect::<Decoded<_>>()?;
        Ok(Answer { told, fds, has_more })
    }

    /// Learns what was [asked for](Self::go_on), and answers the listing of `inode`, or its first piece, if that brought it.
    pub fn collect(inode: &GoferInode, plus: Plus) -> Option<Arc<Piece>> {
        let shared = &inode.shared;
        loop {
            let mut ahead = shared.going_on.take()?;
            let is_it = ahead.begins_with(inode);
            let patience = if is_it { Patience::Wait } else { Patience::Look };
            let asked = *ahead.asked.front()?;
            let decode = |fields: Reader<'_>, fds| ahead.subtree.decode(fields, fds);
            let answer = match shared.client.hear(&asked, patience, decode).ok()? {
                Later::Answer(answer) => answer,
                Later::NotYet => {
                    shared.going_on.put(ahead);
                    return None;
                }
                Later::Lost => return None,
            };
            ahead.asked.pop_front();
            let has_more = answer.has_more;
            let own = ahead.subtree.learn(answer);
            let own = inode.known_listing().or(own.filter(|_| is_it));
            if own.is_none() && !is_it {
                // Whoever walks is elsewhere.
                return None;
            }
            ahead.go_on(has_more, plus);
            if own.is_some() {
                return own;
            }
            // It stopped before this one, and another one begins with it, perhaps.
            let is_next = |ahead: &Ahead| ahead.begins_with(inode);
            shared.going_on.0.lock().as_ref().filter(|ahead| is_next(ahead))?;
        }
    }

    /// A walk has come to `last`: has the gofer list what comes after it while we are busy with what we know.
    fn go_on(last: Arc<GoferInode>, plus: Plus) {
        let shared = Arc::clone(&last.shared);
        if shared.foresight.dirs.sure_after() > 0 || shared.going_on.is_asked() {
            return;
        }
        let Some(subtree) = Self::after(last, MOST_NAMES) else { return };
        let (names, above) = subtree.names();
        let (Ok(path), Ok(names), Ok(above)) =
            (subtree.beside.parent.path(), TreePath::new(&names), Paths::new(&above))
        else {
            return;
        };
        let op = subtree.op(names, above, plus);
        if let Some(asked) = shared.client.ask(shared.tree, &path, op) {
            let first = Some(Arc::clone(&subtree.inode));
            let mut ahead = Ahead { subtree, walk: asked.seq, asked: [asked].into(), first };
            ahead.ask_on(plus);
            shared.going_on.put(ahead);
        }
    }

    /// What a walk comes to after `last`, so many names: in it, beside it, beside what it is in.
    fn after(last: Arc<GoferInode>, most: usize) -> Option<Self> {
        let (mut left, mut room) = (most, MOST_NAME_BYTES);
        // Where a walk comes to names that were left out, it ends.
        let mut take = |mut names: Vec<Arc<[u8]>>, left: &mut usize| {
            let fits = |name: &&Arc<[u8]>| {
                let rest = room.checked_sub(name.len() + 1);
                room = rest.unwrap_or(room);
                rest.is_some()
            };
            let count = names.iter().take_while(fits).count();
            *left = if count < names.len() { 0 } else { *left - count };
            names.truncate(count);
            names
        };
        let in_it = take(last.dirs_after(None, left)?, &mut left);
        let mut levels = vec![Level { parent: Arc::clone(&last), names: in_it }];
        let mut dir = last;
        while left > 0 && levels.len() < Paths::MOST {
            let Some((parent, name)) = dir.place() else { break };
            let Some(names) = parent.dirs_after(Some(&name), left) else { break };
            let names = take(names, &mut left);
            levels.push(Level { parent: Arc::clone(&parent), names });
            dir = parent;
        }
        let mut levels = levels.into_iter().skip_while(|level| level.names.is_empty());
        let beside = levels.next()?;
        let inode = beside.parent.unlisted_dir(beside.names.first()?)?;
        let above = levels.collect();
        let (count, told) = (MOST_AHEAD, Vec::new());
        Some(Self { inode, is_wanted: false, beside, above, count, told })
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
        let (dirs, open) = self.wants();
        Op::ReadTree { names, above, plus, dirs, open }
    }

    /// How many directories an answer is to bring, and how many open files.
    fn wants(&self) -> (u16, u16) {
        let opens = self.inode.shared.foresight.files.sure_after() == 0;
        let open = if opens { MAX_OPEN as u16 } else { 0 };
        (u16::try_from(self.count).unwrap_or(u16::MAX), open)
    }

    /// What has the number `dir` in a [`Section`].
    fn numbered(&self, dir: usize) -> Option<&Arc<GoferInode>> {
        match (dir, dir.checked_sub(usize::from(Section::ABOVE) + 1)) {
            (0, _) => Some(&self.beside.parent),
            (_, Some(above)) => self.above.get(above).map(|level| &level.parent),
            (_, None) => self.told.get(dir - 1)?.as_ref(),
        }
    }

    fn learn(&mut self, Answer { told, fds, .. }: Answer) -> Option<Arc<Piece>> {
        let own = Arc::clone(&told.first()?.piece);
        let shared = Arc::clone(&self.inode.shared);
        let before = self.told.len();
        // Of the first answer only, for the others nobody asked for.
        let is_wanted = self.is_wanted && before == 0;
        let files = shared.foresight.files.had(fds.len());
        let count = shared.foresight.dirs.had(told.len() - usize::from(is_wanted));
        let mut fds = fds.into_iter();
        for (index, Told { dir, name, piece, brought }) in told.into_iter().enumerate() {
            let inode = if index == 0 && is_wanted {
                Some(Arc::clone(&self.inode))
            } else {
                self.numbered(dir).and_then(|parent| parent.unlisted_dir(&name))
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
            self.told.push(inode);
        }
        let held = self.told.iter().skip(before + usize::from(is_wanted)).flatten();
        shared.listed_dirs.hold(held.cloned());
        Some(own)
    }
}

impl Ahead {
    fn begins_with(&self, inode: &GoferInode) -> bool {
        self.first.as_ref().is_some_and(|first| std::ptr::eq(&**first, inode))
    }

    /// Where the walk has come to.
    fn last(&self) -> Option<Arc<GoferInode>> {
        self.subtree.told.last().cloned().flatten()
    }

    /// Sees to it that the gofer has something to do.
    fn ask_on(&mut self, plus: Plus) {
        let shared = &self.subtree.inode.shared;
        let ((dirs, open), walk) = (self.subtree.wants(), self.walk);
        while self.asked.len() < MOST_ASKED
            && let Some(last) = self.asked.back()
            && let op = (Op::ReadOn { walk, plus, dirs, open })
            && let Some(asked) = shared.client.ask_on(*last, shared.tree, op)
        {
            self.asked.push_back(asked);
        }
    }

    /// An answer was learnt.
    fn go_on(mut self, has_more: bool, plus: Plus) {
        let shared = Arc::clone(&self.subtree.inode.shared);
        let Some(last) = self.last() else { return };
        let goes_on = has_more && shared.foresight.dirs.sure_after() == 0;
        if !goes_on || self.asked.is_empty() {
            drop(self);
            return Subtree::go_on(last, plus);
        }
        // Unknown where it stopped within a directory.
        let Some(next) = Subtree::after(last, 1) else { return };
        self.first = Some(next.inode);
        self.ask_on(plus);
        shared.going_on.put(self);
    }
}
