//! A plan to processes.
//!
//! ```text
//! supervisor (this process)      holds the terminal, forwards signals, waits, tells the exit code
//!   ├── sentry                   our kernel, in namespaces of its own; its control socket leads here
//!   │     └── guest processes    made by the sentry's platform
//!   └── gofer                    opens files; speaks to the sentry over GOFER_CONNECTIONS sockets
//! ```
//!
//! The sentry has most to do and begins first, on another CPU; the supervisor makes the gofer meanwhile.
//!
//! They die together: the sentry is the first process of a pid namespace, so no guest outlives it; sentry and gofer
//! ask to be killed when the supervisor dies; the supervisor kills what is left when one of them ends.
//!
//! | module | what |
//! | --- | --- |
//! | `plan` | the command line's decisions |
//! | `users`, `facts` | who the program is; what it may know of the host |
//! | `terminal` | raw mode and back |
//! | `gofer`, `sentry` | the children |
//! | `confine` | what the sentry's process gives up |
//! | `supervisor` | the wait, and the end |
//! | `probe` | what the host offers, for `doctor` |

mod confine;
mod facts;
mod gofer;
pub mod plan;
pub mod probe;
mod sentry;
mod supervisor;
mod terminal;
mod users;

use std::os::fd::OwnedFd;

use host::clone::Child;
use host::signal::SignalFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::failure::Failure;
use plan::Plan;

/// Sockets between sentry and gofer, as many as the sentry has threads that ask (a worker and the reactor): a request
/// that waits for a disk holds up its own only.
const GOFER_CONNECTIONS: usize = 2;

/// Runs the plan's program to its end; the result is the command's exit code.
pub fn launch(plan: Plan) -> Result<u8, Failure> {
    host::allocator::use_one_heap();
    let (timeout, tells_processor) = (plan.timeout, plan.platform.rewrite);
    let signals = SignalFd::block(supervisor::FORWARDED)
        .map_err(|e| Failure::host("cannot block signals", e))?;
    // Whatever the fallbacks: orphans of this sandbox come to us, to be killed.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let mut client_ends = Vec::with_capacity(GOFER_CONNECTIONS);
    let mut server_ends = Vec::with_capacity(GOFER_CONNECTIONS);
    for _ in 0..GOFER_CONNECTIONS {
        let (client, server) = socket_pair()?;
        client_ends.push(client);
        server_ends.push(server);
    }
    let trees = gofer::trees(&plan);
    let gofer_may_write = trees.iter().any(|tree| tree.writable);
    let streams = terminal::take()?;
    let terminal = streams.terminal;
    let (control, theirs) = socket_pair()?;
    let child = sentry::start(sentry::Wiring {
        plan,
        gofer: client_ends,
        control: theirs,
        stdio: streams.stdio,
        console: streams.console,
        supervisor_end: &control,
    })?;
    let sentry = Process::new("sentry", child);
    let gofer = Process::new("gofer", gofer::start(trees, server_ends)?);
    let mut supervisor = supervisor::Supervisor {
        signals,
        control,
        sentry,
        gofer,
        gofer_may_write,
        terminal,
        timeout,
        tells_processor,
    };
    supervisor.run()
}

fn socket_pair() -> Result<(OwnedFd, OwnedFd), Failure> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|e| Failure::host("cannot make a socket pair", e))
}

/// A child that is killed and collected when it is dropped.
struct Process {
    name: &'static str,
    child: Child,
    status: Option<rustix::process::WaitStatus>,
}

impl Process {
    fn new(name: &'static str, child: Child) -> Self {
        Self { name, child, status: None }
    }

    /// Waits for its end; for a sentry that means: until its whole pid namespace is empty.
    fn wait(&mut self) -> Option<rustix::process::WaitStatus> {
        use rustix::process::{WaitOptions, waitpid};
        while self.status.is_none() {
            match waitpid(Some(self.child.pid), WaitOptions::empty()) {
                Ok(Some((_, status))) => self.status = Some(status),
                Err(rustix::io::Errno::INTR) | Ok(None) => {}
                Err(_) => break,
            }
        }
        self.status
    }

    fn kill(&mut self) {
        if self.status.is_none() {
            let _ = rustix::process::pidfd_send_signal(
                &self.child.pidfd,
                rustix::process::Signal::KILL,
            );
        }
    }

    /// Kills it and has it end on our CPU, which is about to be idle, wherever it stood.
    fn kill_here(&mut self) {
        host::cpu::pull_here(self.child.pid);
        self.kill();
    }

    /// "the gofer died (signal 9)", for the one line.
    fn epitaph(&self) -> String {
        let name = self.name;
        match self.status {
            Some(status) => match (status.terminating_signal(), status.exit_status()) {
                (Some(signal), _) => format!("the {name} died (signal {signal})"),
                (None, Some(code)) => format!("the {name} ended unexpectedly (exit code {code})"),
                (None, None) => format!("the {name} ended unexpectedly"),
            },
            None => format!("the {name} is gone"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.wait();
    }
}
