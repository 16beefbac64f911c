//! Changing an address space.

use std::collections::BTreeSet;
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

/// A site that is going to be rewritten.
struct Change {
    site: u64,
    number: u64,
    found: Found,
    learned: Arc<Learned>,
    /// Where the file's trampolines are.
    area: u64,
}

impl Change {
    fn window(&self) -> u64 {
        self.found.place.origin.wrapping_add(self.learned.offset)
    }

    fn edits(&self) -> impl Iterator<Item = (u64, &[u8], &[u8])> {
        let there = |at: u64| self.window().wrapping_add(at.wrapping_sub(self.learned.patch.at));
        self.learned.patch.edits().map(move |(at, original, new)| (there(at), original, new))
    }

    /// Whether it may be done in the space as it is now: the file is still there, and nobody changed these bytes.
    fn is_possible(&self, mm: &Mm) -> bool {
        let still = mm.with_state(|state| find(state, self.site));
        let is_same = still.is_some_and(|still| still.place.origin == self.found.place.origin);
        is_same
            && self.edits().all(|(at, original, _)| {
                let mut bytes = vec![0; original.len()];
                mm.read(UserAddr(at), &mut bytes).is_ok() && bytes == original
            })
    }

    fn write(&self, mm: &Mm) -> bool {
        let trampoline = self.area.wrapping_add(self.learned.trampoline);
        if mm.write(UserAddr(trampoline), &self.learned.patch.trampoline).is_err() {
            return false;
        }
        mm.with_state(|state| state.sites.add(self.window(), &self.learned, trampoline));
        self.edits().all(|(at, _, new)| mm.write(UserAddr(at), new).is_ok())
    }
}

/// What is to be done at a site; `may_learn`: even if nobody looked into it before.
fn prepare(
    rewriter: &Rewriter,
    mm: &Mm,
    site: u64,
    number: u64,
    may_learn: bool,
) -> Option<Change> {
    let found = mm.with_state(|state| find(state, site))?;
    let text = text_of(rewriter, &found)?;
    let learned = match text.learned(found.offset) {
        None if may_learn => learn(rewriter, &text, &found, number)?,
        learned => learned?,
    };
    let area = text.area(&found.place);
    Some(Change { site, number, found, learned, area })
}

/// Rewrites sites of the caller's address space: `wanted` (site, number, whether it may be looked into now).
pub async fn apply(
    kernel: &Arc<Kernel>,
    rewriter: &Rewriter,
    thread: &Arc<Thread>,
    context: &mut dyn Context,
    wanted: &[(u64, u64, bool)],
) {
    let mm = thread.mm();
    let prepared = wanted
        .iter()
        .filter_map(|&(site, number, may_learn)| prepare(rewriter, &mm, site, number, may_learn));
    let mut changes: Vec<Change> = prepared.collect();
    if changes.is_empty() {
        return;
    }
    // Whoever shares the layout may have changed it meanwhile: all is looked at again under its lock.
    let _layout = mm.lock_layout().await;
    let Some(_held) = hold::hold_others(kernel, &mm, thread).await else { return };
    changes.retain(|change| change.is_possible(&mm));
    let mut ops: Vec<HostOp> = Vec::new();
    changes.retain(|change| {
        let claimed = mm.with_state(|state| claim_area(state, change.area));
        ops.extend(claimed.iter().flatten().cloned());
        claimed.is_some()
    });
    let edits = changes.iter().flat_map(Change::edits);
    let pages: BTreeSet<u64> = edits.flat_map(|(at, _, new)| pages(at, new.len() as u64)).collect();
    let protect = |prot| {
        pages.iter().map(move |page| HostOp::Protect {
            addr: UserAddr(*page),
            len: PAGE_SIZE,
            prot,
        })
    };
    ops.extend(protect(Prot::all()));
    if ops.is_empty() || !matches!(context.execute(ops).await, Ok(Ok(()))) {
        return;
    }
    for change in &changes {
        if change.write(&mm) {
            rewriter.stats.patches.fetch_add(1, Ordering::Relaxed);
            let Change { site, number, .. } = change;
            tracing::debug!(site, number, "call site rewritten");
        }
    }
    // A failure leaves the pages writable on the host and the rules as they were.
    let _ = context.execute(protect(Prot::READ | Prot::EXEC).collect()).await;
}

/// Addresses of the pages that hold these bytes.
fn pages(start: u64, len: u64) -> impl Iterator<Item = u64> {
    let first = start & !(PAGE_SIZE - 1);
    (first..start.saturating_add(len)).step_by(PAGE_SIZE as usize)
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
