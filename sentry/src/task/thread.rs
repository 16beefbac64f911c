//! One guest thread.

use std::sync::Arc;

use abi::ids::Tid;
use base::cred::Credentials;
use base::lock::Mutex;
use vfs::{Caller, FsContext, VfsCx};

use crate::lock_order;
use crate::mm::Mm;
use crate::task::ThreadGroup;

/// A guest thread: identity and the parts that clone(2) shares or copies.
pub struct Thread {
    pub tid: Tid,
    pub group: Arc<ThreadGroup>,
    parts: Mutex<Parts, lock_order::ThreadParts>,
}

/// Replaced as wholes; take a clone of the `Arc` and let go of the lock.
pub struct Parts {
    pub cred: Arc<Credentials>,
    pub mm: Arc<Mm>,
    pub fs: Arc<FsContext>,
}

impl Thread {
    #[must_use]
    pub fn new(tid: Tid, group: Arc<ThreadGroup>, parts: Parts) -> Arc<Self> {
        Arc::new(Self { tid, group, parts: Mutex::new(parts) })
    }

    pub fn cred(&self) -> Arc<Credentials> {
        Arc::clone(&self.parts.lock().cred)
    }

    pub fn mm(&self) -> Arc<Mm> {
        Arc::clone(&self.parts.lock().mm)
    }

    pub fn fs(&self) -> Arc<FsContext> {
        Arc::clone(&self.parts.lock().fs)
    }

    /// Runs `f` with this thread as the filesystems see it.
    pub fn with_vfs<R>(&self, f: impl FnOnce(&VfsCx<'_>) -> R) -> R {
        let (cred, fs) = (self.cred(), self.fs());
        let caller = Caller { tid: self.tid, tgid: self.group.tgid, ..Caller::default() };
        f(&VfsCx { cred: &cred, fs: &fs, caller, file_size_limit: u64::MAX })
    }
}
