//! Mechanisms that two or more layers share. Knows no subsystem: nothing here names a task, a file or a guest.
//!
//! | module | what |
//! | --- | --- |
//! | `lock` | mutexes whose level is a type; the order is checked in debug builds |
//! | `wait` | wait queues: who is told when a file or object changes state |
//! | `io_buf` | sources and sinks of bytes, wherever the bytes live |
//! | `cred` | credentials, capabilities, permission checks |
//! | `clock` | instants and the `Clock` trait |
//! | `later` | wait queues that are told when more is there, or before their worker sleeps |
//! | `lent` | positions of files that are lent to guest code |
//! | `shared_ring` | pipes whose bytes guest code writes and reads by itself |
//! | `ledger` | what guest code does to files on its own |

#![forbid(unsafe_code)]

pub mod clock;
pub mod cred;
pub mod io_buf;
pub mod later;
pub mod ledger;
pub mod lent;
pub mod lock;
pub mod shared_ring;
pub mod wait;

pub use io_buf::{Sink, Source};
pub use ledger::Ledger;
pub use lent::Lent;
pub use shared_ring::SharedRing;
pub use wait::{Observer, WaitQueue};
