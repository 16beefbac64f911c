//! Listings of which nobody has asked about a name yet.

use std::sync::Arc;

use abi::stat::FileType;

use crate::fs::gofer::dir::{Brought, Piece};

/// A listing from its start, of which nobody has asked about a name yet: most directories of a walk are listed, and that is all.
#[derive(Default)]
pub struct Unread {
    pub pieces: Vec<(Arc<Piece>, Box<[Brought]>)>,
    pub rows: usize,
    pub name_bytes: usize,
    /// The directory that was answered last: its piece and row.
    last: (usize, usize),
}

impl Unread {
    pub fn push(&mut self, piece: &Arc<Piece>, brought: &[Brought]) {
        self.rows += piece.len();
        self.name_bytes += piece.entries().map(|(_, name, _)| name.len()).sum::<usize>();
        self.pieces.push((Arc::clone(piece), brought.into()));
    }

    /// Entries from a row on, each with its place.
    fn from(
        &self,
        (piece, row): (usize, usize),
    ) -> impl Iterator<Item = ((usize, usize), &[u8], FileType)> {
        let pieces = self.pieces.iter().enumerate().skip(piece);
        pieces.flat_map(move |(at, (rows, _))| {
            let first = if at == piece { row } else { 0 };
            rows.entries_from(first).map(move |(row, name, kind)| ((at, row), name, kind))
        })
    }

    /// The directory after `name`, or the first one.
    pub fn dir_after(&mut self, name: Option<&[u8]>) -> Option<(Arc<[u8]>, FileType)> {
        let is_last = |name| self.from(self.last).next().is_some_and(|(_, last, _)| last == name);
        let start = if name.is_some_and(is_last) { self.last } else { (0, 0) };
        let mut entries = self.from(start);
        if let Some(name) = name {
            entries.find(|(_, other, _)| *other == name)?;
        }
        let (place, name, kind) = entries.find(|(_, _, kind)| *kind == FileType::Directory)?;
        let next = (name.into(), kind);
        drop(entries);
        self.last = place;
        Some(next)
    }

    pub fn dirs(&self) -> impl Iterator<Item = Arc<[u8]>> {
        let dirs = self.from((0, 0)).filter(|(_, _, kind)| *kind == FileType::Directory);
        dirs.map(|(_, name, _)| name.into())
    }
}
