//! Opening a FIFO. See fifo(7).
//!
//! A FIFO's pipe lives from its first open to its last close, whoever keeps the inode: it is found by device and
//! inode number. An open that must wait for a peer hands back a [`FifoWait`]; the sentry's loop waits for it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};

use abi::open::OpenFlags;
use abi::{Errno, Result};
use base::WaitQueue;
use base::lock::Mutex;

use super::pipe::{Pipe, PipeEnd};
use crate::file::FileOps;
use crate::lock_order;

type Table = HashMap<(u64, u64), Weak<Pipe>>;

static OPEN_FIFOS: LazyLock<Mutex<Table, lock_order::FifoTable>> = LazyLock::new(Mutex::default);

/// Outcome of opening a FIFO.
pub enum FifoOpen {
    Done(Arc<dyn FileOps>),
    /// No peer yet.
    Wait(FifoWait),
}

/// An end that waits for its peer; dropping it closes it again.
#[derive(Debug)]
pub struct FifoWait {
    end: PipeEnd,
    for_writer: bool,
    /// The peers' count at the time of opening.
    seen: u32,
}

/// Opens the FIFO with this device and inode number.
///
/// # Errors
/// `ENXIO`: `O_WRONLY | O_NONBLOCK` and nobody reads.
pub fn open(dev: u64, ino: u64, flags: OpenFlags) -> Result<FifoOpen> {
    open_pipe(&find((dev, ino)), flags)
}

/// The same for a pipe at hand.
pub(super) fn open_pipe(pipe: &Arc<Pipe>, flags: OpenFlags) -> Result<FifoOpen> {
    let nonblocking = flags.contains(OpenFlags::NONBLOCK);
    let (reads, writes) = (flags.reads(), flags.writes());
    if writes && !reads && nonblocking && pipe.state.lock().readers == 0 {
        return Err(Errno::ENXIO);
    }
    let mut end = PipeEnd::new(Arc::clone(pipe), reads, writes);
    // Whoever waits for us looks at the counters.
    pipe.queue.notify(abi::poll::PollEvents::all());
    let (readers, writers, readers_ever, writers_ever) = {
        let state = pipe.state.lock();
        (state.readers, state.writers, state.readers_ever, state.writers_ever)
    };
    match (reads, writes) {
        (true, false) if writers == 0 && nonblocking => end.quiet_until = Some(writers_ever),
        (true, false) if writers == 0 => {
            return Ok(FifoOpen::Wait(FifoWait { end, for_writer: true, seen: writers_ever }));
        }
        (false, true) if readers == 0 => {
            return Ok(FifoOpen::Wait(FifoWait { end, for_writer: false, seen: readers_ever }));
        }
        _ => {}
    }
    Ok(FifoOpen::Done(Arc::new(end)))
}

impl FifoWait {
    /// Told when a peer may have come.
    #[must_use]
    pub fn wait_queue(&self) -> WaitQueue {
        self.end.pipe.queue.clone()
    }

    /// The open end once a peer has come, even if it has gone again; else the wait goes on.
    ///
    /// # Errors
    /// Itself, when there is still no peer.
    pub fn finish(self) -> core::result::Result<Arc<dyn FileOps>, Self> {
        let now = {
            let state = self.end.pipe.state.lock();
            if self.for_writer { state.writers_ever } else { state.readers_ever }
        };
        if now == self.seen { Err(self) } else { Ok(Arc::new(self.end)) }
    }
}

fn find(key: (u64, u64)) -> Arc<Pipe> {
    let mut table = OPEN_FIFOS.lock();
    if let Some(pipe) = table.get(&key).and_then(Weak::upgrade) {
        return pipe;
    }
    let pipe = Pipe::new(Some(key));
    table.insert(key, Arc::downgrade(&pipe));
    pipe
}

/// The pipe of `key` has gone; another may have taken its place already.
pub(super) fn forget(key: (u64, u64)) {
    let mut table = OPEN_FIFOS.lock();
    if table.get(&key).is_some_and(|pipe| pipe.strong_count() == 0) {
        table.remove(&key);
    }
}
