//! The one loop that turns files which never block into calls which do.
//!
//! Files say `EAGAIN` and tell their wait queue; here a call registers with that queue first, then tries, then waits,
//! so that no change of state is missed. What a signal does to the call is decided here as well, once for all.

use std::sync::Arc;

use abi::poll::PollEvents;
use abi::{Errno, Result};
use base::clock::Nanos;
use base::{Observer, WaitQueue};
use vfs::File;

use crate::cx::Cx;
use crate::error::{Restart, SysError};
use crate::executor::notify::Notified;
use crate::task::Blocked;

/// What readers wait for.
pub const READABLE: PollEvents =
    PollEvents::IN.union(PollEvents::RDNORM).union(PollEvents::HUP).union(PollEvents::RDHUP);
/// What writers wait for.
pub const WRITABLE: PollEvents = PollEvents::OUT.union(PollEvents::WRNORM).union(PollEvents::HUP);

/// Tries `attempt` until it says something other than `EAGAIN`. Between two tries waits for one of `mask` on `file`,
/// unless it is `O_NONBLOCK` or cannot be waited for; without a `deadline` no longer than the file itself allows. A
/// signal restarts the call if its handler asks for that.
///
/// # Errors
/// Those of `attempt`; `EAGAIN` also when `deadline` (`CLOCK_MONOTONIC`, nanoseconds) has passed.
pub async fn until_ready<T>(
    cx: &mut Cx<'_>,
    file: &Arc<File>,
    mask: PollEvents,
    deadline: Option<Nanos>,
    mut attempt: impl FnMut(&mut Cx<'_>) -> Result<T>,
) -> std::result::Result<T, SysError> {
    if file.is_nonblocking() {
        return attempt(cx).map_err(SysError::from);
    }
    let Some(queue) = file.ops().wait_queue().cloned() else {
        return attempt(cx).map_err(SysError::from);
    };
    let own = || file.ops().wait_limit(mask).map(|limit| cx.deadline_after(limit));
    let deadline = deadline.or_else(own);
    on_queue(cx, &queue, mask, deadline, attempt).await
}

/// As [`until_ready`], on a queue that belongs to no open file.
///
/// # Errors
/// As [`until_ready`].
pub async fn on_queue<T>(
    cx: &mut Cx<'_>,
    queue: &WaitQueue,
    mask: PollEvents,
    deadline: Option<Nanos>,
    mut attempt: impl FnMut(&mut Cx<'_>) -> Result<T>,
) -> std::result::Result<T, SysError> {
    let notified = Notified::new();
    let _registration = queue.register(mask, Arc::clone(&notified) as Arc<dyn Observer>);
    loop {
        match attempt(cx) {
            Err(Errno::EAGAIN) => {}
            other => return other.map_err(SysError::from),
        }
        match cx.block_on(notified.wait(), deadline).await {
            Ok(()) => {}
            Err(Blocked::TimedOut) => return Err(Errno::EAGAIN.into()),
            Err(Blocked::Interrupted) => return Err(SysError::Restart(Restart::IfAsked)),
        }
    }
}
