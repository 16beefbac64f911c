//! What a system-call handler gets to work with.

use std::sync::Arc;

use base::cred::Credentials;
use platform::Context;
use vfs::VfsCx;

use crate::kernel::Kernel;
use crate::mm::Mm;
use crate::syscalls::args::Render;
use crate::syscalls::strace::Trace;
use crate::task::Thread;

/// The calling thread, its kernel and its registers.
pub struct Cx<'a> {
    pub kernel: &'a Arc<Kernel>,
    pub thread: &'a Arc<Thread>,
    /// Replaced as a whole by execve.
    pub context: &'a mut Box<dyn Context>,
    /// The line that --strace prints when the call is done; `None` when nobody traces.
    pub trace: Option<Trace>,
}

impl Cx<'_> {
    /// Adds one decoded argument to the --strace line.
    pub fn trace_arg(&mut self, value: &dyn Render) {
        let mm = self.mm();
        if let Some(trace) = &mut self.trace {
            trace.arg(value, &mm);
        }
    }

    /// The caller's memory.
    #[must_use]
    pub fn mm(&self) -> Arc<Mm> {
        self.thread.mm()
    }

    /// The caller's credentials as of now.
    #[must_use]
    pub fn cred(&self) -> Arc<Credentials> {
        self.thread.cred()
    }

    /// Runs `f` with the caller as the filesystems see it.
    pub fn with_vfs<R>(&self, f: impl FnOnce(&VfsCx<'_>) -> R) -> R {
        self.thread.with_vfs(f)
    }
}
