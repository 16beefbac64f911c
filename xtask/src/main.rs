//! Chores of the repository.
//!
//! | command | what |
//! | --- | --- |
//! | `bench` | single operations and whole programs: native, ours, runsc, bubblewrap |
//! | `tidy` | file and function sizes, crate edges, where `unsafe` may live, TODO form, forbidden words |

#![forbid(unsafe_code)]

mod bench;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("bench") => bench::run(&repository_root(), args),
        Some("tidy") => tidy::run(&repository_root()),
        _ => {
            eprintln!("usage: cargo xtask tidy | {}", bench::USAGE);
            ExitCode::from(2)
        }
    }
}

/// The workspace's top directory; this crate lies directly under it.
fn repository_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}
