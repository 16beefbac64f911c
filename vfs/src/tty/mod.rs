//! Terminals: pseudo-terminal pairs with a line discipline, and job control. See tty(4), pty(7), termios(3).
//!
//! A [`Tty`] is a pair: bytes written to the master go through the line discipline (editing, echo, signals) to the
//! slave's readers; bytes written to the slave go through output processing to the master's readers. Nothing blocks.
//!
//! Who may read and write, and who gets signals, depends on sessions and process groups; those are the sentry's
//! ([`JobControl`]). A call that raised a stop signal for its caller fails with [`SIGNALLED`]: the sentry lets the signal
//! act and restarts the call. The sentry is asked and told with no lock of ours held.
//!
//! | module | what |
//! | --- | --- |
//! | `discipline` | input: lines, editing, special characters; pure |
//! | `output` | output processing; pure |
//! | `pair` | the state of a pair, and what both ends do with it |
//! | `access` | background processes: SIGTTIN, SIGTTOU, EIO |
//! | `sessions` | which session has which terminal; the sentry's side of job control |
//! | `slave`, `master` | the ends as files |
//! | `ioctl` | commands that both ends understand |

mod access;
mod discipline;
mod ioctl;
mod master;
mod output;
mod pair;
mod sessions;
mod slave;
#[cfg(test)]
mod tests;

use abi::Errno;

pub use master::Master;
pub use pair::Tty;
pub use sessions::{JobControl, Terminals};
pub use slave::{ControllingTerminal, Slave, SlaveDevice};

/// The caller was sent a signal because of this very call: the sentry delivers it and restarts the call
/// (`ERESTARTSYS`). Nothing else in this crate returns this number, and no guest sees it.
pub const SIGNALLED: Errno = Errno::ERESTART;
