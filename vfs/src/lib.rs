//! Names, mounts and files. Knows no tasks, no guest memory and no sockets: the sentry hands in buffers
//! ([`base::Sink`], [`base::Source`]), credentials, the caller's identity ([`VfsCx`]) and takes wait queues out.
//! Files never block: they return `EAGAIN` and tell readiness.
//!
//! | module | what |
//! | --- | --- |
//! | `inode` | the trait of a filesystem object |
//! | `file`, `description` | the trait of an open file; file descriptions, which add position and flags |
//! | `dentry`, `path` | the cache of names; places and the walk to them |
//! | `mount`, `mount_namespace` | filesystems at places |
//! | `names`, `known_path` | for who remembers where paths lead |
//! | `ops` | what system calls do with paths: open, create, rename, attributes |
//! | `file_table` | descriptors |
//! | `loans` | files that guest code reads by itself |
//! | `text_busy` | files that run as programs |
//! | `ledger` | files that guest code locks and writes on its own |
//! | `record_lock` | flock(2), POSIX and open-file-description locks |
//! | `notify` | who is told about changes (inotify) |
//! | `filesystem` | the trait of a mounted filesystem |
//! | `fs` | the filesystems |
//! | `tty` | terminals: line discipline, pseudo-terminal pairs, job control |
//! | `anon` | files without a path: eventfd, timerfd, epoll, inotify |
//! | `context` | who asks: credentials, root, cwd, umask, identity |

#![forbid(unsafe_code)]

pub mod anon;
pub mod context;
pub mod dentry;
pub mod description;
pub mod file;
pub mod file_table;
pub mod filesystem;
pub mod fs;
pub mod inode;
pub mod known_path;
mod ledger;
mod loans;
pub mod lock_order;
pub mod mount;
pub mod mount_namespace;
mod name_hash;
pub mod names;
pub mod notify;
pub mod ops;
pub mod path;
mod path_text;
pub mod record_lock;
#[cfg(test)]
mod test_support;
pub mod text_busy;
pub mod tty;

pub use context::{Caller, FsContext, VfsCx};
pub use dentry::Path;
pub use file::{File, FileOps};
pub use file_table::{FdTable, Seen, Watch};
pub use filesystem::FileSystem;
pub use inode::Inode;
pub use ledger::{Ledger, OwnFile};
pub use loans::{Loan, Position};
pub use mount::{Mount, MountFlags};
pub use mount_namespace::MountNamespace;
pub use path::LookupFlags;
