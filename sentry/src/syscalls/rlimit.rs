//! Resource limits.

use abi::ids::Tid;
use abi::rlimit::{Resource, Rlimit};
use abi::{Errno, Result};
use base::cred::Caps;

use crate::cx::Cx;
use crate::error::SysResult;
use crate::syscalls::args::{In, Out};
use crate::syscalls::usage::thread_by_id;
use crate::task::Thread;

/// `/proc/sys/fs/nr_open`: RLIMIT_NOFILE goes no higher.
const NR_OPEN: u64 = 1 << 20;

fn resource(raw: u32) -> Result<Resource> {
    Resource::from_raw(raw).ok_or(Errno::EINVAL)
}

/// getrlimit: a limit of the caller. See [getrlimit(2)](https://man7.org/linux/man-pages/man2/getrlimit.2.html).
pub fn getrlimit(cx: &mut Cx<'_>, which: u32, out: Out<Rlimit>) -> SysResult {
    let limit = cx.thread.group.rlimit(resource(which)?);
    out.write(&cx.mm(), &limit)?;
    Ok(0)
}

/// setrlimit: sets a limit of the caller. See [getrlimit(2)](https://man7.org/linux/man-pages/man2/getrlimit.2.html).
pub fn setrlimit(cx: &mut Cx<'_>, which: u32, new: In<Rlimit>) -> SysResult {
    let resource = resource(which)?;
    let limit = new.read(&cx.mm())?;
    set(cx, cx.thread, resource, limit)?;
    Ok(0)
}

/// prlimit64: reads and sets a limit of a process. See [getrlimit(2)](https://man7.org/linux/man-pages/man2/getrlimit.2.html).
pub fn prlimit64(
    cx: &mut Cx<'_>,
    pid: Tid,
    which: u32,
    new: In<Rlimit>,
    old: Out<Rlimit>,
) -> SysResult {
    let resource = resource(which)?;
    let mm = cx.mm();
    let new = new.optional().map(|new| new.read(&mm)).transpose()?;
    let target = thread_by_id(cx, pid).map_err(|_| Errno::ESRCH)?;
    check_target(cx, &target)?;
    let previous = target.group.rlimit(resource);
    if let Some(new) = new {
        set(cx, &target, resource, new)?;
    }
    if let Some(old) = old.optional() {
        old.write(&mm, &previous)?;
    }
    Ok(0)
}

/// All ids must match, or CAP_SYS_RESOURCE.
fn check_target(cx: &Cx<'_>, target: &Thread) -> Result<()> {
    if target.tgid() == cx.thread.tgid() {
        return Ok(());
    }
    let (caller, target) = (cx.cred(), target.cred());
    let is_same_user =
        [target.euid, target.suid, target.ruid].iter().all(|uid| *uid == caller.ruid);
    let is_same_group =
        [target.egid, target.sgid, target.rgid].iter().all(|gid| *gid == caller.rgid);
    let is_allowed = (is_same_user && is_same_group) || caller.has(Caps::SYS_RESOURCE);
    if is_allowed { Ok(()) } else { Err(Errno::EPERM) }
}

fn set(cx: &Cx<'_>, target: &Thread, resource: Resource, new: Rlimit) -> Result<()> {
    if new.cur > new.max {
        return Err(Errno::EINVAL);
    }
    if resource == Resource::Nofile && new.max > NR_OPEN {
        return Err(Errno::EPERM);
    }
    let old = target.group.rlimit(resource);
    if new.max > old.max && !cx.cred().has(Caps::SYS_RESOURCE) {
        return Err(Errno::EPERM);
    }
    target.group.set_rlimit(resource, new);
    if resource == Resource::Fsize
        && let Some(files) = target.files_if_alive()
    {
        // Guest code that writes on its own heeds none.
        files.end_loans();
    }
    Ok(())
}
