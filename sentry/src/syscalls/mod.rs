//! System calls: the table and one file per family. Adding a call = a function in its family's file, one row in
//! `table.rs`, one conformance test.
//!
//! | module | what |
//! | --- | --- |
//! | `table` | one row per call |
//! | `args`, `struct_args` | from argument words to types, and their rendering for --strace |
//! | `names` | words that are one of a list of names |
//! | `strace` | one decoded line per call |
//! | `dispatch` | from registers to a handler |
//! | `coverage` | the table for readers: docs/SYSCALLS.md |
//! | `identity` | getpid and its kin |
//! | `clone`, `exit`, `wait`, `session` | processes |
//! | `signal`, `kill` | handling signals, sending them |
//! | `capability`, `rlimit`, `prctl`, `arch_prctl`, `sched`, `membarrier`, `robust`, `usage` | attributes of processes |
//! | `task_files` | pidfd, signalfd |
//! | `mmap`, `exec` | memory mapping; execve |
//! | `descriptor` | the caller's descriptors and path arguments |
//! | `read_write`, `open`, `fd`, `fcntl`, `ioctl` | open files |
//! | `socket`, `message`, `sockopt` | sockets |
//! | `stat`, `path`, `dir`, `xattr`, `sync` | names and attributes |
//! | `poll`, `epoll`, `pipe` | waiting for files; pipes, eventfds |
//! | `futex`, `time`, `timer` | futexes, clocks, timers |
//! | `splice`, `memfd`, `process_vm` | bytes from file to file, files in memory, memory of others |
//! | `mount` | mounting |
//! | `sysinfo`, `random` | about the system |

pub mod arch_prctl;
pub mod args;
mod capability;
mod clone;
pub mod coverage;
pub mod descriptor;
pub mod dir;
pub mod dispatch;
mod epoll;
mod exec;
mod exit;
mod fcntl;
mod fd;
pub(crate) mod futex;
mod identity;
mod inotify;
mod ioctl;
mod kill;
mod membarrier;
mod memfd;
mod message;
mod mmap;
mod mount;
mod names;
mod open;
mod path;
mod pipe;
mod poll;
mod prctl;
mod process_vm;
mod random;
mod read_write;
mod rlimit;
mod robust;
mod sched;
mod session;
pub mod signal;
mod socket;
mod sockopt;
mod splice;
mod stat;
pub mod strace;
mod struct_args;
mod sync;
mod sysinfo;
pub mod table;
mod task_files;
mod time;
mod timer;
pub mod usage;
mod wait;
mod xattr;
