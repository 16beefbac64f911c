//! epoll_ctl(2) of a thread that is alone with its table and its epoll: what nobody sees before the thread asks for events, which it
//! does by a call. The sentry hears of it before that, see [`crate::notes`].

use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{self, Descriptors, Fast, Note, Slot, TASK_SIZE};
use crate::descriptors::Known;
use crate::{guest_memory, notes};

pub const EPOLL_CTL: u64 = 233;
const EPOLL_CTL_ADD: u64 = 1;
const EPOLL_CTL_DEL: u64 = 2;
const EPOLL_CTL_MOD: u64 = 3;
/// EPOLLEXCLUSIVE, about which there are more rules, and EPOLLWAKEUP.
const ODD: u64 = 1 << 28 | 1 << 29;
/// Bytes of `struct epoll_event`.
const EVENT: u64 = 12;

/// Zero for a change that is certain to succeed.
pub fn answer(slot: &Slot, fast: &Fast) -> Option<u64> {
    if fast.knows.load(Relaxed) == 0 || !notes::have_room(fast) {
        return None;
    }
    let epoll = Known::find(fast, slot.argument(0))?;
    let target = Known::find(fast, slot.argument(2))?;
    if !epoll.has(Descriptors::EPOLL) {
        return None;
    }
    let operation = slot.argument(1) & 0xffff_ffff;
    let (here, nowhere) = (Descriptors::watched_by(epoll.number), Descriptors::UNWATCHED);
    let (before, after) = match operation {
        EPOLL_CTL_ADD => (nowhere, here),
        EPOLL_CTL_DEL => (here, nowhere),
        EPOLL_CTL_MOD => (here, here),
        _ => return None,
    };
    if target.word & Descriptors::WATCH != before {
        return None;
    }
    let (events, data) =
        if operation == EPOLL_CTL_DEL { (0, 0) } else { read_event(slot, slot.argument(3))? };
    if events & ODD != 0 {
        return None;
    }
    target.place.store(target.word & !Descriptors::WATCH | after, Relaxed);
    let what = epoll.number | target.number << Note::TARGET_SHIFT | events << Note::EVENTS_SHIFT;
    notes::write(fast, [EPOLL_CTL | operation << Note::COMMAND_SHIFT, what, data]);
    Some(0)
}

/// Events and data; `None` when they are not there.
fn read_event(slot: &Slot, addr: u64) -> Option<(u64, u64)> {
    let place = slot as *const Slot as u64 + abi::BOUNCE_OFFSET;
    if addr > TASK_SIZE - EVENT || guest_memory::copy(place, addr, EVENT) != 0 {
        return None;
    }
    // SAFETY: a part of the slot that is nobody else's now, and of that size.
    let [first, second, third] = unsafe { *(place as *const [u32; 3]) }.map(u64::from);
    Some((first, second | third << 32))
}
