//! Changing an address space.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::UserAddr;
use abi::addr::PAGE_SIZE;
use platform::{Backing, Context, HostOp, Prot};
use vfs::File;

use super::file_text::{FileText, Learned, Place};
use super::{AREA_LEN, Rewriter, hold};
use crate::kernel::Kernel;
use crate::mm::{Content, Mm, MmState, Vma, VmaFlags};
use crate::task::Thread;

/// A site in somebody's text.
struct Found {
    file: Arc<File>,
    place: Place,
    /// File offset of the call's instruction.
    offset: u64,
}

/// The file that a site is in, where rule 1 lets it be touched.
fn find(state: &MmState, site: u64) -> Option<Found> {
    let (start, vma) = state.tree.overlapping(site..site.checked_add(2)?).next()?;
    let Content::File { file, offset } = &vma.content else { return None };
    let is_text = vma.prot.contains(Prot::READ | Prot::EXEC)
        && !vma.prot.contains(Prot::WRITE)
        && !vma.is_shared();
    if !is_text || site < start || site + 2 > vma.end {
        return None;
    }
    let text = *offset..offset.checked_add(vma.end - start)?;
    let place =
        Place { origin: start.wrapping_sub(*offset), lowest: lowest(state, file, start), text };
    Some(Found { file: Arc::clone(file), place, offset: offset + (site - start) })
}

/// Start of the file's first mapping in an unbroken row that reaches `start`.
fn lowest(state: &MmState, file: &Arc<File>, start: u64) -> u64 {
    let mut lowest = start;
    while let Some(before) = lowest.checked_sub(1)
        && let Some((start, vma)) = state.tree.overlapping(before..lowest).next()
        && matches!(&vma.content, Content::File { file: other, .. } if is_same(other, file))
    {
        lowest = start;
    }
    lowest
}

fn is_same(a: &Arc<File>, b: &Arc<File>) -> bool {
    Arc::ptr_eq(a, b) || Arc::ptr_eq(a.inode(), b.inode())
}

fn text_of(rewriter: &Rewriter, found: &Found) -> Option<Arc<FileText>> {
    let source = found.file.ops().mappable(&found.file, false).ok()?;
    rewriter.file(&source)
}

fn learn(rewriter: &Rewriter, text: &FileText, found: &Found, number: u64) -> Option<Arc<Learned>> {
    match text.learn(&found.place, found.offset, number, rewriter.entry) {
        Ok(learned) => Some(learned),
        Err(refusal) => {
            if let Some(refusal) = refusal {
                rewriter.stats.refused.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(offset = found.offset, number, %refusal, "call site left alone");
            }
            None
        }
    }
}

/// A process met the site for the first time.
pub fn note(rewriter: &Rewriter, mm: &Mm, site: u64, number: u64) {
    let Some(found) = mm.with_state(|state| find(state, site)) else { return };
    let Some(text) = text_of(rewriter, &found) else { return };
    if text.note(found.offset) && learn(rewriter, &text, &found, number).is_some() {
        rewriter.stats.learned.fetch_add(1, Ordering::Relaxed);
    }
}

/// Rewrites a site of the caller's address space.
pub async fn apply(
    kernel: &Arc<Kernel>,
    rewriter: &Rewriter,
    thread: &Arc<Thread>,
    context: &mut dyn Context,
    site: u64,
    number: u64,
) {
    let mm = thread.mm();
    let Some(found) = mm.with_state(|state| find(state, site)) else { return };
    let Some(text) = text_of(rewriter, &found) else { return };
    let Some(learned) = learn(rewriter, &text, &found, number) else { return };
    // Whoever shares the layout may have changed it meanwhile: all is looked at again under its lock.
    let _layout = mm.lock_layout().await;
    let still = mm.with_state(|state| find(state, site));
    if still.is_none_or(|still| still.place.origin != found.place.origin) {
        return;
    }
    let Some(_held) = hold::hold_others(kernel, &mm, thread).await else { return };
    let window = found.place.origin.wrapping_add(learned.offset);
    if !is_untouched(&mm, window, &learned) {
        return;
    }
    let area = text.area(&found.place);
    let Some(area_op) = mm.with_state(|state| claim_area(state, area)) else { return };
    let pages = pages(window, learned.patch.bytes.len() as u64);
    let (addr, len) = (UserAddr(pages.start), pages.end - pages.start);
    let protect = |prot| HostOp::Protect { addr, len, prot };
    let mut ops: Vec<HostOp> = area_op.into_iter().collect();
    ops.push(protect(Prot::all()));
    if !matches!(context.execute(ops).await, Ok(Ok(()))) {
        return;
    }
    let trampoline = area.wrapping_add(learned.trampoline);
    let is_written = mm.write(UserAddr(trampoline), &learned.patch.trampoline).is_ok() && {
        mm.with_state(|state| state.sites.add(window, &learned, trampoline));
        mm.write(UserAddr(window), &learned.patch.bytes).is_ok()
    };
    // A failure leaves the page writable on the host and the rules as they were.
    let _ = context.execute(vec![protect(Prot::READ | Prot::EXEC)]).await;
    if is_written {
        rewriter.stats.patches.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(site, number, "call site rewritten");
    }
}

/// Whether the window is as the file has it.
fn is_untouched(mm: &Mm, window: u64, learned: &Learned) -> bool {
    let mut bytes = vec![0; learned.patch.original.len()];
    mm.read(UserAddr(window), &mut bytes).is_ok() && bytes == learned.patch.original
}

fn pages(start: u64, len: u64) -> Range<u64> {
    let last = start.saturating_add(len.max(1) - 1);
    (start & !(PAGE_SIZE - 1))..((last & !(PAGE_SIZE - 1)) + PAGE_SIZE)
}

/// Sees to it that the area is mapped. The operation that does it, if it was not yet; `None` when something else is
/// in its place.
fn claim_area(state: &mut MmState, area: u64) -> Option<Option<HostOp>> {
    let range = area..area.checked_add(AREA_LEN)?;
    if state.is_area_free(range.clone()) {
        state.tree.remove(range.clone());
        state.tree.insert(area, area_vma(range.end));
        return Some(Some(HostOp::Map {
            addr: UserAddr(area),
            len: AREA_LEN,
            prot: Prot::all(),
            shared: false,
            noreserve: true,
            backing: Backing::Anonymous,
        }));
    }
    let (start, vma) = state.tree.overlapping(range.clone()).next()?;
    let is_ours =
        start == area && vma.end == range.end && vma.flags.contains(VmaFlags::TRAMPOLINES);
    is_ours.then_some(None)
}

/// An area as /proc/self/maps shows it. On the host it is writable as well, which nobody but its owner can make use of.
pub fn area_vma(end: u64) -> Vma {
    Vma {
        end,
        prot: Prot::READ | Prot::EXEC,
        max_prot: Prot::all(),
        flags: VmaFlags::TRAMPOLINES | VmaFlags::NO_RESERVE,
        content: Content::Anonymous,
    }
}
