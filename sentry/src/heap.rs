//! Who is told of the heap, and when. What may be told is in [`crate::mm`].
//!
//! A thread is told before it runs whenever something has changed: it or its memory is new, brk(2) was a call, something was mapped
//! where the heap might have grown, others began to run in its memory or have ended. It moves the heap's end on its own only while it is
//! alone there and no limit counts its memory. A limit that somebody sets takes that back at once, wherever the thread is; its next event
//! finds the news, so that one that was told the old limits just then is told again.

use std::sync::Arc;

use abi::rlimit::{RLIM_INFINITY, Resource};

use crate::kernel::Kernel;
use crate::mm::Mm;
use crate::task::{OwnParts, Thread};

/// Tells a thread what is new, before it runs.
pub fn tell_news(kernel: &Kernel, thread: &Thread, own: Option<&OwnParts>) {
    match own {
        Some(own) => tell(kernel, thread, &own.parts.mm),
        None => tell(kernel, thread, &thread.mm()),
    }
}

fn tell(kernel: &Kernel, thread: &Thread, mm: &Mm) {
    // Again, when limits change meanwhile.
    while mm.take_heap_news() {
        let is_alone = mm.is_alone();
        thread.run.set_alone(is_alone);
        let lends = is_uncounted(kernel, thread);
        let heap = is_alone.then(|| mm.with_state(|state| state.lend_heap(lends)));
        thread.run.tell_heap(heap.as_ref());
    }
}

/// Whether no limit counts a thread's memory.
pub fn is_uncounted(kernel: &Kernel, thread: &Thread) -> bool {
    let limits = [Resource::Data, Resource::As];
    kernel.memory.is_none()
        && limits.iter().all(|limit| thread.group.limit(*limit) == RLIM_INFINITY)
}

/// RLIMIT_DATA or RLIMIT_AS of a process is another now.
pub fn limits_changed(threads: &[Arc<Thread>]) {
    for thread in threads {
        // In this order: see `tell`, which writes first and looks for news then.
        if let Some(mm) = thread.mm_if_alive() {
            mm.note_heap_news();
        }
        thread.run.fix_heap();
    }
}
