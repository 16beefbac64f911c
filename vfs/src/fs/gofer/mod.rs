//! Client filesystem of the gofer: host files that another process opens for us.
//!
//! An inode knows its name and its parent, so a request can name it by path; the gofer keeps no state. Regular files
//! are read and written through donated descriptors, without a round trip; one read-only descriptor per inode is
//! kept for later opens (a bounded cache). Two regimes:
//!
//! * *Read-only trees* count as exclusive: attributes, links, absent names and whole listings are believed for good
//!   (bounded, see `known`). This is the lower layer of the default root. What a guest is likely to want next comes
//!   along with what it wants now (see `foresight`).
//! * *Writable trees* may change under us: every lookup and every attribute is asked for again. An inode that was
//!   found keeps its identity as long as device and inode number agree.
//!
//! A file that lost its last name lives on through its descriptors, if any; requests by name then give `ENOENT`. The same
//! holds for what somebody on the host moves away meanwhile.
//!
//! | module | what |
//! | --- | --- |
//! | `client` | the connections: requests, replies, a gofer that died |
//! | `explored` | what the gofer found while nobody had asked yet |
//! | `fs` | the mounted filesystem |
//! | `inode` | objects: lookups, attributes, changes |
//! | `known` | what a directory knows about its entries |
//! | `foresight` | what is asked for before anybody wants it |
//! | `open_files` | donated descriptors kept for later |
//! | `file` | open regular files |
//! | `dir` | open directories |
//! | `subtree` | directories listed before anybody opens them |

mod client;
mod dir;
mod explored;
mod file;
mod foresight;
mod fs;
mod inode;
mod known;
mod open_files;
mod subtree;

pub use client::{Client, ConnectError};
pub use fs::GoferFs;
pub use inode::GoferInode;

/// An error of the host in the kernel's words.
fn errno(host: rustix::io::Errno) -> abi::Errno {
    abi::Errno::from_raw(host.raw_os_error())
}
