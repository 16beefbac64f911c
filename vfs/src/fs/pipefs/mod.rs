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
//! | `lent` | pipes whose bytes guest code moves by itself |
//! | `fifo` | open(2) of a FIFO, and the wait for the peer |

mod fifo;
mod inode;
mod lent;
mod pipe;
mod ring;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use abi::open::OpenFlags;
use base::cred::Credentials;

pub use fifo::{FifoOpen, FifoWait, open as open_fifo};
pub use inode::PipeInode;
pub use lent::LendingStep;
pub use pipe::{PIPE_MAX_SIZE, Pipe, PipeEnd};

use crate::dentry::Path;
use crate::file::File;

/// Read end and write end of a new pipe that belongs to `cred`; `flags`: `O_NONBLOCK`, `O_DIRECT`.
#[must_use]
pub fn new_pipe(cred: &Credentials, flags: OpenFlags) -> (Arc<File>, Arc<File>) {
    let pipe = Pipe::new(None);
    let inode = PipeInode::new(Arc::clone(&pipe), cred);
    let path = Path::anonymous(&inode.path_text(), inode.clone());
    let read_end = Arc::new(PipeEnd::new(Arc::clone(&pipe), true, false));
    let write_end = Arc::new(PipeEnd::new(pipe, false, true));
    let flags = flags & (OpenFlags::NONBLOCK | OpenFlags::DIRECT);
    (
        File::new(read_end, inode.clone(), path.clone(), flags),
        File::new(write_end, inode, path, flags | OpenFlags::WRONLY),
    )
}
