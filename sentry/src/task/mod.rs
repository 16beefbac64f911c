//! Threads, thread groups, process groups, sessions.
//!
//! | module | what |
//! | --- | --- |
//! | `thread` | one guest thread |
//! | `thread_group` | what its threads share |
//! | `pid_table` | who has which id, who belongs to whom |
//! | `run_state` | how a thread is interrupted |
//! | `block` | the one place where a call waits |
//! | `rlimits` | resource limits |

mod block;
mod pid_table;
pub mod rlimits;
pub mod run_state;
mod thread;
mod thread_group;

pub use block::Blocked;
pub use pid_table::{Links, PID_MAX, PidTable, Tables};
pub use rlimits::Rlimits;
pub use thread::{Attrs, Parts, RestartBlock, Thread};
pub use thread_group::{Accounts, Image, NewGroup, Rusage, ThreadGroup};
