//! Reading and writing of little-endian fields.

use crate::path::{Name, TreePath};

/// Why a message was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the message ends inside a field")]
    Truncated,
    #[error("bytes follow the last field")]
    Trailing,
    #[error("a path or name is not allowed in a message")]
    BadPath,
    #[error("a field holds a value without meaning")]
    BadValue,
}

pub type Decoded<T> = Result<T, DecodeError>;

/// Takes fields from the front of a message.
#[derive(Debug, Clone)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    #[must_use]
    pub const fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    pub fn bytes(&mut self, count: usize) -> Decoded<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Decoded<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Decoded<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Decoded<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Decoded<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn i64(&mut self) -> Decoded<i64> {
        self.array().map(i64::from_le_bytes)
    }

    pub fn flag(&mut self) -> Decoded<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::BadValue),
        }
    }

    /// Bytes with a `u16` length in front.
    pub fn blob(&mut self) -> Decoded<&'a [u8]> {
        let length = self.u16()?;
        self.bytes(length.into())
    }

    pub fn path(&mut self) -> Decoded<TreePath<'a>> {
        TreePath::new(self.blob()?).map_err(|_| DecodeError::BadPath)
    }

    pub fn name(&mut self) -> Decoded<Name<'a>> {
        Name::new(self.blob()?).map_err(|_| DecodeError::BadPath)
    }

    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything that is left.
    #[must_use]
    pub const fn rest(self) -> &'a [u8] {
        self.0
    }

    /// The message must end here.
    pub fn finish(self) -> Decoded<()> {
        if self.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}

/// Appends fields to a message.
pub trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    fn put_i64(&mut self, value: i64) {
        self.put(&value.to_le_bytes());
    }

    fn put_flag(&mut self, value: bool) {
        self.put_u8(u8::from(value));
    }

    /// Bytes with a `u16` length in front; what is longer than that is cut, and refused by the receiver's checks
    /// of the whole (callers bound lengths by `MAX_VALUE` and `MAX_PATH` first).
    fn put_blob(&mut self, bytes: &[u8]) {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.put_u16(length);
        self.put(bytes.get(..length.into()).unwrap_or(bytes));
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}
