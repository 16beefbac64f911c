//! Signals. See signal(7).
//!
//! How Linux does it: a signal is queued for a thread or for its whole process; one thread that does not block it is
//! made to look (`TIF_SIGPENDING`); on its way back to user mode it takes the lowest one, runs the default action or
//! builds a frame for the handler. We do the same: sending sets a thread's *attention* and interrupts it (see
//! `task::run_state`), the thread loop delivers before guest code runs again. Otherwise than in Linux guest code may change
//! its mask without us (`platform::SharedSignals`): what a sender reads of it is as of that moment, and who lets a pending
//! signal through comes to us for it.
//!
//! | module | what |
//! | --- | --- |
//! | `queue` | pending signals with their siginfo |
//! | `action` | dispositions and default actions |
//! | `deliver` | what a thread does with its signals before guest code runs |
//! | `frame` | handler frames and sigreturn |
//! | `stop` | stopping and continuing a process |
//! | `send` | from a sender to the thread that will handle it |
//! | `wakes` | whom to wake once the locks are released |

pub mod action;
mod deliver;
pub mod frame;
pub mod queue;
pub mod send;
pub mod stop;
mod wakes;

use std::sync::Arc;

use abi::UserAddr;
use abi::ids::Tid;
use abi::rlimit::Resource;
use abi::signal::{SS_DISABLE, SigAction, SigSet, SigStack, Signal};
use platform::{Context, SharedSignals};

pub use action::{Actions, DefaultAction};
pub use deliver::{Flow, Interrupted, deliver, end_group, force_segv};
pub use queue::Queue;
pub use send::{send_to_group, send_to_thread};
pub use wakes::Wakes;

use crate::task::Thread;

/// No alternate stack.
pub const NO_STACK: SigStack = SigStack { sp: 0, flags: SS_DISABLE, pad: 0, size: 0 };

/// Signal state of one thread.
pub struct ThreadSignals {
    /// Blocked signals; while `shared` is there, what guest code says counts.
    mask: SigSet,
    /// sigaltstack(2), set_robust_list(2), set_tid_address(2); the same.
    stack: SigStack,
    robust_list: UserAddr,
    tid_address: UserAddr,
    /// Lets guest code change these by itself. Then also keeps it from letting a pending signal through unnoticed: see
    /// [`ThreadSignals::add_pending`].
    shared: Option<Arc<dyn SharedSignals>>,
    /// The mask to go back to once the signal that ended sigsuspend, ppoll... was handled.
    pub saved_mask: Option<SigSet>,
    /// What sigtimedwait(2) waits for, although it is blocked.
    pub waiting: SigSet,
    pub queue: Queue,
    /// The last processor exception, which every frame shows.
    pub trap: frame::Trap,
}

impl Default for ThreadSignals {
    fn default() -> Self {
        Self::with_mask(SigSet::EMPTY)
    }
}

impl ThreadSignals {
    /// Nothing pending, no alternate stack.
    #[must_use]
    pub fn with_mask(mask: SigSet) -> Self {
        Self {
            mask,
            stack: NO_STACK,
            robust_list: UserAddr::NULL,
            tid_address: UserAddr::NULL,
            shared: None,
            saved_mask: None,
            waiting: SigSet::EMPTY,
            queue: Queue::default(),
            trap: frame::Trap::default(),
        }
    }

    /// Blocked signals. Of a thread that runs guest code they may be others at the next look.
    #[must_use]
    pub fn mask(&self) -> SigSet {
        let claimed = self.shared.as_ref().map_or(self.mask, |shared| SigSet(shared.mask()));
        claimed.without(SigSet::UNBLOCKABLE)
    }

    /// Replaces the mask; for the thread itself, while it runs no guest code.
    pub fn set_mask(&mut self, mask: SigSet) {
        self.mask = mask.without(SigSet::UNBLOCKABLE);
        if let Some(shared) = &self.shared {
            shared.set_mask(self.mask.0);
        }
    }

    /// The alternate stack, for the thread itself.
    #[must_use]
    pub fn stack(&self) -> SigStack {
        self.shared.as_ref().map_or(self.stack, |shared| shared.stack())
    }

    /// Replaces it; for the thread itself, while it runs no guest code.
    pub fn set_stack(&mut self, stack: SigStack) {
        self.stack = stack;
        if let Some(shared) = &self.shared {
            shared.set_stack(&stack);
        }
    }

    /// What set_robust_list(2) was given.
    #[must_use]
    pub fn robust_list(&self) -> UserAddr {
        self.shared.as_ref().map_or(self.robust_list, |shared| UserAddr(shared.robust_list()))
    }

    /// Replaces it; for the thread itself, while it runs no guest code.
    pub fn set_robust_list(&mut self, head: UserAddr) {
        self.robust_list = head;
        if let Some(shared) = &self.shared {
            shared.set_robust_list(head.0);
        }
    }

    /// Where 0 is written and a futex woken at the thread's end; see set_tid_address(2).
    #[must_use]
    pub fn tid_address(&self) -> UserAddr {
        self.shared.as_ref().map_or(self.tid_address, |shared| UserAddr(shared.tid_address()))
    }

    /// Replaces it; for the thread itself, while it runs no guest code.
    pub fn set_tid_address(&mut self, address: UserAddr) {
        self.tid_address = address;
        if let Some(shared) = &self.shared {
            shared.set_tid_address(address.0);
        }
    }

    /// From now on guest code may change mask, stack, list and id word; `group` is the queue of the thread's process.
    fn share(&mut self, shared: Option<Arc<dyn SharedSignals>>, group: &Queue) {
        self.take_over();
        if let Some(shared) = &shared {
            shared.set_mask(self.mask.0);
            shared.set_stack(&self.stack);
            shared.set_robust_list(self.robust_list.0);
            shared.set_tid_address(self.tid_address.0);
        }
        self.shared = shared;
        self.note_pending(group);
    }

    /// Guest code cannot change them any more.
    fn unshare(&mut self) {
        self.take_over();
        self.shared = None;
    }

    /// Notes what guest code says last.
    fn take_over(&mut self) {
        (self.mask, self.stack) = (self.mask(), self.stack());
        self.robust_list = self.robust_list();
        self.tid_address = self.tid_address();
    }

    /// A signal was queued for the thread or its process. To be called under the group's lock, before the mask is asked
    /// whether it lets the signal through: guest code changes the mask first and looks at this then.
    pub fn add_pending(&self, signal: Signal) {
        if let Some(shared) = &self.shared {
            shared.add_pending(SigSet::single(signal).0);
        }
    }

    /// Signals were taken from the queues, of which `group` is the process's, under whose lock this is.
    pub fn note_pending(&self, group: &Queue) {
        if let Some(shared) = &self.shared {
            shared.set_pending(self.queue.set().union(group.set()).0);
        }
    }
}

impl GroupSignals {
    /// Adds a thread. From now on each sees what another one does with dispositions.
    pub fn add_thread(&mut self, thread: &Arc<Thread>) {
        for other in &self.threads {
            if let Some(shared) = &other.signals.lock().shared {
                shared.forbid_changes();
            }
        }
        self.threads.push(Arc::clone(thread));
    }

    /// A disposition has changed: to be called before whoever changed it lets go of the group's lock.
    pub fn tell_action(&self, signal: Signal, action: &SigAction) {
        for thread in &self.threads {
            if let Some(shared) = &thread.signals.lock().shared {
                shared.change_action(signal, action);
            }
        }
    }
}

impl Thread {
    /// Guest code is told all dispositions: it has asked for one, and mostly asks for others then.
    pub fn tell_actions(&self) {
        // Keeps the order with changes.
        let group = self.group.signals.lock();
        let own = self.signals.lock();
        let may_change =
            if group.threads.len() == 1 { action::MAY_BE_SET_ANEW } else { SigSet::EMPTY };
        if let Some(shared) = &own.shared {
            shared.tell_actions(self.group.actions.lock().all(), may_change.0);
        }
    }

    /// Takes over what guest code says it has replaced: of a default disposition all but that it is the default one. For
    /// the thread itself, before dispositions are asked for, copied, or seen by another thread.
    pub fn take_changed_actions(&self) {
        let own = self.signals.lock();
        let Some(shared) = &own.shared else { return };
        let mut actions = self.group.actions.lock();
        shared
            .take_changed_actions(&mut |signal, claimed| actions.replace_default(signal, &claimed));
    }

    /// Guest code in `context` may change the mask. While it stands still.
    pub fn share_signals(&self, context: &dyn Context) {
        let shared = context.kicker().share_signals();
        let group = self.group.signals.lock();
        self.signals.lock().share(shared, &group.queue);
        self.run.tell_stack_limit(self.group.rlimit(Resource::Stack));
    }

    /// Before the context ends.
    pub fn unshare_signals(&self) {
        self.signals.lock().unshare();
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    Exited(u8),
    Signaled { signal: Signal, core: bool },
}

impl ExitStatus {
    /// The status word of wait4(2).
    #[must_use]
    pub const fn wait_word(self) -> i32 {
        match self {
            Self::Exited(code) => (code as i32) << 8,
            Self::Signaled { signal, core } => signal.number() as i32 | if core { 0x80 } else { 0 },
        }
    }
}

/// Signal state of a thread group.
#[derive(Default)]
pub struct GroupSignals {
    /// The threads that have not ended, oldest first.
    pub threads: Vec<Arc<Thread>>,
    /// Signals for the process as a whole.
    pub queue: Queue,
    /// Set once the process is to end; every thread then ends at its next look.
    pub exit: Option<ExitStatus>,
    /// Exit code of the leader, when it ended by itself.
    pub leader_exit: u8,
    /// Set while one thread's execve(2) ends all others: that thread's id.
    pub exec: Option<Tid>,
    /// The process is to stop, by this signal.
    pub stop: Option<Signal>,
    /// Counts the stops, so that a thread can tell one from the next.
    pub stop_generation: u64,
    /// Threads that stand still because of `stop`.
    pub stopped: usize,
    /// A stop that wait4(2) has not reported yet.
    pub stop_report: Option<Signal>,
    /// A continuation that wait4(2) has not reported yet.
    pub continue_report: bool,
    /// What the first thread that looks is to tell the parent: `CLD_STOPPED` or `CLD_CONTINUED`.
    pub tell_parent: Option<i32>,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use abi::siginfo::SigInfo;

    use super::*;

    /// What a guest may write to as it likes.
    #[derive(Default)]
    struct Words {
        mask: AtomicU64,
        pending: AtomicU64,
        robust_list: AtomicU64,
        tid_address: AtomicU64,
        stack: std::sync::Mutex<SigStack>,
    }

    impl SharedSignals for Words {
        fn mask(&self) -> u64 {
            self.mask.load(SeqCst)
        }

        fn set_mask(&self, mask: u64) {
            self.mask.store(mask, SeqCst);
        }

        fn stack(&self) -> SigStack {
            *self.stack.lock().unwrap()
        }

        fn set_stack(&self, stack: &SigStack) {
            *self.stack.lock().unwrap() = *stack;
        }

        fn robust_list(&self) -> u64 {
            self.robust_list.load(SeqCst)
        }

        fn set_robust_list(&self, head: u64) {
            self.robust_list.store(head, SeqCst);
        }

        fn tid_address(&self) -> u64 {
            self.tid_address.load(SeqCst)
        }

        fn set_tid_address(&self, address: u64) {
            self.tid_address.store(address, SeqCst);
        }

        fn set_pending(&self, signals: u64) {
            self.pending.store(signals, SeqCst);
        }

        fn add_pending(&self, signals: u64) {
            self.pending.fetch_or(signals, SeqCst);
        }

        fn tell_actions(&self, _: &[SigAction; 64], _: u64) {}

        fn change_action(&self, _: Signal, _: &SigAction) {}

        fn take_changed_actions(&self, _: &mut dyn FnMut(Signal, SigAction)) {}

        fn forbid_changes(&self) {}
    }

    #[test]
    fn what_guest_code_blocks_counts_but_for_kill_and_stop() {
        let (words, group) = (Arc::new(Words::default()), Queue::default());
        let mut signals = ThreadSignals::with_mask(SigSet(6));
        signals.share(Some(words.clone()), &group);
        assert_eq!((signals.mask(), words.mask()), (SigSet(6), 6));
        words.set_mask(!0);
        assert_eq!(signals.mask(), SigSet::ALL.without(SigSet::UNBLOCKABLE));
        signals.set_mask(SigSet::ALL);
        assert_eq!(words.mask() & SigSet::UNBLOCKABLE.0, 0);
        words.set_mask(5);
        signals.unshare();
        words.set_mask(7);
        assert_eq!(signals.mask(), SigSet(5), "it is the thread's own again");
    }

    #[test]
    fn stack_and_robust_list_are_what_guest_code_says_until_its_context_ends() {
        let (words, group) = (Arc::new(Words::default()), Queue::default());
        let mut signals = ThreadSignals::default();
        assert_eq!(signals.stack(), NO_STACK);
        let [first, second] = [1, 2].map(|n| SigStack { sp: n << 16, size: 8192, ..NO_STACK });
        signals.set_stack(first);
        signals.set_robust_list(UserAddr(0x100));
        signals.share(Some(words.clone()), &group);
        assert_eq!(words.robust_list(), 0x100, "it may have been set before");
        assert_eq!(words.stack(), first);
        words.set_stack(&second);
        words.set_robust_list(0x200);
        assert_eq!(signals.stack(), second);
        assert_eq!(signals.robust_list(), UserAddr(0x200));
        signals.set_robust_list(UserAddr::NULL);
        assert_eq!(words.robust_list(), 0);
        words.set_robust_list(0x300);
        signals.unshare();
        words.set_robust_list(0x400);
        words.set_stack(&NO_STACK);
        assert_eq!(signals.stack(), second);
        assert_eq!(signals.robust_list(), UserAddr(0x300));
    }

    #[test]
    fn guest_code_knows_what_is_pending() {
        let (words, mut group) = (Arc::new(Words::default()), Queue::default());
        let (usr1, usr2) = (SigSet::single(Signal::SIGUSR1), SigSet::single(Signal::SIGUSR2));
        group.push(Signal::SIGUSR1, SigInfo::kernel(Signal::SIGUSR1), 9).unwrap();
        let mut signals = ThreadSignals::default();
        signals.share(Some(words.clone()), &group);
        assert_eq!(words.pending.load(SeqCst), usr1.0, "of the process, from before");
        signals.queue.push(Signal::SIGUSR2, SigInfo::kernel(Signal::SIGUSR2), 9).unwrap();
        signals.add_pending(Signal::SIGUSR2);
        assert_eq!(words.pending.load(SeqCst), usr1.union(usr2).0);
        group.take(usr1).unwrap();
        signals.note_pending(&group);
        assert_eq!(words.pending.load(SeqCst), usr2.0);
    }
}
