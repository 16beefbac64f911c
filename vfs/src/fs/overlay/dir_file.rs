//! Open directories: listings of both halves without duplicates.
//!
//! Without a lower half, positions are those of the entries. With one but without nodes above it, the lower listing is
//! passed on (so a huge directory streams). Else the merged listing is made when reading begins, as overlayfs does.

use std::any::Any;
use std::sync::Arc;

use abi::dirent::Records;
use abi::open::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};
use base::lock::Mutex;

use super::copy_up::open_lower;
use super::dir::Change;
use super::inode::{Lower, OverlayInode};
use crate::context::VfsCx;
use crate::dentry::Name;
use crate::description::File;
use crate::file::{DirEntry, FileOps};
use crate::fs::tmpfs::dir::FIRST;
use crate::fs::tmpfs::file::emit_dots;
use crate::lock_order;

/// Entries taken out under one lock.
const BATCH: usize = 64;

#[derive(Clone)]
struct Row {
    ino: u64,
    kind: FileType,
    name: Name,
}

#[derive(Clone)]
enum Listing {
    Lower(Arc<File>),
    /// Row n is at position n + `FIRST`.
    Merged(Arc<[Row]>),
}

pub(super) struct OverlayDirFile {
    node: Arc<OverlayInode>,
    /// How positions of this open directory are to be understood; made anew when reading begins at 0.
    listing: Mutex<Option<Listing>, lock_order::FileState>,
}

/// Gives the record of `name` another number.
fn set_ino(records: &mut [u8], name: &[u8], ino: u64) {
    let found = Records::new(records).find(|(_, record)| record.name == name);
    if let Some((at, _)) = found
        && let Some(field) = records.get_mut(at..).and_then(<[u8]>::first_chunk_mut)
    {
        *field = ino.to_ne_bytes();
    }
}

fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

impl OverlayDirFile {
    pub(super) fn new(node: Arc<OverlayInode>) -> Self {
        Self { node, listing: Mutex::new(None) }
    }

    /// Nodes from `position` on with theirs; at most `limit`.
    fn nodes(&self, position: u64, limit: usize) -> Vec<(u64, Row)> {
        let Some(dir) = &self.node.dir else { return Vec::new() };
        let dir = dir.lock();
        let nodes = dir.changes.from(position).filter_map(|(at, name, change)| match change {
            Change::Whiteout => None,
            Change::Node { node, .. } => {
                let row = Row { ino: node.ino(), kind: node.kind(), name: Arc::clone(name) };
                Some((at, row))
            }
        });
        nodes.take(limit).collect()
    }

    fn listing(&self, cx: &VfsCx<'_>, lower: &Lower, pos: u64) -> Result<Listing> {
        if pos > 0
            && let Some(listing) = self.listing.lock().clone()
        {
            return Ok(listing);
        }
        let file = open_lower(&lower.inode, cx, OpenFlags::DIRECTORY)?;
        let has_nodes = self.node.dir.as_ref().is_some_and(|dir| dir.lock().nodes > 0);
        let listing =
            if has_nodes { Listing::Merged(self.merge(cx, &file)?) } else { Listing::Lower(file) };
        *self.listing.lock() = Some(listing.clone());
        Ok(listing)
    }

    fn merge(&self, cx: &VfsCx<'_>, lower: &File) -> Result<Arc<[Row]>> {
        let mut rows = Vec::new();
        lower.ops().readdir(cx, lower, 0, &mut |entry| {
            if !is_dot(entry.name) && !self.node.hides(entry.name) {
                let name = Arc::from(entry.name);
                rows.push(Row { ino: entry.ino, kind: entry.kind, name });
            }
            true
        })?;
        rows.extend(self.nodes(FIRST, usize::MAX).into_iter().map(|(_, row)| row));
        Ok(Arc::from(rows))
    }

    fn emit_upper(&self, mut pos: u64, emit: &mut dyn FnMut(DirEntry<'_>) -> bool) {
        loop {
            let batch = self.nodes(pos, BATCH);
            if batch.is_empty() {
                return;
            }
            for (at, Row { ino, kind, name }) in batch {
                pos = at + 1;
                if !emit(DirEntry { ino, next: pos, kind, name: &name }) {
                    return;
                }
            }
        }
    }

    fn emit_lower(
        &self,
        cx: &VfsCx<'_>,
        file: &File,
        lower: &File,
        pos: u64,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()> {
        lower.ops().readdir(cx, lower, pos, &mut |entry| {
            let ino = match entry.name {
                b"." => self.node.ino(),
                b".." => file.parent_ino(),
                name if self.node.hides(name) => return true,
                _ => entry.ino,
            };
            emit(DirEntry { ino, ..entry })
        })
    }
}

impl FileOps for OverlayDirFile {
    fn readdir(
        &self,
        cx: &VfsCx<'_>,
        file: &File,
        pos: u64,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()> {
        let rows = match &self.node.lower {
            None => None,
            Some(lower) => match self.listing(cx, lower, pos)? {
                Listing::Lower(lower) => return self.emit_lower(cx, file, &lower, pos, emit),
                Listing::Merged(rows) => Some(rows),
            },
        };
        if pos < FIRST && !emit_dots(file, self.node.ino(), pos, emit) {
            return Ok(());
        }
        let pos = pos.max(FIRST);
        let Some(rows) = rows else {
            self.emit_upper(pos, emit);
            return Ok(());
        };
        let from = usize::try_from(pos - FIRST).unwrap_or(usize::MAX);
        for (row, next) in rows.iter().skip(from).zip(pos + 1..) {
            let Row { ino, kind, name } = row;
            if !emit(DirEntry { ino: *ino, next, kind: *kind, name }) {
                break;
            }
        }
        Ok(())
    }

    fn records(&self, cx: &VfsCx<'_>, file: &File, out: &mut Vec<u8>) -> Result<()> {
        let lower = self.node.lower.as_ref().ok_or(Errno::EOPNOTSUPP)?;
        let is_changed = self.node.dir.as_ref().is_some_and(|dir| !dir.lock().changes.is_empty());
        if is_changed {
            return Err(Errno::EOPNOTSUPP);
        }
        let Listing::Lower(lower) = self.listing(cx, lower, 0)? else {
            return Err(Errno::EOPNOTSUPP);
        };
        let start = out.len();
        lower.ops().records(cx, &lower, out)?;
        let records = out.get_mut(start..).unwrap_or_default();
        set_ino(records, b".", self.node.ino());
        set_ino(records, b"..", file.parent_ino());
        Ok(())
    }

    fn sync(&self, _data_only: bool) -> Result<()> {
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
