//! Programs: from a path to an address space that is ready to run. See execve(2), elf(5).
//!
//! Two steps. [`prepare`] looks up and reads files and decides everything that can be decided: it has no effect and
//! its errors are the call's. [`Prepared::spawn`] makes a fresh address space beside the caller's; what fails there is
//! past Linux' point of no return, but as the caller is still whole we decide what becomes of it.
//!
//! | module | what |
//! | --- | --- |
//! | `script` | `#!` lines |
//! | `elf` | a checked view of ELF headers |
//! | `headers` | those of programs that were run before |
//! | `image` | segments to VMAs and host operations |
//! | `stack` | the initial stack and auxiliary vector |
//! | `cred` | set-user-id and capabilities |
//! | `spawn` | the host's part |

mod cred;
pub mod elf;
mod headers;
mod image;
pub mod profile;
mod script;
mod spawn;
pub mod stack;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::open::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};
use base::cred::Credentials;
use platform::{Layout, PlatformError};
use vfs::file::MapSource;
use vfs::text_busy::Running;
use vfs::{File, LookupFlags, Path, VfsCx, ops, path};

use crate::mm::Limits;
use crate::rewrite::Rewriter;
use elf::{Elf, ReadAt};
use image::{Entropy, Image, Mappable};
use script::HEAD_BYTES;
use stack::{Aux, Strings};

pub use headers::Headers;
pub use profile::{Profile, Profiles};
pub use spawn::Loaded;

/// How deep scripts may name scripts.
const MAX_DEPTH: usize = 5;

/// Why a program was not loaded.
#[derive(Debug, Clone)]
pub enum LoadError {
    /// The call fails.
    Errno(Errno),
    /// Linux finds out too late to return: the process dies of SIGSEGV.
    Fatal,
    /// The platform failed.
    Platform(PlatformError),
}

impl From<Errno> for LoadError {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// What to run.
pub struct Request<'a> {
    /// The program, found and not yet checked.
    pub program: Path,
    /// As the caller spelled it; AT_EXECFN and the name of the thread come from it.
    pub name: Vec<u8>,
    pub args: Vec<Vec<u8>>,
    pub env: Vec<Vec<u8>>,
    /// The name is of a descriptor that execve closes: a script could not be opened by it.
    pub is_unreachable: bool,
    /// RLIMIT_STACK in bytes.
    pub stack_limit: u64,
    pub limits: Limits,
    pub layout: &'a Layout,
    /// Where texts may be had with rewritten call sites.
    pub rewriter: Option<&'a Arc<Rewriter>>,
    pub headers: &'a Headers,
    /// False with personality(2) ADDR_NO_RANDOMIZE.
    pub randomize: bool,
}

/// A program that can be loaded.
pub struct Prepared {
    image: Image,
    /// Its descriptor, if it has one of the host's.
    program: Option<Arc<OwnedFd>>,
    /// Everybody may find it and its interpreter.
    is_public: bool,
    stack: stack::Stack,
    /// Credentials after execve.
    pub cred: Credentials,
    /// The caller's were not enough: no dumps, AT_SECURE.
    pub is_secure: bool,
    /// The executable: the interpreter for scripts.
    pub exe: Path,
    /// Name of the thread: the last component of what the caller named.
    pub comm: Vec<u8>,
}

/// Finds and checks everything.
///
/// # Errors
/// See execve(2).
pub fn prepare(cx: &VfsCx<'_>, request: Request<'_>) -> core::result::Result<Prepared, LoadError> {
    let Request { program, name, mut args, env, .. } = request;
    if args.is_empty() {
        args.push(Vec::new());
    }
    let strings = Strings { args: &args, env: &env, exec_name: &name };
    stack::check_size(&strings, request.stack_limit)?;
    let (known, is_unreachable) = (request.headers, request.is_unreachable);
    let (file, args) = follow_scripts(cx, known, &program, &name, args, is_unreachable)?;
    let program = mappable(cx, known, file, request.rewriter)?;
    let interpreter = match program.elf.interpreter(&Reader { cx, file: &program.file })? {
        Some(path) => Some(open_interpreter(cx, known, &path, request.rewriter)?),
        None => None,
    };
    let strings = Strings { args: &args, env: &env, exec_name: &name };
    stack::check_size(&strings, request.stack_limit)?;
    let (cred, is_secure) = cred::after_exec(cx.cred, &program.file)?;

    let random = random_bytes(request.randomize);
    let mut image = Image::build(
        request.layout,
        request.stack_limit,
        &request.limits,
        &program,
        interpreter.as_ref(),
        entropy(&random, request.randomize),
    )
    .map_err(|errno| {
        tracing::debug!(%errno, "executable cannot be mapped");
        LoadError::Fatal
    })?;
    let aux = aux(&image, &program.elf, request.layout, &cred, is_secure);
    let mut stack_random = [0; 18];
    stack_random.copy_from_slice(&random[32..50]);
    let stack = stack::build(image.stack_top, &strings, &aux, &stack_random)?;
    let info = &mut image.state.image;
    info.running = Some(Running::new(program.file.inode())?);
    info.start_stack = stack.pointer;
    info.args = stack.args.clone();
    info.env = stack.env.clone();
    info.auxv = stack.auxv.clone();
    let comm = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
    let exe = program.file.path().clone();
    let is_public = |mappable: &Mappable| profile::is_public(mappable.file.path());
    let is_public = is_public(&program) && interpreter.as_ref().is_none_or(is_public);
    let program = match program.source {
        MapSource::Host { fd, .. } => Some(fd),
        MapSource::Anonymous => None,
    };
    Ok(Prepared { image, program, is_public, stack, cred, is_secure, exe, comm })
}

/// Opens the program; for a script its interpreter, with the arguments that this gets.
fn follow_scripts(
    cx: &VfsCx<'_>,
    known: &Headers,
    program: &Path,
    name: &[u8],
    mut args: Vec<Vec<u8>>,
    is_unreachable: bool,
) -> Result<(Arc<File>, Vec<Vec<u8>>)> {
    let mut file = open_exec(cx, program)?;
    let mut script_name = name.to_vec();
    for _ in 0..=MAX_DEPTH {
        if known.find(&file).is_some() {
            return Ok((file, args));
        }
        let head = read_head(cx, &file)?;
        if Elf::is_magic(&head) {
            return Ok((file, args));
        }
        let script = script::parse(&head).ok_or(Errno::ENOEXEC)?;
        if is_unreachable {
            return Err(Errno::ENOENT);
        }
        let interpreter = path::resolve(cx, None, &script.interpreter, LookupFlags::FOLLOW)?;
        let mut new_args = vec![script.interpreter.clone()];
        new_args.extend(script.argument);
        new_args.push(script_name);
        new_args.extend(args.drain(..).skip(1));
        args = new_args;
        script_name = script.interpreter;
        file = open_exec(cx, &interpreter)?;
    }
    Err(Errno::ELOOP)
}

fn aux(image: &Image, elf: &Elf, layout: &Layout, cred: &Credentials, is_secure: bool) -> Aux {
    Aux {
        vdso: layout.vdso.as_ref().map(|range| range.start),
        minsigstksz: layout.minsigstksz,
        hwcap: layout.hwcap,
        hwcap2: layout.hwcap2,
        phdr: image.phdr,
        phnum: elf.headers.len() as u64,
        base: image.interpreter_base,
        entry: image.program_entry,
        uid: u64::from(cred.ruid.0),
        euid: u64::from(cred.euid.0),
        gid: u64::from(cred.rgid.0),
        egid: u64::from(cred.egid.0),
        is_secure,
    }
}

/// Opens what execve(2) may run, whether or not the caller may read it.
fn open_exec(cx: &VfsCx<'_>, path: &Path) -> Result<Arc<File>> {
    ops::check_exec(cx, path)?;
    let inode = path.inode();
    if inode.file_type() != FileType::Regular {
        return Err(Errno::EACCES);
    }
    let file_ops = Arc::clone(inode).open(cx, OpenFlags::empty())?;
    Ok(File::new(file_ops, Arc::clone(inode), path.clone(), OpenFlags::empty()))
}

fn open_interpreter(
    cx: &VfsCx<'_>,
    known: &Headers,
    path: &[u8],
    rewriter: Option<&Arc<Rewriter>>,
) -> Result<Mappable> {
    let path = path::resolve(cx, None, path, LookupFlags::FOLLOW)?;
    let file = open_exec(cx, &path)?;
    // Linux: ELIBBAD for an interpreter that is none.
    mappable(cx, known, file, rewriter)
        .map_err(|errno| if errno == Errno::ENOEXEC { Errno::ELIBBAD } else { errno })
}

fn mappable(
    cx: &VfsCx<'_>,
    known: &Headers,
    file: Arc<File>,
    rewriter: Option<&Arc<Rewriter>>,
) -> Result<Mappable> {
    let elf = known.read(&file, &Reader { cx, file: &file })?;
    let source = file.ops().mappable(&file, false).map_err(|errno| match errno {
        Errno::ENODEV => Errno::ENOEXEC,
        other => other,
    })?;
    Ok(Mappable { file, source, elf, rewriter: rewriter.cloned() })
}

fn read_head(cx: &VfsCx<'_>, file: &File) -> Result<[u8; HEAD_BYTES]> {
    let mut head = [0; HEAD_BYTES];
    Reader { cx, file }.read_at(0, &mut head)?;
    Ok(head)
}

/// An open file as the loader reads it.
struct Reader<'a> {
    cx: &'a VfsCx<'a>,
    file: &'a File,
}

impl Reader<'_> {
    fn read_at(&self, pos: u64, into: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while let Some(mut rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = pos.checked_add(done as u64).ok_or(Errno::EINVAL)?;
            if i64::try_from(at).is_err() {
                return Err(Errno::EINVAL);
            }
            match self.file.ops().read(self.cx, self.file, &mut rest, at)? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }
}

impl ReadAt for Reader<'_> {
    fn read_exact_at(&self, pos: u64, into: &mut [u8]) -> Result<bool> {
        let wanted = into.len();
        Ok(self.read_at(pos, into)? == wanted)
    }
}

/// Four words for the layout, 18 bytes for the stack.
fn random_bytes(randomize: bool) -> [u8; 50] {
    let mut bytes = [0; 50];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            // Only a host without the call: a predictable layout is no reason to fail.
            Err(_) => break,
        }
    }
    if !randomize {
        bytes[48..].fill(0);
    }
    bytes
}

fn entropy(bytes: &[u8; 50], randomize: bool) -> Entropy {
    if !randomize {
        return Entropy::default();
    }
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    Entropy { stack: word(0), mmap: word(8), image: word(16), brk: word(24) }
}
