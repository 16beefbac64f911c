//! Files and directories that lie ready: opened and asked about by their names without a call, of a thread that is alone with its
//! descriptor table. Reads and listings are then as of what was brought along (`loans`).
//!
//! The sentry has looked who may open what, and has done so. What it said holds as long as no name has changed anywhere and it has not
//! ended it. It hears of an open with the next event.

use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use crate::abi::{self, Brought, Descriptors, Fast, Note, PathStat, Ready, ReadyIndex, Slot, global_flag};
use crate::loans::STAT_BYTES;
use crate::{channel, descriptors, guest_memory, loans, notes, path_stats};

pub const OPENAT: u64 = 257;
pub const GETDENTS64: u64 = 217;
const O_NOCTTY: u64 = 0o400;
const O_NONBLOCK: u64 = 0o4000;
const O_LARGEFILE: u64 = 0o100_000;
const O_DIRECTORY: u64 = 0o200_000;
const O_NOFOLLOW: u64 = 0o400_000;
const O_CLOEXEC: u64 = 0o2_000_000;
/// Flags that change nothing for what lies ready, which is opened for reading only and no symbolic link; those that F_GETFL tells,
const STATUS: u64 = O_NONBLOCK | O_LARGEFILE | O_DIRECTORY | O_NOFOLLOW;
/// and the others.
const OTHERS: u64 = O_NOCTTY | O_CLOEXEC;

/// openat(2) of a name in a directory whose files lie ready.
pub fn open(slot: &Slot, fast: &Fast) -> Option<u64> {
    let flags = slot.argument(2) & 0xffff_ffff;
    if fast.knows.load(Relaxed) == 0 || !is_plain(flags) || !notes::have_room(fast) {
        return None;
    }
    let dir = dir_of(slot, fast)?;
    let mut words = [0; PathStat::WORDS];
    let len = path_stats::read_path(slot, slot.argument(1), &mut words)?;
    let (place, ready, state) = find(dir, &words, len)?;
    let is_dir = ready.file.is_dir.load(Relaxed) != 0;
    let is_heard = channel::global().flags.load(Relaxed) & global_flag::HEARD != 0;
    if is_heard || (flags & O_DIRECTORY != 0 && !is_dir) || !holds(ready) {
        return None;
    }
    let (number, descriptor) = descriptors::find_free(fast, 0)?;
    let opened = state - Ready::CLOSED + Ready::OPENED;
    if state & Ready::CLOSED == 0 || ready.state.compare_exchange(state, opened, SeqCst, Relaxed).is_err() {
        return None;
    }
    // It may be wrong by some when the sentry writes it meanwhile: then more comes earlier or later.
    let left = index().left.load(Relaxed).saturating_sub(1);
    index().left.store(left, Relaxed);
    if left == index().low.load(Relaxed) {
        // As if somebody had interrupted: the sentry hears of it before guest code goes on.
        fast.kicked.store(1, Relaxed);
    }
    loans::begin(number, ready.loan.load(Relaxed));
    let cloexec = if flags & O_CLOEXEC != 0 { Descriptors::CLOEXEC } else { 0 };
    descriptor.store(ready.descriptor.load(Relaxed) | flags & STATUS | cloexec, Relaxed);
    notes::write(fast, [OPENAT | (place as u64) << Note::COMMAND_SHIFT, number, flags]);
    Some(number)
}

/// Whether flags are of an open for reading only that makes nothing.
pub fn is_plain(flags: u64) -> bool {
    flags & !(STATUS | OTHERS) == 0
}

/// newfstatat(2) of such a name, with or without AT_SYMLINK_NOFOLLOW; the guest has room at `addr`.
pub fn stat(slot: &Slot, fast: &Fast, words: &[u64], len: u64, addr: u64) -> Option<u64> {
    let (_, ready, state) = find(dir_of(slot, fast)?, words, len)?;
    if guest_memory::copy(addr, &raw const ready.file.stat as u64, STAT_BYTES) != 0 {
        return None;
    }
    // Now, for it may have ended meanwhile.
    (ready.state.load(Acquire) == state && holds(ready)).then_some(0)
}

/// What a call's first argument names, when files of it lie ready.
fn dir_of(slot: &Slot, fast: &Fast) -> Option<u64> {
    let number = slot.argument(0) & 0xffff_ffff;
    let word = fast.descriptors.words.get(number as usize)?.load(Relaxed);
    Some(Descriptors::dir(word)).filter(|dir| *dir != 0)
}

/// What is known by that name, its place, and its state then: while that is the same, it is the same.
fn find(dir: u64, words: &[u64], len: u64) -> Option<(usize, &'static Ready, u64)> {
    let name = words.get(..Ready::WORDS)?;
    if len == 0 || len >= 8 * Ready::WORDS as u64 {
        return None;
    }
    let tag = Ready::tag(dir, name);
    for (place, there) in index().tags.iter().enumerate() {
        if there.load(Acquire) != tag {
            continue;
        }
        let ready = at(place);
        let state = ready.state.load(Acquire);
        let is_it = state != 0
            && ready.dir.load(Relaxed) == dir
            && ready.name.iter().zip(name).all(|(known, word)| known.load(Relaxed) == *word);
        if is_it {
            return Some((place, ready, state));
        }
    }
    None
}

/// Whether no name has changed since.
fn holds(ready: &Ready) -> bool {
    ready.names.load(Relaxed) == channel::global().names.load(Acquire)
}

/// What a file that lay ready has: its head, where its bytes are, and how many there can be.
pub fn front(place: usize) -> (&'static Brought, u64, u64) {
    let place = place % Ready::COUNT;
    let (_, bytes) = Ready::offsets(place);
    (&at(place).file, abi::READY_ADDR + bytes, Ready::most_bytes(place))
}

fn at(place: usize) -> &'static Ready {
    let (head, _) = Ready::offsets(place % Ready::COUNT);
    // SAFETY: a part of the channel, all fields atomic.
    unsafe { &*((abi::READY_ADDR + head) as *const Ready) }
}

fn index() -> &'static ReadyIndex {
    // SAFETY: as above.
    unsafe { &*((abi::LOANS_ADDR + abi::READY_INDEX_OFFSET) as *const ReadyIndex) }
}
