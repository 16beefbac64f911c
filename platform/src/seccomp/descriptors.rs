//! What a guest's shim knows of the descriptors of its only thread (`shim/src/descriptors.rs`), as the thread's task remembers it: so
//! that nothing is written twice, nor read from where the guest writes.

use std::sync::atomic::Ordering::Relaxed;

use abi::addr::PAGE_SIZE;
use shim_abi::{Descriptors as Words, Note as RawNote};

use super::region::SlotRef;
use crate::{Descriptor, Device, Note, Prot, READY_FILES, Watched};

/// The words as both sides should have them.
#[derive(Debug)]
pub struct Told {
    slot: SlotRef,
    words: [u64; Words::COUNT],
}

impl Told {
    /// Nothing is known yet.
    pub fn nothing(slot: SlotRef) -> Self {
        for word in &slot.fast().descriptors.words {
            word.store(0, Relaxed);
        }
        Self { slot, words: [0; Words::COUNT] }
    }

    /// While guest code stands still.
    pub fn tell(&mut self, number: usize, state: Option<Descriptor>) {
        let word = state.map_or(Words::FREE, word);
        let Some(known) = self.words.get_mut(number) else { return };
        if std::mem::replace(known, word) != word
            && let Some(place) = self.slot.fast().descriptors.words.get(number)
        {
            place.store(word, Relaxed);
        }
    }

    /// The shim has done this. Who says so without having done it harms itself.
    pub fn follow(&mut self, note: &Note) {
        match *note {
            Note::Closed { fd, .. } => self.set(fd, Words::FREE),
            Note::Duplicated { fd, new, cloexec } => {
                self.set(new, with_cloexec(self.get(fd), cloexec));
            }
            Note::SetCloexec { fd, cloexec } => self.set(fd, with_cloexec(self.get(fd), cloexec)),
            // The next word that is told is told in any case.
            Note::Opened { fd, .. } => self.set(fd, u64::MAX),
            Note::Watched { epoll, fd, operation, .. } => {
                let is_removed = operation == EPOLL_CTL_DEL;
                let watched = if is_removed { Watched::Nowhere } else { Watched::By(epoll) };
                self.set(fd, self.get(fd) & !Words::WATCH | watch(watched));
            }
            Note::Mapped { .. }
            | Note::Unmapped { .. }
            | Note::ProtectedForReading { .. }
            | Note::MovedBrk { .. }
            | Note::Entered => {}
        }
    }

    fn get(&self, number: u32) -> u64 {
        self.words.get(number as usize).copied().unwrap_or(0)
    }

    fn set(&mut self, number: u32, word: u64) {
        if let Some(place) = self.words.get_mut(number as usize) {
            *place = word;
        }
    }
}

pub fn word(state: Descriptor) -> u64 {
    let own = if state.is_own { Words::OWN } else { 0 };
    let device = match state.device {
        Some(Device::Null) => Words::NULL,
        Some(Device::Zero) => Words::ZERO,
        None => 0,
    };
    let dir = u64::from(state.dir) << Words::DIR_SHIFT;
    let epoll = if state.is_epoll { Words::EPOLL } else { 0 };
    let word =
        Words::OPEN | own | device | dir | epoll | watch(state.watched) | u64::from(state.flags);
    with_cloexec(word, state.cloexec)
}

fn watch(watched: Watched) -> u64 {
    match watched {
        Watched::Unknown => 0,
        Watched::Nowhere => Words::UNWATCHED,
        Watched::By(epoll) => Words::watched_by(u64::from(epoll)),
    }
}

fn with_cloexec(word: u64, cloexec: bool) -> u64 {
    word & !Words::CLOEXEC | if cloexec { Words::CLOEXEC } else { 0 }
}

const EPOLL_CTL_ADD: u32 = libc::EPOLL_CTL_ADD.cast_unsigned();
const EPOLL_CTL_DEL: u32 = libc::EPOLL_CTL_DEL.cast_unsigned();
const EPOLL_CTL_MOD: u32 = libc::EPOLL_CTL_MOD.cast_unsigned();

/// What three words of the shim say; `None`: nothing that it can have done.
pub fn read_note([what, first, second]: [u64; 3]) -> Option<Note> {
    const DUP_CLOEXEC: u64 = libc::F_DUPFD_CLOEXEC as u64;
    const DUP: u64 = libc::F_DUPFD as u64;
    const SET: u64 = libc::F_SETFD as u64;
    const LOCK: u64 = libc::F_SETLK as u64;
    let command = what >> RawNote::COMMAND_SHIFT;
    let number = what & ((1 << RawNote::COMMAND_SHIFT) - 1);
    let descriptor =
        |number: u64| u32::try_from(number).ok().filter(|fd| (*fd as usize) < Words::COUNT);
    Some(match (number.cast_signed(), command) {
        (libc::SYS_mprotect, 0) => Note::ProtectedForReading { addr: first, len: second },
        (libc::SYS_mmap, kind) => read_mapped(kind, first, second)?,
        (libc::SYS_munmap, 0) => Note::Unmapped { addr: first, len: second },
        (libc::SYS_brk, 0) => Note::MovedBrk { end: second },
        (libc::SYS_close, 0) => Note::Closed { fd: descriptor(first)?, read: second },
        (libc::SYS_fcntl, DUP | DUP_CLOEXEC) => Note::Duplicated {
            fd: descriptor(first)?,
            new: descriptor(second)?,
            cloexec: command == DUP_CLOEXEC,
        },
        (libc::SYS_fcntl, LOCK) => Note::Entered,
        (libc::SYS_openat, place) if (place as usize) < READY_FILES => Note::Opened {
            fd: descriptor(first)?,
            place: place as usize,
            flags: u32::try_from(second).ok()?,
        },
        (libc::SYS_fcntl, SET) => Note::SetCloexec { fd: descriptor(first)?, cloexec: second != 0 },
        (libc::SYS_epoll_ctl, operation) => {
            const NUMBER: u64 = 0xff;
            let operation = u32::try_from(operation).ok()?;
            if !matches!(operation, EPOLL_CTL_ADD | EPOLL_CTL_DEL | EPOLL_CTL_MOD) {
                return None;
            }
            Note::Watched {
                epoll: descriptor(first & NUMBER)?,
                fd: descriptor(first >> RawNote::TARGET_SHIFT & NUMBER)?,
                operation,
                events: (first >> RawNote::EVENTS_SHIFT) as u32,
                data: second,
            }
        }
        _ => return None,
    })
}

/// Of mmap(2): what is beside the number, and the other words.
fn read_mapped(kind: u64, addr: u64, pages: u64) -> Option<Note> {
    const ANONYMOUS: u64 = RawNote::ANONYMOUS >> RawNote::COMMAND_SHIFT;
    let prot = u32::try_from(kind & !ANONYMOUS).ok().filter(|prot| *prot <= Prot::all().bits())?;
    let len = (pages >> RawNote::LENGTH_SHIFT) * PAGE_SIZE;
    let offset = (pages & ((1 << RawNote::LENGTH_SHIFT) - 1)) * PAGE_SIZE;
    let is_anonymous = kind & ANONYMOUS != 0;
    Some(Note::Mapped { addr, len, prot, offset: (!is_anonymous).then_some(offset) })
}
