//! One file per subcommand.

mod doctor;
pub mod run;
mod syscalls;

use clap::Subcommand;

use crate::failure::Failure;

#[derive(Subcommand)]
pub enum Command {
    Run(Box<run::Args>),
    Doctor(doctor::Args),
    Syscalls(syscalls::Args),
}

/// Runs a subcommand; the result is the process's exit code.
pub fn dispatch(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Run(args) => run::run(*args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Syscalls(args) => syscalls::run(&args),
    }
}
