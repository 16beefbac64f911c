//! The `sandbox` command: runs programs on our own kernel.
//!
//! | module | what |
//! | --- | --- |
//! | `cmd` | one file per subcommand: arguments to a plan, a plan to an exit code |
//! | `launch` | a plan to processes: gofer, sentry, supervision, clean-up |
//! | `policy` | which host calls the sentry may make, with a reason per row |
//! | `failure` | why the sandbox itself failed, and the exit code for it |

#![forbid(unsafe_code)]

mod cmd;
mod failure;
mod launch;
mod policy;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::failure::Failure;

/// Runs unmodified Linux programs on a kernel of their own.
///
/// Every system call of the program is answered by the sandbox's kernel, never by the host's; files are opened by
/// a separate, confined process. The program sees the host's files, but what it writes stays in memory and is gone
/// when it ends, except under the paths given with --write or --mount.
#[derive(Parser)]
#[command(name = "sandbox", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: cmd::Command,
}

fn main() -> ExitCode {
    let result = match Cli::try_parse() {
        Ok(cli) => cmd::dispatch(cli.command),
        Err(error)
            if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) =>
        {
            print!("{error}");
            Ok(0)
        }
        Err(error) => Err(Failure::usage(&error)),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("sandbox: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
