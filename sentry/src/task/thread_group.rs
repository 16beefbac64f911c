//! What the threads of a process share.

use abi::ids::Tid;

/// A process as its parent sees it.
pub struct ThreadGroup {
    pub tgid: Tid,
}
