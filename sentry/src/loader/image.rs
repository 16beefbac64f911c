//! From ELF headers to an address space that does not exist yet: the VMA tree, the host operations that make it so,
//! and the bytes to copy in.

use std::sync::Arc;

use abi::addr::{PAGE_SIZE, page_up};
use abi::elf::{PF_R, PF_W, PF_X, ProgramHeader};
use abi::mman::MapFlags;
use abi::{Errno, Result, UserAddr};
use platform::{Backing, HostOp, Layout, Prot};
use vfs::File;
use vfs::file::MapSource;

use crate::loader::elf::{Elf, page_start};
use crate::mm::{Bounds, Content, Limits, MapRequest, MmState, Vma, VmaFlags};
use crate::rewrite::Rewriter;

/// Stack of a process without a stack limit: reserved, not used, so its size costs nothing.
const UNLIMITED_STACK: u64 = 1 << 30;
/// The stack is never smaller than what execve needs.
const MIN_STACK: u64 = 8 << 20;
const MAX_STACK: u64 = 16 << 30;
/// Random pages between stack and mmap ranges, and of their bases (Linux' defaults for 64 bits).
const STACK_RANDOM_PAGES: u64 = 1 << 22;
const MMAP_RANDOM_PAGES: u64 = 1 << 28;
const BRK_RANDOM_BYTES: u64 = 32 << 20;
const MIN_MMAP_GAP: u64 = 128 << 20;

/// Random words for the layout; all zero without randomisation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Entropy {
    pub stack: u64,
    pub mmap: u64,
    pub image: u64,
    pub brk: u64,
}

/// A file that is about to be mapped.
#[derive(Clone)]
pub struct Mappable {
    pub file: Arc<File>,
    pub source: MapSource,
    pub elf: Arc<Elf>,
    /// Where its text may be had with rewritten call sites.
    pub rewriter: Option<Arc<Rewriter>>,
}

/// An address space in the making.
#[derive(Debug)]
pub struct Image {
    pub state: MmState,
    pub ops: Vec<HostOp>,
    /// Zeroes to be written; a failure matters only where the segment is writable.
    pub zeroes: Vec<Zero>,
    pub stack_top: u64,
    /// Entry of the program and of what runs first.
    pub program_entry: u64,
    pub entry: u64,
    pub phdr: u64,
    pub interpreter_base: u64,
}

/// The rest of a segment's last file page.
#[derive(Debug, Clone, Copy)]
pub struct Zero {
    pub addr: u64,
    pub len: u64,
    pub must: bool,
}

impl Image {
    /// Plans the address space of `program`, with its interpreter.
    ///
    /// # Errors
    /// What mmap(2) would say to a segment; the process of an execve that got here dies of it.
    pub fn build(
        layout: &Layout,
        stack_limit: u64,
        limits: &Limits,
        program: &Mappable,
        interpreter: Option<&Mappable>,
        entropy: Entropy,
    ) -> Result<Self> {
        let size = stack_size(stack_limit);
        let stack_top = layout.task_size - (entropy.stack % STACK_RANDOM_PAGES) * PAGE_SIZE;
        let gap = size.max(MIN_MMAP_GAP) + STACK_RANDOM_PAGES * PAGE_SIZE + MIN_MMAP_GAP;
        let random = (entropy.mmap % MMAP_RANDOM_PAGES) * PAGE_SIZE;
        let bounds = Bounds {
            min_addr: layout.min_addr,
            task_size: layout.task_size,
            mmap_base: (layout.task_size - gap).saturating_sub(random) & !(PAGE_SIZE - 1),
        };
        let mut image = Self {
            state: MmState::new(bounds),
            ops: Vec::new(),
            zeroes: Vec::new(),
            stack_top,
            program_entry: 0,
            entry: 0,
            phdr: 0,
            interpreter_base: 0,
        };
        image.map_stack(stack_top, size, program.elf.wants_exec_stack());
        let bias = image.place_program(&program.elf, entropy.image)?;
        image.map_segments(&program.elf, Some(program), bias, limits)?;
        if interpreter.is_none() {
            image.answer_questions(program, bias);
        }
        image.note_program(&program.elf, bias, entropy.brk)?;
        image.entry = image.program_entry;
        if let Some(interpreter) = interpreter {
            let bias = image.place_interpreter(&interpreter.elf)?;
            image.map_segments(&interpreter.elf, Some(interpreter), bias, limits)?;
            image.answer_questions(interpreter, bias);
            image.interpreter_base = bias;
            image.entry = bias.wrapping_add(interpreter.elf.entry);
        }
        if image.entry >= layout.task_size {
            return Err(Errno::EINVAL);
        }
        image.state.image.exe = Some(Arc::clone(&program.file));
        image.state.peak = image.state.tree.totals().mapped;
        Ok(image)
    }

    /// The main stack is mapped whole: the host pages it in as it is used, and nothing needs to grow it.
    fn map_stack(&mut self, top: u64, size: u64, executable: bool) {
        let mut prot = Prot::READ | Prot::WRITE;
        prot.set(Prot::EXEC, executable);
        let start = top - size;
        let vma = Vma {
            end: top,
            prot,
            max_prot: Prot::all(),
            flags: VmaFlags::GROWSDOWN,
            content: Content::Anonymous,
        };
        self.state.tree.insert(start, vma);
        self.ops.push(HostOp::Map {
            addr: UserAddr(start),
            len: size,
            prot,
            shared: false,
            noreserve: true,
            backing: Backing::Anonymous,
        });
    }

    /// What is added to the program's addresses.
    fn place_program(&self, elf: &Elf, random: u64) -> Result<u64> {
        let (lowest, size) = elf.extent()?;
        if !elf.is_dynamic {
            return Ok(0);
        }
        let align = elf.alignment();
        let task_size = self.state.bounds.task_size;
        let base = task_size / 3 * 2 + (random % MMAP_RANDOM_PAGES) * PAGE_SIZE;
        let base = page_start(base & !(align - 1));
        let end = base.checked_add(size).ok_or(Errno::ENOMEM)?;
        if base < self.state.bounds.min_addr || end > task_size {
            return Err(Errno::ENOMEM);
        }
        Ok(base.wrapping_sub(lowest))
    }

    fn place_interpreter(&mut self, elf: &Elf) -> Result<u64> {
        let (lowest, size) = elf.extent()?;
        if !elf.is_dynamic {
            return Ok(0);
        }
        let base = self.state.free_range_below_area(size)?;
        Ok(base.wrapping_sub(lowest))
    }

    /// `from`: `None` maps zero pages in the file's stead.
    fn map_segments(
        &mut self,
        elf: &Elf,
        from: Option<&Mappable>,
        bias: u64,
        limits: &Limits,
    ) -> Result<()> {
        let task_size = self.state.bounds.task_size;
        for header in elf.loads() {
            let fits = header.filesz <= header.memsz
                && header.memsz <= task_size
                && header.vaddr <= task_size - header.memsz
                && bias.wrapping_add(header.vaddr) <= task_size - header.memsz;
            if !fits {
                return Err(Errno::EINVAL);
            }
            self.map_segment(from, header, bias.wrapping_add(header.vaddr), limits)?;
        }
        Ok(())
    }

    fn map_segment(
        &mut self,
        from: Option<&Mappable>,
        header: &ProgramHeader,
        addr: u64,
        limits: &Limits,
    ) -> Result<()> {
        let prot = segment_prot(header.flags);
        let in_page = addr - page_start(addr);
        let file_end = addr + header.filesz;
        let end = addr + header.memsz;
        if header.filesz > 0 {
            let offset = header.offset.checked_sub(in_page).ok_or(Errno::EINVAL)?;
            self.map_file(from, page_start(addr), header.filesz + in_page, prot, offset, limits)?;
        }
        if end == file_end {
            return Ok(());
        }
        let bss_start = if header.filesz == 0 {
            page_start(addr)
        } else {
            let bss_start = page_up(file_end).ok_or(Errno::ENOMEM)?;
            if bss_start > file_end {
                let must = prot.contains(Prot::WRITE);
                self.zeroes.push(Zero { addr: file_end, len: bss_start - file_end, must });
            }
            bss_start
        };
        let bss_end = page_up(end).ok_or(Errno::ENOMEM)?;
        if bss_end > bss_start {
            let prot = Prot::READ | Prot::WRITE | (prot & Prot::EXEC);
            self.map(bss_start, bss_end - bss_start, prot, None, 0, limits)?;
        }
        Ok(())
    }

    fn map_file(
        &mut self,
        from: Option<&Mappable>,
        addr: u64,
        len: u64,
        prot: Prot,
        offset: u64,
        limits: &Limits,
    ) -> Result<()> {
        if !offset.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        self.map(addr, len, prot, from, offset, limits)
    }

    fn map(
        &mut self,
        addr: u64,
        len: u64,
        prot: Prot,
        from: Option<&Mappable>,
        offset: u64,
        limits: &Limits,
    ) -> Result<()> {
        let mut flags = MapFlags::PRIVATE | MapFlags::FIXED;
        flags.set(MapFlags::ANONYMOUS, from.is_none());
        let request = MapRequest {
            addr,
            len,
            prot: prot.bits(),
            flags,
            file: from.map(|from| Arc::clone(&from.file)),
            offset,
            noexec: false,
            shared_text: from.and_then(|from| {
                let rewriter = from.rewriter.as_ref()?;
                rewriter.shared_text(&from.source, prot, (offset, len), true)
            }),
        };
        let len = page_up(len).ok_or(Errno::ENOMEM)?;
        offset.checked_add(len).ok_or(Errno::EOVERFLOW)?;
        let source = from.map(|from| from.source.clone());
        if let Some(MapSource::Host { base, .. }) = &source {
            base.checked_add(offset).and_then(|at| at.checked_add(len)).ok_or(Errno::EOVERFLOW)?;
        }
        let plan = self.state.plan_map(&request, source, limits)?;
        self.ops.extend(plan.ops);
        Ok(())
    }

    /// Who begins asks the processor, where that takes long: maps pages over its text that ask the shim. To the rules it is the
    /// file's text.
    fn answer_questions(&mut self, first: &Mappable, bias: u64) {
        let Some(header) = first.elf.loads().find(|header| header.flags & PF_X != 0) else {
            return;
        };
        let (Some(rewriter), MapSource::Host { fd: plain, .. }) = (&first.rewriter, &first.source)
        else {
            return;
        };
        let start = page_start(header.vaddr);
        let offset = header.offset.checked_sub(header.vaddr - start);
        let end = header.offset.checked_add(header.filesz).and_then(page_up);
        let (Some(offset), Some(end)) = (offset, end) else { return };
        let Some(asking) = rewriter.asking_pages(&first.source, &(offset..end)) else { return };
        let addr = bias.wrapping_add(start);
        let first_page = addr + (asking.pages.start - offset);
        let len = asking.pages.end - asking.pages.start;
        self.state.image.questions = first_page..first_page + len;
        // A copy of it has that already; what can be written is left alone.
        let is_plain = self.ops.iter().any(|op| {
            matches!(op, HostOp::Map { addr: at, prot, backing: Backing::File { fd, .. }, .. }
                if at.0 == addr && !prot.contains(Prot::WRITE) && Arc::ptr_eq(fd, plain))
        });
        if !is_plain {
            return;
        }
        self.ops.push(HostOp::Map {
            addr: UserAddr(first_page),
            len,
            prot: segment_prot(header.flags),
            shared: false,
            noreserve: false,
            backing: Backing::File { fd: Arc::clone(&asking.fd), offset: 0 },
        });
    }

    /// Program headers, code, data and break.
    fn note_program(&mut self, elf: &Elf, bias: u64, random: u64) -> Result<()> {
        self.program_entry = bias.wrapping_add(elf.entry);
        // Where Linux, too, points when no segment holds the headers.
        self.phdr = bias;
        let (mut code_start, mut code_end, mut data) = (u64::MAX, 0, 0..0);
        let mut end = 0;
        for header in elf.loads() {
            // Checked when it was mapped: nothing here can leave the guest's range.
            let start = bias.wrapping_add(header.vaddr);
            let file_end = start + header.filesz;
            let holds_headers =
                header.offset <= elf.phoff && elf.phoff - header.offset < header.filesz;
            if holds_headers {
                self.phdr = start + (elf.phoff - header.offset);
            }
            if header.flags & PF_X != 0 {
                (code_start, code_end) = (code_start.min(start), code_end.max(file_end));
            }
            data = data.start.max(start)..data.end.max(file_end);
            end = end.max(start + header.memsz);
        }
        let image = &mut self.state.image;
        image.code = code_start.min(code_end)..code_end;
        image.data = data;
        let brk = page_up(end).ok_or(Errno::ENOMEM)? + page_start(random % BRK_RANDOM_BYTES);
        (self.state.brk_start, self.state.brk) = (brk, brk);
        Ok(())
    }
}

fn segment_prot(flags: u32) -> Prot {
    let mut prot = Prot::empty();
    prot.set(Prot::READ, flags & PF_R != 0);
    prot.set(Prot::WRITE, flags & PF_W != 0);
    prot.set(Prot::EXEC, flags & PF_X != 0);
    prot
}

fn stack_size(limit: u64) -> u64 {
    if limit > MAX_STACK {
        return UNLIMITED_STACK;
    }
    page_start(limit.max(MIN_STACK))
}

#[cfg(test)]
pub mod tests;
