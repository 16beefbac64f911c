//! Paths and names that cannot lead out of a tree.

use abi::{Errno, Result};

use crate::MAX_PATH;

/// Bytes of the longest name, as on every Linux filesystem.
pub const NAME_MAX: usize = 255;

/// One component: not empty, no '/', no NUL, neither "." nor "..", at most 255 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// # Errors
    /// `ENAMETOOLONG`, or `EINVAL` for what is no name.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let reserved = bytes.is_empty() || bytes == b"." || bytes == b"..";
        if reserved || bytes.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(Errno::EINVAL);
        }
        Ok(Self(bytes))
    }

    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// A path relative to a tree's root: names joined by single slashes; empty for the root itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TreePath<'a>(&'a [u8]);

impl<'a> TreePath<'a> {
    /// The root of a tree.
    pub const ROOT: TreePath<'static> = TreePath(b"");

    /// # Errors
    /// `ENAMETOOLONG` beyond [`MAX_PATH`] or for a long component, `EINVAL` for what [`Name`] refuses.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() > MAX_PATH {
            return Err(Errno::ENAMETOOLONG);
        }
        if !bytes.is_empty() {
            for component in bytes.split(|byte| *byte == b'/') {
                Name::new(component)?;
            }
        }
        Ok(Self(bytes))
    }

    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    #[must_use]
    pub const fn is_root(self) -> bool {
        self.0.is_empty()
    }

    /// The names, outermost first.
    pub fn names(self) -> impl Iterator<Item = Name<'a>> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).map(Name)
    }

    /// Directory part and last name; `None` for the root.
    #[must_use]
    pub fn split_last(self) -> Option<(TreePath<'a>, Name<'a>)> {
        if self.is_root() {
            return None;
        }
        match self.0.iter().rposition(|byte| *byte == b'/') {
            None => Some((TreePath(b""), Name(self.0))),
            Some(at) => {
                let (dir, rest) = self.0.split_at_checked(at)?;
                Some((TreePath(dir), Name(rest.get(1..)?)))
            }
        }
    }

    /// Cuts off a head of at most `limit` bytes that ends at a slash; `None` when there is no such place.
    #[must_use]
    pub fn split_within(self, limit: usize) -> Option<(TreePath<'a>, TreePath<'a>)> {
        let at = self.0.get(..=limit)?.iter().rposition(|byte| *byte == b'/')?;
        let (head, rest) = self.0.split_at_checked(at)?;
        Some((TreePath(head), TreePath(rest.get(1..)?)))
    }
}

/// Paths, each ended by a NUL; at most [`Paths::MOST`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Paths<'a>(&'a [u8]);

impl<'a> Paths<'a> {
    pub const MOST: usize = 16;

    /// # Errors
    /// Those of [`TreePath::new`]; `EINVAL` for too many, and where the last NUL is missing.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let paths = Self(bytes);
        let is_ended = bytes.last().is_none_or(|last| *last == 0);
        if !is_ended || paths.texts().count() > Self::MOST {
            return Err(Errno::EINVAL);
        }
        paths.texts().try_for_each(|text| TreePath::new(text).map(drop))?;
        Ok(paths)
    }

    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    pub fn iter(self) -> impl Iterator<Item = TreePath<'a>> {
        self.texts().map(TreePath)
    }

    fn texts(self) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .split_inclusive(|byte| *byte == 0)
            .map(|text| text.strip_suffix(b"\0").unwrap_or(text))
    }
}
