//! What goes over sockets of any family.

use std::any::Any;
use std::sync::Arc;

use abi::socket::Ucred;

/// Something that travels with a message, such as an open file; opaque here.
pub type Right = Arc<dyn Any + Send + Sync>;

/// What a message carries beside its bytes.
#[derive(Clone, Default)]
pub struct Control {
    pub cred: Ucred,
    pub rights: Vec<Right>,
}

/// What came of a receive, with the addresses of a family.
pub struct Received<A> {
    /// Bytes that were put into the sink.
    pub bytes: usize,
    /// Bytes of the whole packet, which may be more; the same as `bytes` for streams.
    pub full: usize,
    /// Sender's address, for datagrams.
    pub from: Option<A>,
    /// `None` at the end of a stream.
    pub control: Option<Control>,
}

impl<A> Default for Received<A> {
    fn default() -> Self {
        Self { bytes: 0, full: 0, from: None, control: None }
    }
}

/// How to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Take,
    /// `MSG_PEEK`: what is received stays.
    Peek,
}

/// Directions for shutdown(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shutdown {
    Read,
    Write,
    Both,
}

impl Shutdown {
    #[must_use]
    pub const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::Both)
    }

    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Both)
    }
}
