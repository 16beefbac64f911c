//! Who may map the segments of a library without a call, and when. What becomes of them is in [`crate::mm`].
//!
//! A thread that has mapped a file whole, as loaders do before they map its segments in that place, is lent it for that until its next
//! call that is anything else: a thread that is alone in its address space and with its descriptors, and whose memory no limit counts.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::mman::MapFlags;
use platform::{Context, Library, LibraryText};
use vfs::file::MapSource;

use crate::cx::Cx;
use crate::heap;
use crate::loader::profile;
use crate::mm::{LibraryLoan, MapRequest, Mm, MmState};
use crate::rewrite::{Outlook, SharedText};

const MMAP: u64 = 9;

/// What of a request can be lent once it is answered: a file of the host, mapped whole.
#[must_use]
pub fn lendable(request: &MapRequest, source: Option<&MapSource>) -> Option<Arc<OwnedFd>> {
    let loads = MapFlags::DENYWRITE | MapFlags::EXECUTABLE;
    let is_whole = request.flags.map_type() == MapFlags::TYPE_PRIVATE
        && request.flags.intersects(loads)
        && !request.flags.intersects(MapFlags::FIXED | MapFlags::FIXED_NOREPLACE);
    match source {
        Some(MapSource::Host { fd, base: 0 }) if is_whole && !request.noexec => {
            Some(Arc::clone(fd))
        }
        _ => None,
    }
}

/// To be called when that is mapped at `addr`, which the guest has as descriptor `number`.
pub fn lend(cx: &mut Cx<'_>, addr: u64, request: &MapRequest, source: Arc<OwnedFd>, number: u32) {
    let mm = cx.mm();
    let (Some(file), Some(len)) = (&request.file, abi::addr::page_up(request.len)) else { return };
    let may = mm.is_alone()
        && cx.context.knows_descriptors()
        && !cx.context.has_trapped()
        && heap::is_uncounted(cx.kernel, cx.thread);
    if !may {
        return;
    }
    let rewriter = cx.kernel.rewriter.as_ref();
    let outlook = rewriter.map_or(Outlook::Plain, |rewriter| rewriter.outlook(&source));
    let text = match &outlook {
        Outlook::Copy(text) => Some(Arc::clone(text)),
        Outlook::Plain | Outlook::Unknown => None,
    };
    if let Some(text) = &text {
        note_use(cx, text, request);
    }
    let range = addr..addr + len;
    let loan = LibraryLoan {
        range: range.clone(),
        file: Arc::clone(file),
        source: Arc::clone(&source),
        text,
    };
    let Some(area) = mm.with_state(|state| state.lend_library(loan)) else { return };
    let text = text_of(&outlook, area);
    cx.context.lend_library(Some(Library { range, number, file: source, text }));
}

/// Remembers with the program that it maps this.
fn note_use(cx: &Cx<'_>, text: &SharedText, request: &MapRequest) {
    let profile = cx.mm().with_state(|state| state.image.profile.clone());
    if let Some(profile) = profile {
        let is_public =
            || request.file.as_ref().is_some_and(|file| profile::is_public(file.path()));
        profile.note(&text.fd, is_public);
    }
}

fn text_of(outlook: &Outlook, area: Option<u64>) -> LibraryText {
    match (outlook, area) {
        (Outlook::Plain, _) => LibraryText::Plain,
        (Outlook::Copy(text), Some(area)) => LibraryText::Copy {
            range: text.text.clone(),
            file: Arc::clone(&text.fd),
            area_offset: text.area,
            area,
            distance: text.distance,
        },
        (Outlook::Copy(_), None) | (Outlook::Unknown, _) => LibraryText::Ask,
    }
}

/// To be called before a call is answered: ends what was lent, unless it is one more part, which guest code did not map on its own.
pub fn before_call(cx: &mut Cx<'_>) {
    if !cx.context.lends_library() {
        return;
    }
    let abi::arch::Call { number, args: [addr, len, _, flags, ..] } = cx.context.call();
    let is_fixed = flags & u64::from(MapFlags::FIXED.bits()) != 0;
    let goes_on = number == MMAP && is_fixed;
    if !(goes_on && cx.mm().with_state(|state| state.is_in_library(addr, len))) {
        let mm = cx.mm();
        end(&mm, &mut **cx.context);
    }
}

/// Takes back what was lent.
pub fn end(mm: &Mm, context: &mut dyn Context) {
    if context.lends_library() {
        context.lend_library(None);
        // Dropped after the lock: it may hold the last reference to a file.
        let loan = mm.with_state(MmState::end_library);
        drop(loan);
    }
}
