//! Who asks.

use std::sync::Arc;

use abi::ids::Tid;
use base::cred::Credentials;
use base::lock::Mutex;

use crate::dentry::Path;
use crate::lock_order;

/// Root directory, current directory and umask of a task; shared by CLONE_FS.
pub struct FsContext {
    pub state: Mutex<FsState, lock_order::FsContexts>,
}

/// See [`FsContext`].
#[derive(Clone)]
pub struct FsState {
    pub root: Path,
    pub cwd: Path,
    pub umask: u32,
}

impl FsContext {
    #[must_use]
    pub fn new(root: Path, cwd: Path, umask: u32) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(FsState { root, cwd, umask }) })
    }

    /// An independent copy, for fork.
    #[must_use]
    pub fn duplicate(&self) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(self.state.lock().clone()) })
    }
}

/// The calling task, as far as files care.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caller {
    pub tid: Tid,
    pub tgid: Tid,
    pub pgid: Tid,
    pub sid: Tid,
}

/// Everything about the caller that a file operation may need; cheap to make.
#[derive(Clone, Copy)]
pub struct VfsCx<'a> {
    pub cred: &'a Credentials,
    pub fs: &'a FsContext,
    pub caller: Caller,
    /// RLIMIT_FSIZE in bytes; a write beyond it fails with EFBIG (the sentry adds SIGXFSZ).
    pub file_size_limit: u64,
    /// What is looked up is to be opened for reading: where each question takes a while, both may be asked at once.
    pub will_open: bool,
}
