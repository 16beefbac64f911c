//! The listings of several directories in one reply.

use crate::listing::{Listing, OpenListing};
use crate::wire::{DecodeError, Decoded, Put, Reader};

/// One directory of the answer to `ReadTree` or `ReadOn`. The descriptors of the items that are open come with the message, in
/// the order of sections and items.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    /// The directory it is in: 0 is the one that the walk began in, n the n-th section of the walk, [`Section::ABOVE`] + n the n-th
    /// above the one it began in.
    pub dir: u16,
    pub name: &'a [u8],
    pub listing: Listing<'a>,
}

impl Section<'_> {
    /// There are far fewer sections.
    pub const ABOVE: u16 = 0xff00;
    /// Sections of one walk, in all its replies.
    pub const MOST: u16 = 1024;
}

/// A section that is being written.
#[derive(Debug, Default)]
pub struct OpenSection {
    start: usize,
    front: usize,
    pub listing: OpenListing,
}

impl OpenSection {
    /// Bytes it takes before the first item, at most.
    #[must_use]
    pub const fn encoded_bound(name: &[u8]) -> usize {
        2 + 2 + name.len() + 4 + OpenListing::BYTES
    }

    /// Appends the front of another section; items follow.
    pub fn begin(&mut self, dir: u16, name: &[u8], out: &mut Vec<u8>) {
        self.start = out.len();
        out.put_u16(dir);
        out.put_blob(name);
        out.put_u32(0);
        self.front = out.len();
        self.listing.begin(out);
    }

    /// As [`OpenListing::end`].
    pub fn end(&mut self, is_last: bool, out: &mut Vec<u8>) {
        self.listing.end(is_last, out);
        let length = u32::try_from(out.len().saturating_sub(self.front)).unwrap_or(u32::MAX);
        let place = self.front.saturating_sub(4);
        if let Some(place) = out.get_mut(place..self.front) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }

    /// Takes it back.
    pub fn cancel(&mut self, out: &mut Vec<u8>) {
        out.truncate(self.start);
    }
}

/// Answer to `ReadTree` and `ReadOn`: whether the walk can go on, then sections up to the end of the message, each after the
/// directory it is in.
#[derive(Clone, Debug)]
pub struct Sections<'a> {
    /// `ReadOn` may bring more.
    pub has_more: bool,
    rest: Reader<'a>,
    above: u16,
    count: u16,
}

impl<'a> Sections<'a> {
    /// Sections are checked as they are taken: `before` came with earlier replies of the walk, and they may be in `above`
    /// directories above the one it began in.
    ///
    /// # Errors
    /// When the front is malformed.
    pub fn decode(mut input: Reader<'a>, above: u16, before: u16) -> Decoded<Self> {
        let has_more = input.flag()?;
        Ok(Self { has_more, rest: input, above, count: before })
    }

    fn section(&mut self) -> Decoded<Section<'a>> {
        let input = &mut self.rest;
        let dir = input.u16()?;
        let is_above = dir > Section::ABOVE && dir - Section::ABOVE <= self.above;
        if dir > self.count && !is_above {
            return Err(DecodeError::BadValue);
        }
        self.count = self.count.checked_add(1).ok_or(DecodeError::BadValue)?;
        let name = input.name()?.bytes();
        let length = usize::try_from(input.u32()?).map_err(|_| DecodeError::BadValue)?;
        let listing = Listing::decode(Reader::new(input.bytes(length)?))?;
        Ok(Section { dir, name, listing })
    }
}

impl<'a> Iterator for Sections<'a> {
    type Item = Decoded<Section<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let section = self.section();
        if section.is_err() {
            self.rest = Reader::new(&[]);
        }
        Some(section)
    }
}
