//! Stopping and continuing a process. See "Job control" in signal(7) and credentials(7).
//!
//! The thread that takes a stop signal sets `stop` in the group and makes the others look; each stands still on its
//! way to guest code. The last one tells the parent. SIGCONT ends the stop when it is *sent*; SIGKILL too.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use abi::siginfo::{CLD_CONTINUED, CLD_STOPPED, SigInfo};
use abi::signal::{SaFlags, Signal};

use crate::kernel::Kernel;
use crate::signal::{Wakes, send};
use crate::task::{Thread, ThreadGroup};

/// Starts a stop, unless job control forbids it: an orphaned process group has nobody to continue it.
pub fn begin(kernel: &Kernel, group: &Arc<ThreadGroup>, signal: Signal) {
    if signal != Signal::SIGSTOP && kernel.tasks.lock().is_orphaned(group.pgid()) {
        return;
    }
    let mut wakes = Wakes::default();
    {
        let mut state = group.signals.lock();
        if state.exit.is_some() || state.stop.is_some() {
            return;
        }
        state.stop = Some(signal);
        state.stop_generation += 1;
        state.stopped = 0;
        state.continue_report = false;
        for thread in &state.threads {
            wakes.interrupt(thread);
        }
    }
    wakes.fire();
}

/// Stands still until the process is continued or ends.
pub async fn stand_still(kernel: &Kernel, thread: &Arc<Thread>) {
    let group = &thread.group;
    let (generation, is_last) = {
        let mut state = group.signals.lock();
        if state.stop.is_none() {
            return;
        }
        state.stopped += 1;
        (state.stop_generation, state.complete_stop())
    };
    if is_last {
        tell_parent(kernel, group, CLD_STOPPED);
    }
    poll_fn(|cx| {
        thread.run.watch(cx);
        let state = group.signals.lock();
        let goes_on = state.stop.is_none()
            || state.stop_generation != generation
            || state.exit.is_some()
            || state.exec.is_some();
        if goes_on { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl super::GroupSignals {
    /// True when the last thread has just stopped: the parent is to be told.
    pub fn complete_stop(&mut self) -> bool {
        let is_complete =
            self.stop.is_some() && !self.threads.is_empty() && self.stopped >= self.threads.len();
        if is_complete {
            self.stop_report = self.stop;
        }
        is_complete
    }
}

/// SIGCHLD and a wake-up for wait4(2): `code` is `CLD_STOPPED` or `CLD_CONTINUED`.
pub fn tell_parent(kernel: &Kernel, group: &Arc<ThreadGroup>, code: i32) {
    let mut wakes = Wakes::default();
    let status = match code {
        CLD_CONTINUED => i32::from(Signal::SIGCONT.number()),
        _ => group.signals.lock().stop_report.map_or(0, |signal| i32::from(signal.number())),
    };
    {
        let tables = kernel.tasks.lock();
        let Some(parent) = tables.groups.get(&group.parent()).cloned() else { return };
        let uid = tables.threads.get(&group.tgid).map(|thread| thread.cred().ruid);
        let uid = uid.unwrap_or_default();
        let wants_signal = {
            let action = parent.actions.lock().get(Signal::SIGCHLD);
            !action.is_ignore() && !action.flags().contains(SaFlags::NOCLDSTOP)
        };
        if wants_signal {
            let info = SigInfo::child(code, group.tgid, uid, status, 0, 0);
            // A standard signal is never refused for want of room.
            let _ = send::send(&parent, None, info, &mut wakes);
        }
        wakes.tell(&parent.child_events);
    }
    wakes.fire();
}
