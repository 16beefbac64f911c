//! The reactor: epoll over host descriptors. It tells wait queues; it reads nothing.
//!
//! Descriptors are watched edge-triggered, so that nobody has to re-arm and an unread descriptor costs nothing. Whoever
//! waits registers with the wait queue first, then tries, then waits: then no edge is missed.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use abi::Errno;
use abi::poll::PollEvents;
use base::WaitQueue;
use parking_lot::Mutex;
use platform::Platform;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno as HostErrno;
use vfs::fs::hostfile;

const BELL: u64 = 0;
const TIMER: u64 = 1;
const DEATH: u64 = 2;
const FIRST_WATCH: u64 = 16;

/// Watches host descriptors.
pub struct Reactor {
    epoll: OwnedFd,
    // A leaf lock; queues are told after it is released.
    watches: Mutex<Watches>,
}

#[derive(Default)]
struct Watches {
    next: u64,
    queues: HashMap<u64, WaitQueue>,
    watches_death: bool,
}

/// Keeps a descriptor watched; dropping it ends that.
#[derive(Debug)]
pub struct Watch {
    fd: Arc<OwnedFd>,
    /// `None`: always ready, as regular files are.
    watched: Option<(Arc<Reactor>, u64)>,
}

impl Reactor {
    pub(super) fn new(bell: BorrowedFd<'_>, timer: BorrowedFd<'_>) -> io::Result<Arc<Self>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let edge = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, bell, EventData::new_u64(BELL), edge)?;
        epoll::add(&epoll, timer, EventData::new_u64(TIMER), edge)?;
        let watches = Watches { next: FIRST_WATCH, ..Watches::default() };
        Ok(Arc::new(Self { epoll, watches: Mutex::new(watches) }))
    }

    /// Tells `queue` when one of `events` becomes true for `fd`. A descriptor that epoll refuses (regular files,
    /// `EPERM`) counts as always ready: see [`Watch::is_always_ready`].
    ///
    /// # Errors
    /// Of epoll_ctl(2).
    pub fn register(
        self: &Arc<Self>,
        fd: Arc<OwnedFd>,
        queue: WaitQueue,
        events: PollEvents,
    ) -> io::Result<Watch> {
        let token = {
            let mut watches = self.watches.lock();
            let token = watches.next;
            watches.next += 1;
            watches.queues.insert(token, queue);
            token
        };
        let flags = EventFlags::from_bits_retain(events.bits()) | EventFlags::ET;
        match epoll::add(&self.epoll, fd.as_fd(), EventData::new_u64(token), flags) {
            Ok(()) => Ok(Watch { fd, watched: Some((Arc::clone(self), token)) }),
            Err(errno) => {
                self.watches.lock().queues.remove(&token);
                if errno == HostErrno::PERM {
                    return Ok(Watch { fd, watched: None });
                }
                Err(errno.into())
            }
        }
    }

    /// Waits for events (or only looks) and tells the queues.
    pub(super) fn wait(&self, may_block: bool, platform: &dyn Platform) -> io::Result<()> {
        self.watch_death(platform)?;
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = if may_block { None } else { Some(&timeout) };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout) {
            Ok(_) => {}
            Err(HostErrno::INTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        for event in events {
            let (token, flags) = (event.data.u64(), event.flags);
            match token {
                // The edge told all there is; the counter itself says nothing more.
                BELL | TIMER => {}
                DEATH => platform.reap(),
                _ => {
                    let queue = self.watches.lock().queues.get(&token).cloned();
                    if let Some(queue) = queue {
                        queue.notify(poll_events(flags));
                    }
                }
            }
        }
        Ok(())
    }

    fn watch_death(&self, platform: &dyn Platform) -> io::Result<()> {
        if self.watches.lock().watches_death {
            return Ok(());
        }
        if let Some(fd) = platform.death_fd() {
            let flags = EventFlags::IN | EventFlags::ET;
            epoll::add(&self.epoll, fd, EventData::new_u64(DEATH), flags)?;
        }
        self.watches.lock().watches_death = true;
        Ok(())
    }
}

/// Epoll's bits are poll's; the flags that only say how to watch are left out.
fn poll_events(flags: EventFlags) -> PollEvents {
    PollEvents::from_bits_truncate(flags.bits())
}

impl Watch {
    /// True when the descriptor cannot be waited for because it never blocks.
    #[must_use]
    pub const fn is_always_ready(&self) -> bool {
        self.watched.is_none()
    }

    #[must_use]
    pub const fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some((reactor, token)) = &self.watched {
            // Fails only when the descriptor is not watched any more, which is what is wanted.
            let _ = epoll::delete(&reactor.epoll, self.fd.as_fd());
            let queue = reactor.watches.lock().queues.remove(token);
            drop(queue);
        }
    }
}

impl hostfile::ReactorRegistration for Watch {}

/// For vfs: a handle that files can keep.
#[derive(Debug, Clone)]
pub struct FileReactor(pub Arc<Reactor>);

impl hostfile::Reactor for FileReactor {
    fn register(
        &self,
        fd: Arc<OwnedFd>,
        queue: WaitQueue,
    ) -> abi::Result<Box<dyn hostfile::ReactorRegistration>> {
        let events = PollEvents::IN | PollEvents::OUT | PollEvents::PRI | PollEvents::RDHUP;
        let watch = self.0.register(fd, queue, events);
        let watch = watch.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
        if watch.is_always_ready() { Err(Errno::EPERM) } else { Ok(Box::new(watch)) }
    }
}

impl std::fmt::Debug for Reactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reactor({} watches)", self.watches.lock().queues.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_files_are_always_ready() {
        let (bell, timer) = (eventfd(), eventfd());
        let reactor = Reactor::new(bell.as_fd(), timer.as_fd()).unwrap();
        let file = Arc::new(OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap()));
        let watch = reactor.register(file, WaitQueue::new(), PollEvents::IN).unwrap();
        assert!(watch.is_always_ready());
        let pipe = Arc::new(rustix::pipe::pipe().unwrap().0);
        let watch = reactor.register(pipe, WaitQueue::new(), PollEvents::IN).unwrap();
        assert!(!watch.is_always_ready());
    }

    fn eventfd() -> OwnedFd {
        rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap()
    }
}
