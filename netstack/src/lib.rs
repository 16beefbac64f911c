//! Sockets and their protocols, standing alone: no tasks, no guest memory, no descriptors, no clock. Callers hand in
//! buffers ([`base::Sink`], [`base::Source`]), credentials as data, and what a message carries beside its bytes as
//! opaque items. Nothing here blocks: `EAGAIN` and a wait queue instead.
//!
//! | module | what |
//! | --- | --- |
//! | `unix` | AF_UNIX: stream, datagram, sequenced packets |
//! | `inet` | AF_INET and AF_INET6 over the loopback interface |
//! | `message` | what goes over sockets of any family |
//! | `channel`, `inbox` | one direction of a connection; datagrams that have come |
//!
//! Lock order: see `lock_order`.

#![forbid(unsafe_code)]

mod channel;
mod inbox;
pub mod inet;
pub mod lock_order;
pub mod message;
pub mod unix;
