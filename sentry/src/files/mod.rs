//! Anonymous files that know tasks.
//!
//! | module | what |
//! | --- | --- |
//! | `async_io` | SIGIO: whom a file tells |
//! | `lock_waits` | who waits for whom because of a record lock |
//! | `pidfd` | a process as a file |
//! | `signalfd` | pending signals as a file |

pub mod async_io;
pub mod lock_waits;
pub mod pidfd;
pub mod signalfd;

use std::sync::Arc;

use abi::Result;
use abi::ids::Fd;
use abi::open::OpenFlags;
use abi::rlimit::Resource;
use vfs::FileOps;
use vfs::fs::anonfs::new_file;

use crate::task::Thread;

/// Opens `ops` in the thread's table; `kind` as /proc/PID/fd shows it.
///
/// # Errors
/// `EMFILE`.
pub fn install(
    thread: &Thread,
    ops: Arc<dyn FileOps>,
    kind: &'static str,
    flags: OpenFlags,
) -> Result<Fd> {
    let file = new_file(ops, kind, flags);
    let limit = thread.group.limit(Resource::Nofile);
    thread.files().install(file, flags.contains(OpenFlags::CLOEXEC), Fd(0), limit)
}
