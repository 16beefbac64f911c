//! Where a function begins and ends, from what its binary carries for unwinding.
//!
//! `.eh_frame_hdr` is a sorted table from addresses to records of `.eh_frame`; a record (FDE) names the range it
//! describes, encoded as its head (CIE) says. See the Linux Standard Base, Core, "Exception Frames". Read as far as
//! it takes for what linkers write; everything else is no answer.

use std::ops::Range;

use super::signal_return::LOAD_LEN;

/// A longer function is not looked through.
pub const FUNCTION_MAX: u64 = 1 << 20;

/// DW_EH_PE_udata4, and DW_EH_PE_datarel | DW_EH_PE_sdata4.
const COUNT_ENCODING: u8 = 0x03;
const TABLE_ENCODING: u8 = 0x3b;
const PCREL: u8 = 0x10;
/// Length, pointer to the CIE, then two fields of at most 8 bytes.
const FDE_READ: usize = 24;
/// As much of a CIE as is ever of interest.
const CIE_READ: usize = 64;

/// A function and what is next to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extents {
    pub function: Range<u64>,
    /// The function before, if it is known.
    pub before: Option<Range<u64>>,
    /// Where the next one begins, if there is one.
    pub next: Option<u64>,
}

/// The function around `pc` by the table `eh_frame_hdr` that begins at address `eh_frame_hdr_addr`.
///
/// `read` gives bytes of `.eh_frame` by address and length. `None`: not known, or not in a form that is read here.
pub fn function_extents(
    eh_frame_hdr: &[u8],
    eh_frame_hdr_addr: u64,
    pc: u64,
    read: &dyn Fn(u64, usize) -> Option<Vec<u8>>,
) -> Option<Range<u64>> {
    Some(extents_around(eh_frame_hdr, eh_frame_hdr_addr, pc, read)?.function)
}

/// The same with the functions before and behind.
pub fn extents_around(
    eh_frame_hdr: &[u8],
    eh_frame_hdr_addr: u64,
    pc: u64,
    read: &dyn Fn(u64, usize) -> Option<Vec<u8>>,
) -> Option<Extents> {
    let table = Table::parse(eh_frame_hdr, eh_frame_hdr_addr)?;
    let index = table.find(pc)?;
    let function = table.function(index, read).filter(|function| function.contains(&pc))?;
    let before = index.checked_sub(1).and_then(|index| table.function(index, read));
    let next = index.checked_add(1).and_then(|index| table.entry(index)).map(|(start, _)| start);
    let before = before.filter(|before| before.end <= function.start);
    let next = next.filter(|next| *next >= function.end);
    Some(Extents { function, before, next })
}

/// Whether the unwind table describes a return from a signal whose system call is at `syscall`: the function begins one
/// byte before the instruction in front of that.
pub fn is_signal_return(
    eh_frame_hdr: &[u8],
    eh_frame_hdr_addr: u64,
    syscall: u64,
    read: &dyn Fn(u64, usize) -> Option<Vec<u8>>,
) -> bool {
    let record = || {
        let table = Table::parse(eh_frame_hdr, eh_frame_hdr_addr)?;
        let (start, fde) = table.entry(table.find(syscall)?)?;
        let (function, is_signal) = read_fde(fde, read)?;
        Some(
            is_signal
                && function.start == start
                && function.contains(&syscall)
                && start.checked_add(1 + LOAD_LEN) == Some(syscall),
        )
    };
    record().unwrap_or(false)
}

/// The sorted table of `.eh_frame_hdr`: pairs of 4-byte distances from the section's start.
struct Table<'a> {
    entries: &'a [[u8; 8]],
    base: u64,
}

impl<'a> Table<'a> {
    fn parse(bytes: &'a [u8], base: u64) -> Option<Self> {
        let mut cursor = Cursor { rest: bytes };
        let [version, pointer, count, table] = cursor.take::<4>()?;
        if (version, count, table) != (1, COUNT_ENCODING, TABLE_ENCODING) {
            return None;
        }
        cursor.skip(encoded_size(pointer)?)?;
        let count = usize::try_from(u32::from_le_bytes(cursor.take()?)).ok()?;
        let (entries, _) = cursor.rest.as_chunks::<8>();
        Some(Self { entries: entries.get(..count)?, base })
    }

    /// The last function that begins at or before `pc`.
    fn find(&self, pc: u64) -> Option<usize> {
        self.entries.partition_point(|entry| self.decode(entry).0 <= pc).checked_sub(1)
    }

    /// Start and record of a function.
    fn entry(&self, index: usize) -> Option<(u64, u64)> {
        Some(self.decode(self.entries.get(index)?))
    }

    /// A function as its record has it, if table and record agree.
    fn function(
        &self,
        index: usize,
        read: &dyn Fn(u64, usize) -> Option<Vec<u8>>,
    ) -> Option<Range<u64>> {
        let (start, fde) = self.entry(index)?;
        let (function, is_signal) = read_fde(fde, read)?;
        // Those are described from one byte before their first instruction, because unwinders look up return addresses
        // less one.
        (function.start == start && !is_signal).then_some(function)
    }

    fn decode(&self, entry: &[u8; 8]) -> (u64, u64) {
        let [a, b, c, d, e, f, g, h] = *entry;
        let address = |distance| self.base.wrapping_add_signed(i32::from_le_bytes(distance).into());
        (address([a, b, c, d]), address([e, f, g, h]))
    }
}

/// What a record describes, and whether that is what signal handlers return to.
fn read_fde(fde: u64, read: &dyn Fn(u64, usize) -> Option<Vec<u8>>) -> Option<(Range<u64>, bool)> {
    let bytes = read_record(fde, FDE_READ, read)?;
    let mut cursor = Cursor { rest: &bytes };
    let to_cie = u32::from_le_bytes(cursor.take()?);
    let pointer_at = fde.checked_add(4)?;
    let (encoding, is_signal) = read_cie(pointer_at.checked_sub(to_cie.into())?, read)?;
    let start_at = pointer_at.checked_add(4)?;
    let start = match encoding & 0xf0 {
        0 => cursor.encoded(encoding)?,
        PCREL => start_at.wrapping_add(cursor.encoded(encoding)?),
        _ => return None,
    };
    // A length: same size, but never less than nothing.
    let len = match encoded_size(encoding)? {
        4 => u32::from_le_bytes(cursor.take()?).into(),
        8 => u64::from_le_bytes(cursor.take()?),
        _ => return None,
    };
    let end = start.checked_add(len)?;
    (len <= FUNCTION_MAX).then_some((start..end, is_signal))
}

/// How the records of a CIE encode addresses, and whether they describe what signal handlers return to.
fn read_cie(cie: u64, read: &dyn Fn(u64, usize) -> Option<Vec<u8>>) -> Option<(u8, bool)> {
    let bytes = read_record(cie, CIE_READ, read)?;
    let mut cursor = Cursor { rest: &bytes };
    if u32::from_le_bytes(cursor.take()?) != 0 {
        return None;
    }
    let [version] = cursor.take()?;
    let end = cursor.rest.iter().position(|byte| *byte == 0)?;
    let augmentation = cursor.skip(end)?;
    cursor.skip(1)?;
    cursor.skip_leb128()?;
    cursor.skip_leb128()?;
    match version {
        1 => cursor.skip(1).map(drop)?,
        3 => cursor.skip_leb128()?,
        _ => return None,
    }
    let Some(letters) = augmentation.strip_prefix(b"z") else {
        // Without a description, addresses are plain.
        return augmentation.is_empty().then_some((0, false));
    };
    cursor.skip_leb128()?;
    let (mut encoding, mut is_signal) = (0, false);
    for letter in letters {
        match letter {
            b'R' => [encoding] = cursor.take()?,
            b'L' => cursor.skip(1).map(drop)?,
            b'P' => {
                let [pointer] = cursor.take()?;
                cursor.skip(encoded_size(pointer)?)?;
            }
            b'B' => {}
            b'S' => is_signal = true,
            _ => return None,
        }
    }
    Some((encoding, is_signal))
}

/// A record without its length, cut off at `max` bytes.
fn read_record(
    at: u64,
    max: usize,
    read: &dyn Fn(u64, usize) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let head: [u8; 4] = read(at, 4)?.try_into().ok()?;
    let len = u32::from_le_bytes(head);
    // Zero ends the section; the largest value announces a 64-bit length.
    if len == 0 || len == u32::MAX {
        return None;
    }
    let len = usize::try_from(len).ok()?.min(max);
    let bytes = read(at.checked_add(4)?, len)?;
    (bytes.len() == len).then_some(bytes)
}

/// Bytes that a value of an encoding takes (DW_EH_PE_*, low half).
fn encoded_size(encoding: u8) -> Option<usize> {
    match encoding & 0x0f {
        0x00 | 0x04 | 0x0c => Some(8),
        0x02 | 0x0a => Some(2),
        0x03 | 0x0b => Some(4),
        _ => None,
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    fn skip(&mut self, len: usize) -> Option<&'a [u8]> {
        let (skipped, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(skipped)
    }

    fn skip_leb128(&mut self) -> Option<()> {
        let end = self.rest.iter().position(|byte| byte & 0x80 == 0)?;
        self.skip(end)?;
        self.skip(1).map(drop)
    }

    /// A value as its encoding says, before anything is added to it.
    fn encoded(&mut self, encoding: u8) -> Option<u64> {
        match encoding & 0x0f {
            0x00 | 0x04 | 0x0c => Some(u64::from_le_bytes(self.take()?)),
            0x03 => Some(u32::from_le_bytes(self.take()?).into()),
            0x0b => Some(i64::from(i32::from_le_bytes(self.take()?)).cast_unsigned()),
            _ => None,
        }
    }
}
