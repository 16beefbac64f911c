//! Waiting for children. See wait4(2), waitid(2).

use std::sync::Arc;

use abi::clone::WaitOptions;
use abi::ids::{Tid, Uid};
use abi::siginfo::{CLD_CONTINUED, CLD_STOPPED};
use abi::signal::Signal;
use abi::{Errno, Result};

use crate::task::exit::child_code;
use crate::task::{PidTable, Rusage, Tables, ThreadGroup};

/// Which children are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Any,
    Process(Tid),
    ProcessGroup(Tid),
}

/// What a child did.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    pub pid: Tid,
    pub uid: Uid,
    /// `CLD_*`.
    pub code: i32,
    /// Exit code or signal number.
    pub value: i32,
    pub usage: Rusage,
}

impl Report {
    /// The status word of wait4(2).
    #[must_use]
    pub const fn wait_word(&self) -> i32 {
        match self.code {
            abi::siginfo::CLD_EXITED => (self.value & 0xff) << 8,
            abi::siginfo::CLD_DUMPED => self.value | 0x80,
            CLD_STOPPED => (self.value << 8) | 0x7f,
            CLD_CONTINUED => 0xffff,
            _ => self.value,
        }
    }
}

/// Looks once: the report of a child that did what is waited for, or `None` when none did yet. Unless `NOWAIT`, a
/// zombie is reaped and a stop or continuation is not reported again.
///
/// # Errors
/// `ECHILD` when there is no such child.
pub fn poll(
    tasks: &PidTable,
    parent: &ThreadGroup,
    which: Which,
    options: WaitOptions,
) -> Result<Option<Report>> {
    let mut tables = tasks.lock();
    let candidates: Vec<Arc<ThreadGroup>> = match which {
        Which::Process(pid) => tables.groups.get(&pid).cloned().into_iter().collect(),
        _ => tables.children_of(parent.tgid).cloned().collect(),
    };
    let mut has_child = false;
    for child in candidates {
        if child.parent() != parent.tgid || !is_eligible(&child, which, options) {
            continue;
        }
        has_child = true;
        if let Some(report) = look_at(&mut tables, parent, &child, options) {
            return Ok(Some(report));
        }
    }
    if has_child { Ok(None) } else { Err(Errno::ECHILD) }
}

fn is_eligible(child: &ThreadGroup, which: Which, options: WaitOptions) -> bool {
    let is_named = match which {
        Which::Any => true,
        Which::Process(pid) => child.tgid == pid,
        Which::ProcessGroup(pgid) => child.pgid() == pgid,
    };
    let is_clone = child.exit_signal() != i32::from(Signal::SIGCHLD.number());
    let is_kind =
        options.contains(WaitOptions::ALL) || is_clone == options.contains(WaitOptions::CLONE);
    is_named && is_kind
}

fn look_at(
    tables: &mut Tables,
    parent: &ThreadGroup,
    child: &Arc<ThreadGroup>,
    options: WaitOptions,
) -> Option<Report> {
    let keeps = options.contains(WaitOptions::NOWAIT);
    let leader = tables.threads.get(&child.tgid).cloned();
    let uid = leader.map(|leader| leader.cred().ruid).unwrap_or_default();
    let report = |code, value, usage| Report { pid: child.tgid, uid, code, value, usage };
    // A continuation is told even when the child has ended since: who asked for it should not depend on who is faster.
    if options.contains(WaitOptions::CONTINUED) {
        let mut state = child.signals.lock();
        if state.continue_report {
            state.continue_report = keeps;
            let signal = i32::from(Signal::SIGCONT.number());
            return Some(report(CLD_CONTINUED, signal, Rusage::default()));
        }
    }
    if let Some(status) = child.exit_status() {
        if !options.contains(WaitOptions::EXITED) {
            return None;
        }
        let (code, value) = child_code(status);
        let accounts = *child.usage.lock();
        let mut usage = accounts.own;
        usage.add(&accounts.children);
        if !keeps {
            parent.usage.lock().children.add(&usage);
            tables.remove_group(child);
        }
        return Some(report(code, value, usage));
    }
    let mut state = child.signals.lock();
    if options.contains(WaitOptions::UNTRACED)
        && let Some(signal) = state.stop_report
    {
        if !keeps {
            state.stop_report = None;
        }
        return Some(report(CLD_STOPPED, i32::from(signal.number()), Rusage::default()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_words_are_those_of_wait_macros() {
        let report = |code, value| {
            let (pid, uid, usage) = (Tid(2), Uid(0), Rusage::default());
            Report { pid, uid, code, value, usage }.wait_word()
        };
        assert_eq!(report(abi::siginfo::CLD_EXITED, 3), 0x300);
        assert_eq!(report(abi::siginfo::CLD_KILLED, 9), 9);
        assert_eq!(report(CLD_STOPPED, 19), 0x137f);
        assert_eq!(report(CLD_CONTINUED, 18), 0xffff);
    }
}
