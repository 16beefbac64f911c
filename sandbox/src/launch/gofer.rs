//! The gofer's process.

use std::os::fd::{AsRawFd, OwnedFd};

use gofer_server::{Config, ConfineOptions, Tree};
use host::clone::{Child, Namespaces, fork};

use super::plan::Plan;
use crate::failure::Failure;

/// Exit code of a gofer that could not start; its own line is on standard error then.
pub const COULD_NOT_START: i32 = 3;

/// What the gofer is to serve.
pub fn trees(plan: &Plan) -> Vec<Tree> {
    let served =
        |tree: &super::plan::Tree| Tree { host_path: tree.path.clone(), writable: tree.writable };
    plan.trees.iter().map(served).collect()
}

/// Forks the gofer that serves `trees` on `sockets`.
pub fn start(trees: Vec<Tree>, sockets: Vec<OwnedFd>) -> Result<Child, Failure> {
    let keep: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    let confine = ConfineOptions::default();
    let config = Config { trees, sockets, confine, leave: Some(host::clone::leave) };
    fork(Namespaces::empty(), &keep, move || body(config))
        .map_err(|e| Failure::host("cannot start the gofer", e))
}

fn body(config: Config) -> i32 {
    host::signal::unblock_all();
    // Out of the terminal's reach: its signals are for the supervisor to forward.
    let _ = rustix::process::setsid();
    super::sentry::silence_standard_streams();
    match gofer_server::serve(config) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("sandbox: the gofer could not start: {error}");
            COULD_NOT_START
        }
    }
}
