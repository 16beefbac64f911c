//! Dispositions and default actions.

use abi::signal::{SIG_DFL, SIG_IGN, SaFlags, SigAction, SigSet, Signal};

/// What happens to a process that set nothing up for a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultAction {
    Terminate,
    /// Terminate, with a core dump where RLIMIT_CORE allows it.
    Core,
    Ignore,
    Stop,
    Continue,
}

impl DefaultAction {
    /// The table of signal(7).
    #[must_use]
    pub const fn of(signal: Signal) -> Self {
        match signal {
            Signal::SIGCHLD | Signal::SIGURG | Signal::SIGWINCH => Self::Ignore,
            Signal::SIGCONT => Self::Continue,
            Signal::SIGSTOP | Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU => Self::Stop,
            Signal::SIGQUIT
            | Signal::SIGILL
            | Signal::SIGTRAP
            | Signal::SIGABRT
            | Signal::SIGBUS
            | Signal::SIGFPE
            | Signal::SIGSEGV
            | Signal::SIGXCPU
            | Signal::SIGXFSZ
            | Signal::SIGSYS => Self::Core,
            _ => Self::Terminate,
        }
    }
}

/// Signals whose default is to stop.
pub const STOP_SIGNALS: SigSet = SigSet(
    SigSet::single(Signal::SIGSTOP).0
        | SigSet::single(Signal::SIGTSTP).0
        | SigSet::single(Signal::SIGTTIN).0
        | SigSet::single(Signal::SIGTTOU).0,
);

/// Signals of which it does not matter when their default disposition is set while they have it. Of those that are ignored by
/// default nothing may be pending then, for it would be discarded; guest code looks at that. Flags mean nothing to others, but for SIGCHLD's.
pub const MAY_BE_SET_ANEW: SigSet = SigSet(!SigSet::UNBLOCKABLE.0);

/// Flags of SIGCHLD that others look at: `SA_NOCLDSTOP`, `SA_NOCLDWAIT`.
const CHILD_FLAGS: u64 = 3;

/// One disposition per signal.
#[derive(Debug, Clone)]
pub struct Actions([SigAction; 64]);

impl Default for Actions {
    fn default() -> Self {
        Self([SigAction::default(); 64])
    }
}

impl Actions {
    #[must_use]
    pub const fn get(&self, signal: Signal) -> SigAction {
        self.0[signal.number() as usize - 1]
    }

    pub const fn set(&mut self, signal: Signal, action: SigAction) {
        self.0[signal.number() as usize - 1] = action;
    }

    /// Of signal n at n-1.
    #[must_use]
    pub const fn all(&self) -> &[SigAction; 64] {
        &self.0
    }

    /// A guest's word that it has set a default disposition anew; only that of flags, restorer and mask is believed.
    pub fn replace_default(&mut self, signal: Signal, claimed: &SigAction) {
        let current = self.get(signal);
        if !MAY_BE_SET_ANEW.contains(signal) || !current.is_default() {
            return;
        }
        let mut action = SigAction { handler: SIG_DFL, ..claimed.as_kept() };
        if signal == Signal::SIGCHLD {
            action.flags = action.flags & !CHILD_FLAGS | current.flags & CHILD_FLAGS;
        }
        self.set(signal, action);
    }

    /// True when sending it has no effect at all (unless it is blocked).
    #[must_use]
    pub fn ignores(&self, signal: Signal) -> bool {
        let action = self.get(signal);
        match action.handler {
            SIG_IGN => true,
            // What SIGCONT does it has done when it was sent.
            SIG_DFL => {
                let default = DefaultAction::of(signal);
                matches!(default, DefaultAction::Ignore | DefaultAction::Continue)
            }
            _ => false,
        }
    }

    /// True when it ends the process at once.
    #[must_use]
    pub fn is_fatal(&self, signal: Signal) -> bool {
        let default = DefaultAction::of(signal);
        self.get(signal).is_default()
            && matches!(default, DefaultAction::Terminate | DefaultAction::Core)
    }

    /// Children leave no zombie: SIGCHLD is ignored or has `SA_NOCLDWAIT`.
    #[must_use]
    pub fn reaps_children(&self) -> bool {
        let action = self.get(Signal::SIGCHLD);
        action.is_ignore() || action.flags().contains(SaFlags::NOCLDWAIT)
    }

    /// execve(2): handlers go, ignored stays.
    pub fn reset_handlers(&mut self) {
        for action in &mut self.0 {
            let handler = if action.is_ignore() { SIG_IGN } else { SIG_DFL };
            *action = SigAction { handler, ..SigAction::default() };
        }
    }

    /// CLONE_CLEAR_SIGHAND: as [`Actions::reset_handlers`]; ignored stays too.
    #[must_use]
    pub fn without_handlers(&self) -> Self {
        let mut actions = self.clone();
        actions.reset_handlers();
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_word_changes_no_effect() {
        let mut actions = Actions::default();
        let handled = SigAction { handler: 0x1000, ..SigAction::default() };
        actions.set(Signal::SIGINT, handled);
        let claimed = SigAction { handler: 0x2000, flags: !0, restorer: 7, mask: !0 };
        for signal in (1..=64).filter_map(Signal::new) {
            actions.replace_default(signal, &claimed);
        }
        assert_eq!(actions.get(Signal::SIGINT), handled);
        for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
            assert_eq!(actions.get(signal), SigAction::default(), "{signal}");
        }
        let child = actions.get(Signal::SIGCHLD);
        assert!(child.is_default() && child.restorer == 7);
        assert_eq!(child.flags, SaFlags::KNOWN.bits() & !CHILD_FLAGS, "others look at these");
        let kept = actions.get(Signal::SIGTERM);
        assert!(kept.is_default() && !kept.mask().contains(Signal::SIGKILL));
        assert_eq!((kept.flags, kept.restorer), (SaFlags::KNOWN.bits(), 7));
    }

    #[test]
    fn exec_keeps_ignored_signals_and_drops_handlers() {
        let mut actions = Actions::default();
        let handled = SigAction { handler: 0x1000, ..SigAction::default() };
        actions.set(Signal::SIGINT, handled);
        actions.set(Signal::SIGPIPE, SigAction { handler: SIG_IGN, ..SigAction::default() });
        actions.reset_handlers();
        assert!(actions.get(Signal::SIGINT).is_default());
        assert!(actions.ignores(Signal::SIGPIPE));
        assert!(actions.ignores(Signal::SIGCHLD));
        assert!(actions.is_fatal(Signal::SIGINT));
    }
}
