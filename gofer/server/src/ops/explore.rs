//! The ways to several places at once: what a program's start will ask for, told in one reply.
//!
//! Links are followed here, which no other operation does, but only to know where to look next: each step is one name in
//! one directory, resolved as any other request's, and a link that leads out of the tree leads to its root.

use std::os::fd::OwnedFd;

use abi::stat::{Attr, FileType};
use abi::{Errno, Result};
use gofer_protocol::{MAX_MESSAGE, MAX_OPEN, Name, Sighting, TreePath};
use rustix::fs::OFlags;

use super::read::link_text;
use crate::session::Session;
use crate::tree::{Dir, ServedTree, attr_in};

/// Paths that one request may name, things told about, links followed on one path.
const PATHS: usize = 64;
const SIGHTINGS: usize = 256;
const LINKS: usize = 16;

struct Seen {
    /// 0 is the root, n the n-th.
    dir: usize,
    name: Box<[u8]>,
    attr: Option<Attr>,
    link: Option<Vec<u8>>,
    opened: Option<OwnedFd>,
}

impl Seen {
    fn told(&self) -> Sighting<'_> {
        Sighting {
            dir: u16::try_from(self.dir).unwrap_or(u16::MAX),
            name: &self.name,
            attr: self.attr,
            link: self.link.as_deref(),
            is_open: self.opened.is_some(),
        }
    }
}

struct Explorer<'t> {
    session: &'t mut Session,
    tree: &'t ServedTree,
    seen: Vec<Seen>,
    /// Bytes that the reply may still take.
    room: usize,
    opened: usize,
}

/// Appends what lies on the way to `paths`, as far as there is room for it.
pub fn explore(
    session: &mut Session,
    tree: &ServedTree,
    paths: &[u8],
    out: &mut Vec<u8>,
    fds: &mut Vec<OwnedFd>,
) {
    if tree.is_writable() || tree.is_file() {
        return;
    }
    let room = MAX_MESSAGE.saturating_sub(out.len());
    let mut explorer = Explorer { session, tree, seen: Vec::new(), room, opened: 0 };
    for path in paths.split(|byte| *byte == 0).filter(|path| !path.is_empty()).take(PATHS) {
        // What cannot be known now will be asked for.
        let _ = explorer.follow(path);
    }
    for seen in explorer.seen {
        seen.told().encode(out);
        fds.extend(seen.opened);
    }
}

impl<'t> Explorer<'t> {
    fn follow(&mut self, path: &[u8]) -> Result<()> {
        let components = |path: &[u8]| -> Vec<Box<[u8]>> {
            path.rsplit(|byte| *byte == b'/').map(Into::into).collect()
        };
        // Innermost first.
        let mut names = components(path);
        let (mut at, mut links) = (0, 0);
        while let Some(name) = names.pop() {
            match &*name {
                b"" | b"." => continue,
                b".." => {
                    at = self.parent(at);
                    continue;
                }
                _ => {}
            }
            let index = self.look(at, &name)?;
            let seen = self.seen.get(index - 1).ok_or(Errno::EIO)?;
            match seen.attr.map(|attr| attr.file_type()) {
                Some(FileType::Directory) => at = index,
                Some(FileType::Symlink) if links < LINKS => {
                    links += 1;
                    let text = seen.link.as_deref().ok_or(Errno::EIO)?;
                    if text.first() == Some(&b'/') {
                        at = 0;
                    }
                    names.extend(components(text));
                }
                Some(FileType::Regular) if names.is_empty() => return self.open(index),
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn parent(&self, index: usize) -> usize {
        let seen = index.checked_sub(1).and_then(|at| self.seen.get(at));
        seen.map_or(0, |seen| seen.dir)
    }

    /// The directory that is number `index`.
    fn dir(&mut self, index: usize) -> Result<Dir<'t>> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = index;
        while let Some(seen) = at.checked_sub(1).and_then(|at| self.seen.get(at)) {
            names.push(&seen.name);
            at = seen.dir;
        }
        names.reverse();
        let path = names.join(&b'/');
        self.session.dir(self.tree, TreePath::new(&path)?)
    }

    /// Number of the thing `name` in the directory `dir`.
    fn look(&mut self, dir: usize, name: &[u8]) -> Result<usize> {
        let is_it = |seen: &Seen| seen.dir == dir && *seen.name == *name;
        if let Some(at) = self.seen.iter().position(is_it) {
            return Ok(at + 1);
        }
        let name = Name::new(name)?.bytes();
        let from = self.dir(dir)?;
        let (attr, link) = match attr_in(&from, name) {
            Ok(attr) if attr.file_type() == FileType::Symlink => {
                (Some(attr), Some(link_text(&from, name)?))
            }
            Ok(attr) => (Some(attr), None),
            Err(Errno::ENOENT) => (None, None),
            Err(reason) => return Err(reason),
        };
        let seen = Seen { dir, name: name.into(), attr, link, opened: None };
        let room = self.room.checked_sub(seen.told().encoded_bound());
        self.room = room.filter(|_| self.seen.len() < SIGHTINGS).ok_or(Errno::E2BIG)?;
        self.seen.push(seen);
        Ok(self.seen.len())
    }

    fn open(&mut self, index: usize) -> Result<()> {
        let seen = self.seen.get(index - 1).ok_or(Errno::EIO)?;
        if seen.opened.is_some() || self.opened >= MAX_OPEN {
            return Ok(());
        }
        let (dir, name) = (seen.dir, seen.name.clone());
        let from = self.dir(dir)?;
        let (fd, attr) = self.session.open_in(self.tree, &from, &name, OFlags::RDONLY)?;
        if let Some(seen) = self.seen.get_mut(index - 1).filter(|_| !attr.is_dir()) {
            seen.attr = Some(attr);
            seen.opened = Some(fd);
            self.opened += 1;
        }
        Ok(())
    }
}
