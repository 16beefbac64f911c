//! Listings, as `ReadDir`, `ReadTree` and `ReadOn` answer them.
//!
//! The names come as the records that getdents64(2) gives to programs: where nothing has to be changed in them, the sentry hands them
//! on as they are. Attributes of some follow, each with the place of its record.
//!
//! ```text
//! listing  is the last u8 · length of the records u32 · records · attributes (place u32, is it open u8, fields)
//! ```

use abi::dirent::{Record, Records, dirent64_len};
use abi::stat::{Attr, FileType};

use crate::attr::{self, ATTR_BYTES};
use crate::path::Name;
use crate::wire::{DecodeError, Decoded, Put, Reader};

/// One entry of a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirItem<'a> {
    pub ino: u64,
    /// Cursor after this entry; the host's own, never 0.
    pub next: u64,
    /// `None` when the filesystem does not tell.
    pub kind: Option<FileType>,
    pub name: &'a [u8],
    pub attr: Option<Attr>,
    /// It was opened, which only `ReadTree` does; `attr` are those of what was opened.
    pub is_open: bool,
}

impl DirItem<'_> {
    /// Bytes the entry takes in a reply, at most.
    #[must_use]
    pub const fn encoded_bound(name: &[u8]) -> usize {
        dirent64_len(name.len()) + 4 + 1 + ATTR_BYTES
    }
}

/// Bytes before the records.
const FRONT: usize = 1 + 4;

/// A listing that is being written.
#[derive(Debug, Default)]
pub struct OpenListing {
    start: usize,
    /// What comes after the records.
    attrs: Vec<u8>,
}

impl OpenListing {
    /// Bytes it takes before the first item.
    pub const BYTES: usize = FRONT;

    /// Begins another one.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        self.start = out.len();
        self.attrs.clear();
        out.put_flag(false);
        out.put_u32(0);
    }

    /// Bytes of the reply if it ended here.
    #[must_use]
    pub const fn reply_len(&self, out: &[u8]) -> usize {
        out.len() + self.attrs.len()
    }

    /// Appends an item. A name is that of a directory's entry: not longer than 255 bytes.
    pub fn push(&mut self, item: &DirItem<'_>, out: &mut Vec<u8>) {
        let DirItem { ino, next, kind, name, attr, is_open } = *item;
        let record = Record { ino, next, kind: kind.map_or(0, FileType::dirent_type), name };
        let Some(header) = record.header() else { return };
        let at = out.len();
        if let Some(attr) = &attr {
            let place = (at - self.start).saturating_sub(FRONT);
            self.attrs.put_u32(u32::try_from(place).unwrap_or(u32::MAX));
            self.attrs.put_flag(is_open);
            attr::put_attr(&mut self.attrs, attr);
        }
        out.extend_from_slice(&header);
        out.extend_from_slice(name);
        out.resize(at + dirent64_len(name.len()), 0);
    }

    /// All items were appended, or with `is_last` false as many as there was room for.
    pub fn end(&mut self, is_last: bool, out: &mut Vec<u8>) {
        let length = out.len().saturating_sub(self.start + FRONT);
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        if let Some([flag, place @ ..]) = out.get_mut(self.start..self.start + FRONT) {
            *flag = u8::from(is_last);
            place.copy_from_slice(&length);
        }
        out.append(&mut self.attrs);
    }
}

/// A listing that was answered: items as an iterator, each with the place of its record.
#[derive(Clone, Debug)]
pub struct Listing<'a> {
    /// No entry follows the ones in this reply.
    pub is_last: bool,
    bytes: &'a [u8],
    records: Records<'a>,
    attrs: Reader<'a>,
    /// Place of the record that the next attributes are of.
    next_attr: Option<usize>,
}

impl<'a> Listing<'a> {
    /// # Errors
    /// When the front is malformed; entries are checked as they are taken.
    pub fn decode(mut input: Reader<'a>) -> Decoded<Self> {
        let is_last = input.flag()?;
        let length = usize::try_from(input.u32()?).map_err(|_| DecodeError::BadValue)?;
        let bytes = input.bytes(length)?;
        let mut listing =
            Self { is_last, bytes, records: Records::new(bytes), attrs: input, next_attr: None };
        listing.next_attr = listing.place()?;
        Ok(listing)
    }

    /// All records, good only if all items were.
    #[must_use]
    pub const fn records(&self) -> &'a [u8] {
        self.bytes
    }

    fn place(&mut self) -> Decoded<Option<usize>> {
        if self.attrs.is_empty() {
            return Ok(None);
        }
        Ok(Some(usize::try_from(self.attrs.u32()?).map_err(|_| DecodeError::BadValue)?))
    }

    fn item(&mut self) -> Decoded<Option<(usize, DirItem<'a>)>> {
        let start = self.records.at();
        let Some((at, Record { ino, next, kind, name })) = self.records.next() else {
            let is_whole = self.records.is_at_end() && self.next_attr.is_none();
            return if is_whole { Ok(None) } else { Err(DecodeError::BadValue) };
        };
        if name != b"." && name != b".." {
            Name::new(name).map_err(|_| DecodeError::BadPath)?;
        }
        if self.records.at() - start != dirent64_len(name.len()) {
            return Err(DecodeError::BadValue);
        }
        let kind = match kind {
            0 => None,
            kind => Some(FileType::from_mode(u32::from(kind) << 12).ok_or(DecodeError::BadValue)?),
        };
        let (mut attr, mut is_open) = (None, false);
        if self.next_attr == Some(at) {
            is_open = self.attrs.flag()?;
            attr = Some(attr::attr(&mut self.attrs)?);
            self.next_attr = self.place()?;
        }
        Ok(Some((at, DirItem { ino, next, kind, name, attr, is_open })))
    }
}

impl<'a> Iterator for Listing<'a> {
    type Item = Decoded<(usize, DirItem<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.item();
        if item.is_err() {
            // Nothing after it is believed.
            (self.records, self.next_attr) = (Records::new(&[]), None);
        }
        item.transpose()
    }
}
