//! Memory barriers on other threads.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;

use crate::cx::Cx;
use crate::error::{SysError, SysResult};
use crate::task::Thread;

const GLOBAL: u32 = 1;
const GLOBAL_EXPEDITED: u32 = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: u32 = 1 << 2;
const PRIVATE_EXPEDITED: u32 = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: u32 = 1 << 4;
const PRIVATE_EXPEDITED_SYNC_CORE: u32 = 1 << 5;
const REGISTER_PRIVATE_EXPEDITED_SYNC_CORE: u32 = 1 << 6;
const KNOWN: u32 = 0x7f;

/// membarrier: a barrier on all running threads. See [membarrier(2)](https://man7.org/linux/man-pages/man2/membarrier.2.html).
pub async fn membarrier(cx: &mut Cx<'_>, command: u32, flags: u32, _cpu: i32) -> SysResult {
    if flags != 0 || command & !KNOWN != 0 || command.count_ones() > 1 {
        return Err(Errno::EINVAL.into());
    }
    match command {
        0 => Ok(u64::from(KNOWN)),
        REGISTER_GLOBAL_EXPEDITED
        | REGISTER_PRIVATE_EXPEDITED
        | REGISTER_PRIVATE_EXPEDITED_SYNC_CORE => {
            cx.thread.group.membarrier.fetch_or(command, Ordering::Relaxed);
            Ok(0)
        }
        GLOBAL | GLOBAL_EXPEDITED => {
            let others = others(cx, |_| true);
            barrier(Arc::clone(cx.thread), others).await
        }
        PRIVATE_EXPEDITED | PRIVATE_EXPEDITED_SYNC_CORE => {
            // The registration is the bit above.
            if cx.thread.group.membarrier.load(Ordering::Relaxed) & (command << 1) == 0 {
                return Err(Errno::EPERM.into());
            }
            let own = cx.mm();
            let others =
                others(cx, |thread| thread.mm_if_alive().is_some_and(|mm| Arc::ptr_eq(&mm, &own)));
            barrier(Arc::clone(cx.thread), others).await
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// The threads that `is_chosen` wants, without the caller.
fn others(cx: &Cx<'_>, is_chosen: impl Fn(&Thread) -> bool) -> Vec<Arc<Thread>> {
    let mut threads: Vec<_> = cx.kernel.tasks.lock().threads.values().cloned().collect();
    threads.retain(|thread| !Arc::ptr_eq(thread, cx.thread) && is_chosen(thread));
    threads
}

/// Every one of `others` that runs guest code passes through the host's kernel once, which is a barrier.
async fn barrier(thread: Arc<Thread>, others: Vec<Arc<Thread>>) -> SysResult {
    let running: Vec<_> = others
        .into_iter()
        .filter_map(|other| other.run.begin_pass().map(|exits| (other, exits)))
        .collect();
    for (other, exits) in running {
        if thread.block_killable(other.run.finish_pass(exits)).await.is_err() {
            return Err(SysError::Exited);
        }
    }
    Ok(0)
}
