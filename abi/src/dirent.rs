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
