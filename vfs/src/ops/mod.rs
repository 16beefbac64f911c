//! What system calls do with paths and open files, with Linux's order of errors.
//!
//! `start` is the directory a relative text starts from (`None`: the current directory). Calls that name an object
//! by descriptor pass the open file's [`File::path`](crate::File::path).
//!
//! | module | what |
//! | --- | --- |
//! | `open` | open(2), `O_CREAT`, `O_TMPFILE`, FIFOs |
//! | `create` | mkdir, mknod, symlink, link |
//! | `remove` | unlink, rmdir |
//! | `rename` | renameat2(2) |
//! | `attr` | stat, access, chmod, chown, utimens, truncate, readlink, statfs |
//! | `xattr` | extended attributes |

mod attr;
mod create;
mod open;
mod remove;
mod rename;
#[cfg(test)]
mod tests;
mod xattr;

pub(crate) use attr::dropped_set_id_bits;
pub use attr::{
    access, allocate, check_exec, chmod, chown, ftruncate, readlink, stat, statfs, truncate,
    utimens,
};
pub use create::{link, link_file, mkdir, mknod, symlink};
pub use open::{OpenHow, Opened, OpenedAhead, PendingFifo, open, open_path};
pub use remove::{rmdir, unlink};
pub use rename::rename;
pub use xattr::{get_xattr, list_xattr, remove_xattr, set_xattr};
