//! ELF headers: a checked view. Whatever the file holds, nothing here panics; errors are Linux'
//! (fs/binfmt_elf.c): what a loader for this format does not accept is `ENOEXEC`.

use std::sync::OnceLock;

use abi::elf::{
    EM_X86_64, ET_DYN, ET_EXEC, Header, MAGIC, PF_X, PT_GNU_STACK, PT_INTERP, PT_LOAD,
    ProgramHeader,
};
use abi::{Errno, Result};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Where an executable's bytes come from.
pub trait ReadAt {
    /// Fills `into` from `pos` on; `Ok(false)` when the file ends before.
    ///
    /// # Errors
    /// Of the file.
    fn read_exact_at(&self, pos: u64, into: &mut [u8]) -> Result<bool>;
}

/// Most bytes of program headers (`ELF_MIN_ALIGN`-bounded on Linux: 64 KiB).
const MAX_HEADER_BYTES: usize = 65_536;
/// PATH_MAX, the longest PT_INTERP.
const MAX_INTERPRETER: u64 = 4096;

/// The headers of an executable or of its interpreter.
#[derive(Debug, Clone)]
pub struct Elf {
    pub entry: u64,
    pub is_dynamic: bool,
    /// File offset of the program headers.
    pub phoff: u64,
    pub headers: Vec<ProgramHeader>,
    /// See [`Elf::interpreter`], once that was asked.
    interpreter: OnceLock<Option<Vec<u8>>>,
}

impl Elf {
    /// True when a file that starts with `head` claims to be ELF of any kind.
    #[must_use]
    pub fn is_magic(head: &[u8]) -> bool {
        head.starts_with(&MAGIC)
    }

    /// Reads and checks the headers.
    ///
    /// # Errors
    /// `ENOEXEC` for anything but a 64-bit x86-64 executable or shared object.
    pub fn read(file: &dyn ReadAt) -> Result<Self> {
        let mut raw = [0; size_of::<Header>()];
        if !file.read_exact_at(0, &mut raw)? {
            return Err(Errno::ENOEXEC);
        }
        let header = Header::read_from_bytes(&raw).map_err(|_| Errno::ENOEXEC)?;
        // As Linux, which leaves class and byte order to the machine's number and the size of the headers.
        let acceptable = Self::is_magic(&header.ident)
            && header.machine == EM_X86_64
            && matches!(header.kind, ET_EXEC | ET_DYN)
            && usize::from(header.phentsize) == size_of::<ProgramHeader>();
        let bytes = usize::from(header.phnum) * size_of::<ProgramHeader>();
        if !acceptable || bytes == 0 || bytes > MAX_HEADER_BYTES {
            return Err(Errno::ENOEXEC);
        }
        let mut headers = vec![ProgramHeader::new_zeroed(); usize::from(header.phnum)];
        if !file.read_exact_at(header.phoff, headers.as_mut_slice().as_mut_bytes())? {
            return Err(Errno::ENOEXEC);
        }
        Ok(Self {
            entry: header.entry,
            is_dynamic: header.kind == ET_DYN,
            phoff: header.phoff,
            headers,
            interpreter: OnceLock::new(),
        })
    }

    /// PT_LOAD headers, in file order.
    pub fn loads(&self) -> impl Iterator<Item = &ProgramHeader> {
        self.headers.iter().filter(|header| header.kind == PT_LOAD)
    }

    /// The path in PT_INTERP, without its NUL.
    ///
    /// # Errors
    /// `ENOEXEC` when it is not a string, `EIO` when the file ends within it.
    pub fn interpreter(&self, file: &dyn ReadAt) -> Result<Option<Vec<u8>>> {
        if let Some(known) = self.interpreter.get() {
            return Ok(known.clone());
        }
        let path = self.read_interpreter(file)?;
        Ok(self.interpreter.get_or_init(|| path).clone())
    }

    fn read_interpreter(&self, file: &dyn ReadAt) -> Result<Option<Vec<u8>>> {
        let Some(header) = self.headers.iter().find(|header| header.kind == PT_INTERP) else {
            return Ok(None);
        };
        if !(2..=MAX_INTERPRETER).contains(&header.filesz) {
            return Err(Errno::ENOEXEC);
        }
        let len = usize::try_from(header.filesz).map_err(|_| Errno::ENOEXEC)?;
        let mut path = vec![0; len];
        if !file.read_exact_at(header.offset, &mut path)? {
            return Err(Errno::EIO);
        }
        if path.pop() != Some(0) {
            return Err(Errno::ENOEXEC);
        }
        let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
        path.truncate(end);
        Ok(Some(path))
    }

    /// PT_GNU_STACK asks for an executable stack.
    #[must_use]
    pub fn wants_exec_stack(&self) -> bool {
        let stack = self.headers.iter().rev().find(|header| header.kind == PT_GNU_STACK);
        stack.is_some_and(|header| header.flags & PF_X != 0)
    }

    /// Whole pages from the lowest to the highest byte of all PT_LOAD, and the lowest page's address.
    ///
    /// # Errors
    /// `EINVAL` without PT_LOAD or when they wrap around.
    pub fn extent(&self) -> Result<(u64, u64)> {
        let lowest = self.loads().map(|header| page_start(header.vaddr)).min();
        let lowest = lowest.ok_or(Errno::EINVAL)?;
        let mut highest = lowest;
        for header in self.loads() {
            let end = header.vaddr.checked_add(header.memsz).ok_or(Errno::EINVAL)?;
            highest = highest.max(abi::addr::page_up(end).ok_or(Errno::EINVAL)?);
        }
        if highest == lowest { Err(Errno::EINVAL) } else { Ok((lowest, highest - lowest)) }
    }

    /// The largest power of two among the alignments of PT_LOAD; at least a page.
    #[must_use]
    pub fn alignment(&self) -> u64 {
        let sensible =
            self.loads().map(|header| header.align).filter(|align| align.is_power_of_two());
        sensible.max().unwrap_or(0).max(abi::addr::PAGE_SIZE)
    }
}

/// The start of the page that holds `addr`.
#[must_use]
pub const fn page_start(addr: u64) -> u64 {
    addr & !(abi::addr::PAGE_SIZE - 1)
}
