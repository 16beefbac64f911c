//! execve(2): a new program in the same process.
//!
//! The new image is made whole in a fresh address space while the caller still stands in the old one, so everything
//! that can fail fails before anything of the caller has changed.

use std::sync::Arc;

use abi::rlimit::Resource;
use abi::signal::Signal;
use base::cred::{Access, Credentials};
use vfs::{FdTable, Path, record_lock};

use crate::cx::Cx;
use crate::error::{SysError, SysResult};
use crate::loader::{self, LoadError, Prepared, Request};
use crate::signal::{ExitStatus, end_group};
use crate::task::dethread::{dethread, finish_exec, leave_memory};
use crate::task::exit::release_memory_users;

/// ADDR_NO_RANDOMIZE of personality(2).
const NO_RANDOMIZE: u32 = 0x0004_0000;
/// Personality bits that a privileged program does not inherit (`PER_CLEAR_ON_SETID`).
const CLEARED_ON_SETID: u32 = 0x0070_0000 | NO_RANDOMIZE;

/// What to run, and how.
pub struct Program {
    pub path: Path,
    pub name: Vec<u8>,
    pub args: Vec<Vec<u8>>,
    pub env: Vec<Vec<u8>>,
    /// See [`Request::is_unreachable`].
    pub is_unreachable: bool,
}

/// Carries out execve(2).
///
/// # Errors
/// See execve(2); `RegsSet` when the caller now is the new program.
pub async fn exec(cx: &mut Cx<'_>, program: Program) -> SysResult {
    let mut prepared = prepare(cx, program).or_else(|error| refuse(cx, &error))?;
    if cx.mm().is_alone() && !gains(cx, &prepared) {
        return replace(cx, prepared).await;
    }
    let loaded = prepared.spawn(cx.kernel).await;
    let loaded = loaded.or_else(|error| refuse(cx, &error))?;
    dethread(cx.kernel, cx.thread).await?;
    leave_memory(cx.kernel, cx.thread, &mut **cx.context).await;

    let old_context = std::mem::replace(cx.context, loaded.context);
    if let Some(old_mm) = cx.thread.set_mm(loaded.mm) {
        old_mm.remove_user();
    }
    cx.thread.forget_context();
    drop(old_context);
    take_identity(cx, &prepared);
    close_files(cx);
    finish_exec(cx.thread, &prepared.comm, &**cx.context);
    Err(SysError::RegsSet)
}

/// Whether the program gets rights that the caller does not have, or is itself more than the caller may read. Such a one
/// must not run in a host process that the caller may have tampered with.
fn gains(cx: &Cx<'_>, prepared: &Prepared) -> bool {
    let (old, new) = (cx.cred(), &prepared.cred);
    let ids =
        |cred: &Credentials| (cred.ruid, cred.euid, cred.suid, cred.rgid, cred.egid, cred.sgid);
    let may_read = prepared.exe.inode().permission(&old, Access::READ).is_ok();
    !may_read
        || prepared.is_secure
        || ids(&old) != ids(new)
        || !old.permitted.contains(new.permitted)
}

/// Loads the program into the caller's own host process: nothing is to be made or taken down.
async fn replace(cx: &mut Cx<'_>, mut prepared: Prepared) -> SysResult {
    dethread(cx.kernel, cx.thread).await?;
    release_memory_users(cx.kernel, cx.thread, &mut **cx.context).await;
    let mm = match prepared.replace(cx.kernel, &mut **cx.context).await {
        Ok(mm) => mm,
        // The old image is gone, whatever the reason.
        Err(error) => return refuse(cx, &error).or_else(|_| refuse(cx, &LoadError::Fatal)),
    };
    if let Some(old_mm) = cx.thread.set_mm(mm) {
        old_mm.remove_user();
    }
    take_identity(cx, &prepared);
    close_files(cx);
    finish_exec(cx.thread, &prepared.comm, &**cx.context);
    Err(SysError::RegsSet)
}

fn prepare(cx: &Cx<'_>, program: Program) -> Result<Prepared, LoadError> {
    let randomize = cx.thread.attrs.lock().personality & NO_RANDOMIZE == 0;
    let request = Request {
        program: program.path,
        name: program.name,
        args: program.args,
        env: program.env,
        is_unreachable: program.is_unreachable,
        stack_limit: cx.thread.group.limit(Resource::Stack),
        limits: cx.mm_limits(),
        layout: cx.kernel.platform.layout(),
        rewriter: cx.kernel.rewriter.as_ref(),
        headers: &cx.kernel.headers,
        randomize,
    };
    cx.with_vfs(|vfs| loader::prepare(vfs, request))
}

/// The end of an execve that did not succeed.
fn refuse<T>(cx: &Cx<'_>, error: &LoadError) -> Result<T, SysError> {
    match error {
        LoadError::Errno(errno) => Err((*errno).into()),
        LoadError::Fatal => {
            // Past the point of no return Linux has no caller left to return to.
            let signal = Signal::SIGSEGV;
            end_group(cx.thread, ExitStatus::Signaled { signal, core: false });
            Err(SysError::Exited)
        }
        LoadError::Platform(error) => {
            tracing::warn!(%error, "execve found no new guest process");
            Err(crate::task::clone::platform_errno(error).into())
        }
    }
}

fn take_identity(cx: &Cx<'_>, prepared: &Prepared) {
    let group = &cx.thread.group;
    cx.thread.set_cred(prepared.cred.clone());
    let mut attrs = cx.thread.attrs.lock();
    if prepared.is_secure {
        attrs.personality &= !CLEARED_ON_SETID;
        attrs.pdeath_signal = 0;
    }
    drop(attrs);
    let mut image = group.image.lock();
    let old = image.exe.replace(prepared.exe.clone());
    image.dumpable = u32::from(!prepared.is_secure);
    drop(image);
    drop(old);
}

/// Gives the process a descriptor table of its own, without what is marked close-on-exec.
fn close_files(cx: &mut Cx<'_>) {
    cx.context.know_descriptors(false);
    // What was told would keep the channel of a host process that is left.
    cx.thread.forget_paths();
    let shared = cx.thread.files();
    // One reference is the thread's, one is ours.
    let files: Arc<FdTable> =
        if Arc::strong_count(&shared) > 2 { shared.duplicate() } else { Arc::clone(&shared) };
    cx.thread.set_files(Arc::clone(&files));
    // Of the old image's address space, whether it is left or not.
    files.end_loans();
    for file in files.close_on_exec() {
        record_lock::release_process(&file, cx.thread.tgid());
    }
}
