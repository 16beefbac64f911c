//! Records of getdents(2) and getdents64(2): header fields, name, NUL, padding to 8 bytes.

/// Bytes before the name in `struct linux_dirent64`: ino, off, reclen, type.
pub const DIRENT64_HEADER: usize = 19;
/// Bytes before the name in the old `struct linux_dirent`; its type is the record's last byte.
pub const DIRENT_HEADER: usize = 18;

/// Length of a `linux_dirent64` record.
#[must_use]
pub const fn dirent64_len(name_len: usize) -> usize {
    (DIRENT64_HEADER + name_len + 1).next_multiple_of(8)
}

/// Length of an old `linux_dirent` record: name, NUL and the type byte follow the header.
#[must_use]
pub const fn dirent_len(name_len: usize) -> usize {
    (DIRENT_HEADER + name_len + 2).next_multiple_of(8)
}

/// A record of getdents64(2), `struct linux_dirent64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub ino: u64,
    /// Position after it.
    pub next: u64,
    /// `d_type`.
    pub kind: u8,
    pub name: &'a [u8],
}

impl Record<'_> {
    /// What stands before the name; `None` for a name that is too long.
    #[must_use]
    pub fn header(&self) -> Option<[u8; DIRENT64_HEADER]> {
        let len = u16::try_from(dirent64_len(self.name.len())).ok()?;
        let mut header = [0; DIRENT64_HEADER];
        let (ino, rest) = header.split_first_chunk_mut()?;
        *ino = self.ino.to_ne_bytes();
        let (next, rest) = rest.split_first_chunk_mut()?;
        *next = self.next.to_ne_bytes();
        let (reclen, rest) = rest.split_first_chunk_mut()?;
        *reclen = len.to_ne_bytes();
        *rest.first_mut()? = self.kind;
        Some(header)
    }
}

/// Records one after the other, each with where it begins; ends at the first that is none.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// From this offset on.
    #[must_use]
    pub const fn from(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Where the next one begins: the end, if there were nothing but records.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (usize, Record<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at;
        let bytes = self.bytes.get(start..)?;
        let (ino, rest) = bytes.split_first_chunk()?;
        let (next, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let kind = *rest.first()?;
        let len = usize::from(u16::from_ne_bytes(*len));
        let name = bytes.get(DIRENT64_HEADER..len)?;
        let end = name.iter().position(|byte| *byte == 0)?;
        self.at = start + len;
        let (ino, next) = (u64::from_ne_bytes(*ino), u64::from_ne_bytes(*next));
        Some((start, Record { ino, next, kind, name: name.get(..end)? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_are_written() {
        let records = [
            Record { ino: 7, next: 9, kind: 4, name: b"." },
            Record { ino: 8, next: u64::MAX, kind: 8, name: b"a longer name" },
        ];
        let mut bytes = [0xff; 64];
        let mut at = 0;
        for record in &records {
            let len = dirent64_len(record.name.len());
            let place = &mut bytes[at..at + len];
            place.fill(0);
            place[..DIRENT64_HEADER].copy_from_slice(&record.header().unwrap());
            place[DIRENT64_HEADER..][..record.name.len()].copy_from_slice(record.name);
            at += len;
        }
        let mut read = Records::new(&bytes[..at]);
        assert_eq!(read.next(), Some((0, records[0])));
        assert_eq!(read.next(), Some((24, records[1])));
        assert!(read.next().is_none() && read.is_at_end());
        assert_eq!(Records::from(&bytes[..at], 24).count(), 1);
        for cut in 1..at {
            let mut read = Records::new(&bytes[..cut]);
            read.by_ref().for_each(drop);
            assert_eq!(read.is_at_end(), cut == 24, "cut at {cut}");
        }
    }
}
