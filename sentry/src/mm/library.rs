//! What guest code may map on its own: parts of a file that it has just mapped whole, in that place.
//!
//! A loader asks for room for a library by mapping all of it; then it maps the segments there, one call for each. None of these takes
//! room from anybody, and what is mapped is a file that the guest has. So a thread that is alone in its address space, and whose
//! memory no limit counts, may have these made by the host at once; the tree follows with the next event, before anything looks at it.
//! Any other call ends the loan.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::addr::page_up;
use abi::mman::MapFlags;
use abi::{Errno, Result};
use platform::{MOST_NOTES, Prot};
use vfs::File;
use vfs::file::MapSource;

use crate::mm::map::MapRequest;
use crate::mm::state::{Limits, MAX_MAP_COUNT, MmState, Plan, prot_of};
use crate::rewrite::{AREA_LEN, SharedText};

/// A change leaves so many mappings more at most: its own, what is left above it, and an area.
const MOST_MORE: usize = 3;

/// What is lent.
#[derive(Debug, Clone)]
pub struct LibraryLoan {
    pub range: Range<u64>,
    pub file: Arc<File>,
    /// Offset 0 of this is the file's.
    pub source: Arc<OwnedFd>,
    /// What is mapped in the stead of its text.
    pub text: Option<Arc<SharedText>>,
}

impl MmState {
    /// Lends what was just mapped, if nothing speaks against it; where trampolines may be then.
    pub fn lend_library(&mut self, loan: LibraryLoan) -> Option<Option<u64>> {
        if !self.may_lend_map() {
            return None;
        }
        let area = loan.range.start.checked_sub(AREA_LEN);
        let area = area.filter(|area| self.is_area_free(*area..loan.range.start));
        self.library = Some(loan);
        Some(area)
    }

    /// Whether what guest code maps on its own would be mapped by a call just so.
    pub(in crate::mm) fn may_lend_map(&self) -> bool {
        let has_room = self.tree.len() + MOST_NOTES * MOST_MORE < MAX_MAP_COUNT;
        has_room && self.lock_future.is_empty()
    }

    /// Takes back what was lent.
    pub fn end_library(&mut self) -> Option<LibraryLoan> {
        self.library.take()
    }

    /// Whether a range lies in what is lent.
    #[must_use]
    pub fn is_in_library(&self, addr: u64, len: u64) -> bool {
        self.library.as_ref().is_some_and(|loan| loan.has(addr, len))
    }

    /// Guest code has mapped a part, or memory in the room beside the heap, or says so.
    pub(in crate::mm) fn follow_map(
        &mut self,
        addr: u64,
        len: u64,
        prot: u32,
        offset: Option<u64>,
    ) -> Result<Plan> {
        let Some(loan) = self.library.as_ref().filter(|loan| loan.has(addr, len)) else {
            return match offset {
                None => self.follow_room(addr, len, prot),
                Some(_) => Err(Errno::EINVAL),
            };
        };
        let mut flags = MapFlags::PRIVATE | MapFlags::FIXED;
        flags.set(MapFlags::ANONYMOUS, offset.is_none());
        let request = MapRequest {
            addr,
            len,
            prot,
            flags,
            file: offset.map(|_| Arc::clone(&loan.file)),
            offset: offset.unwrap_or(0),
            noexec: false,
            shared_text: loan.text.clone().filter(|text| is_of(text, len, prot, offset)),
        };
        let source = offset.map(|_| MapSource::Host { fd: Arc::clone(&loan.source), base: 0 });
        self.plan_map(&request, source, &Limits::NONE)
    }
}

impl LibraryLoan {
    fn has(&self, addr: u64, len: u64) -> bool {
        let end = page_up(len).and_then(|len| addr.checked_add(len));
        addr >= self.range.start && end.is_some_and(|end| end <= self.range.end)
    }
}

/// Whether guest code maps the copy of a text where it is asked for this.
fn is_of(text: &SharedText, len: u64, prot: u32, offset: Option<u64>) -> bool {
    let prot = prot_of(prot);
    let is_text = prot.contains(Prot::EXEC) && !prot.contains(Prot::WRITE);
    is_text && offset == Some(text.text.start) && len == text.text.end - text.text.start
}
