//! Open directories: listings come in pieces, with the attributes of the entries where they are worth keeping.

use std::any::Any;
use std::sync::Arc;

use abi::dirent::{Record, Records};
use abi::stat::{Attr, FileType};
use abi::{Errno, Result};
use base::lock::Mutex;
use gofer_protocol::wire::{Decoded, Reader};
use gofer_protocol::{DirItem, Listing, Op, Plus, SyncScope};

use super::client::later::{Asked, Later, Patience};
use super::inode::GoferInode;
use super::known::PLUS_LIMIT;
use super::subtree::Subtree;
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
    /// Entries that were learnt since the start.
    learnt: usize,
    /// The piece after the last one, when it was asked for already.
    ahead: Option<Ahead>,
}

/// A piece that the gofer lists on another processor while somebody uses the one before.
struct Ahead {
    from: u64,
    plus: Plus,
    asked: Asked,
}

/// A piece of the listing.
#[derive(Default)]
pub struct Piece {
    /// Cursor it was asked with.
    pub from: u64,
    /// As getdents64(2) gives them. A row's number is the place of its record.
    records: Box<[u8]>,
    len: usize,
    end: u64,
    pub is_last: bool,
}

/// What came with one of its rows.
#[derive(Clone)]
pub struct Brought {
    pub row: usize,
    pub attr: Attr,
    pub is_open: bool,
}

/// Of filesystems that do not tell, and where nothing else told either.
fn file_type(kind: u8) -> FileType {
    FileType::from_mode(u32::from(kind) << 12).unwrap_or(FileType::Regular)
}

impl Piece {
    /// The piece of an answer, and the attributes that came with some of its rows, in order.
    pub(super) fn decode(from: u64, listing: Listing<'_>) -> Decoded<(Self, Vec<Brought>)> {
        let (records, is_last) = (listing.records(), listing.is_last);
        let (mut len, mut end) = (0, from);
        let mut brought = Vec::new();
        for item in listing {
            let (row, DirItem { next, attr, is_open, .. }) = item?;
            brought.extend(attr.map(|attr| Brought { row, attr, is_open }));
            (len, end) = (len + 1, next);
        }
        Ok((Self { from, records: records.into(), len, end, is_last }, brought))
    }

    /// Where the row after `pos` begins, when the listing goes on in here from there.
    fn after(&self, pos: u64) -> Option<usize> {
        if self.from == pos {
            return Some(0);
        }
        let mut rows = Records::new(&self.records);
        rows.by_ref().find(|(_, row)| row.next == pos).map(|_| rows.at())
    }

    /// The name of a row.
    pub fn name_of(&self, row: usize) -> &[u8] {
        Records::from(&self.records, row).next().map_or(b"", |(_, row)| row.name)
    }

    /// Its entries but for `.` and `..`, each with the number of its row.
    pub fn entries(&self) -> impl Iterator<Item = (usize, &[u8], FileType)> {
        self.entries_from(0)
    }

    /// As [`Self::entries`], from a row on.
    pub fn entries_from(&self, row: usize) -> impl Iterator<Item = (usize, &[u8], FileType)> {
        let entries = Records::from(&self.records, row);
        let entries = entries.map(|(at, row)| (at, row.name, file_type(row.kind)));
        entries.filter(|(_, name, _)| !matches!(*name, b"." | b".."))
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.records.len()
    }

    /// Where the next piece begins.
    pub fn end(&self) -> u64 {
        self.end
    }
}

impl GoferDir {
    pub(super) fn new(inode: Arc<GoferInode>) -> Self {
        Self { inode, progress: Mutex::default() }
    }

    /// Lists the first piece of `inode` for what it tells about names.
    ///
    /// # Errors
    /// Those of a listing.
    pub(super) fn learn_ahead(inode: &GoferInode, plus: Plus) -> Result<()> {
        let inode = inode.arc().ok_or(Errno::ESTALE)?;
        Self::new(inode).fetch(0, plus).map(drop)
    }

    /// The piece that goes on after `pos`, and the row to begin with.
    fn piece(&self, pos: u64) -> Result<(Arc<Piece>, usize)> {
        let (held, learnt) = {
            let progress = self.progress.lock();
            (progress.piece.clone(), progress.learnt)
        };
        // At position 0 the listing starts anew, as after rewinddir(3).
        if pos != 0
            && let Some(piece) = held
            && let Some(at) = piece.after(pos)
            && (at < piece.records.len() || piece.is_last)
        {
            return Ok((piece, at));
        }
        // Where only we list, what is known of the whole listing stays true.
        if pos == 0
            && let Some(piece) = self.inode.known_listing()
        {
            self.progress.lock().piece = Some(Arc::clone(&piece));
            return Ok((piece, 0));
        }
        let plus = self.plus_from(pos, learnt);
        if pos == 0
            && let Some(piece) = self.fetch_subtree(plus)?
        {
            self.progress.lock().piece = Some(Arc::clone(&piece));
            return Ok((piece, 0));
        }
        if let Some(piece) = self.hear_ahead(pos) {
            return Ok((piece, 0));
        }
        let piece = self.fetch(pos, plus)?;
        if pos != 0 {
            self.go_on();
        }
        Ok((piece, 0))
    }

    /// What a piece from `pos` on is to bring, after so many entries.
    fn plus_from(&self, pos: u64, learnt: usize) -> Plus {
        let shared = &self.inode.shared;
        match learnt {
            _ if shared.is_writable => Plus::Nothing,
            // A directory of a hundred thousand names streams by; it is not remembered.
            PLUS_LIMIT.. if pos != 0 => Plus::Nothing,
            _ => shared.foresight.plus(),
        }
    }

    /// Who reads a second piece will read the third: has the gofer list the next one meanwhile. Not where others may change what it
    /// lists: there each piece says what is, when it is read.
    fn go_on(&self) {
        let shared = &self.inode.shared;
        if shared.is_writable {
            return;
        }
        let (from, learnt) = {
            let progress = self.progress.lock();
            let Some(piece) = progress.piece.as_ref().filter(|piece| !piece.is_last) else {
                return;
            };
            (piece.end(), progress.learnt)
        };
        let plus = self.plus_from(from, learnt);
        let Ok(path) = self.inode.path() else { return };
        let asked = shared.client.ask(shared.tree, &path, Op::ReadDir { cursor: from, plus });
        self.progress.lock().ahead = asked.map(|asked| Ahead { from, plus, asked });
    }

    /// The piece from `pos` on, if it was [asked for](Self::go_on); and asks for the one after it.
    fn hear_ahead(&self, pos: u64) -> Option<Arc<Piece>> {
        let Ahead { from, plus, asked } = self.progress.lock().ahead.take()?;
        if from != pos {
            return None;
        }
        let decode = |fields: Reader<'_>, _| Piece::decode(pos, Listing::decode(fields)?);
        let heard = self.inode.shared.client.hear(&asked, Patience::Wait, decode);
        let Ok(Later::Answer((piece, brought))) = heard else { return None };
        let piece = self.learn_fetched(piece, &brought, plus);
        self.go_on();
        Some(piece)
    }

    /// As [`Self::fetch`] from the start, with the directories that are likely to be listed next; `None` when nothing
    /// says which.
    fn fetch_subtree(&self, plus: Plus) -> Result<Option<Arc<Piece>>> {
        let piece = match Subtree::collect(&self.inode, plus) {
            Some(piece) => piece,
            None => {
                let Some(ahead) = Subtree::next(&self.inode) else { return Ok(None) };
                let Some(piece) = ahead.fetch(plus)? else { return Ok(None) };
                piece
            }
        };
        self.progress.lock().learnt = piece.len();
        Ok(Some(piece))
    }

    fn fetch(&self, pos: u64, plus: Plus) -> Result<Arc<Piece>> {
        let shared = &self.inode.shared;
        let op = Op::ReadDir { cursor: pos, plus };
        let (piece, brought) =
            shared.client.call(shared.tree, &self.inode.path()?, op, |fields, _| {
                Piece::decode(pos, Listing::decode(fields)?)
            })?;
        Ok(self.learn_fetched(piece, &brought, plus))
    }

    fn learn_fetched(&self, piece: Piece, brought: &[Brought], plus: Plus) -> Arc<Piece> {
        let piece = Arc::new(piece);
        if plus != Plus::Nothing {
            self.learn(&piece, brought);
        }
        self.progress.lock().piece = Some(Arc::clone(&piece));
        piece
    }

    /// Remembers the entries, for the lookups that tend to follow; and that there are no others, once all were seen.
    fn learn(&self, piece: &Arc<Piece>, brought: &[Brought]) {
        self.inode.learn_piece(piece, brought);
        let mut progress = self.progress.lock();
        let before = if piece.from == 0 { 0 } else { progress.learnt };
        progress.learnt = before + piece.len();
    }
}

impl GoferInode {
    /// Remembers a piece of the listing, and what came with its rows.
    pub(super) fn learn_piece(&self, piece: &Arc<Piece>, brought: &[Brought]) {
        let unasked = brought.iter().filter(|row| !row.attr.is_dir() && !row.is_open).count();
        self.learn(piece, brought);
        self.shared.foresight.brought(unasked);
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
            let (piece, first) = self.piece(pos)?;
            let before = pos;
            for (_, row) in Records::from(&piece.records, first) {
                let Record { ino, next, kind, name } = row;
                if !emit(DirEntry { ino, next, kind: file_type(kind), name }) {
                    return Ok(());
                }
                pos = next;
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

    fn records(&self, _cx: &VfsCx<'_>, _file: &File, out: &mut Vec<u8>) -> Result<()> {
        let (piece, first) = self.piece(0)?;
        if !piece.is_last {
            return Err(Errno::EFBIG);
        }
        out.extend_from_slice(piece.records.get(first..).unwrap_or_default());
        Ok(())
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
