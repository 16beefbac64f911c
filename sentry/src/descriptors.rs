//! Descriptors that guest code closes, duplicates and has watched without a call.
//!
//! The only thread of a process, when nobody else has its descriptor table, is told what the lowest descriptors are, after each call
//! that may have changed that. What it does with them on its own comes as a note with its next event, and is done here then: all
//! that others can ask about it they ask by calls, too. While it computes, /proc shows what it has closed meanwhile.
//!
//! The same with what its epolls watch: epoll_ctl(2) is seen by who waits for the epoll, which is its own process, by a call. Of an epoll
//! that another process may have, or that is watched itself, it is told nothing.

use std::sync::Arc;

use abi::epoll::{EPOLL_CTL_ADD, EPOLL_CTL_DEL};
use abi::ids::Fd;
use abi::open::OpenFlags;
use abi::stat::FileType;
use platform::{Context, Descriptor, Device, KNOWN_DESCRIPTORS, Note, Watched};
use vfs::anon::epoll::{self, Interest};
use vfs::fs::devfs::MemDevice;
use vfs::{FdTable, Seen, Watch, record_lock};

use crate::cx::Cx;
use crate::task::{OwnParts, Thread};
use crate::{known_paths, loans, ready};

/// To be called after a system call, before its thread goes on.
pub fn after_call(cx: &mut Cx<'_>) {
    let number = cx.number;
    if !cx.context.knows_descriptors() {
        if number == EXECVE || begins(number) && !cx.context.has_trapped() {
            begin(cx);
        }
        return;
    }
    if leaves_alone(number) {
        return;
    }
    if !has_room(cx.thread) {
        cx.context.know_descriptors(false);
        return;
    }
    let files = cx.files();
    let mut changed = files.take_changed();
    while changed != 0 {
        tell(cx.thread, &files, &mut **cx.context, changed.trailing_zeros() as usize);
        changed &= changed - 1;
    }
}

/// Tells what there is, when nobody else can change it.
fn begin(cx: &mut Cx<'_>) {
    if !cx.mm().is_alone() {
        return;
    }
    let files = cx.files();
    // One reference is the thread's, one its task's: what `files` is, or has just taken.
    let is_own = Arc::strong_count(&files) == 2;
    if !is_own || !has_room(cx.thread) || !cx.context.know_descriptors(true) {
        return;
    }
    let knows_paths = known_paths::are_for(cx);
    cx.context.know_paths(knows_paths);
    let _ = files.take_changed();
    for number in 0..KNOWN_DESCRIPTORS {
        tell(cx.thread, &files, &mut **cx.context, number);
    }
}

fn tell(thread: &Thread, files: &FdTable, context: &mut dyn Context, number: usize) {
    let Ok(fd) = i32::try_from(number) else { return };
    let state = files.look(Fd(fd)).map(|seen: Seen| Descriptor {
        flags: seen.flags.bits(),
        cloexec: seen.cloexec,
        is_own: seen.is_own,
        device: match seen.device {
            Some(MemDevice::Null) => Some(Device::Null),
            Some(MemDevice::Zero) => Some(Device::Zero),
            _ => None,
        },
        dir: seen.dir.map_or(0, |dir| thread.ready.number_of(dir)),
        is_epoll: seen.is_epoll,
        watched: match seen.watch {
            Watch::Unknown => Watched::Unknown,
            Watch::Nowhere => Watched::Nowhere,
            Watch::By(epoll) => u32::try_from(epoll.0).map_or(Watched::Unknown, Watched::By),
        },
    });
    context.tell_descriptor(number, state);
}

/// What it may use it may know.
fn has_room(thread: &Thread) -> bool {
    thread.group.limit(abi::rlimit::Resource::Nofile) >= KNOWN_DESCRIPTORS as u64
}

/// Guest code has done so already; false: it was nothing about descriptors.
pub fn take_note(thread: &Thread, note: &Note) -> bool {
    let fd = |fd: u32| Fd(fd.cast_signed());
    let files = thread.files();
    match *note {
        Note::Closed { fd: closed, read } => {
            if let Ok(file) = files.follow_close(fd(closed), read) {
                if file.is_brought() && file.inode().file_type() == FileType::Regular {
                    loans::after_close(thread, read);
                }
                record_lock::release_process(&file, thread.tgid());
            }
        }
        Note::Duplicated { fd: old, new, cloexec } => {
            // The limit was looked at when it was told.
            let _ = files.follow_copy(fd(old), fd(new), cloexec);
        }
        Note::SetCloexec { fd: changed, cloexec } => {
            let _ = files.set_cloexec(fd(changed), cloexec);
        }
        Note::Opened { fd: new, place, flags } => {
            ready::opened(thread, place, fd(new), OpenFlags::from_bits_retain(flags));
        }
        Note::Entered => thread.mm().settle_ledger(),
        Note::Mapped { .. }
        | Note::Unmapped { .. }
        | Note::ProtectedForReading { .. }
        | Note::MovedBrk { .. }
        | Note::Watched { .. } => {
            return false;
        }
    }
    // What fails was told by a guest that did something else, to its own harm.
    true
}

/// Guest code has changed what an epoll watches, and said so in the note at this place. Of several about one descriptor the first says
/// whether it was watched before, and the last what is so now: nobody has seen what was in between.
pub fn take_watch(thread: &Thread, own: Option<&OwnParts>, notes: &[Note], at: usize) {
    let Some((key, operation, interest)) = notes.get(at).and_then(watch_in) else { return };
    let of_same = |note: &Note| watch_in(note).filter(|(other, ..)| *other == key);
    if notes.iter().skip(at + 1).any(|note| of_same(note).is_some()) {
        return;
    }
    let was_watched =
        notes.iter().find_map(of_same).is_some_and(|(_, first, _)| first != EPOLL_CTL_ADD);
    let taken;
    let parts = match own.filter(|own| own.is_current(thread)) {
        Some(own) => &own.parts,
        None => {
            taken = thread.parts();
            &taken
        }
    };
    let (epoll, fd) = key;
    let (Ok(poller), Ok(target)) = (parts.files.get(epoll), parts.files.get(fd)) else { return };
    let Some(epoll) = epoll::of(&poller) else { return };
    // Guest code knew that it will succeed. What fails was told by one that did something else, to its own harm.
    let _ = thread.with_parts(&parts.cred, &parts.fs, |vfs| {
        match (was_watched, operation == EPOLL_CTL_DEL) {
            (true, true) => epoll.remove(fd, &target),
            (true, false) => epoll.modify(vfs, fd, &target, interest),
            (false, true) => Ok(()),
            (false, false) => epoll.add(vfs, fd, &target, interest),
        }
    });
}

/// Epoll and descriptor, operation and events of a note that is about them.
fn watch_in(note: &Note) -> Option<((Fd, Fd), u32, Interest)> {
    let Note::Watched { epoll, fd, operation, events, data } = *note else { return None };
    let key = (Fd(epoll.cast_signed()), Fd(fd.cast_signed()));
    Some((key, operation, Interest { events, data }))
}

const EXECVE: u64 = 59;

/// Calls that often come before what guest code can do on its own. What it knows of paths (`path_stats`, `known_paths`) hangs on that, too.
fn begins(number: u64) -> bool {
    const OPEN: u64 = 2;
    const CLOSE: u64 = 3;
    const STAT: u64 = 4;
    const LSTAT: u64 = 6;
    const PWRITE64: u64 = 18;
    const ACCESS: u64 = 21;
    const FCNTL: u64 = 72;
    const READLINK: u64 = 89;
    const EPOLL_CTL: u64 = 233;
    const OPENAT: u64 = 257;
    const NEWFSTATAT: u64 = 262;
    matches!(
        number,
        OPEN | CLOSE
            | STAT
            | LSTAT
            | PWRITE64
            | ACCESS
            | EXECVE
            | FCNTL
            | READLINK
            | EPOLL_CTL
            | OPENAT
            | NEWFSTATAT
    )
}

/// Frequent calls that can change neither descriptors nor flags: read, write, stat, fstat, lstat, poll, lseek, the calls about memory and
/// signals, pread64, pwrite64, readv, writev, access, sendto, recvfrom, readlink, futex, epoll_wait, newfstatat, readlinkat, getdents64, statx.
fn leaves_alone(number: u64) -> bool {
    matches!(
        number,
        0 | 1 | 4..=15 | 17..=21 | 24..=28 | 44 | 45 | 89 | 202 | 217 | 232 | 262 | 267 | 332
    )
}
