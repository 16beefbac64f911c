//! AF_INET and AF_INET6 over the loopback interface: TCP and UDP sockets as programs see them. See ip(7), tcp(7), udp(7).
//!
//! A sandbox without a network has one interface, and nothing that is sent over it can be lost, reordered or seen by
//! anybody else. So a connection here is a pair of channels, as for unix sockets, and a datagram goes straight into the
//! receiver's inbox; no packets are made. Addresses other than loopback are unreachable. When there are interfaces with
//! packets, `tcp` and `udp` will serve those, and the names here stay.
//!
//! What differs from a real loopback: connecting never takes time, so a connect that does not block succeeds or is
//! refused at once (Linux says `EINPROGRESS` first); there is no TIME_WAIT; a write after the peer has closed fails at
//! once and not the second time.
//!
//! | module | what |
//! | --- | --- |
//! | `ports` | which socket has which port |
//! | `socket` | the socket: creation, names, connections, the end |
//! | `transfer` | sending, receiving, readiness |

mod ports;
mod socket;
mod transfer;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

pub use ports::Ports;
pub use socket::{Connecting, Family, InetSocket, Kind};

/// What came of a receive.
pub type Received = crate::message::Received<SocketAddr>;
