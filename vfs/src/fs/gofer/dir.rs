//! Open directories: listings come in pieces, with the attributes of the entries where they are worth keeping.

use std::any::Any;
use std::sync::Arc;

use abi::stat::FileType;
use abi::{Errno, Result};
use base::lock::Mutex;
use gofer_protocol::wire::{Decoded, Reader};
use gofer_protocol::{DirItem, Listing, Op, SyncScope};

use super::inode::GoferInode;
use super::known::{Entry, PLUS_LIMIT};
use crate::context::VfsCx;
use crate::file::{DirEntry, File, FileOps};
use crate::lock_order;

/// See the module.
pub struct GoferDir {
    inode: Arc<GoferInode>,
    progress: Mutex<Progress, lock_order::FileState>,
}

/// The piece of the listing that was fetched last, and what the ones before it taught.
#[derive(Default)]
struct Progress {
    piece: Option<Arc<Piece>>,
    /// Entries whose attributes came, in one run from the start.
    learnt: usize,
    /// Cursor up to which the run from the start has come without a gap.
    run: u64,
}

/// A piece of the listing.
struct Piece {
    /// Cursor it was asked with.
    from: u64,
    /// The answer's fields.
    fields: Vec<u8>,
    is_last: bool,
}

impl Piece {
    fn items(&self) -> impl Iterator<Item = DirItem<'_>> {
        // Decoded once before it was kept, so no entry is lost here.
        Listing::decode(Reader::new(&self.fields)).into_iter().flatten().filter_map(Decoded::ok)
    }

    /// True when the entry after `pos` is in here, or would be.
    fn covers(&self, pos: u64) -> bool {
        self.from == pos || self.items().any(|item| item.next == pos)
    }
}

impl GoferDir {
    pub(super) fn new(inode: Arc<GoferInode>) -> Self {
        Self { inode, progress: Mutex::default() }
    }

    /// The piece that goes on after `pos`.
    fn piece(&self, pos: u64) -> Result<Arc<Piece>> {
        let (held, learnt) = {
            let progress = self.progress.lock();
            (progress.piece.clone(), progress.learnt)
        };
        // At position 0 the listing starts anew, as after rewinddir(3).
        if pos != 0
            && let Some(piece) = held
            && piece.covers(pos)
        {
            let ends_here = piece.items().last().is_some_and(|item| item.next == pos);
            if !ends_here || piece.is_last {
                return Ok(piece);
            }
        }
        let shared = &self.inode.shared;
        let plus = !shared.is_writable && learnt < PLUS_LIMIT;
        let op = Op::ReadDir { cursor: pos, plus };
        let piece = shared.client.call(shared.tree, &self.inode.path()?, op, |fields, _| {
            let bytes = fields.clone().rest().to_vec();
            let mut listing = Listing::decode(fields)?;
            let is_last = listing.is_last;
            listing.try_for_each(|item| item.map(drop))?;
            Ok(Arc::new(Piece { from: pos, fields: bytes, is_last }))
        })?;
        self.learn(&piece);
        self.progress.lock().piece = Some(Arc::clone(&piece));
        Ok(piece)
    }

    /// Remembers the entries, for the lookups that tend to follow; and that there are no others, once all were seen.
    fn learn(&self, piece: &Piece) {
        if self.inode.shared.is_writable {
            return;
        }
        let is_run = {
            let progress = self.progress.lock();
            piece.from == 0 || piece.from == progress.run
        };
        let entries = || piece.items().filter(|item| item.name != b"." && item.name != b"..");
        let all_have_attr = entries().all(|item| item.attr.is_some());
        self.inode.learn(
            entries().filter_map(|item| Some((item.name, Entry::Listed(Box::new(item.attr?))))),
        );
        if !is_run || !all_have_attr {
            return;
        }
        let mut progress = self.progress.lock();
        let before = if piece.from == 0 { 0 } else { progress.learnt };
        progress.learnt = before + entries().count();
        progress.run = piece.items().last().map_or(piece.from, |item| item.next);
        drop(progress);
        if piece.is_last {
            self.inode.knows_all();
        }
    }
}

impl FileOps for GoferDir {
    fn readdir(
        &self,
        _cx: &VfsCx<'_>,
        _file: &File,
        pos: u64,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()> {
        let mut pos = pos;
        loop {
            let piece = self.piece(pos)?;
            let mut skipping = piece.from != pos;
            let before = pos;
            for item in piece.items() {
                if skipping {
                    skipping = item.next != pos;
                    continue;
                }
                let kind = item.kind.unwrap_or(FileType::Regular);
                let entry = DirEntry { ino: item.ino, next: item.next, kind, name: item.name };
                if !emit(entry) {
                    return Ok(());
                }
                pos = item.next;
            }
            if piece.is_last {
                return Ok(());
            }
            // A gofer that makes no progress must not hold us here.
            if pos == before {
                return Err(Errno::EIO);
            }
        }
    }

    fn sync(&self, _data_only: bool) -> Result<()> {
        let shared = &self.inode.shared;
        if !shared.is_writable {
            return Ok(());
        }
        let op = Op::Sync { scope: SyncScope::Object };
        shared.client.call(shared.tree, &self.inode.path()?, op, |fields, _| fields.finish())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
