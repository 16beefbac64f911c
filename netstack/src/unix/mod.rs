//! AF_UNIX. See unix(7).
//!
//! How Linux does it: a socket owns a queue of incoming buffers and points at its peer; sending locks the peer and
//! queues there, charged to the sender. Here each *direction* is an object of its own, a [`channel::Channel`], that
//! the two ends share. A connected socket thus never needs its peer, and no two sockets' locks are taken together;
//! an end that goes away closes both its channels, and that is all the other one has to look at.
//!
//! * Stream and seqpacket sockets get a [`stream::Link`] of two channels when they are connected; it never changes.
//! * Datagram sockets own an inbox ([`dgram::Inbox`]); senders find it by the receiver's name or keep it as their peer.
//! * A name is an abstract string or the identity of an inode ([`Key`]); who resolves paths and makes inodes is above.
//!
//! | module | what |
//! | --- | --- |
//! | `address` | socket addresses and keys |
//! | `names` | who is bound where |
//! | `socket` | the socket: creation, names, connections, options |
//! | `channel` | one direction of bytes or packets, with credentials and rights |
//! | `stream` | sending and receiving over a connection |
//! | `dgram` | sending and receiving without one |
//! | `poll` | readiness |

mod address;
mod channel;
mod dgram;
mod names;
mod poll;
mod socket;
mod stream;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;

use abi::socket::Ucred;

pub use address::{Address, Key};
pub use names::Names;
pub use socket::{Connecting, Kind, Options, Shutdown, UnixSocket};

/// Something that travels with a message, such as an open file; opaque here.
pub type Right = Arc<dyn Any + Send + Sync>;

/// What a message carries beside its bytes.
#[derive(Clone, Default)]
pub struct Control {
    pub cred: Ucred,
    pub rights: Vec<Right>,
}

/// What came of a receive.
#[derive(Default)]
pub struct Received {
    /// Bytes that were put into the sink.
    pub bytes: usize,
    /// Bytes of the whole packet, which may be more; the same as `bytes` for streams.
    pub full: usize,
    /// Sender's address, for datagrams.
    pub from: Option<Address>,
    /// `None` at the end of a stream.
    pub control: Option<Control>,
}

/// How to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Take,
    /// `MSG_PEEK`: what is received stays.
    Peek,
}
