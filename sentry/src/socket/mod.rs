//! Sockets as files: glue between `netstack`, which knows no descriptors and no guest memory, and `vfs`.
//!
//! | module | what |
//! | --- | --- |
//! | `file` | the open file of a socket |
//! | `address` | socket addresses in guest memory |
//! | `control` | control messages: descriptors and credentials in flight |

mod address;
mod control;
mod file;

pub use address::{Named, SocketAddress, read_address, write_address};
pub use control::{read_control, write_control};
pub use file::{Destination, Socket, SocketFile, Timeout, install, socket_of};

/// What came of a receive on a socket of any family.
pub type Received = netstack::message::Received<Named>;

use abi::socket::Ucred;

use crate::cx::Cx;

/// Who sends, as SCM_CREDENTIALS says unless told otherwise: real ids.
#[must_use]
pub fn sender_cred(cx: &Cx<'_>) -> Ucred {
    let cred = cx.cred();
    Ucred { pid: cx.thread.tgid().0, uid: cred.ruid.0, gid: cred.rgid.0 }
}

/// Who connects or listens, as SO_PEERCRED tells the other end: effective ids.
#[must_use]
pub fn peer_cred(cx: &Cx<'_>) -> Ucred {
    let cred = cx.cred();
    Ucred { pid: cx.thread.tgid().0, uid: cred.euid.0, gid: cred.egid.0 }
}
