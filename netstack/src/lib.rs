//! Sockets and their protocols, standing alone: no tasks, no guest memory, no descriptors, no clock. Callers hand in
//! buffers ([`base::Sink`], [`base::Source`]), credentials as data, and what a message carries beside its bytes as
//! opaque items. Nothing here blocks: `EAGAIN` and a wait queue instead.
//!
//! | module | what |
//! | --- | --- |
//! | `unix` | AF_UNIX: stream, datagram, sequenced packets |
//!
//! Lock order: see `lock_order`.

#![forbid(unsafe_code)]

pub mod lock_order;
pub mod unix;
