//! What terminals ask about sessions and process groups.

use std::sync::{Arc, Weak};

use abi::ids::Tid;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use vfs::Caller;
use vfs::tty::JobControl;

use crate::kernel::Kernel;
use crate::signal::{Wakes, send, send_to_group};

/// The kernel's tasks, as terminals see them.
pub struct Jobs(Weak<Kernel>);

impl Jobs {
    #[must_use]
    pub fn new(kernel: Weak<Kernel>) -> Arc<Self> {
        Arc::new(Self(kernel))
    }
}

impl JobControl for Jobs {
    fn signal_group(&self, pgid: Tid, signal: Signal) {
        let Some(kernel) = self.0.upgrade() else { return };
        let members: Vec<_> = kernel.tasks.lock().members_of(pgid).cloned().collect();
        let mut wakes = Wakes::default();
        for member in members {
            // A standard signal is never refused for want of room.
            let _ = send::send(&member, None, SigInfo::kernel(signal), &mut wakes);
        }
        wakes.fire();
    }

    fn signal_process(&self, tgid: Tid, signal: Signal) {
        let group = self.0.upgrade().and_then(|kernel| kernel.tasks.group(tgid));
        if let Some(group) = group {
            let _ = send_to_group(&group, SigInfo::kernel(signal));
        }
    }

    fn is_blocked_or_ignored(&self, caller: Caller, signal: Signal) -> bool {
        let thread = self.0.upgrade().and_then(|kernel| kernel.tasks.thread(caller.tid));
        thread.is_some_and(|thread| {
            let is_blocked = thread.signals.lock().mask().contains(signal);
            is_blocked || thread.group.actions.lock().get(signal).is_ignore()
        })
    }

    fn is_orphaned(&self, pgid: Tid) -> bool {
        self.0.upgrade().is_none_or(|kernel| kernel.tasks.lock().is_orphaned(pgid))
    }

    fn session_of_group(&self, pgid: Tid) -> Option<Tid> {
        let kernel = self.0.upgrade()?;
        let tables = kernel.tasks.lock();
        tables.members_of(pgid).next().map(|member| member.sid())
    }
}
