//! Pipes and FIFOs. See pipe(7), fifo(7).
//!
//! A pipe is a ring of bytes with Linux's page-buffer accounting and two counts of open ends. Nothing blocks: a
//! read of an empty pipe and a write to a full one are `EAGAIN`, a write without readers is `EPIPE` (the sentry
//! raises SIGPIPE). A write of more than `PIPE_BUF` bytes may be partial; a blocking caller goes on with the rest.
//!
//! | module | what |
//! | --- | --- |
//! | `ring` | the bytes and what fits |
//! | `pipe` | shared state and the ends as files |
//! | `inode` | the inode behind a pipe |
//! | `fifo` | open(2) of a FIFO, and the wait for the peer |

mod fifo;
mod inode;
mod pipe;
mod ring;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use base::cred::Credentials;

pub use fifo::{FifoOpen, FifoWait, open as open_fifo};
pub use inode::PipeInode;
pub use pipe::{PIPE_MAX_SIZE, Pipe, PipeEnd};

use crate::file::FileOps;
use crate::inode::Inode;

/// A new pipe, ready to become two file descriptions.
pub struct NewPipe {
    pub inode: Arc<dyn Inode>,
    pub read_end: Arc<dyn FileOps>,
    pub write_end: Arc<dyn FileOps>,
}

/// Makes a pipe that belongs to `cred`.
#[must_use]
pub fn new_pipe(cred: &Credentials) -> NewPipe {
    let pipe = Pipe::new(None);
    NewPipe {
        inode: PipeInode::new(Arc::clone(&pipe), cred),
        read_end: Arc::new(PipeEnd::new(Arc::clone(&pipe), true, false)),
        write_end: Arc::new(PipeEnd::new(pipe, false, true)),
    }
}
