//! Linux's ABI as data: numbers, flags and structs that a guest sees in memory or registers.
//! No behaviour, no unsafe, no knowledge of who uses it.
//!
//! | module | what |
//! | --- | --- |
//! | `errno` | error numbers |
//! | `addr`, `ids` | user addresses; process, user and descriptor ids |
//! | `stat`, `open`, `poll` | file structs and flags |
//! | `ioctl`, `termios` | ioctl(2) commands; terminal settings |
//! | `signal` | signal numbers and sets |
//! | `time` | timespec and friends |
//! | `arch` | registers of one architecture |

#![no_std]
#![forbid(unsafe_code)]

pub mod addr;
pub mod arch;
pub mod errno;
pub mod ids;
pub mod ioctl;
pub mod open;
pub mod poll;
pub mod signal;
pub mod stat;
pub mod termios;
pub mod time;

pub use addr::UserAddr;
pub use errno::{Errno, Result};
