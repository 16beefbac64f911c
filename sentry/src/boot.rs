//! Boot: wiring only, reads as a list.
//!
//! | module | what |
//! | --- | --- |
//! | `ahead` | what the gofer looks for meanwhile |
//! | `mounts` | the guest's tree |
//! | `console` | the host's terminal as the guest's |
//! | `stdio` | the first descriptors |
//! | `program` | the first process: found, loaded, started |
//! | `orders` | what the supervisor tells while the guest runs |

mod ahead;
mod console;
pub(crate) mod mounts;
mod orders;
mod program;
mod stdio;

use std::sync::Arc;

use abi::Errno;
use base::clock::Clock;
use platform::Platform;
use vfs::fs::gofer::Client;
use vfs::{FdTable, MountNamespace};

use console::Console;

use crate::config::{Config, Outcome};
use crate::kernel::{Kernel, KernelParts};
use crate::syscalls::strace::Tracer;

/// Workers beside the reactor; both run guest threads' tasks.
const WORKERS: usize = 1;

/// Why the sandbox did not start: exit code and one line for the user.
#[derive(Debug)]
struct BootError {
    code: u8,
    message: String,
}

impl BootError {
    fn new(message: impl Into<String>) -> Self {
        Self { code: 125, message: message.into() }
    }

    /// `what` could not be done because of `errno`.
    fn of(what: &str, errno: Errno) -> Self {
        Self::new(format!("{what}: {}", errno.text()))
    }
}

impl From<BootError> for Outcome {
    fn from(BootError { code, message }: BootError) -> Self {
        Self::Failed { code, message }
    }
}

/// Says hello to the gofer; to be called once, before [`boot`] and better long before it: the gofer has some looking to
/// do, and may not be there yet.
///
/// # Errors
/// When the connection is none.
pub fn greet(config: &Config) -> std::io::Result<()> {
    let first = config.gofer.first().ok_or(std::io::ErrorKind::NotConnected)?;
    Client::greet(first, &ahead::paths(config))
}

/// Runs the sandbox's first process to its end. The platform may be one that is not ready yet.
#[must_use]
pub fn boot(mut config: Config, platform: Arc<dyn Platform>) -> Outcome {
    let stats = config.stats.take();
    match prepare(config, platform, stats.is_some()) {
        Ok((kernel, console)) => {
            let platform = Arc::clone(&kernel.platform);
            let outcome = kernel.executor.run(&platform);
            platform.end_guests();
            if let Some(console) = console {
                console.drain();
            }
            if let Some(out) = stats {
                crate::stats::write(&kernel, &out);
            }
            outcome
        }
        Err(error) => error.into(),
    }
}

/// Sets everything up; the first process is on its way when this returns.
fn prepare(
    config: Config,
    platform: Arc<dyn Platform>,
    counts_calls: bool,
) -> Result<Prepared, BootError> {
    let kernel = Kernel::new(KernelParts {
        platform,
        host: config.host,
        hostname: config.hostname,
        memory_limit: config.memory_limit,
        pids_limit: config.pids_limit,
        strace: config.strace.map(|out| Arc::new(Tracer::new(out))),
        may_rewrite: config.may_rewrite,
        counts_calls,
    })
    .map_err(|error| BootError::new(format!("cannot set up the kernel: {error}")))?;
    let platform = Arc::clone(&kernel.platform);
    vfs::names::on_change(move |names| platform.forget_names(names));
    let gofer = connect(&kernel, config.gofer)?;
    let mounts = mounts::build(&kernel, &gofer, config.mounts)?;
    let files = FdTable::new();
    let make_console = |host| Console::new(&kernel, &mounts, host, &config.cred);
    let console = config.console.map(make_console).transpose()?;
    stdio::install(&kernel, &files, config.stdio, console.as_ref())?;
    let first = program::Start {
        args: config.args,
        env: config.env,
        cwd: config.cwd,
        cred: config.cred,
        umask: config.umask,
        mounts,
        files,
    };
    kernel.platform.get_ready().map_err(|error| BootError::new(error.to_string()))?;
    // They make the first guest process meanwhile; the walls that follow enclose them, too.
    let started = kernel.executor.start(&kernel.platform, WORKERS);
    started.map_err(|error| BootError::new(format!("cannot start a worker thread: {error}")))?;
    std::thread::yield_now();
    (config.confine)().map_err(BootError::new)?;
    orders::listen(&kernel, config.control, console.clone());
    if let Some(console) = &console {
        console.start(&kernel);
    }
    program::start(&kernel, first);
    Ok((kernel, console))
}

fn connect(
    kernel: &Arc<Kernel>,
    sockets: Vec<std::os::fd::OwnedFd>,
) -> Result<Arc<Client>, BootError> {
    // The gofer's end is the sandbox's: without it no file can be trusted to be what it was.
    let executor = Arc::downgrade(&kernel.executor);
    let on_broken = Box::new(move |reason: &str| {
        if let Some(executor) = executor.upgrade() {
            let message = format!("the gofer is gone: {reason}");
            executor.end(Outcome::Failed { code: 125, message });
        }
    });
    Client::meet(sockets, on_broken).map_err(|error| BootError::new(error.to_string()))
}

/// The guest's clock for file times.
fn clock(kernel: &Kernel) -> Arc<dyn Clock> {
    Arc::clone(&kernel.clock)
}

type Prepared = (Arc<Kernel>, Option<Arc<Console>>);

type Mounts = Arc<MountNamespace>;
