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
//! | `fifo` | open(2) of a FIFO, and the wait for the peer |

mod fifo;
mod pipe;
mod ring;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use fifo::{FifoOpen, FifoWait, open as open_fifo};
pub use pipe::{PIPE_MAX_SIZE, Pipe, PipeEnd};

use crate::file::FileOps;

/// Read end and write end of a new pipe.
#[must_use]
pub fn pair() -> (Arc<dyn FileOps>, Arc<dyn FileOps>) {
    let pipe = Pipe::new(None);
    let read_end = PipeEnd::new(Arc::clone(&pipe), true, false);
    let write_end = PipeEnd::new(pipe, false, true);
    (Arc::new(read_end), Arc::new(write_end))
}
