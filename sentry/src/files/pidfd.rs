//! A process as a file: readable once it has ended. See pidfd_open(2).

use std::any::Any;
use std::sync::Arc;

use abi::Result;
use abi::ids::Fd;
use abi::open::OpenFlags;
use abi::poll::PollEvents;
use base::WaitQueue;
use vfs::{File, FileOps, VfsCx};

use crate::task::{Thread, ThreadGroup};

/// See the module's documentation.
pub struct PidFd {
    group: Arc<ThreadGroup>,
}

/// Opens a pidfd of `group` in the thread's table; always close-on-exec.
///
/// # Errors
/// `EMFILE`.
pub fn open(thread: &Thread, group: &Arc<ThreadGroup>, is_nonblocking: bool) -> Result<Fd> {
    let mut flags = OpenFlags::RDWR | OpenFlags::CLOEXEC;
    if is_nonblocking {
        flags |= OpenFlags::NONBLOCK;
    }
    super::install(thread, Arc::new(PidFd { group: Arc::clone(group) }), "[pidfd]", flags)
}

/// The process of a pidfd; `None` when the file is something else.
#[must_use]
pub fn group_of(file: &File) -> Option<Arc<ThreadGroup>> {
    let pidfd = file.ops().as_any().downcast_ref::<PidFd>()?;
    Some(Arc::clone(&pidfd.group))
}

impl FileOps for PidFd {
    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _cx: &VfsCx<'_>, _file: &File) -> PollEvents {
        if self.group.exit_status().is_some() {
            PollEvents::IN | PollEvents::RDNORM
        } else {
            PollEvents::empty()
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.group.exit_events)
    }

    fn fdinfo(&self) -> String {
        let pid = self.group.tgid;
        format!("Pid:\t{pid}\nNSpid:\t{pid}\n")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
