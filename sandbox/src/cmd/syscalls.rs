//! `sandbox syscalls`: which system calls there are.

use std::io::{Write, stdout};

use crate::failure::Failure;

/// Lists the system calls that programs can use, and what is missing from them.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: &Args) -> Result<u8, Failure> {
    // A reader that has seen enough (`| head`) is no failure.
    let _ = stdout().write_all(sentry::syscalls::coverage::markdown().as_bytes());
    Ok(0)
}
