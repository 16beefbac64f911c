//! Pipes that guest code writes and reads without a call: who joins when (see `vfs::fs::pipefs` for what follows).
//!
//! A ring costs two mappings and a descriptor that is installed for each, so it is made for pipes that have streamed for a while. Each end is
//! to be the only descriptor of its file description, of a thread that is alone with its memory and its descriptors. When others come to share
//! these, it makes calls, which are carried out on the ring.

use std::sync::Arc;

use abi::ids::Fd;
use abi::open::OpenFlags;
use base::{Lent, SharedRing};
use vfs::File;
use vfs::fs::pipefs::{LendingStep, PipeEnd};

use crate::cx::Cx;

/// Pipes of these flags are for calls.
const ODD: OpenFlags = OpenFlags::DIRECT.union(OpenFlags::PATH).union(OpenFlags::ASYNC);

/// To be called when bytes were moved by a call: considers lending the pipe. False: it is none.
pub fn after_transfer(cx: &mut Cx<'_>, fd: Fd, file: &Arc<File>) -> bool {
    let Some(end) = file.ops().as_any().downcast_ref::<PipeEnd>() else { return false };
    match end.lending_step() {
        None => {}
        Some(LendingStep::Offer) => {
            let ring = cx.mm().space().make_ring(end.ring_size());
            end.offer(ring.filter(|ring| join(cx, fd, file, ring, true)));
        }
        Some(LendingStep::Seal) => end.seal(),
        Some(LendingStep::Join) => {
            let ring = end.offered();
            end.joined(ring.is_some_and(|ring| join(cx, fd, file, &ring, false)));
        }
        Some(LendingStep::Begin) => end.begin(),
    }
    true
}

fn join(
    cx: &mut Cx<'_>,
    fd: Fd,
    file: &Arc<File>,
    ring: &Arc<dyn SharedRing>,
    writes: bool,
) -> bool {
    let files = cx.files();
    let mm = cx.mm();
    // One reference to the table is the thread's, one its task's: what `files` is, or has just taken.
    let is_own = Arc::strong_count(&files) == 2;
    if cx.context.has_trapped() || !is_own || !mm.is_alone() || !mm.borrows_from(files.id()) {
        return false;
    }
    let number = fd.0.cast_unsigned();
    if file.flags().intersects(ODD) {
        return false;
    }
    let Some(op) = mm.space().join_ring(ring, number, writes) else { return false };
    let same: Arc<dyn SharedRing> = Arc::clone(ring);
    let lent: Arc<dyn Lent> = same;
    let is_lent = files.lend_stream(fd, file, &lent);
    if is_lent {
        cx.context.defer(op);
    } else {
        ring.end();
    }
    is_lent
}
