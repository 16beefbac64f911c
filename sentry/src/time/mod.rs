//! Clocks and timers of processes. See time(7).
//!
//! How Linux does it: clocks are read, timers are armed on them in nanosecond trees, expiry queues a signal, and a timer
//! with an interval counts what it missed. Here the wall clocks are the host's (the guest reads the same ones through
//! the host's vDSO), deadlines live in the executor's one map, and CPU clocks are the host's accounting of the guest
//! processes: a timer on them looks when it could have expired at the earliest, and again as long as it has not.
//!
//! | module | what |
//! | --- | --- |
//! | `clock` | clock ids and reading clocks |
//! | `file_timers` | the timers that files (timerfd) see |
//! | `group` | interval timers and POSIX timers of a process |

mod clock;
mod file_timers;
mod group;

pub use clock::{ClockId, CpuClock, resolution};
pub use file_timers::FileTimers;
pub use group::{GroupTimers, Itimer, PosixTimer, Setting, Target};
