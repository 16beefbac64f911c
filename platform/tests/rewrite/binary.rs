//! As much of an ELF file as it takes to find its functions.

use std::ops::Range;
use std::path::Path;

use platform::rewrite::function_extents;

const PT_LOAD: u32 = 1;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const PF_X: u32 = 1;

struct Segment {
    kind: u32,
    flags: u32,
    addr: u64,
    bytes: Range<usize>,
}

/// A binary as if loaded at the addresses it names.
pub struct Binary {
    file: Vec<u8>,
    segments: Vec<Segment>,
}

impl Binary {
    /// `None` if there is no such file, or none with a table of functions.
    pub fn open(path: &Path) -> Option<Self> {
        let file = std::fs::read(path).ok()?;
        let word = |at: usize| Some(u64::from_le_bytes(file.get(at..at + 8)?.try_into().ok()?));
        let half = |at: usize| Some(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?));
        let quad = |at: usize| Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?));
        let table = word(32)? as usize;
        let segment = |index: usize| {
            let at = table + index * usize::from(half(54)?);
            let offset = word(at + 8)? as usize;
            Some(Segment {
                kind: quad(at)?,
                flags: quad(at + 4)?,
                addr: word(at + 16)?,
                bytes: offset..offset + word(at + 32)? as usize,
            })
        };
        let segments = (0..usize::from(half(56)?)).map(segment).collect::<Option<Vec<_>>>()?;
        let binary = Self { file, segments };
        binary.header()?;
        Some(binary)
    }

    fn header(&self) -> Option<(&[u8], u64)> {
        let segment = self.segments.iter().find(|segment| segment.kind == PT_GNU_EH_FRAME)?;
        Some((self.file.get(segment.bytes.clone())?, segment.addr))
    }

    /// Executable segments and their addresses.
    pub fn texts(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let is_text = |s: &&Segment| s.kind == PT_LOAD && s.flags & PF_X != 0;
        let texts = self.segments.iter().filter(is_text);
        texts.filter_map(|s| Some((self.file.get(s.bytes.clone())?, s.addr)))
    }

    pub fn read(&self, addr: u64, len: usize) -> Option<Vec<u8>> {
        self.segments.iter().filter(|segment| segment.kind == PT_LOAD).find_map(|segment| {
            let offset = addr.checked_sub(segment.addr)? as usize;
            let bytes = self.file.get(segment.bytes.clone())?;
            Some(bytes.get(offset..offset.checked_add(len)?)?.to_vec())
        })
    }

    /// All functions that unwinding knows, as rewriting would find them.
    pub fn functions(&self) -> Vec<Range<u64>> {
        let Some((header, addr)) = self.header() else { return Vec::new() };
        let (entries, _) = header[12..].as_chunks::<8>();
        let extents = |entry: &[u8; 8]| {
            let distance = i32::from_le_bytes(entry[..4].try_into().ok()?);
            let start = addr.checked_add_signed(distance.into())?;
            function_extents(header, addr, start, &|at, len| self.read(at, len))
        };
        entries.iter().filter_map(extents).collect()
    }
}
