//! Dentries and paths.

use std::sync::Arc;

/// A place in the tree: a mount and a dentry in it.
#[derive(Clone)]
pub struct Path {
    pub mount: Arc<Mount>,
    pub dentry: Arc<Dentry>,
}

/// A name in a directory, cached.
pub struct Dentry {
    _private: (),
}

/// A filesystem at a place.
pub struct Mount {
    _private: (),
}
