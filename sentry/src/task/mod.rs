//! Threads, thread groups, process groups, sessions.
//!
//! | module | what |
//! | --- | --- |
//! | `thread` | one guest thread |
//! | `thread_group` | what its threads share |
//! | `pid_table` | who has which id, who belongs to whom |
//! | `clone`, `exit`, `wait` | how tasks come and go |
//! | `first` | the sandbox's first process |
//! | `exec` | a new program in the same process |
//! | `dethread` | what execve(2) does to the other threads |
//! | `session` | process groups and sessions |
//! | `job_control` | what terminals ask about sessions and process groups |
//! | `run_state` | how a thread is interrupted |
//! | `block` | the one place where a call waits |
//! | `own_parts` | what a thread's own calls look at without a lock |
//! | `rlimits` | resource limits |

mod block;
pub mod clone;
pub mod dethread;
pub mod exec;
pub mod exit;
mod first;
pub mod job_control;
mod own_parts;
mod pid_table;
pub mod rlimits;
pub mod run_state;
pub mod session;
#[cfg(test)]
mod tests;
mod thread;
mod thread_group;
pub mod wait;

pub use block::Blocked;
pub use first::{FirstProcess, make_first, start_first};
pub use own_parts::{OwnParts, Part};
pub use pid_table::{Links, PID_MAX, PidTable, Tables};
pub use rlimits::Rlimits;
pub use thread::{Attrs, Parts, RestartBlock, Thread};
pub use thread_group::{Accounts, Image, NewGroup, Rusage, ThreadGroup};
