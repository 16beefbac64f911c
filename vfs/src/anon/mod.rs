//! Files without a path that know no task. See eventfd(2), timerfd_create(2), epoll(7).
//!
//! | module | what |
//! | --- | --- |
//! | `eventfd` | a counter to wait for |
//! | `epoll` | many files to wait for at once |
//! | `inotify` | changes of files as events |
//! | `timers` | how the sentry's timers reach us: a trait |
//! | `timerfd` | a timer to wait for |

pub mod epoll;
pub mod eventfd;
pub mod inotify;
pub mod timerfd;
pub mod timers;
