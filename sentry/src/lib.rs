//! The kernel: the only crate that sees tasks, guest memory and files at once. Glues `vfs`, `netstack` and
//! `platform` together. Opens nothing on the host by itself.
//!
//! | module | what |
//! | --- | --- |
//! | `config` | what the launcher hands in |
//! | `control` | the messages between supervisor and sentry |
//! | `kernel` | the roots: pid table, clocks, mounts, platform, executor |
//! | `thread_loop` | the loop of one guest thread |
//! | `executor` | workers, run queue, reactor, timers |
//! | `files` | anonymous files that know tasks |
//! | `task` | threads, thread groups, process groups, sessions; clone, exec, exit, wait |
//! | `signal` | queues, masks, actions, delivery, frames, stops |
//! | `mm` | VMA tree, mmap family, brk, user copies |
//! | `loader` | ELF, scripts, initial stack, auxv |
//! | `heap` | who is told of the heap |
//! | `library` | who maps segments of libraries by itself |
//! | `known_paths` | what all guest code is told of paths |
//! | `loans` | files that guest code reads by itself |
//! | `pipe_rings` | pipes that guest code writes and reads by itself |
//! | `io_wait` | the one loop that makes files block |
//! | `socket` | sockets as files |
//! | `futex`, `time` | futex queues; clocks and timers |
//! | `syscalls` | the table and one file per family |
//! | `proc_view` | what procfs asks about tasks |

#![forbid(unsafe_code)]

pub mod boot;
pub mod config;
pub mod control;
pub mod cx;
mod descriptors;
pub mod error;
pub mod executor;
pub mod files;
pub mod futex;
mod heap;
pub mod io_wait;
pub mod kernel;
pub mod known_paths;
mod ledger;
mod library;
pub mod loader;
mod loans;
pub mod lock_order;
pub mod mm;
mod path_stats;
mod pipe_rings;
pub mod proc_view;
mod ready;
pub mod rewrite;
pub mod signal;
pub mod socket;
mod stats;
pub mod syscalls;
pub mod task;
pub mod thread_loop;
pub mod time;

pub use boot::{boot, greet};
pub use cx::Cx;
pub use error::{Restart, SysError, SysResult};
pub use kernel::Kernel;
