//! What background processes may do with their terminal. See "Job control" in termios(3).

use std::sync::Arc;

use abi::ids::Tid;
use abi::signal::Signal;
use abi::{Errno, Result};

use super::SIGNALLED;
use super::pair::Tty;
use crate::context::Caller;

/// True when the caller belongs to the terminal's session but not to its foreground group.
fn is_background(tty: &Arc<Tty>, caller: Caller) -> bool {
    let foreground = tty.foreground();
    foreground != Tid(0) && foreground != caller.pgid && tty.terminals().controls(tty, caller)
}

/// Before a read: a background process gets SIGTTIN, or `EIO` where that cannot help.
pub fn check_read(tty: &Arc<Tty>, caller: Caller) -> Result<()> {
    if !is_background(tty, caller) {
        return Ok(());
    }
    let jobs = tty.terminals().jobs();
    if jobs.is_blocked_or_ignored(caller, Signal::SIGTTIN) || jobs.is_orphaned(caller.pgid) {
        return Err(Errno::EIO);
    }
    jobs.signal_group(caller.pgid, Signal::SIGTTIN);
    Err(SIGNALLED)
}

/// Before a change of the terminal (and before output with `TOSTOP`): a background process gets SIGTTOU, unless it
/// takes none; `EIO` where that cannot help.
pub fn check_change(tty: &Arc<Tty>, caller: Caller) -> Result<()> {
    if !is_background(tty, caller) {
        return Ok(());
    }
    let jobs = tty.terminals().jobs();
    if jobs.is_blocked_or_ignored(caller, Signal::SIGTTOU) {
        return Ok(());
    }
    if jobs.is_orphaned(caller.pgid) {
        return Err(Errno::EIO);
    }
    jobs.signal_group(caller.pgid, Signal::SIGTTOU);
    Err(SIGNALLED)
}
