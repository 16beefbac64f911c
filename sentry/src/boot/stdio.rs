//! The guest's first descriptors.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::ids::Fd;
use abi::poll::PollEvents;
use base::WaitQueue;
use vfs::FdTable;
use vfs::fs::hostfile::{self, ReactorRegistration};

use super::BootError;
use crate::config::{Console, Stdio};
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

/// Fills descriptors 0 to 2.
pub fn install(
    kernel: &Arc<Kernel>,
    files: &Arc<FdTable>,
    stdio: [Stdio; 3],
    console: Option<&Console>,
) -> Result<(), BootError> {
    let reactor: Arc<dyn hostfile::Reactor> = Arc::new(FileReactor(Arc::clone(&kernel.reactor)));
    for (number, stdio) in (0..).zip(stdio) {
        let fd = match stdio {
            Stdio::Closed => continue,
            Stdio::Host(fd) => fd,
            Stdio::Console => match console_end(console, number) {
                Some(fd) => fd,
                None => continue,
            },
        };
        let failed = |errno| BootError::of(&format!("cannot take over descriptor {number}"), errno);
        let file = hostfile::adopt(fd, Arc::clone(&reactor)).map_err(failed)?;
        files.install(file, false, Fd(number), u64::MAX).map_err(failed)?;
    }
    Ok(())
}

/// The host's terminal itself, until the guest has terminals of its own.
fn console_end(console: Option<&Console>, number: i32) -> Option<OwnedFd> {
    let console = console?;
    let end = if number == 0 { &console.input } else { &console.output };
    end.try_clone().ok()
}
