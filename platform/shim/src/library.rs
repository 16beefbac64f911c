//! mmap(2) of parts of a library: a file that the last call has mapped whole, as loaders do to have room, and whose segments they
//! then map in its place. What is mapped there takes no room from anybody, and the thread is alone with it. And of memory without a
//! file, from what the sentry says is free. It hears of both with the next event (see [`notes`]).

use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{self, Fast, Library, Note, Slot};
use crate::calls::{MMAP, syscall};
use crate::guest_memory::PAGE;
use crate::notes;

const PROT_ALL: u64 = 7;
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
/// MAP_PRIVATE, MAP_FIXED.
const FLAGS: u64 = 0x12;
const MAP_PRIVATE: u64 = 2;
const MAP_ANONYMOUS: u64 = 0x20;
/// Without a meaning, but for where a library is placed.
const MAP_DENYWRITE: u64 = 0x800;
/// What is asked of it is the sentry's affair.
const MAP_NORESERVE: u64 = 0x4000;
/// Offsets up to here go into a note.
const MOST_OFFSET: u64 = 1 << 40;

/// A part that is to be mapped: whole pages.
struct Part {
    addr: u64,
    len: u64,
    prot: u64,
    /// In the file; `None` without one.
    offset: Option<u64>,
}

/// The result of a call that is carried out here.
pub fn answer(slot: &Slot, fast: &Fast) -> Option<u64> {
    let library = &fast.library;
    if fast.is_alone.load(Relaxed) == 0 || !notes::have_room(fast) {
        return None;
    }
    if slot.argument(3) == MAP_PRIVATE | MAP_ANONYMOUS {
        return map_anywhere(slot, fast);
    }
    let part = part_of(slot, library)?;
    let is_mapped = match part.offset {
        None => map(&part, FLAGS | MAP_ANONYMOUS, u64::MAX, 0),
        Some(offset) => map_file(library, &part, offset),
    };
    if !is_mapped {
        // As far as it went, it goes again; the sentry says what is wrong.
        return None;
    }
    let kind = if part.offset.is_none() { Note::ANONYMOUS } else { 0 };
    let pages = part.len / PAGE << Note::LENGTH_SHIFT | part.offset.unwrap_or(0) / PAGE;
    notes::write(fast, [MMAP | part.prot << Note::COMMAND_SHIFT | kind, part.addr, pages]);
    Some(part.addr)
}

/// Memory without a file, anywhere.
fn map_anywhere(slot: &Slot, fast: &Fast) -> Option<u64> {
    let [hint, len, prot] = [0, 1, 2].map(|index| slot.argument(index));
    let room = &fast.heap;
    let (start, end) = (room.room_start.load(Relaxed), room.room_end.load(Relaxed));
    if hint != 0 || len == 0 || len > end.saturating_sub(start) || prot & !PROT_ALL != 0 {
        return None;
    }
    let len = len.next_multiple_of(PAGE);
    let addr = end.checked_sub(len).filter(|addr| *addr >= start)?;
    if !map(&Part { addr, len, prot, offset: None }, FLAGS | MAP_ANONYMOUS, u64::MAX, 0) {
        return None;
    }
    room.room_end.store(addr, Relaxed);
    let kind = prot << Note::COMMAND_SHIFT | Note::ANONYMOUS;
    notes::write(fast, [MMAP | kind, addr, len / PAGE << Note::LENGTH_SHIFT]);
    Some(addr)
}

/// The guest has closed a descriptor.
pub fn leave(fast: &Fast, number: u64) {
    if fast.library.number.load(Relaxed) == number {
        fast.library.end.store(0, Relaxed);
    }
}

/// The library that is being mapped is the file which has just come with the doorbell.
pub fn note_descriptor(fast: &Fast, fd: u64) {
    if fast.library.file.load(Relaxed) == abi::FD_OF_RING {
        fast.library.file.store(fd, Relaxed);
    }
}

/// What the call asks for, if it is a part of the library.
fn part_of(slot: &Slot, library: &Library) -> Option<Part> {
    let [addr, len, prot, flags, fd, offset] = [0, 1, 2, 3, 4, 5].map(|index| slot.argument(index));
    let (start, end) = (library.start.load(Relaxed), library.end.load(Relaxed));
    let is_inside = addr.is_multiple_of(PAGE) && (start..end).contains(&addr) && len <= end - addr;
    if !is_inside || len == 0 || prot & !PROT_ALL != 0 {
        return None;
    }
    // The range ends with a page.
    let len = len.next_multiple_of(PAGE);
    if flags == FLAGS | MAP_ANONYMOUS {
        return Some(Part { addr, len, prot, offset: None });
    }
    let is_file = flags & !MAP_DENYWRITE == FLAGS && fd & 0xffff_ffff == library.number.load(Relaxed);
    let is_offset = offset.is_multiple_of(PAGE) && offset < MOST_OFFSET;
    (is_file && is_offset).then_some(Part { addr, len, prot, offset: Some(offset) })
}

/// Whether the host has mapped a part of the file.
fn map_file(library: &Library, part: &Part, offset: u64) -> bool {
    let file = library.file.load(Relaxed);
    if file == abi::FD_OF_RING {
        return false;
    }
    let [text, text_end] = library.text.each_ref().map(|word| word.load(Relaxed));
    let is_text = part.prot & (PROT_EXEC | PROT_WRITE) == PROT_EXEC && text_end != 0;
    if !is_text {
        return map(part, FLAGS, file, offset);
    }
    let area = library.area.load(Relaxed);
    if (offset, part.len) != (text, text_end - text)
        || part.addr.wrapping_sub(offset).wrapping_add(library.distance.load(Relaxed)) != area
    {
        return false;
    }
    // First, as without it the text would lead nowhere.
    let file = library.text_file.load(Relaxed);
    let trampolines = Part { addr: area, len: abi::AREA_LEN, prot: PROT_ALL, offset: None };
    let flags = FLAGS | MAP_NORESERVE;
    map(&trampolines, flags, file, library.area_offset.load(Relaxed)) && map(part, flags, file, 0)
}

fn map(part: &Part, flags: u64, fd: u64, offset: u64) -> bool {
    syscall(MMAP, [part.addr, part.len, part.prot, flags, fd, offset]) == part.addr.cast_signed()
}
