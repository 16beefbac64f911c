//! One file watched by one epoll.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use abi::epoll::{EPOLLET, EPOLLONESHOT};
use abi::ids::Fd;
use abi::poll::PollEvents;
use base::lock::Mutex;
use base::wait::Registration;
use base::{Observer, WaitQueue};

use super::ready::ReadyList;
use super::{HOW, Interest, Key, depth};
use crate::context::VfsCx;
use crate::file::File;
use crate::lock_order;

/// See the module.
pub struct Item {
    fd: Fd,
    file: Weak<File>,
    ready: Weak<ReadyList>,
    state: Mutex<State, lock_order::EpollItem>,
    /// In the ready list. Changed under that list's lock only; read without as a hint.
    pub(super) is_queued: AtomicBool,
    /// Told of something since it was last looked at; see [`ReadyList::forget_unless_told`].
    pub(super) is_told: AtomicBool,
}

struct State {
    interest: Interest,
    /// A oneshot item that has reported, or one that was removed.
    is_disabled: bool,
    registration: Option<Registration>,
}

/// What the file's queue keeps; an item does not live for being watched.
struct Watch(Weak<Item>);

impl Observer for Watch {
    fn notify(&self, events: PollEvents) {
        if let Some(item) = self.0.upgrade()
            && item.wants(events)
        {
            item.enqueue();
        }
    }
}

impl Item {
    pub fn new(fd: Fd, file: &Arc<File>, interest: Interest, ready: &Arc<ReadyList>) -> Arc<Self> {
        let state = State { interest, is_disabled: false, registration: None };
        Arc::new(Self {
            fd,
            file: Arc::downgrade(file),
            ready: Arc::downgrade(ready),
            state: Mutex::new(state),
            is_queued: AtomicBool::new(false),
            is_told: AtomicBool::new(false),
        })
    }

    /// Watches for everything: the interest, which may change, is looked at when something happens.
    pub fn register(self: &Arc<Self>, queue: &WaitQueue) {
        let observer = Arc::new(Watch(Arc::downgrade(self)));
        let registration = queue.register(PollEvents::all(), observer);
        self.state.lock().registration = Some(registration);
    }

    /// Never reports again.
    pub fn end(&self) {
        let registration = {
            let mut state = self.state.lock();
            state.is_disabled = true;
            state.registration.take()
        };
        drop(registration);
    }

    pub fn key(&self) -> Key {
        (self.fd, self.file.as_ptr() as usize)
    }

    pub fn file(&self) -> Option<Arc<File>> {
        self.file.upgrade()
    }

    pub fn is_orphan(&self) -> bool {
        self.file.strong_count() == 0
    }

    pub fn interest(&self) -> Interest {
        self.state.lock().interest
    }

    pub fn set_interest(&self, interest: Interest) {
        let mut state = self.state.lock();
        state.interest = interest;
        state.is_disabled = false;
    }

    /// True when some of `events` would be reported.
    pub fn wants(&self, events: PollEvents) -> bool {
        !self.state.lock().reported(events).is_empty()
    }

    /// Queues itself if the file is ready now.
    pub fn look(self: &Arc<Self>, cx: &VfsCx<'_>) {
        let Some(file) = self.file() else { return };
        let events = file.ops().poll(cx, &file);
        if self.wants(events) {
            self.enqueue();
        }
    }

    fn enqueue(self: &Arc<Self>) {
        let Some(ready) = self.ready.upgrade() else { return };
        self.is_told.store(true, Ordering::Relaxed);
        // Whoever waits was told when it was queued, and it is still there to be found.
        if ready.push(self)
            && let Some(_depth) = depth::enter()
        {
            ready.tell();
        }
    }

    /// What to tell of `events`, and whether the item stays in the list; `None` when it is nothing.
    pub fn report(&self, events: PollEvents) -> Option<(Interest, bool)> {
        let mut state = self.state.lock();
        let events = state.reported(events);
        if events.is_empty() {
            return None;
        }
        let how = state.interest.events;
        state.is_disabled = how & EPOLLONESHOT != 0;
        let event = Interest { events: events.bits(), data: state.interest.data };
        Some((event, how & (EPOLLET | EPOLLONESHOT) == 0))
    }
}

impl State {
    fn reported(&self, events: PollEvents) -> PollEvents {
        if self.is_disabled {
            return PollEvents::empty();
        }
        let asked = PollEvents::from_bits_truncate(self.interest.events & !HOW);
        events & (asked | PollEvents::ERR | PollEvents::HUP)
    }
}
