//! Reading directories.

use std::cell::RefCell;

use abi::Errno;
use abi::dirent::{DIRENT_HEADER, dirent_len};
use abi::ids::Fd;
use vfs::file::DirEntry;

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::UserSlice;
use crate::syscalls::args::OutSlice;

/// Most bytes of one answer: larger buffers are filled in several calls.
const MOST_BYTES: usize = 64 << 10;

/// Which record a call writes.
#[derive(Debug, Clone, Copy)]
enum Format {
    Dirent,
    Dirent64,
}

/// getdents. See [getdents(2)](https://man7.org/linux/man-pages/man2/getdents.2.html).
pub fn getdents(cx: &mut Cx<'_>, fd: Fd, buf: OutSlice) -> SysResult {
    read_entries(cx, fd, buf.0, Format::Dirent)
}

/// getdents64. See [getdents64(2)](https://man7.org/linux/man-pages/man2/getdents64.2.html).
pub fn getdents64(cx: &mut Cx<'_>, fd: Fd, buf: OutSlice) -> SysResult {
    read_entries(cx, fd, buf.0, Format::Dirent64)
}

fn read_entries(cx: &Cx<'_>, fd: Fd, buf: UserSlice, format: Format) -> SysResult {
    let file = cx.file(fd)?;
    let room = (buf.len as u32 as usize).min(MOST_BYTES);
    let records = RefCell::new(Vec::with_capacity(room.min(4096)));
    let mut is_full = false;
    let mut count = 0;
    cx.with_vfs(|vfs| {
        let mut emit = |entry: DirEntry<'_>| {
            is_full = !push(&mut records.borrow_mut(), room, &entry, format);
            !is_full
        };
        file.readdir_to(vfs, &mut emit, &mut |next| {
            let records = records.borrow();
            count = cx.mm().space().write(buf.addr, &records);
            if count == records.len() {
                return Ok(next);
            }
            let (whole, next) = last_within(&records, count).ok_or(Errno::EFAULT)?;
            count = whole;
            Ok(next)
        })
    })?;
    if count == 0 && is_full {
        return Err(Errno::EINVAL.into());
    }
    Ok(count as u64)
}

/// Where the last record ends that is wholly in that many bytes, and the position after it.
fn last_within(records: &[u8], count: usize) -> Option<(usize, u64)> {
    let mut found = None;
    let mut start = 0;
    while let Some(header) = records.get(start..start + DIRENT_HEADER) {
        let (next, len) = (header.get(8..16)?, header.get(16..18)?);
        start += usize::from(u16::from_ne_bytes(len.try_into().ok()?));
        if start > count {
            break;
        }
        found = Some((start, u64::from_ne_bytes(next.try_into().ok()?)));
    }
    found
}

/// Appends a record unless there is no room for it.
fn push(out: &mut Vec<u8>, room: usize, entry: &DirEntry<'_>, format: Format) -> bool {
    if matches!(format, Format::Dirent64) {
        return entry.push_record(room, out);
    }
    let (start, len) = (out.len(), dirent_len(entry.name.len()));
    let Ok(len16) = u16::try_from(len) else { return false };
    if start + len > room {
        return false;
    }
    out.extend_from_slice(&entry.ino.to_ne_bytes());
    out.extend_from_slice(&entry.next.to_ne_bytes());
    out.extend_from_slice(&len16.to_ne_bytes());
    out.extend_from_slice(entry.name);
    out.resize(start + len - 1, 0);
    out.push(entry.kind.dirent_type());
    true
}

#[cfg(test)]
mod tests {
    use abi::stat::FileType;

    use super::*;

    fn entry(name: &[u8]) -> DirEntry<'_> {
        DirEntry { ino: 7, next: 9, kind: FileType::Directory, name }
    }

    #[test]
    fn records_are_padded_and_stop_when_full() {
        let mut out = Vec::new();
        assert!(push(&mut out, 60, &entry(b"."), Format::Dirent64));
        assert!(push(&mut out, 60, &entry(b"abcde"), Format::Dirent64));
        assert!(!push(&mut out, 60, &entry(b"x"), Format::Dirent64));
        assert_eq!(out.len(), 24 + 32);
        assert_eq!(&out[16..18], &24u16.to_ne_bytes());
        assert_eq!(out[18], 4);
        assert_eq!(&out[19..24], b".\0\0\0\0");
    }

    #[test]
    fn old_records_end_with_the_type() {
        let mut out = Vec::new();
        assert!(push(&mut out, 60, &entry(b"ab"), Format::Dirent));
        assert_eq!(out.len(), 24);
        assert_eq!(&out[18..21], b"ab\0");
        assert_eq!(out[23], 4);
    }
}
