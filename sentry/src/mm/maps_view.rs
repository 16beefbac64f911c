//! What /proc/PID/{maps,smaps,status,statm} are made of.

use std::sync::Arc;

use abi::addr::page_up;
use platform::{Layout, Prot};
use vfs::File;

use crate::mm::Mm;
use crate::mm::state::MmState;
use crate::mm::vma::{Content, Vma, VmaFlags};

/// One line of /proc/PID/maps. See proc_pid_maps(5).
#[derive(Debug, Clone)]
pub struct MapLine {
    pub start: u64,
    pub end: u64,
    pub prot: Prot,
    pub is_shared: bool,
    /// Offset in the file, 0 for anonymous memory.
    pub offset: u64,
    /// Device, inode and path come from here.
    pub file: Option<Arc<File>>,
    /// The name of a mapping without a file, such as `[heap]`; may be empty.
    pub name: &'static str,
    pub flags: VmaFlags,
}

impl MapLine {
    /// The `rwxp` column.
    #[must_use]
    pub fn permissions(&self) -> String {
        let bit = |flag: Prot, letter: char| if self.prot.contains(flag) { letter } else { '-' };
        let kind = if self.is_shared { 's' } else { 'p' };
        [bit(Prot::READ, 'r'), bit(Prot::WRITE, 'w'), bit(Prot::EXEC, 'x'), kind].iter().collect()
    }
}

/// Sums for /proc/PID/status and statm, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryStat {
    pub peak: u64,
    pub size: u64,
    pub locked: u64,
    pub resident: u64,
    pub data: u64,
    pub stack: u64,
    pub exe: u64,
    pub lib: u64,
}

impl Mm {
    /// All mappings, lowest first, the vDSO's included.
    #[must_use]
    pub fn maps(&self, layout: &Layout) -> Vec<MapLine> {
        let mut lines: Vec<MapLine> = self.with_state(|state| {
            let shown = state.tree.iter().filter(|(_, vma)| !vma.is_reserved_area());
            shown.map(|(start, vma)| line(state, start, vma)).collect()
        });
        let fixed = [
            (&layout.vvar, "[vvar]", Prot::READ),
            (&layout.vdso, "[vdso]", Prot::READ | Prot::EXEC),
        ];
        for (range, name, prot) in fixed {
            let Some(range) = range else { continue };
            lines.push(MapLine {
                start: range.start,
                end: range.end,
                prot,
                is_shared: false,
                offset: 0,
                file: None,
                name,
                flags: VmaFlags::empty(),
            });
        }
        lines.sort_by_key(|line| line.start);
        lines
    }

    /// Bytes of memory in use: the host's figure where the platform can tell it, else an estimate. (Only the host's
    /// /proc knows, which a confined sentry cannot open; asking page by page is too dear for a number.)
    #[must_use]
    pub fn resident(&self) -> u64 {
        self.resident_by(&self.space().usage())
    }

    /// The same, with the host's accounting at hand.
    #[must_use]
    pub fn resident_by(&self, usage: &platform::Usage) -> u64 {
        match usage.resident_bytes {
            0 => self.with_state(|state| state.tree.iter().map(likely_resident).sum()),
            known => known,
        }
    }

    /// Sums.
    #[must_use]
    pub fn memory_stat(&self) -> MemoryStat {
        let resident = self.resident();
        self.with_state(|state| {
            let totals = state.tree.totals();
            let code = &state.image.code;
            let exe = page_up(code.end).unwrap_or(code.end).saturating_sub(code.start & !0xfff);
            let exe = exe.min(totals.exec);
            MemoryStat {
                peak: state.peak.max(totals.mapped),
                size: totals.mapped,
                locked: totals.locked,
                resident: resident.min(totals.mapped),
                data: totals.data,
                stack: totals.stack,
                exe,
                lib: totals.exec - exe,
            }
        })
    }
}

/// What ordinary programs touch: small anonymous mappings as a whole, an eighth of large ones, half of a file.
fn likely_resident((start, vma): (u64, &Vma)) -> u64 {
    const SMALL: u64 = 256 << 10;
    let size = vma.end - start;
    let touched = match &vma.content {
        _ if vma.prot.is_empty() => 0,
        Content::File { .. } => size / 2,
        Content::SharedAnonymous { .. } | Content::Anonymous => {
            size.min(SMALL) + size.saturating_sub(SMALL) / 8
        }
    };
    touched & !0xfff
}

fn line(state: &MmState, start: u64, vma: &Vma) -> MapLine {
    let (file, offset) = match &vma.content {
        Content::File { file, offset } => (Some(Arc::clone(file)), *offset),
        Content::SharedAnonymous { .. } | Content::Anonymous => (None, 0),
    };
    let is_heap = start < state.brk && vma.end > state.brk_start;
    let is_stack = (start..vma.end).contains(&state.image.start_stack);
    let name = match &vma.content {
        Content::File { .. } => "",
        Content::SharedAnonymous { .. } => "/dev/zero (deleted)",
        Content::Anonymous if is_heap => "[heap]",
        Content::Anonymous if is_stack => "[stack]",
        Content::Anonymous => "",
    };
    MapLine {
        start,
        end: vma.end,
        prot: vma.prot,
        is_shared: vma.is_shared(),
        offset,
        file,
        name,
        flags: vma.flags,
    }
}
