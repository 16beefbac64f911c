//! Where functions begin and end, by what unwinders know of an ELF file.

use std::ops::Range;

use platform::rewrite::{Extents, extents_around, is_signal_return};

const HEADER_LEN: u64 = 64;
const PROGRAM_HEADER_LEN: u64 = 56;
const MOST_PROGRAM_HEADERS: u64 = 64;
const PT_LOAD: u32 = 1;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
/// More is no table worth reading for one site.
const MOST_TABLE: u64 = 4 << 20;

/// A part of the file and where it is in memory, relative to the image's base.
#[derive(Debug, Clone, Copy)]
struct Part {
    kind: u32,
    offset: u64,
    addr: u64,
    len: u64,
}

impl Part {
    fn parse(header: &[u8]) -> Option<Self> {
        Some(Self {
            kind: u32::from_le_bytes(header.get(..4)?.try_into().ok()?),
            offset: word(header, 8)?,
            addr: word(header, 16)?,
            len: word(header, 32)?,
        })
    }

    /// File offsets of `addr..addr + len`, if all of it is in this part.
    fn offsets(&self, addr: u64, len: u64) -> Option<Range<u64>> {
        let inside = addr.checked_sub(self.addr)?;
        let end = inside.checked_add(len).filter(|end| *end <= self.len)?;
        Some(self.offset.checked_add(inside)?..self.offset.checked_add(end)?)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// What a file says of its functions. `read` gives bytes of the file, which nobody has checked.
#[derive(Debug)]
pub struct Functions {
    parts: Vec<Part>,
    /// The table, and where it is in memory.
    hints: Vec<u8>,
    hints_addr: u64,
}

/// Gives bytes of a file by their offsets.
pub type Read<'a> = dyn Fn(Range<u64>) -> Option<Vec<u8>> + 'a;

impl Functions {
    pub fn parse(read: &Read<'_>) -> Option<Self> {
        let header = read(0..HEADER_LEN)?;
        if header.get(..5)? != b"\x7fELF\x02" {
            return None;
        }
        let table = word(&header, 32)?;
        let count = u64::from(u16::from_le_bytes(header.get(56..58)?.try_into().ok()?));
        let end = table.checked_add(count.min(MOST_PROGRAM_HEADERS) * PROGRAM_HEADER_LEN)?;
        let headers = read(table..end)?;
        let parts: Vec<Part> =
            headers.chunks(PROGRAM_HEADER_LEN as usize).filter_map(Part::parse).collect();
        let unwind = parts.iter().find(|part| part.kind == PT_GNU_EH_FRAME)?;
        if unwind.len > MOST_TABLE {
            return None;
        }
        let hints = read(unwind.offset..unwind.offset.checked_add(unwind.len)?)?;
        let hints_addr = unwind.addr;
        Some(Self { parts, hints, hints_addr })
    }

    fn loads(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| part.kind == PT_LOAD)
    }

    /// The part that the file offset `at` is in, and the address.
    fn locate(&self, at: u64) -> Option<(&Part, u64)> {
        let is_here =
            |part: &&Part| at.checked_sub(part.offset).is_some_and(|inside| inside < part.len);
        let text = self.loads().find(is_here)?;
        Some((text, text.addr.checked_add(at - text.offset)?))
    }

    /// Bytes by their address.
    fn read(&self, read: &Read<'_>, addr: u64, len: usize) -> Option<Vec<u8>> {
        let len = u64::try_from(len).ok()?;
        read(self.loads().find_map(|part| part.offsets(addr, len))?)
    }

    /// Whether what is at file offset `at` is described as the call of a return from a signal.
    pub fn is_signal_return(&self, at: u64, read: &Read<'_>) -> bool {
        let by_addr = |addr: u64, len: usize| self.read(read, addr, len);
        self.locate(at)
            .is_some_and(|(_, pc)| is_signal_return(&self.hints, self.hints_addr, pc, &by_addr))
    }

    /// File offsets of the function around file offset `at` and its neighbours.
    pub fn around(&self, at: u64, read: &Read<'_>) -> Option<Extents> {
        let (text, pc) = self.locate(at)?;
        let by_addr = |addr: u64, len: usize| self.read(read, addr, len);
        let found = extents_around(&self.hints, self.hints_addr, pc, &by_addr)?;
        let offsets = |function: Range<u64>| {
            text.offsets(function.start, function.end.checked_sub(function.start)?)
        };
        Some(Extents {
            function: offsets(found.function)?,
            before: found.before.and_then(offsets),
            next: found.next.and_then(|next| Some(text.offsets(next, 0)?.start)),
        })
    }
}
