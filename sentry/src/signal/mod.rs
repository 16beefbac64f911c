//! Signals. See signal(7).
//!
//! How Linux does it: a signal is queued for a thread or for its whole process; one thread that does not block it is
//! made to look (`TIF_SIGPENDING`); on its way back to user mode it takes the lowest one, runs the default action or
//! builds a frame for the handler. We do the same: sending sets a thread's *attention* and interrupts it (see
//! `task::run_state`), the thread loop delivers before guest code runs again.
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

use abi::ids::Tid;
use abi::signal::{SS_DISABLE, SigSet, SigStack, Signal};

pub use action::{Actions, DefaultAction};
pub use deliver::{Flow, Interrupted, deliver, end_group, force_segv};
pub use queue::Queue;
pub use send::{send_to_group, send_to_thread};
pub use wakes::Wakes;

use crate::task::Thread;

/// Signal state of one thread.
#[derive(Debug)]
pub struct ThreadSignals {
    /// Blocked signals.
    pub mask: SigSet,
    /// The mask to go back to once the signal that ended sigsuspend, ppoll... was handled.
    pub saved_mask: Option<SigSet>,
    /// What sigtimedwait(2) waits for, although it is blocked.
    pub waiting: SigSet,
    pub queue: Queue,
    pub stack: SigStack,
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
            saved_mask: None,
            waiting: SigSet::EMPTY,
            queue: Queue::default(),
            stack: SigStack { flags: SS_DISABLE, ..SigStack::default() },
            trap: frame::Trap::default(),
        }
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
