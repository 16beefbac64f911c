//! Calls about descriptors that the shim carries out itself, of a thread that is alone with its table: what nobody else notices.
//! The sentry hears of them with the next event, and does the same then (see [`crate::notes`]).

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{Descriptors, Fast, Note, Slot, TASK_SIZE, global_flag};
use crate::calls::{CLOSE, READ, WRITE};
use crate::{channel, entries, guest_memory, library, loans, notes};

pub const DUP: u64 = 32;
pub const FCNTL: u64 = 72;
const F_DUPFD: u64 = 0;
const F_GETFD: u64 = 1;
const F_SETFD: u64 = 2;
const F_GETFL: u64 = 3;
const F_DUPFD_CLOEXEC: u64 = 1030;
const FD_CLOEXEC: u64 = 1;

/// The result of a call that is carried out here.
pub fn answer(slot: &Slot, fast: &Fast) -> Option<u64> {
    if fast.knows.load(Relaxed) == 0 || !notes::have_room(fast) {
        return None;
    }
    let old = Known::find(fast, slot.argument(0))?;
    match slot.number() {
        CLOSE => old.close(fast),
        DUP => old.duplicate(fast, F_DUPFD, 0),
        FCNTL => {
            let argument = slot.argument(2);
            match slot.argument(1) & 0xffff_ffff {
                command @ (F_DUPFD | F_DUPFD_CLOEXEC) => old.duplicate(fast, command, argument),
                F_GETFD => Some(u64::from(old.has(Descriptors::CLOEXEC))),
                F_SETFD => old.set_cloexec(fast, argument & FD_CLOEXEC),
                entries::F_SETLK | entries::F_SETLKW => entries::lock(slot, fast),
                F_GETFL if old.is_own() => Some(old.word & Descriptors::FLAGS),
                _ => None,
            }
        }
        _ => None,
    }
}

/// What is asked of one transfer at most.
const MOST: u64 = 1 << 16;
const PIECE: usize = 256;
static ZEROS: [u8; PIECE] = [0; PIECE];
const O_ACCMODE: u64 = 3;
const O_RDONLY: u64 = 0;
const O_WRONLY: u64 = 1;

/// The result of a read(2) or write(2) of a device that keeps nothing.
pub fn answer_transfer(slot: &Slot, fast: &Fast) -> Option<u64> {
    if fast.knows.load(Relaxed) == 0 {
        return None;
    }
    let known = Known::find(fast, slot.argument(0))?;
    if !known.has(Descriptors::NULL | Descriptors::ZERO) {
        return None;
    }
    let is_heard = channel::global().flags.load(Relaxed) & global_flag::HEARD != 0;
    let (addr, len) = (slot.argument(1), slot.argument(2));
    if is_heard || len > MOST || addr > TASK_SIZE - len {
        return None;
    }
    let access = known.word & O_ACCMODE;
    match slot.number() {
        // As the kernel, which does not look at what is written.
        WRITE if access != O_RDONLY => Some(len),
        READ if access != O_WRONLY && known.has(Descriptors::NULL) => Some(0),
        READ if access != O_WRONLY => clear(addr, len),
        _ => None,
    }
}

fn clear(addr: u64, len: u64) -> Option<u64> {
    let mut done = 0;
    while done < len {
        let piece = (len - done).min(PIECE as u64);
        if guest_memory::copy(addr + done, &raw const ZEROS as u64, piece) != 0 {
            return None;
        }
        done += piece;
    }
    Some(len)
}

/// An open descriptor.
pub struct Known<'a> {
    pub number: u64,
    pub place: &'a AtomicU64,
    pub word: u64,
}

impl<'a> Known<'a> {
    pub fn find(fast: &'a Fast, number: u64) -> Option<Self> {
        let number = number & 0xffff_ffff;
        let place = fast.descriptors.words.get(number as usize)?;
        let known = Self { number, place, word: place.load(Relaxed) };
        known.has(Descriptors::OPEN).then_some(known)
    }

    pub fn has(&self, bit: u64) -> bool {
        self.word & bit != 0
    }

    fn is_own(&self) -> bool {
        self.has(Descriptors::OWN)
    }

    fn close(&self, fast: &Fast) -> Option<u64> {
        if !self.is_own() {
            return None;
        }
        let position = loans::leave(self.number);
        library::leave(fast, self.number);
        self.place.store(Descriptors::FREE, Relaxed);
        notes::write(fast, [CLOSE, self.number, position]);
        Some(0)
    }

    fn set_cloexec(&self, fast: &Fast, cloexec: u64) -> Option<u64> {
        let word = with_cloexec(self.word, cloexec != 0);
        if word != self.word {
            self.place.store(word, Relaxed);
            notes::write(fast, [FCNTL | F_SETFD << Note::COMMAND_SHIFT, self.number, cloexec]);
        }
        Some(0)
    }

    /// At the lowest number from `from` on, when all that matter are known.
    fn duplicate(&self, fast: &Fast, command: u64, from: u64) -> Option<u64> {
        // A position that guest code has could not be that of two descriptors, unless calls by the other one find it.
        if !self.is_own() || (loans::is_lent(self.number) && !loans::was_ready(self.number)) {
            return None;
        }
        let (number, place) = find_free(fast, from)?;
        place.store(with_cloexec(self.word, command == F_DUPFD_CLOEXEC), Relaxed);
        notes::write(fast, [FCNTL | command << Note::COMMAND_SHIFT, self.number, number]);
        Some(number)
    }
}

/// The lowest number from `from` on that is not in use, when all that matter are known.
pub fn find_free(fast: &Fast, from: u64) -> Option<(u64, &AtomicU64)> {
    let mut number = from;
    loop {
        let place = fast.descriptors.words.get(usize::try_from(number).ok()?)?;
        match place.load(Relaxed) {
            Descriptors::FREE => return Some((number, place)),
            0 => return None,
            _ => number += 1,
        }
    }
}

fn with_cloexec(word: u64, cloexec: bool) -> u64 {
    word & !Descriptors::CLOEXEC | if cloexec { Descriptors::CLOEXEC } else { 0 }
}
