//! Robust futex lists and the execution domain.

use abi::ids::Tid;
use abi::{Errno, UserAddr};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::syscalls::args::{Hex, Out};
use crate::syscalls::usage::thread_by_id;

/// `sizeof(struct robust_list_head)`.
const HEAD_BYTES: usize = 24;
/// Personality that only asks.
const PERSONALITY_QUERY: u64 = 0xffff_ffff;

/// set_robust_list: futexes to release at the thread's end. See [get_robust_list(2)](https://man7.org/linux/man-pages/man2/get_robust_list.2.html).
pub fn set_robust_list(cx: &mut Cx<'_>, head: UserAddr, len: usize) -> SysResult {
    if len != HEAD_BYTES {
        return Err(Errno::EINVAL.into());
    }
    cx.thread.signals.lock().set_robust_list(head);
    Ok(0)
}

/// get_robust_list: see [get_robust_list(2)](https://man7.org/linux/man-pages/man2/get_robust_list.2.html).
pub fn get_robust_list(cx: &mut Cx<'_>, tid: Tid, head: Out<u64>, len: Out<u64>) -> SysResult {
    let thread = thread_by_id(cx, tid).map_err(|_| Errno::ESRCH)?;
    if thread.tgid() != cx.thread.tgid() && cx.cred().euid != thread.cred().euid {
        return Err(Errno::EPERM.into());
    }
    let list = thread.signals.lock().robust_list();
    let mm = cx.mm();
    len.write(&mm, &(HEAD_BYTES as u64))?;
    head.write(&mm, &list.0)?;
    Ok(0)
}

/// personality: execution domain; answers the previous one. See [personality(2)](https://man7.org/linux/man-pages/man2/personality.2.html).
pub fn personality(cx: &mut Cx<'_>, persona: Hex) -> SysResult {
    let mut attrs = cx.thread.attrs.lock();
    let old = attrs.personality;
    if persona.0 & PERSONALITY_QUERY != PERSONALITY_QUERY {
        attrs.personality = (persona.0 & PERSONALITY_QUERY) as u32;
    }
    Ok(u64::from(old))
}
