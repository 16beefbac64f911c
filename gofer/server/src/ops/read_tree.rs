//! Listings of several directories in one reply, in the order in which a walk of the tree comes by them.
//!
//! A round trip costs more than a small directory does, and whoever walks a tree will ask for the next one anyway. Each
//! step is one name in one directory, resolved as any other request's. A connection keeps where its last walk stopped, so that
//! what comes next can be asked for before the answer was heard.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use abi::stat::FileType;
use abi::{Errno, Result};
use gofer_protocol::wire::Put;
use gofer_protocol::{
    DirItem, MAX_MESSAGE, MAX_OPEN, OpenSection, Paths, Plus, ReplyHead, Section, TreePath,
};
use rustix::fs::{OFlags, RawDir};

use super::read::{RAW_BYTES, told_kind, wants_attr};
use crate::session::Session;
use crate::tree::{Dir, ServedTree, attr_in, errno, resolve};

/// Directories of one reply, whatever is asked for.
const DIRS: usize = 64;
/// Descriptors that a walk keeps until it goes on.
const KEPT: usize = 16;

/// See `Op::ReadTree`.
#[derive(Clone, Copy)]
pub struct Wanted {
    pub plus: Plus,
    dirs: usize,
    open: usize,
}

impl Wanted {
    pub fn new(plus: Plus, dirs: u16, open: u16) -> Self {
        Self { plus, dirs: usize::from(dirs).clamp(1, DIRS), open: usize::from(open).min(MAX_OPEN) }
    }
}

/// Where a walk stopped.
pub struct Paused {
    /// Number of the request that began it.
    walk: u32,
    tree: usize,
    levels: Vec<Level<'static>>,
    sections: u16,
}

/// A directory whose subdirectories are being listed.
struct Level<'t> {
    /// Its number, as in `Section`.
    section: u16,
    /// `None` until the walk comes to it.
    dir: Option<Dir<'t>>,
    path: Vec<u8>,
    /// Names to come, the next one last.
    names: Vec<Box<[u8]>>,
}

struct Walk<'a, 't> {
    session: &'a mut Session,
    tree: &'t ServedTree,
    wanted: Wanted,
    out: &'a mut Vec<u8>,
    fds: &'a mut Vec<OwnedFd>,
    /// Of the whole walk, and how many of them were there before this reply.
    sections: u16,
    before: u16,
    /// No room for another directory.
    is_full: bool,
    section: OpenSection,
}

/// What became of the next directory of a walk.
enum Step<'t> {
    /// It is told, and this is below it.
    Listed(Option<Level<'t>>),
    NoRoom,
}

/// What a listing left to be done.
struct Listed {
    subdirs: Vec<Box<[u8]>>,
    /// It has regular files that were not opened.
    has_more_files: bool,
    is_whole: bool,
}

impl Level<'_> {
    fn new(section: u16, path: TreePath<'_>, names: TreePath<'_>) -> Self {
        let mut names: Vec<Box<[u8]>> = names.names().map(|name| name.bytes().into()).collect();
        names.reverse();
        Self { section, dir: None, path: path.bytes().to_vec(), names }
    }
}

impl<'t> Level<'t> {
    /// As it is kept between two requests, with its descriptor or without.
    fn pause(self, keeps: bool) -> Level<'static> {
        let Self { section, dir, path, names } = self;
        let dir = match dir {
            Some(Dir::Opened(fd)) if keeps => Some(Dir::Opened(fd)),
            Some(Dir::Kept(fd)) if keeps => Some(Dir::Kept(fd)),
            _ => None,
        };
        Level { section, dir, path, names }
    }
}

/// Where the walk begins, and where it goes on from there; the first one last.
fn levels<'t>(path: TreePath<'_>, names: TreePath<'_>, above: Paths<'_>) -> Result<Vec<Level<'t>>> {
    let mut levels = vec![Level::new(0, path, names)];
    let mut path = path;
    for (section, names) in (Section::ABOVE + 1..).zip(above.iter()) {
        (path, _) = path.split_last().ok_or(Errno::EINVAL)?;
        levels.push(Level::new(section, path, names));
    }
    levels.reverse();
    Ok(levels)
}

/// Appends the listings from the entries `names` of the directory `path` on, and then of those `above`. The request has the
/// number `walk`.
pub fn read_tree(
    session: &mut Session,
    tree: &ServedTree,
    (path, names, above): (TreePath<'_>, TreePath<'_>, Paths<'_>),
    (walk, wanted): (u32, Wanted),
    out: &mut Vec<u8>,
    fds: &mut Vec<OwnedFd>,
) -> Result<()> {
    session.walk = None;
    // Of a tree that others change nothing is asked for ahead.
    if tree.is_writable() || tree.is_file() || names.is_root() {
        return Err(Errno::EINVAL);
    }
    let levels = levels(path, names, above)?;
    Walk::new((session, tree), wanted, 0, (out, fds)).run(walk, levels)
}

/// Appends what comes after the last answer to the request number `walk`.
pub fn read_on(
    session: &mut Session,
    tree: &ServedTree,
    (walk, wanted): (u32, Wanted),
    out: &mut Vec<u8>,
    fds: &mut Vec<OwnedFd>,
) -> Result<()> {
    let is_it = |paused: &mut Paused| paused.walk == walk && paused.tree == tree.index();
    let paused = session.walk.take_if(is_it).ok_or(Errno::ENOENT)?;
    let Paused { levels, sections, .. } = paused;
    Walk::new((session, tree), wanted, sections, (out, fds)).run(walk, levels)
}

impl<'a, 't> Walk<'a, 't> {
    fn new(
        (session, tree): (&'a mut Session, &'t ServedTree),
        wanted: Wanted,
        before: u16,
        (out, fds): (&'a mut Vec<u8>, &'a mut Vec<OwnedFd>),
    ) -> Self {
        let (sections, is_full, section) = (before, false, OpenSection::default());
        Self { session, tree, wanted, out, fds, sections, before, is_full, section }
    }

    fn run(mut self, walk: u32, mut levels: Vec<Level<'t>>) -> Result<()> {
        self.out.put_flag(false);
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                levels.pop();
                continue;
            };
            if self.is_full {
                level.names.push(name);
                break;
            }
            match self.list(level, &name) {
                Ok(Step::Listed(below)) => levels.extend(below),
                Ok(Step::NoRoom) => {
                    level.names.push(name);
                    break;
                }
                // The one that is wanted now. Of others it is told when they are asked for.
                Err(reason) if self.sections == 0 => return Err(reason),
                Err(_) => {}
            }
        }
        // One that does not fit into an empty reply has to be asked for alone.
        let has_more = levels.iter().any(|level| !level.names.is_empty())
            && self.sections > self.before
            && self.sections < Section::MOST;
        if has_more {
            if let Some(flag) = self.out.get_mut(ReplyHead::BYTES) {
                *flag = 1;
            }
            let (tree, sections) = (self.tree.index(), self.sections);
            let first_kept = levels.len().saturating_sub(KEPT);
            let levels = levels.into_iter().enumerate();
            let levels = levels.map(|(at, level)| level.pause(at >= first_kept)).collect();
            self.session.walk = Some(Paused { walk, tree, levels, sections });
        }
        Ok(())
    }

    /// Appends the listing of `name` in `level`.
    fn list(&mut self, level: &mut Level<'t>, name: &[u8]) -> Result<Step<'t>> {
        let is_first = self.sections == 0;
        if self.out.len() + OpenSection::encoded_bound(name) > MAX_MESSAGE {
            return Ok(Step::NoRoom);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let within = match level.dir.take() {
            Some(dir) => dir,
            None => self.session.dir(self.tree, TreePath::new(&level.path)?)?,
        };
        let resolved = resolve(&within, name, flags);
        level.dir = Some(within);
        let dir = Dir::Opened(resolved?);
        self.section.begin(level.section, name, self.out);
        let opened = self.fds.len();
        let listed = match self.items(&dir) {
            Ok(listed) if listed.is_whole || is_first => listed,
            other => {
                self.section.cancel(self.out);
                self.fds.truncate(opened);
                return other.map(|_| Step::NoRoom);
            }
        };
        self.section.end(listed.is_whole, self.out);
        self.sections += 1;
        // Who opens files comes to further directories after them.
        let is_all_open = self.wanted.open > 0 && self.fds.len() >= self.wanted.open;
        let told = usize::from(self.sections - self.before);
        self.is_full |= is_all_open || told >= self.wanted.dirs;

        let mut path = level.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        // Its other files tend to be asked for next.
        let is_kept = is_first || listed.has_more_files && self.wanted.open > 0;
        let dir = match (dir, TreePath::new(&path)) {
            (Dir::Opened(fd), Ok(path)) if is_kept => self.session.keep(self.tree, path, fd),
            (dir, _) => dir,
        };
        let (section, names) = (self.sections, listed.subdirs);
        let below = (!names.is_empty()).then_some(Level { section, dir: Some(dir), path, names });
        Ok(Step::Listed(below))
    }

    /// Appends the items of `dir`.
    fn items(&mut self, dir: &Dir<'_>) -> Result<Listed> {
        let mut raw = [MaybeUninit::uninit(); RAW_BYTES];
        let mut listed = Listed { subdirs: Vec::new(), has_more_files: false, is_whole: false };
        let mut is_ordinary = None;
        let mut entries = RawDir::new(dir.as_fd(), &mut raw);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(errno)?;
            let name = entry.file_name().to_bytes();
            let length = self.section.listing.reply_len(self.out);
            if length + DirItem::encoded_bound(name) > MAX_MESSAGE {
                self.is_full = true;
                return Ok(listed);
            }
            let told = told_kind(name, entry.file_type());
            let is_file = told == Some(FileType::Regular);
            let fd = if is_file && self.fds.len() < self.wanted.open {
                let is_ordinary =
                    *is_ordinary.get_or_insert_with(|| self.session.is_ordinary(self.tree, dir));
                // What cannot be opened is told when the open is asked for.
                if is_ordinary { self.session.open_listed(self.tree, dir, name).ok() } else { None }
            } else {
                None
            };
            listed.has_more_files |= is_file && fd.is_none();
            let is_open = fd.is_some();
            let attr = match fd {
                Some((fd, attr)) => {
                    self.fds.push(fd);
                    Some(attr)
                }
                None if wants_attr(name, told, self.wanted.plus) => attr_in(dir, name).ok(),
                None => None,
            };
            let kind = attr.map(|attr| attr.file_type()).or(told);
            if kind == Some(FileType::Directory) && !matches!(name, b"." | b"..") {
                listed.subdirs.push(name.into());
            }
            let (ino, next) = (entry.ino(), entry.next_entry_cookie());
            let item = DirItem { ino, next, kind, name, attr, is_open };
            self.section.listing.push(&item, self.out);
        }
        listed.is_whole = true;
        listed.subdirs.reverse();
        Ok(listed)
    }
}
