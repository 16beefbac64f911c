//! The gofer: the one process of a sandbox that opens files.
//!
//! It serves *trees* (host directories, read-only or writable) to the sentry over sockets it is given, and donates
//! descriptors of regular files. It knows nothing of kernels, and trusts nothing it is asked:
//!
//! 1. Every path is resolved below its tree's root descriptor, with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
//!    RESOLVE_NO_MAGICLINKS`; the last component is never followed (`Explore` takes such steps
//!    one by one, links included, from the root on).
//! 2. What may write is refused with `EROFS` on a read-only tree, whoever asks; donated descriptors are then
//!    read-only. Only regular files are opened: fifos and devices could block or act, a directory's descriptor
//!    would let its holder walk.
//! 3. The process itself is confined (see [`confine`]): detached mount copies, Landlock, capabilities, seccomp.
//!
//! One thread per connection, so that the sentry's workers do not wait for each other.
//!
//! | module | what |
//! | --- | --- |
//! | `tree` | resolving of paths |
//! | `connection` | the loop of one socket |
//! | `session` | what a connection remembers |
//! | `ops` | the operations |
//! | `confine` | what the process gives up before it reads the first request |

#![forbid(unsafe_code)]

pub mod confine;
mod connection;
mod ops;
mod session;
mod tree;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::Mode;

pub use confine::ConfineOptions;
use tree::ServedTree;

/// A host directory, or a single file, to serve.
#[derive(Debug, Clone)]
pub struct Tree {
    pub host_path: PathBuf,
    pub writable: bool,
}

/// What to serve, to whom, and how confined.
#[derive(Debug)]
pub struct Config {
    /// The position in here is the tree's index in requests.
    pub trees: Vec<Tree>,
    /// Connected `SOCK_SEQPACKET` sockets.
    pub sockets: Vec<OwnedFd>,
    pub confine: ConfineOptions,
    /// Called by the thread whose connection was the last to end, in a process that has nothing else to do; it need not
    /// wait for its other threads then. Without it, [`serve`] returns.
    pub leave: Option<fn() -> !>,
}

/// Why the gofer could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot open {path}: {source}; every tree of a sandbox must be something its user may reach"
    )]
    OpenTree { path: PathBuf, source: rustix::io::Errno },
    #[error("{path} cannot be served: its path holds a NUL byte")]
    BadPath { path: PathBuf },
    #[error("more than {} trees", u16::MAX)]
    TooManyTrees,
    #[error("no socket to serve")]
    NoSocket,
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    #[error(transparent)]
    Confine(#[from] confine::Error),
}

/// Serves until every socket is closed by its peer. Takes the whole process over: it confines itself for good.
///
/// # Errors
/// When a tree cannot be opened or the confinement that was asked for cannot be had. Nothing was served then.
pub fn serve(config: Config) -> Result<(), Error> {
    let Config { trees, sockets, confine: options, leave } = config;
    if u16::try_from(trees.len()).is_err() {
        return Err(Error::TooManyTrees);
    }
    // Modes of new objects are the sentry's decision, bit by bit.
    rustix::process::umask(Mode::empty());
    let served = trees
        .iter()
        .enumerate()
        .map(|(index, tree)| ServedTree::open(index, tree, options))
        .collect::<Result<Vec<_>, _>>()?;
    confine::before_threads(options, &served)?;

    let can_write = served.iter().any(ServedTree::is_writable);
    let served: Arc<[ServedTree]> = served.into();
    let mut sockets = sockets.into_iter();
    let own = sockets.next().ok_or(Error::NoSocket)?;
    let left = Arc::new(AtomicUsize::new(sockets.len() + 1));
    // Closed until the filter is there, which is put on all threads at once. The filter lets them come through their
    // start-up, so that nobody has to wait for them.
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
    let workers = sockets
        .map(|socket| {
            let (gate, left, served) = (Arc::clone(&gate), Arc::clone(&left), Arc::clone(&served));
            std::thread::Builder::new()
                .name("gofer".to_owned())
                .stack_size(256 * 1024)
                .spawn(move || {
                    drop(gate.lock());
                    connection::serve(&socket, &served);
                    drop(socket);
                    end(&left, leave);
                })
                .map_err(Error::Thread)
        })
        .collect::<Result<Vec<_>, _>>()?;
    confine::after_threads(options, can_write)?;
    drop(closed);
    connection::serve(&own, &served);
    drop(own);
    end(&left, leave);
    for worker in workers {
        if worker.join().is_err() {
            tracing::error!("a gofer thread panicked");
        }
    }
    Ok(())
}

/// After a connection; the last one takes the process along, if it may.
fn end(left: &AtomicUsize, leave: Option<fn() -> !>) {
    let is_last = left.fetch_sub(1, Ordering::AcqRel) == 1;
    let Some(leave) = leave else { return };
    if is_last {
        leave();
    }
    loop {
        std::thread::park();
    }
}
