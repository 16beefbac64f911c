//! The guest's first descriptors.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::ids::Fd;
use abi::poll::PollEvents;
use base::WaitQueue;
use vfs::fs::hostfile::{self, ReactorRegistration};
use vfs::{FdTable, File};

use super::BootError;
use super::console::Console;
use crate::config::Stdio;
use crate::executor::reactor::{Reactor, Watch};
use crate::kernel::Kernel;

/// The executor's reactor as files see it.
struct FileReactor(Arc<Reactor>);

impl hostfile::Reactor for FileReactor {
    fn register(
        &self,
        fd: Arc<OwnedFd>,
        queue: WaitQueue,
    ) -> abi::Result<Box<dyn ReactorRegistration>> {
        let events = PollEvents::IN | PollEvents::OUT | PollEvents::PRI | PollEvents::RDHUP;
        let watch = self.0.register(fd, queue, events).map_err(|error| {
            abi::Errno::from_raw(error.raw_os_error().unwrap_or(abi::Errno::EIO.raw()))
        })?;
        if watch.is_always_ready() {
            return Err(abi::Errno::EPERM);
        }
        Ok(Box::new(Registered(watch)))
    }
}

/// Keeps a watch.
struct Registered(#[expect(dead_code, reason = "held for its drop")] Watch);

impl ReactorRegistration for Registered {}

/// The reactor for files.
pub fn reactor(kernel: &Kernel) -> Arc<dyn hostfile::Reactor> {
    Arc::new(FileReactor(Arc::clone(&kernel.reactor)))
}

/// Fills descriptors 0 to 2.
pub fn install(
    kernel: &Arc<Kernel>,
    files: &Arc<FdTable>,
    stdio: [Stdio; 3],
    console: Option<&Arc<Console>>,
) -> Result<(), BootError> {
    let reactor = reactor(kernel);
    // The streams that are the terminal are one open file, as a login shell gets them.
    let mut terminal: Option<Arc<File>> = None;
    for (number, stdio) in (0..).zip(stdio) {
        let failed = |errno| BootError::of(&format!("cannot take over descriptor {number}"), errno);
        let file = match (stdio, console) {
            (Stdio::Closed, _) | (Stdio::Console, None) => continue,
            (Stdio::Host(fd), _) => hostfile::adopt(fd, Arc::clone(&reactor)).map_err(failed)?,
            (Stdio::Console, Some(console)) => match &terminal {
                Some(file) => Arc::clone(file),
                None => terminal.insert(console.open().map_err(failed)?).clone(),
            },
        };
        files.install(file, false, Fd(number), u64::MAX).map_err(failed)?;
    }
    Ok(())
}
