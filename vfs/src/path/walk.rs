//! A walk in progress.

use std::borrow::Cow;
use std::sync::Arc;

use abi::stat::FileType;
use abi::{Errno, Result};
use base::cred::Access;
use smallvec::SmallVec;

use super::{
    LastKind, LookupFlags, NAME_MAX, NameBuf, PATH_MAX, Parent, expect_dir, follow_mounts, look_up,
};
use crate::context::VfsCx;
use crate::dentry::{Child, Dentry, Path};
use crate::inode::{CachePolicy, Inode, LinkTarget};

/// Symbolic links followed in one walk; see path_resolution(7).
const MAX_SYMLINKS: u32 = 40;
/// Components looked up in one batch.
const MAX_BATCH: usize = 16;

/// One text still to be walked.
struct Segment<'a> {
    text: Cow<'a, [u8]>,
    at: usize,
}

impl Segment<'_> {
    fn skip_slashes(&mut self) {
        while self.text.get(self.at) == Some(&b'/') {
            self.at += 1;
        }
    }

    fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    /// End of the component that begins at `from`.
    fn component_end(&self, from: usize) -> usize {
        let rest = self.text.get(from..).unwrap_or_default();
        from + rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len())
    }
}

/// A walk in progress.
pub(crate) struct Walk<'c, 'a> {
    cx: &'c VfsCx<'c>,
    flags: LookupFlags,
    /// The root that stops ".." and starts absolute texts.
    root: Path,
    at: Path,
    stack: SmallVec<[Segment<'a>; 2]>,
    links: u32,
    /// A slash follows the component that was taken last, and nothing after it.
    trailing_slash: bool,
    ahead: Option<Ahead>,
}

/// What a batched lookup said about the components after the one it was made for.
pub(super) struct Ahead {
    /// Where the first of `inodes` is an entry.
    pub dir: Arc<Dentry>,
    pub inodes: std::vec::IntoIter<Arc<dyn Inode>>,
    /// Changes of the filesystem before it was asked.
    pub changes: u64,
}

impl<'c, 'a> Walk<'c, 'a> {
    pub(crate) fn new(
        cx: &'c VfsCx<'c>,
        start: Option<&Path>,
        path: &'a [u8],
        flags: LookupFlags,
    ) -> Result<Self> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let is_absolute = path[0] == b'/';
        if is_absolute && flags.contains(LookupFlags::BENEATH) {
            return Err(Errno::EXDEV);
        }
        let confined = flags.intersects(LookupFlags::BENEATH | LookupFlags::IN_ROOT);
        let (root, at) = {
            let state = cx.fs.state.lock();
            let base = || start.cloned().unwrap_or_else(|| state.cwd.clone());
            match (confined, is_absolute) {
                (true, _) => {
                    let base = base();
                    (base.clone(), base)
                }
                (false, true) => (state.root.clone(), state.root.clone()),
                (false, false) => (state.root.clone(), base()),
            }
        };
        let mut stack = SmallVec::new();
        stack.push(Segment { text: Cow::Borrowed(path), at: 0 });
        Ok(Self { cx, flags, root, at, stack, links: 0, trailing_slash: false, ahead: None })
    }

    /// Where the walk is.
    pub(crate) fn position(&self) -> Path {
        self.at.clone()
    }

    /// Walks everything.
    pub(crate) fn finish(&mut self) -> Result<Path> {
        while let Some(name) = self.next_component()? {
            let is_last = self.is_done();
            let follow =
                !is_last || self.trailing_slash || self.flags.contains(LookupFlags::FOLLOW);
            self.step(&name, follow)?;
        }
        let must_be_dir = self.trailing_slash || self.flags.contains(LookupFlags::DIRECTORY);
        if must_be_dir { expect_dir(self.at.clone()) } else { Ok(self.at.clone()) }
    }

    /// Walks up to the last component, which is taken from the text but not looked up; its directory may be searched.
    pub(crate) fn parent(&mut self) -> Result<Parent> {
        loop {
            let Some(name) = self.next_component()? else {
                let kind = LastKind::Root;
                return Ok(self.parent_of(NameBuf::new(), kind));
            };
            if self.is_done() {
                let kind = match &name[..] {
                    b"." => LastKind::Dot,
                    b".." => LastKind::DotDot,
                    _ => LastKind::Normal,
                };
                self.may_search()?;
                return Ok(self.parent_of(name, kind));
            }
            self.step(&name, true)?;
        }
    }

    fn parent_of(&self, name: NameBuf, kind: LastKind) -> Parent {
        Parent { dir: self.at.clone(), name, kind, trailing_slash: self.trailing_slash }
    }

    /// After [`Self::parent`]: looks its component up, not following a link.
    pub(crate) fn lookup_last(&mut self, parent: &Parent) -> Result<Path> {
        self.at = parent.dir.clone();
        match parent.kind {
            LastKind::Root | LastKind::Dot => Ok(parent.dir.clone()),
            LastKind::DotDot => {
                self.dot_dot()?;
                Ok(self.at.clone())
            }
            LastKind::Normal => {
                let child = self.child(&parent.name)?;
                self.cross(child)
            }
        }
    }

    /// After [`Self::lookup_last`] found the link `link` in `parent`: the walk goes on with its target.
    pub(crate) fn push_link(&mut self, parent: &Parent, link: &Path) -> Result<()> {
        self.at = parent.dir.clone();
        self.follow(link)
    }

    /// Nothing is left to walk.
    pub(crate) fn is_done(&self) -> bool {
        self.stack.iter().all(Segment::is_at_end)
    }

    /// Takes the next component off the stack; notes whether slashes follow it.
    fn next_component(&mut self) -> Result<Option<NameBuf>> {
        loop {
            let Some(segment) = self.stack.last_mut() else { return Ok(None) };
            let begin = segment.at;
            segment.skip_slashes();
            if segment.is_at_end() {
                if segment.at > begin {
                    self.trailing_slash = true;
                }
                self.stack.pop();
                continue;
            }
            let end = segment.component_end(segment.at);
            let name = NameBuf::from_slice(&segment.text[segment.at..end]);
            segment.at = end;
            segment.skip_slashes();
            let slashes = segment.at > end;
            // Only slashes may be left in the outer texts: then the component is the last, but a directory.
            let mut outer_slashes = false;
            if segment.is_at_end() {
                while self.stack.last().is_some_and(Segment::is_at_end) {
                    self.stack.pop();
                    if let Some(outer) = self.stack.last_mut() {
                        let begin = outer.at;
                        outer.skip_slashes();
                        outer_slashes |= outer.at > begin;
                    }
                }
            }
            self.trailing_slash = slashes || outer_slashes;
            return Ok(Some(name));
        }
    }

    fn may_search(&self) -> Result<()> {
        let inode = self.at.inode();
        if inode.file_type() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        // Attributes take a lock or two per layer.
        if self.cx.cred.searches_all() {
            return Ok(());
        }
        inode.permission(self.cx.cred, Access::EXEC)
    }

    fn step(&mut self, name: &[u8], follow: bool) -> Result<()> {
        self.may_search()?;
        match name {
            b"." => return Ok(()),
            b".." => return self.dot_dot(),
            _ => {}
        }
        let child = self.child(name)?;
        if child.inode.file_type() == FileType::Symlink && follow {
            let link = Path::new(Arc::clone(&self.at.mount), child);
            return self.follow(&link);
        }
        self.at = self.cross(child)?;
        Ok(())
    }

    fn cross(&self, child: Arc<Dentry>) -> Result<Path> {
        let path = follow_mounts(Path::new(Arc::clone(&self.at.mount), child));
        self.check_xdev(&path)?;
        Ok(path)
    }

    fn check_xdev(&self, to: &Path) -> Result<()> {
        let crosses = !Arc::ptr_eq(&to.mount, &self.at.mount);
        if crosses && self.flags.contains(LookupFlags::NO_XDEV) {
            return Err(Errno::EXDEV);
        }
        Ok(())
    }

    fn dot_dot(&mut self) -> Result<()> {
        let mut at = self.at.clone();
        loop {
            if at.is_same(&self.root) {
                let beneath = self.flags.contains(LookupFlags::BENEATH);
                return if beneath { Err(Errno::EXDEV) } else { Ok(()) };
            }
            if !Arc::ptr_eq(&at.dentry, at.mount.root_dentry()) {
                break;
            }
            match at.mount.mount_point() {
                Some(point) => at = point,
                None => return Ok(()),
            }
        }
        if let Some(parent) = at.dentry.parent() {
            at.dentry = parent;
        }
        let path = follow_mounts(at);
        self.check_xdev(&path)?;
        self.at = path;
        Ok(())
    }

    /// The dentry of `name` in the directory where the walk is.
    fn child(&mut self, name: &[u8]) -> Result<Arc<Dentry>> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let dir = &self.at.dentry;
        if dir.inode.cache_policy() == CachePolicy::Forever {
            if let (Some(known), _) = dir.cached(name) {
                return match known {
                    Child::Present(child) => Ok(child),
                    Child::Absent(_) => Err(Errno::ENOENT),
                };
            }
            if self.flags.contains(LookupFlags::CACHED) {
                return Err(Errno::EAGAIN);
            }
        }
        match self.take_ahead(name) {
            Some(child) => Ok(child),
            None => self.look_up_batch(name),
        }
    }

    /// Asks the filesystem, for the components that follow as well when they are plain names.
    fn look_up_batch(&mut self, name: &[u8]) -> Result<Arc<Dentry>> {
        let mut names: SmallVec<[&[u8]; MAX_BATCH]> = SmallVec::new();
        names.push(name);
        if let Some(segment) = self.stack.last() {
            let mut at = segment.at;
            while names.len() < MAX_BATCH && at < segment.text.len() {
                let end = segment.component_end(at);
                let next = &segment.text[at..end];
                if matches!(next, b"." | b"..") || next.len() > NAME_MAX {
                    break;
                }
                names.push(next);
                at = end;
                while segment.text.get(at) == Some(&b'/') {
                    at += 1;
                }
            }
        }
        let (child, ahead) = look_up(self.cx, &self.at, &names)?;
        self.ahead = Some(ahead);
        Ok(child)
    }

    /// The dentry of `name` from what a batched lookup has said already. An operation counts as a change before it
    /// moves the directory's generation, so one of the two tells when the answer is stale.
    fn take_ahead(&mut self, name: &[u8]) -> Option<Arc<Dentry>> {
        let mut ahead = self.ahead.take()?;
        let (dir, cache) = (&self.at.dentry, &self.at.mount.sb.cache);
        if !Arc::ptr_eq(&ahead.dir, dir) || dir.inode.cache_policy() == CachePolicy::Never {
            return None;
        }
        let inode = ahead.inodes.next()?;
        let (_, generation) = dir.cached(name);
        if cache.changes() != ahead.changes {
            return None;
        }
        let child = dir.fill(name, inode, generation, cache)?;
        ahead.dir = Arc::clone(&child);
        self.ahead = Some(ahead);
        Some(child)
    }

    fn follow(&mut self, link: &Path) -> Result<()> {
        self.links += 1;
        if self.links > MAX_SYMLINKS || self.flags.contains(LookupFlags::NO_SYMLINKS) {
            return Err(Errno::ELOOP);
        }
        self.may_follow(link)?;
        match link.inode().follow(self.cx)? {
            LinkTarget::Text(text) => self.push_text(text),
            LinkTarget::Jump(path) => {
                if self.flags.contains(LookupFlags::NO_MAGICLINKS) {
                    return Err(Errno::ELOOP);
                }
                if self.flags.intersects(LookupFlags::BENEATH | LookupFlags::IN_ROOT) {
                    return Err(Errno::EXDEV);
                }
                self.check_xdev(&path)?;
                self.at = path;
                Ok(())
            }
        }
    }

    fn push_text(&mut self, text: Vec<u8>) -> Result<()> {
        match text.first() {
            None => return Err(Errno::ENOENT),
            Some(b'/') => {
                if self.flags.contains(LookupFlags::BENEATH) {
                    return Err(Errno::EXDEV);
                }
                let root = self.root.clone();
                self.check_xdev(&root)?;
                self.at = root;
            }
            Some(_) => {}
        }
        // The slashes after the link belong to its target's last component.
        if self.trailing_slash && self.is_done() {
            self.stack.push(Segment { text: Cow::Borrowed(b"/"), at: 0 });
        }
        self.stack.push(Segment { text: Cow::Owned(text), at: 0 });
        Ok(())
    }

    /// protected_symlinks: in a sticky world-writable directory only links of their follower or of the
    /// directory's owner are followed. See proc(5), /proc/sys/fs/protected_symlinks.
    fn may_follow(&self, link: &Path) -> Result<()> {
        const STICKY_WORLD_WRITABLE: u32 = 0o1002;
        let dir = self.at.inode().attr()?;
        if dir.mode & STICKY_WORLD_WRITABLE != STICKY_WORLD_WRITABLE {
            return Ok(());
        }
        let owner = link.inode().attr()?.uid;
        if owner == self.cx.cred.fsuid || owner == dir.uid { Ok(()) } else { Err(Errno::EACCES) }
    }
}
