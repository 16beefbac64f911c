//! Descriptors that guest code closes and duplicates without a call.
//!
//! The only thread of a process, when nobody else has its descriptor table, is told what the lowest descriptors are, after each call
//! that may have changed that. What it does with them on its own comes as a note with its next event, and is done here then: all
//! that others can ask about it they ask by calls, too. While it computes, /proc shows what it has closed meanwhile.

use std::sync::Arc;

use abi::ids::Fd;
use abi::open::OpenFlags;
use abi::stat::FileType;
use platform::{Context, Descriptor, Device, KNOWN_DESCRIPTORS, Note};
use vfs::fs::devfs::MemDevice;
use vfs::{FdTable, Seen, record_lock};

use crate::cx::Cx;
use crate::{loans, ready};
use crate::task::Thread;

/// To be called after a system call, before its thread goes on.
pub fn after_call(cx: &mut Cx<'_>) {
    let number = cx.number;
    if !cx.context.knows_descriptors() {
        if begins(number) && !cx.context.has_trapped() {
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
    let _ = files.take_changed();
    for number in 0..KNOWN_DESCRIPTORS {
        tell(cx.thread, &files, &mut **cx.context, number);
    }
}

fn tell(thread: &Thread, files: &FdTable, context: &mut dyn Context, number: usize) {
    let Ok(fd) = i32::try_from(number) else { return };
    let state = files.look(Fd(fd)).map(|Seen { flags, cloexec, is_own, device, dir }| Descriptor {
        flags: flags.bits(),
        cloexec,
        is_own,
        device: match device {
            Some(MemDevice::Null) => Some(Device::Null),
            Some(MemDevice::Zero) => Some(Device::Zero),
            _ => None,
        },
        dir: dir.map_or(0, |dir| thread.ready.number_of(dir)),
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
        Note::Unmapped { .. } | Note::ProtectedForReading { .. } => return false,
    }
    // What fails was told by a guest that did something else, to its own harm.
    true
}

/// Calls that often come before what guest code can do on its own. What it knows of paths (`path_stats`) hangs on that, too.
fn begins(number: u64) -> bool {
    const OPEN: u64 = 2;
    const CLOSE: u64 = 3;
    const STAT: u64 = 4;
    const LSTAT: u64 = 6;
    const FCNTL: u64 = 72;
    const OPENAT: u64 = 257;
    const NEWFSTATAT: u64 = 262;
    matches!(number, OPEN | CLOSE | STAT | LSTAT | FCNTL | OPENAT | NEWFSTATAT)
}

/// Frequent calls that can change neither descriptors nor flags: read, write, stat, fstat, lstat, poll, lseek, the calls about memory and
/// signals, pread64, pwrite64, readv, writev, access, sendto, recvfrom, futex, epoll_wait, newfstatat, getdents64, statx.
fn leaves_alone(number: u64) -> bool {
    matches!(
        number,
        0 | 1 | 4..=15 | 17..=21 | 24..=28 | 44 | 45 | 202 | 217 | 232 | 262 | 332
    )
}
