//! Process groups and sessions. See setpgid(2), setsid(2), credentials(7).

use std::sync::Arc;

use abi::ids::Tid;
use abi::{Errno, Result};

use crate::task::{PidTable, ThreadGroup};

/// Moves process `pid` (0: the caller) into process group `pgid` (0: its own id).
///
/// # Errors
/// See setpgid(2).
pub fn set_process_group(
    tasks: &PidTable,
    caller: &Arc<ThreadGroup>,
    pid: Tid,
    pgid: Tid,
) -> Result<()> {
    if pgid.0 < 0 {
        return Err(Errno::EINVAL);
    }
    let pid = if pid.0 == 0 { caller.tgid } else { pid };
    let pgid = if pgid.0 == 0 { pid } else { pgid };
    let mut tables = tasks.lock();
    let target = tables.groups.get(&pid).cloned().ok_or(Errno::ESRCH)?;
    if target.tgid != caller.tgid {
        if target.parent() != caller.tgid {
            return Err(Errno::ESRCH);
        }
        if target.sid() != caller.sid() {
            return Err(Errno::EPERM);
        }
        if target.has_execed() {
            return Err(Errno::EACCES);
        }
    }
    if target.sid() == target.tgid {
        return Err(Errno::EPERM);
    }
    if pgid != target.tgid && !tables.members_of(pgid).any(|member| member.sid() == caller.sid()) {
        return Err(Errno::EPERM);
    }
    if target.pgid() != pgid {
        tables.set_process_group(&target, pgid);
    }
    Ok(())
}

/// Makes the caller the leader of a new session and process group, without a controlling terminal.
///
/// # Errors
/// `EPERM` when a process group bears the caller's id already.
pub fn start_session(tasks: &PidTable, caller: &Arc<ThreadGroup>) -> Result<Tid> {
    let mut tables = tasks.lock();
    if tables.process_groups.contains_key(&caller.tgid) {
        return Err(Errno::EPERM);
    }
    caller.set_sid(caller.tgid);
    tables.set_process_group(caller, caller.tgid);
    Ok(caller.tgid)
}
