//! The first process: found in the guest's tree, loaded, started.

use std::sync::Arc;

use abi::rlimit::Resource;
use abi::stat::FileType;
use abi::{Errno, Result};
use base::cred::{Caps, Credentials};
use vfs::{Caller, FdTable, FsContext, LookupFlags, Path, VfsCx, ops, path};

use super::{BootError, Mounts};
use crate::config::Outcome;
use crate::kernel::Kernel;
use crate::loader::{self, LoadError, Prepared, Request};
use crate::mm::Limits;
use crate::task::{FirstProcess, Image, Parts, Rlimits, start_first};

/// What execvp(3) uses when there is no PATH.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the first process starts with.
pub struct Start {
    pub args: Vec<Vec<u8>>,
    pub env: Vec<Vec<u8>>,
    pub cwd: Vec<u8>,
    pub cred: Credentials,
    pub umask: u32,
    pub mounts: Mounts,
    pub files: Arc<FdTable>,
}

/// Starts it; when that fails the sandbox ends.
pub fn start(kernel: &Arc<Kernel>, start: Start) {
    let kernel_of_task = Arc::clone(kernel);
    kernel.executor.spawn(async move {
        if let Err(outcome) = run(&kernel_of_task, start).await {
            kernel_of_task.executor.end(outcome);
        }
    });
}

async fn run(kernel: &Arc<Kernel>, start: Start) -> std::result::Result<(), Outcome> {
    let limits = Rlimits::default();
    let Start { args, env, cwd, cred, umask, mounts, files } = start;
    let name = args.first().cloned().unwrap_or_default();
    let shown = String::from_utf8_lossy(&name).into_owned();
    let fs = fs_context(&mounts, &cred, &cwd, umask)?;
    let mut prepared = {
        let cx = vfs_cx(&cred, &fs);
        let (path, found) = find(&cx, &name, &env).map_err(|errno| lookup_error(&shown, errno))?;
        prepare(kernel, &cx, path, found, args, env, &limits)
            .map_err(|error| load_error(&shown, &error))?
    };
    let loaded = prepared.spawn(kernel).await.map_err(|e| load_error(&shown, &e))?;
    let image = Image {
        exe: Some(prepared.exe.clone()),
        dumpable: u32::from(!prepared.is_secure),
        ..Image::default()
    };
    let first = FirstProcess {
        parts: Parts { cred: Arc::new(prepared.cred.clone()), mm: loaded.mm, fs, files },
        limits,
        image,
        comm: prepared.comm.clone(),
    };
    let started = start_first(kernel, first, loaded.context);
    started.map(drop).map_err(|errno| BootError::of("cannot start the first process", errno).into())
}

fn vfs_cx<'a>(cred: &'a Credentials, fs: &'a FsContext) -> VfsCx<'a> {
    VfsCx { cred, fs, caller: Caller::default(), file_size_limit: u64::MAX, will_open: false }
}

fn fs_context(
    mounts: &Mounts,
    cred: &Credentials,
    cwd: &[u8],
    umask: u32,
) -> std::result::Result<Arc<FsContext>, Outcome> {
    let root = mounts.root();
    let fs = FsContext::new(root.clone(), root, umask);
    let flags = LookupFlags::FOLLOW | LookupFlags::DIRECTORY;
    let found = path::resolve(&vfs_cx(cred, &fs), None, cwd, flags);
    let cwd_path = found.map_err(|errno| {
        let cwd = String::from_utf8_lossy(cwd);
        BootError::of(&format!("cannot enter the working directory {cwd}"), errno)
    })?;
    fs.state.lock().cwd = cwd_path;
    Ok(fs)
}

/// Where execvp(3) looks for programs; an empty place is the working directory.
pub(super) fn search_path(env: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
    let search = env.iter().find_map(|entry| entry.strip_prefix(b"PATH="));
    search.unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':')
}

/// The program's place and the name it runs under, looked up as execvp(3) does.
fn find(cx: &VfsCx<'_>, name: &[u8], env: &[Vec<u8>]) -> Result<(Path, Vec<u8>)> {
    if name.contains(&b'/') || name.is_empty() {
        return Ok((path::resolve(cx, None, name, LookupFlags::FOLLOW)?, name.to_vec()));
    }
    let mut refused = Errno::ENOENT;
    for dir in search_path(env) {
        let mut candidate = if dir.is_empty() { b".".to_vec() } else { dir.to_vec() };
        candidate.push(b'/');
        candidate.extend_from_slice(name);
        let Ok(path) = path::resolve(cx, None, &candidate, LookupFlags::FOLLOW) else { continue };
        match ops::check_exec(cx, &path) {
            Ok(()) => return Ok((path, candidate)),
            Err(errno) if path.inode().file_type() == FileType::Regular => refused = errno,
            Err(_) => {}
        }
    }
    Err(refused)
}

fn prepare(
    kernel: &Kernel,
    cx: &VfsCx<'_>,
    program: Path,
    name: Vec<u8>,
    args: Vec<Vec<u8>>,
    env: Vec<Vec<u8>>,
    limits: &Rlimits,
) -> std::result::Result<Prepared, LoadError> {
    if program.inode().file_type() == FileType::Directory {
        return Err(Errno::EISDIR.into());
    }
    let get = |resource| limits.get(resource).cur;
    let request = Request {
        program,
        name,
        args,
        env,
        is_unreachable: false,
        stack_limit: get(Resource::Stack),
        limits: Limits {
            address_space: get(Resource::As),
            data: get(Resource::Data),
            memlock: get(Resource::Memlock),
            may_lock: cx.cred.has(Caps::IPC_LOCK),
            memory: kernel.memory.as_ref().map_or(u64::MAX, |account| account.room()),
        },
        layout: kernel.platform.layout(),
        rewriter: kernel.rewriter.as_ref(),
        headers: &kernel.headers,
        randomize: true,
    };
    loader::prepare(cx, request)
}

fn lookup_error(name: &str, errno: Errno) -> Outcome {
    let (code, message) = match errno {
        Errno::ENOENT | Errno::ENOTDIR => (127, format!("{name}: not found")),
        other => (126, format!("{name}: {}", other.text())),
    };
    Outcome::Failed { code, message }
}

fn load_error(name: &str, error: &LoadError) -> Outcome {
    let (code, message) = match error {
        // As a shell would see it: the program died of it.
        LoadError::Fatal => return Outcome::Signaled(abi::signal::Signal::SIGSEGV.number()),
        LoadError::Platform(error) => (125, format!("cannot make a guest process: {error}")),
        LoadError::Errno(Errno::ENOENT) => (127, format!("{name}: its interpreter was not found")),
        LoadError::Errno(Errno::ENOEXEC) => (
            126,
            format!(
                "{name}: not executable here: neither a 64-bit x86 program nor a script with #!"
            ),
        ),
        LoadError::Errno(errno @ (Errno::ENOMEM | Errno::EAGAIN)) => {
            (125, format!("cannot start {name}: {}", errno.text()))
        }
        LoadError::Errno(errno) => (126, format!("{name}: {}", errno.text())),
    };
    Outcome::Failed { code, message }
}
