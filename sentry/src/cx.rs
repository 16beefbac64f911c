//! What a system-call handler gets to work with.

use std::future::Future;
use std::sync::Arc;

use base::clock::Nanos;
use base::cred::Credentials;
use platform::Context;
use vfs::{FdTable, FsContext, VfsCx};

use crate::error::{Restart, SysError};
use crate::kernel::Kernel;
use crate::mm::Mm;
use crate::syscalls::args::Render;
use crate::syscalls::strace::Trace;
use crate::task::{Blocked, OwnParts, Part, Parts, RestartBlock, Thread};

/// The calling thread, its kernel and its registers.
pub struct Cx<'a> {
    pub kernel: &'a Arc<Kernel>,
    pub thread: &'a Arc<Thread>,
    /// Replaced as a whole by execve.
    pub context: &'a mut Box<dyn Context>,
    /// What the thread holds; not in execve(2), which counts how many hold it.
    pub own: Option<&'a OwnParts>,
    /// Number of the call that runs.
    pub number: u64,
    /// See [`Cx::deadline_after`].
    pub restart_deadline: Option<Nanos>,
    /// Bytes that a call that was tried first has moved before it turned out that it must wait.
    pub begun: usize,
    /// The line that --strace prints when the call is done; `None` when nobody traces.
    pub trace: Option<Trace>,
}

impl Cx<'_> {
    /// Waits for `future` as [`Thread::block_on`] does. The returned future borrows nothing of `self`.
    ///
    /// # Errors
    /// See [`Blocked`].
    pub fn block_on<F: Future + Send>(
        &self,
        future: F,
        deadline: Option<Nanos>,
    ) -> impl Future<Output = Result<F::Output, Blocked>> + Send + use<F> {
        let (thread, timers) = (Arc::clone(self.thread), Arc::clone(&self.kernel.timers));
        async move { thread.block_on(&timers, future, deadline).await }
    }

    /// The deadline of a relative timeout; when this call is restarted by restart_syscall(2), the one it had before.
    #[must_use]
    pub fn deadline_after(&self, timeout_ns: u64) -> Nanos {
        self.restart_deadline.unwrap_or_else(|| self.kernel.now().saturating_add(timeout_ns))
    }

    /// The error of an interrupted call that goes on until `deadline` when no handler ran (`ERESTART_RESTARTBLOCK`).
    #[must_use]
    pub fn restart_until(&self, deadline: Nanos) -> SysError {
        let block = RestartBlock { number: self.number, deadline };
        self.thread.attrs.lock().restart_block = Some(block);
        SysError::Restart(Restart::Block)
    }

    /// Adds one decoded argument to the --strace line.
    pub fn trace_arg(&mut self, value: &dyn Render) {
        let mm = self.mm();
        if let Some(trace) = &mut self.trace {
            trace.arg(value, &mm);
        }
    }

    /// Runs `f` with the caller as the filesystems see it.
    pub fn with_vfs<R>(&self, f: impl FnOnce(&VfsCx<'_>) -> R) -> R {
        match self.own_parts() {
            Some(parts) => self.thread.with_parts(&parts.cred, &parts.fs, f),
            None => self.thread.with_vfs(f),
        }
    }
}

impl<'a> Cx<'a> {
    /// The caller's parts, where they are at hand and still are its own.
    fn own_parts(&self) -> Option<&'a Parts> {
        self.own.filter(|own| own.is_current(self.thread)).map(|own| &own.parts)
    }

    /// The caller's memory.
    #[must_use]
    pub fn mm(&self) -> Part<'a, Mm> {
        self.own_parts()
            .map_or_else(|| Part::Taken(self.thread.mm()), |parts| Part::Kept(&parts.mm))
    }

    /// The caller's descriptor table.
    #[must_use]
    pub fn files(&self) -> Part<'a, FdTable> {
        self.own_parts()
            .map_or_else(|| Part::Taken(self.thread.files()), |parts| Part::Kept(&parts.files))
    }

    /// The caller's root, current directory and umask.
    #[must_use]
    pub fn fs(&self) -> Part<'a, FsContext> {
        self.own_parts()
            .map_or_else(|| Part::Taken(self.thread.fs()), |parts| Part::Kept(&parts.fs))
    }

    /// The caller's credentials as of now.
    #[must_use]
    pub fn cred(&self) -> Arc<Credentials> {
        self.own_parts().map_or_else(|| self.thread.cred(), |parts| Arc::clone(&parts.cred))
    }
}
