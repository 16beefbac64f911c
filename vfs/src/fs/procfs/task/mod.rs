//! /proc/PID and /proc/PID/task/TID.
//!
//! | module | what |
//! | --- | --- |
//! | `table` | which entries there are |
//! | `dir` | the directory of a task, and task/ |
//! | `fd` | fd/ and fdinfo/ |
//! | `links` | exe, cwd, root, ns/ |
//! | `stat`, `status`, `statm` | one file each |
//! | `maps` | maps, smaps, smaps_rollup |
//! | `memory` | cmdline, environ, auxv, mem |
//! | `mounts` | mounts, mountinfo, mountstats |
//! | `limits` | limits |
//! | `settings` | comm, oom_score_adj and other small files |

mod dir;
mod fd;
mod limits;
mod links;
mod maps;
mod memory;
mod mounts;
mod settings;
mod stat;
mod statm;
mod status;
mod table;

use std::sync::Arc;

use abi::ids::{Gid, Tid, Uid};
use abi::stat::FileType;
use abi::{Errno, Result};
use base::cred::Caps;

use super::view::{Scope, TaskView};
use super::{DEV, Shared};
use crate::context::VfsCx;
use crate::fs::kernfs::{Node, Owner, OwnerSource};

pub use dir::directory;

/// A task by its id: whoever holds one asks again each time, so that a task's end is noticed.
#[derive(Clone)]
pub struct TaskRef {
    pub(super) shared: Arc<Shared>,
    pub(super) tid: Tid,
    pub(super) scope: Scope,
}

/// Inode number of entry `index` of a task; 0 is its directory. Below 2^48 numbers are others'.
pub(super) fn inode_number(tid: Tid, index: u64) -> u64 {
    (1 << 48) | (u64::try_from(tid.0).unwrap_or(0) << 20) | index
}

impl TaskRef {
    pub(super) fn new(shared: &Arc<Shared>, tid: Tid, scope: Scope) -> Self {
        Self { shared: Arc::clone(shared), tid, scope }
    }

    /// `ESRCH` when it has been reaped.
    pub(super) fn get(&self) -> Result<Arc<dyn TaskView>> {
        self.shared.view.task(self.tid).ok_or(Errno::ESRCH)
    }

    /// As [`Self::get`], when the caller may look into the task. See ptrace(2), "Ptrace access mode checking".
    fn inspect(&self, cx: &VfsCx<'_>) -> Result<Arc<dyn TaskView>> {
        let task = self.get()?;
        if may_inspect(cx, &*task) { Ok(task) } else { Err(Errno::EACCES) }
    }

    /// Attributes of entry `index`, owned by whoever the task runs as.
    fn node(&self, index: u64, kind: FileType, mode: u32) -> Node {
        let ino = match self.scope {
            Scope::Process => inode_number(self.tid, index),
            Scope::Thread => inode_number(self.tid, index) | 1 << 47,
        };
        let owner = Owner::By(Arc::new(self.clone()));
        Node::new(DEV, ino, kind, mode).born_at(self.shared.boot).owned_by(owner)
    }
}

impl OwnerSource for TaskRef {
    fn owner(&self) -> (Uid, Gid) {
        match self.get() {
            Ok(task) if task.is_dumpable() => {
                let cred = task.cred();
                (cred.euid, cred.egid)
            }
            _ => (Uid::ROOT, Gid::ROOT),
        }
    }
}

fn may_inspect(cx: &VfsCx<'_>, task: &dyn TaskView) -> bool {
    if task.ids().tgid == cx.caller.tgid || cx.cred.has(Caps::SYS_PTRACE) {
        return true;
    }
    let other = task.cred();
    let (uid, gid) = (cx.cred.fsuid, cx.cred.fsgid);
    let is_same = [other.ruid, other.euid, other.suid] == [uid; 3]
        && [other.rgid, other.egid, other.sgid] == [gid; 3];
    is_same && task.is_dumpable() && cx.cred.permitted.contains(other.permitted)
}
