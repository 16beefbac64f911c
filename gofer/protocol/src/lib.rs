//! What sentry and gofer say to each other.
//!
//! The protocol is made of paths, and stateless but for where a connection's last walk stopped (`ReadOn`). A connection is a
//! `SOCK_SEQPACKET` socket; each request is one message and gets one reply, in order. A request names a *tree* (a host directory the gofer serves) and a path in it; the
//! gofer follows no symbolic link and leaves no tree, so the sentry walks links itself (`Explore` only looks where they
//! lead, within the tree). Opened files come
//! back as descriptors (`SCM_RIGHTS`).
//!
//! ```text
//! request  op u16 · tree u16 · seq u32 · cpu u16 · path (u16 length, bytes) · fields of the operation
//! reply    errno u32 (0: done) · seq u32 · fields of the answer            all little-endian
//! ```
//!
//! Neither side trusts the other: decoding checks every length, tag and name, returns errors and never panics.
//! This crate knows nothing of kernels nor of how files are opened.
//!
//! | module | what |
//! | --- | --- |
//! | `path` | paths and names that cannot lead out of a tree |
//! | `wire` | reading and writing of little-endian fields |
//! | `attr` | attributes, attribute changes, filesystem figures |
//! | `request`, `reply`, `listing`, `sections` | the messages |

#![forbid(unsafe_code)]

pub mod attr;
pub mod listing;
pub mod path;
pub mod reply;
pub mod request;
pub mod sections;
pub mod wire;

#[cfg(test)]
mod tests;

pub use attr::{AttrChange, FsFigures, Owner, TimeChange};
pub use listing::{DirItem, Listing, OpenListing};
pub use path::{Name, Paths, TreePath};
pub use reply::{
    OpenedFile, OpenedFiles, ReplyHead, Sighting, Sightings, TreeInfo, Walked, Welcome,
};
pub use request::{NO_CPU, NodeKind, Op, Plus, Request, SyncScope};
pub use sections::{OpenSection, Section, Sections};
pub use wire::DecodeError;

/// How messages travel, for both sides.
pub mod transport {
    pub use host::cpu::{allowed as allowed_cpus, current as current_cpu};
    pub use host::scm_rights::{receive, receive_now, send};
}

/// Version of the messages; both sides must agree.
pub const VERSION: u32 = 6;
/// Bytes of the longest message.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Bytes of the longest path in a message; longer than `PATH_MAX`, because a guest may descend step by step.
pub const MAX_PATH: usize = 16 * 1024;
/// Components of the longest walk in one request.
pub const MAX_WALK: usize = 256;
/// Files opened by one request, at most; as many descriptors as a message carries.
pub const MAX_OPEN: usize = host::scm_rights::MAX_FDS;
/// Bytes of the longest symbolic link and extended attribute that fit a message with room for its head.
pub const MAX_VALUE: usize = MAX_MESSAGE - MAX_PATH - 1024;

/// Room to receive messages in. Twice what one takes: so much an allocator maps for itself, and the host makes the pages when they
/// are used first. Mostly few are, and clearing all of them takes a good part of a start.
#[must_use]
pub fn room() -> Vec<u8> {
    vec![0; 2 * MAX_MESSAGE]
}
