//! Threads, thread groups, process groups, sessions.
//!
//! | module | what |
//! | --- | --- |
//! | `thread` | one guest thread |
//! | `thread_group` | what its threads share |
//! | `pid_table` | who has which id |

mod pid_table;
mod thread;
mod thread_group;

pub use pid_table::PidTable;
pub use thread::Thread;
pub use thread_group::ThreadGroup;
