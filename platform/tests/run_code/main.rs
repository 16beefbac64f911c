//! Runs machine code in contexts of the seccomp platform: calls, faults, kicks, copies, threads, deaths.

#[macro_use]
mod harness;
mod calls;
mod clones;
mod common;
mod deaths;
mod fast;
mod faults;
mod futexes;
mod heap;
mod hostile;
mod library;
mod linger;
mod loans;
mod memory;
mod memory_calls;
mod questions;
mod signal_calls;
mod start_calls;
mod streams;
mod windows;
