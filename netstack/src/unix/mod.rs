//! AF_UNIX. See unix(7).
//!
//! How Linux does it: a socket owns a queue of incoming buffers and points at its peer; sending locks the peer and
//! queues there, charged to the sender. Here each *direction* is an object of its own, a [`crate::channel::Channel`], that
//! the two ends share. A connected socket thus never needs its peer, and no two sockets' locks are taken together;
//! an end that goes away closes both its channels, and that is all the other one has to look at.
//!
//! * Stream and seqpacket sockets get a [`stream::Link`] of two channels when they are connected; it never changes.
//! * Datagram sockets own an inbox ([`crate::inbox::Inbox`]); senders find it by the receiver's name or keep it as their peer.
//! * A name is an abstract string or the identity of an inode ([`Key`]); who resolves paths and makes inodes is above.
//!
//! | module | what |
//! | --- | --- |
//! | `address` | socket addresses and keys |
//! | `names` | who is bound where |
//! | `socket` | the socket: creation, names, connections, options |
//! | `stream` | sending and receiving over a connection |
//! | `dgram` | sending and receiving without one |
//! | `poll` | readiness |

mod address;
mod dgram;
mod names;
mod poll;
mod socket;
mod stream;

#[cfg(test)]
mod tests;

pub use address::{Address, Key};
pub use names::Names;
pub use socket::{Connecting, Kind, Options, UnixSocket};

pub use crate::message::{Control, Mode, Right, Shutdown};

/// What came of a receive.
pub type Received = crate::message::Received<Address>;
type Inbox = crate::inbox::Inbox<Address>;
