//! Addresses of unix sockets, and what they are found by.

/// A socket's name, as getsockname(2) tells it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum Address {
    /// Not bound.
    #[default]
    Unnamed,
    /// The text that was bound, without its NUL; it means nothing but what its reader makes of it.
    Path(Vec<u8>),
    /// In the abstract namespace, without the leading NUL.
    Abstract(Vec<u8>),
}

/// What a bound socket is found by.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Key {
    /// Device and number of the inode that bind(2) made.
    Inode {
        dev: u64,
        ino: u64,
    },
    Abstract(Vec<u8>),
}
