//! Where functions begin and end, by what unwinders know of an ELF file.

use std::ops::Range;

use platform::rewrite::function_extents;

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

/// File offsets of the function around file offset `at`. `read` gives bytes of the file, which nobody has checked.
pub fn around(at: u64, read: &dyn Fn(Range<u64>) -> Option<Vec<u8>>) -> Option<Range<u64>> {
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
    let loads = || parts.iter().filter(|part| part.kind == PT_LOAD);
    let text =
        loads().find(|part| at.checked_sub(part.offset).is_some_and(|inside| inside < part.len))?;
    let unwind = parts.iter().find(|part| part.kind == PT_GNU_EH_FRAME)?;
    if unwind.len > MOST_TABLE {
        return None;
    }
    let hints = read(unwind.offset..unwind.offset.checked_add(unwind.len)?)?;
    let by_addr = |addr: u64, len: usize| {
        let len = u64::try_from(len).ok()?;
        read(loads().find_map(|part| part.offsets(addr, len))?)
    };
    let pc = text.addr.checked_add(at - text.offset)?;
    let function = function_extents(&hints, unwind.addr, pc, &by_addr)?;
    text.offsets(function.start, function.end.checked_sub(function.start)?)
}
