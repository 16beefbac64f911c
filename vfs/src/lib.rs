//! Names, mounts and files. Knows no tasks, no guest memory and no sockets: the sentry hands in buffers
//! ([`base::Sink`], [`base::Source`]), credentials, the caller's identity ([`VfsCx`]) and takes wait queues out.
//! Files never block: they return `EAGAIN` and tell readiness.
//!
//! | module | what |
//! | --- | --- |
//! | `inode` | the trait of a filesystem object |
//! | `file` | file descriptions and the trait behind them |
//! | `filesystem` | the trait of a mounted filesystem |
//! | `fs` | the filesystems |
//! | `anon` | files without a path: eventfd, timerfd, epoll, inotify |
//! | `context` | who asks: credentials, root, cwd, umask, identity |

#![forbid(unsafe_code)]

pub mod anon;
pub mod context;
pub mod dentry;
pub mod file;
pub mod filesystem;
pub mod fs;
pub mod inode;
pub mod lock_order;

pub use context::{Caller, FsContext, VfsCx};
pub use dentry::Path;
pub use file::{File, FileOps};
pub use filesystem::FileSystem;
pub use inode::Inode;
