//! Rewriting of system-call sites: how much of real binaries it covers, and that rewritten code does the same.
#![cfg(target_arch = "x86_64")]

mod binary;
mod coverage;
mod execute;
mod machine;
mod pieces;
