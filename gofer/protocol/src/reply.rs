//! What the gofer answers.

use abi::Errno;
use abi::stat::Attr;

use crate::attr::{self, ATTR_BYTES};
use crate::wire::{DecodeError, Decoded, Put, Reader};

/// Front of every reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyHead {
    /// Why the request was refused; `None` when it was done.
    pub error: Option<Errno>,
    pub seq: u32,
}

impl ReplyHead {
    /// Bytes of an encoded head.
    pub const BYTES: usize = 8;

    /// Replaces `out` by the head.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.clear();
        out.put_u32(self.error.map_or(0, |errno| errno.raw().unsigned_abs()));
        out.put_u32(self.seq);
    }

    /// The head and the fields after it.
    ///
    /// # Errors
    /// When there are fewer bytes than a head has, or the error is no errno.
    pub fn decode(message: &[u8]) -> Decoded<(Self, Reader<'_>)> {
        let mut input = Reader::new(message);
        let error = match input.u32()? {
            0 => None,
            raw @ 1..4096 => {
                Some(Errno::from_raw(i32::try_from(raw).map_err(|_| DecodeError::BadValue)?))
            }
            _ => return Err(DecodeError::BadValue),
        };
        let seq = input.u32()?;
        Ok((Self { error, seq }, input))
    }
}

/// A tree as the welcome describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TreeInfo {
    pub writable: bool,
    pub root: Attr,
}

/// Answer to `Hello`: what is served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    pub version: u32,
    /// Bytes of the longest message the gofer takes and sends.
    pub max_message: u32,
    pub trees: Vec<TreeInfo>,
}

impl Welcome {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.version);
        out.put_u32(self.max_message);
        out.put_u16(u16::try_from(self.trees.len()).unwrap_or(u16::MAX));
        for tree in self.trees.iter().take(u16::MAX.into()) {
            out.put_flag(tree.writable);
            attr::put_attr(out, &tree.root);
        }
    }

    /// # Errors
    /// When the fields are not exactly a welcome.
    pub fn decode(mut input: Reader<'_>) -> Decoded<Self> {
        let (version, max_message, count) = (input.u32()?, input.u32()?, input.u16()?);
        let trees = (0..count)
            .map(|_| Ok(TreeInfo { writable: input.flag()?, root: attr::attr(&mut input)? }))
            .collect::<Decoded<_>>()?;
        input.finish()?;
        Ok(Self { version, max_message, trees })
    }
}

/// Answer to `Walk`. The descriptor of a file that was opened comes with the message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Walked {
    /// Attributes of the components found, outermost first.
    pub found: Vec<Attr>,
    /// Why the component after those was not reached; `None` when all were found, or when the last one found is
    /// no directory and so ends the walk.
    pub stopped: Option<Errno>,
    /// Text of the last one found when that is a symbolic link.
    pub link: Option<Vec<u8>>,
}

impl Walked {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(u16::try_from(self.found.len()).unwrap_or(u16::MAX));
        for attr in self.found.iter().take(u16::MAX.into()) {
            attr::put_attr(out, attr);
        }
        out.put_u32(self.stopped.map_or(0, |errno| errno.raw().unsigned_abs()));
        out.put_flag(self.link.is_some());
        if let Some(text) = &self.link {
            out.put_blob(text);
        }
    }

    /// # Errors
    /// When the fields are not exactly a walk's answer, or it is longer than the `asked` components.
    pub fn decode(mut input: Reader<'_>, asked: usize) -> Decoded<Self> {
        let count = usize::from(input.u16()?);
        if count > asked {
            return Err(DecodeError::BadValue);
        }
        let found = (0..count).map(|_| attr::attr(&mut input)).collect::<Decoded<Vec<_>>>()?;
        let stopped = match input.u32()? {
            0 => None,
            raw => Some(Errno::from_raw(i32::try_from(raw).map_err(|_| DecodeError::BadValue)?)),
        };
        let link = if input.flag()? { Some(input.blob()?.to_vec()) } else { None };
        input.finish()?;
        Ok(Self { found, stopped, link })
    }
}

/// Answer to `OpenFiles`: as many results as names were asked for, in their order. The descriptors of those that were
/// opened come with the message, in the same order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OpenedFiles(pub Vec<OpenedFile>);

/// Attributes, or why a file was not opened.
pub type OpenedFile = core::result::Result<Attr, Errno>;

impl OpenedFiles {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(u16::try_from(self.0.len()).unwrap_or(u16::MAX));
        for file in self.0.iter().take(u16::MAX.into()) {
            out.put_u32(file.err().map_or(0, |errno| errno.raw().unsigned_abs()));
            if let Ok(attr) = file {
                attr::put_attr(out, attr);
            }
        }
    }

    /// # Errors
    /// When the fields are not exactly the answers to `asked` names.
    pub fn decode(mut input: Reader<'_>, asked: usize) -> Decoded<Self> {
        if usize::from(input.u16()?) != asked {
            return Err(DecodeError::BadValue);
        }
        let files = (0..asked)
            .map(|_| match input.u32()? {
                0 => attr::attr(&mut input).map(Ok),
                raw @ 1..4096 => {
                    let raw = i32::try_from(raw).map_err(|_| DecodeError::BadValue)?;
                    Ok(Err(Errno::from_raw(raw)))
                }
                _ => Err(DecodeError::BadValue),
            })
            .collect::<Decoded<_>>()?;
        input.finish()?;
        Ok(Self(files))
    }
}

/// One thing that `Explore` came by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sighting<'a> {
    /// The directory it is in: 0 is the tree's root, n the n-th sighting of the reply.
    pub dir: u16,
    pub name: &'a [u8],
    /// `None`: nothing has this name.
    pub attr: Option<Attr>,
    /// Text of a symbolic link.
    pub link: Option<&'a [u8]>,
    /// It was opened. The descriptors come with the message, in the order of the sightings.
    pub is_open: bool,
}

impl Sighting<'_> {
    /// Bytes it takes in a reply, at most.
    #[must_use]
    pub fn encoded_bound(&self) -> usize {
        2 + 2 + self.name.len() + 1 + ATTR_BYTES + 1 + 2 + self.link.map_or(0, <[u8]>::len) + 1
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(self.dir);
        out.put_blob(self.name);
        out.put_flag(self.attr.is_some());
        if let Some(attr) = &self.attr {
            attr::put_attr(out, attr);
        }
        out.put_flag(self.link.is_some());
        if let Some(text) = self.link {
            out.put_blob(text);
        }
        out.put_flag(self.is_open);
    }
}

/// Answer to `Explore`: sightings up to the end of the message, each after the directory it is in.
#[derive(Clone, Debug)]
pub struct Sightings<'a> {
    items: Reader<'a>,
    count: u16,
}

impl<'a> Sightings<'a> {
    /// Sightings are checked as they are taken.
    #[must_use]
    pub const fn decode(input: Reader<'a>) -> Self {
        Self { items: input, count: 0 }
    }

    fn item(&mut self) -> Decoded<Sighting<'a>> {
        let input = &mut self.items;
        let dir = input.u16()?;
        if dir > self.count {
            return Err(DecodeError::BadValue);
        }
        self.count = self.count.checked_add(1).ok_or(DecodeError::BadValue)?;
        let name = input.name()?.bytes();
        let attr = if input.flag()? { Some(attr::attr(input)?) } else { None };
        let link = if input.flag()? { Some(input.blob()?) } else { None };
        Ok(Sighting { dir, name, attr, link, is_open: input.flag()? })
    }
}

impl<'a> Iterator for Sightings<'a> {
    type Item = Decoded<Sighting<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.items.is_empty() {
            return None;
        }
        let item = self.item();
        if item.is_err() {
            self.items = Reader::new(&[]);
        }
        Some(item)
    }
}
