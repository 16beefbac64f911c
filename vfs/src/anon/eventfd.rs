//! A counter as a file. See eventfd(2).

use std::any::Any;
use std::sync::Arc;

use abi::poll::PollEvents;
use abi::{Errno, Result};
use base::lock::Mutex;
use base::{Sink, Source, WaitQueue};

use crate::context::VfsCx;
use crate::file::{File, FileOps};
use crate::fs::anonfs::next_ino;
use crate::lock_order;

/// The counter stops one short of this.
const LIMIT: u64 = u64::MAX;

/// An eventfd.
#[derive(Debug)]
pub struct EventFd {
    count: Mutex<u64, lock_order::FileState>,
    queue: WaitQueue,
    is_semaphore: bool,
    id: u64,
}

impl EventFd {
    /// `is_semaphore`: `EFD_SEMAPHORE`, each read takes one.
    #[must_use]
    pub fn new(initial: u32, is_semaphore: bool) -> Arc<Self> {
        let count = Mutex::new(u64::from(initial));
        Arc::new(Self { count, queue: WaitQueue::new(), is_semaphore, id: next_ino() })
    }

    /// Adds without waiting, as kernel-side users do (AIO completion); saturates.
    pub fn signal(&self, by: u64) {
        {
            let mut count = self.count.lock();
            *count = count.saturating_add(by).min(LIMIT - 1);
        }
        self.queue.notify(PollEvents::IN | PollEvents::RDNORM);
    }
}

impl FileOps for EventFd {
    fn read(&self, _: &VfsCx<'_>, _: &File, sink: &mut dyn Sink, _pos: u64) -> Result<usize> {
        if sink.remaining() < size_of::<u64>() {
            return Err(Errno::EINVAL);
        }
        let value = {
            let mut count = self.count.lock();
            let value = match *count {
                0 => return Err(Errno::EAGAIN),
                _ if self.is_semaphore => 1,
                all => all,
            };
            *count -= value;
            value
        };
        self.queue.notify(PollEvents::OUT | PollEvents::WRNORM);
        sink.put(&value.to_ne_bytes())
    }

    fn write(&self, _: &VfsCx<'_>, _: &File, src: &mut dyn Source, _pos: u64) -> Result<usize> {
        let mut bytes = [0; size_of::<u64>()];
        if src.remaining() < bytes.len() {
            return Err(Errno::EINVAL);
        }
        if src.take(&mut bytes)? < bytes.len() {
            return Err(Errno::EFAULT);
        }
        let value = u64::from_ne_bytes(bytes);
        if value == LIMIT {
            return Err(Errno::EINVAL);
        }
        {
            let mut count = self.count.lock();
            *count = match count.checked_add(value) {
                Some(sum) if sum < LIMIT => sum,
                _ => return Err(Errno::EAGAIN),
            };
        }
        self.queue.notify(PollEvents::IN | PollEvents::RDNORM);
        Ok(bytes.len())
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: &VfsCx<'_>, _: &File) -> PollEvents {
        let count = *self.count.lock();
        let mut events = PollEvents::empty();
        if count > 0 {
            events |= PollEvents::IN | PollEvents::RDNORM;
        }
        if count < LIMIT - 1 {
            events |= PollEvents::OUT | PollEvents::WRNORM;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn fdinfo(&self) -> String {
        let count = *self.count.lock();
        let semaphore = u8::from(self.is_semaphore);
        format!(
            "eventfd-count: {count:16x}\neventfd-id: {}\neventfd-semaphore: {semaphore}\n",
            self.id
        )
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
