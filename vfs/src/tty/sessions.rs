//! Which session has which terminal, and what the sentry must tell of process groups.

use std::collections::HashMap;
use std::sync::Arc;

use abi::ids::Tid;
use abi::signal::Signal;
use abi::{Errno, Result};
use base::lock::Mutex;

use super::pair::Tty;
use crate::anon::timers::Timers;
use crate::context::Caller;
use crate::lock_order;

/// Sessions and process groups, as far as terminals need them. Called with no lock of this crate held.
pub trait JobControl: Send + Sync {
    /// Signals every process of a group.
    fn signal_group(&self, pgid: Tid, signal: Signal);
    /// Signals one process, such as a session's leader.
    fn signal_process(&self, tgid: Tid, signal: Signal);
    /// True when the calling thread blocks `signal` or its process ignores it.
    fn is_blocked_or_ignored(&self, caller: Caller, signal: Signal) -> bool;
    /// True when no member's parent is in another group of the same session. See setpgid(2).
    fn is_orphaned(&self, pgid: Tid) -> bool;
    /// The session of a process group; `None` when there is no such group.
    fn session_of_group(&self, pgid: Tid) -> Option<Tid>;
}

/// The terminals of one sandbox, by the session that they control.
pub struct Terminals {
    jobs: Arc<dyn JobControl>,
    timers: Arc<dyn Timers>,
    by_session: Mutex<HashMap<Tid, Arc<Tty>>, lock_order::Sessions>,
}

impl Terminals {
    #[must_use]
    pub fn new(jobs: Arc<dyn JobControl>, timers: Arc<dyn Timers>) -> Arc<Self> {
        Arc::new(Self { jobs, timers, by_session: Mutex::default() })
    }

    pub(super) fn jobs(&self) -> &dyn JobControl {
        &*self.jobs
    }

    pub(super) fn timers(&self) -> &dyn Timers {
        &*self.timers
    }

    /// The controlling terminal of a session.
    #[must_use]
    pub fn of_session(&self, sid: Tid) -> Option<Arc<Tty>> {
        self.by_session.lock().get(&sid).cloned()
    }

    /// True when `tty` controls the caller's session.
    pub(super) fn controls(&self, tty: &Arc<Tty>, caller: Caller) -> bool {
        self.by_session.lock().get(&caller.sid).is_some_and(|own| Arc::ptr_eq(own, tty))
    }

    /// Makes `tty` the controlling terminal of session `sid`, with `pgid` in the foreground; unchecked. For the first
    /// process, whose terminal nobody opens.
    pub fn give(&self, tty: &Arc<Tty>, sid: Tid, pgid: Tid) {
        let old = {
            let mut sessions = self.by_session.lock();
            sessions.retain(|_, other| !Arc::ptr_eq(other, tty));
            sessions.insert(sid, Arc::clone(tty))
        };
        drop(old);
        tty.set_session(sid, pgid);
    }

    /// What open(2) without `O_NOCTTY` does: a session leader without terminal takes one that is free.
    pub(super) fn take_if_free(&self, tty: &Arc<Tty>, caller: Caller) {
        let is_leader = caller.tgid == caller.sid && caller.tgid != Tid(0);
        if is_leader && tty.session() == Tid(0) && self.of_session(caller.sid).is_none() {
            self.give(tty, caller.sid, caller.pgid);
        }
    }

    /// TIOCSCTTY. `may_steal`: asked for, by a privileged caller.
    pub(super) fn acquire(&self, tty: &Arc<Tty>, caller: Caller, may_steal: bool) -> Result<()> {
        if caller.tgid == caller.sid && self.controls(tty, caller) {
            return Ok(());
        }
        let has_other = self.of_session(caller.sid).is_some();
        if caller.tgid != caller.sid || has_other {
            return Err(Errno::EPERM);
        }
        if tty.session() != Tid(0) && !may_steal {
            return Err(Errno::EPERM);
        }
        self.give(tty, caller.sid, caller.pgid);
        Ok(())
    }

    /// The leader of session `sid` gives up the terminal (TIOCNOTTY) or has ended: the foreground group is told.
    pub fn session_ended(&self, sid: Tid) {
        let Some(tty) = self.by_session.lock().remove(&sid) else { return };
        let foreground = tty.foreground();
        tty.set_session(Tid(0), Tid(0));
        if foreground != Tid(0) {
            self.jobs.signal_group(foreground, Signal::SIGHUP);
            self.jobs.signal_group(foreground, Signal::SIGCONT);
        }
    }

    /// The line was cut: the leader of the session is told.
    pub(super) fn hung_up(&self, tty: &Arc<Tty>) {
        let sid = tty.session();
        let owned = {
            let mut sessions = self.by_session.lock();
            let owns = sessions.get(&sid).is_some_and(|own| Arc::ptr_eq(own, tty));
            if owns { sessions.remove(&sid) } else { None }
        };
        tty.set_session(Tid(0), Tid(0));
        if owned.is_some() {
            self.jobs.signal_process(sid, Signal::SIGHUP);
            self.jobs.signal_process(sid, Signal::SIGCONT);
        }
    }
}
