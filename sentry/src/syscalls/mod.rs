//! System calls: the table and one file per family. Adding a call = a function in its family's file, one row in
//! `table.rs`, one conformance test.
//!
//! | module | what |
//! | --- | --- |
//! | `table` | one row per call |
//! | `args` | from argument words to types, and their rendering for --strace |
//! | `strace` | one decoded line per call |
//! | `dispatch` | from registers to a handler |
//! | `identity` | getpid and its kin |
//! | `mmap`, `exec` | memory mapping; execve |

pub mod args;
pub mod dispatch;
mod exec;
mod identity;
mod mmap;
pub mod strace;
pub mod table;
