//! Files without a path that know no task. See eventfd(2), timerfd_create(2), epoll(7).
//!
//! | module | what |
//! | --- | --- |
//! | `eventfd` | a counter to wait for |
//! | `epoll` | many files to wait for at once |
//! | `timers` | how the sentry's timers reach us: a trait |
//! | `timerfd` | a timer to wait for |

pub mod epoll;
pub mod eventfd;
pub mod timerfd;
pub mod timers;
