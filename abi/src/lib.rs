//! Linux's ABI as data: numbers, flags and structs that a guest sees in memory or registers.
//! No behaviour, no unsafe, no knowledge of who uses it.
//!
//! | module | what |
//! | --- | --- |
//! | `errno` | error numbers |
//! | `addr`, `ids` | user addresses; process, user and descriptor ids |
//! | `stat`, `open`, `poll` | file structs and flags |
//! | `ioctl`, `termios` | ioctl(2) commands; terminal settings |
//! | `statbuf`, `dirent`, `uio` | struct stat, statx, statfs; directory records; iovec |
//! | `fcntl`, `xattr`, `mount` | commands and flags of these calls |
//! | `epoll`, `futex`, `sysinfo` | structs and flags of these calls |
//! | `rlimit` | resource limits
//! | `socket` | families, options, messages | |
//! | `signal`, `siginfo`, `sigframe` | numbers, sets, actions; why a signal was sent; handler frames |
//! | `clone` | flags and structs of clone, wait |
//! | `time` | timespec and friends |
//! | `mman`, `elf`, `auxv` | memory mapping flags; executables; auxiliary vector |
//! | `arch` | registers and call numbers of one architecture |

#![no_std]
#![forbid(unsafe_code)]

#[macro_use]
mod macros;

pub mod addr;
pub mod arch;
pub mod auxv;
pub mod clone;
pub mod dirent;
pub mod elf;
pub mod epoll;
pub mod errno;
pub mod fcntl;
pub mod futex;
pub mod ids;
pub mod ioctl;
pub mod mman;
pub mod mount;
pub mod open;
pub mod poll;
pub mod rlimit;
pub mod sigframe;
pub mod siginfo;
pub mod signal;
pub mod socket;
pub mod stat;
pub mod statbuf;
pub mod sysinfo;
pub mod termios;
pub mod time;
pub mod uio;
pub mod xattr;

pub use addr::UserAddr;
pub use errno::{Errno, Result};
