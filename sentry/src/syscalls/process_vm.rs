//! Memory of other processes.

use std::sync::Arc;

use abi::ids::Tid;
use abi::uio::Iovec;
use abi::{Errno, Result};
use base::cred::Caps;
use base::{Sink, Source};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::{Mm, UserRef, UserSink, UserSlice, UserSource};
use crate::syscalls::read_write::read_vector;
use crate::task::Thread;

/// Bytes that are on their way at once.
const CHUNK: usize = 64 << 10;

/// process_vm_readv. See [process_vm_readv(2)](https://man7.org/linux/man-pages/man2/process_vm_readv.2.html).
pub fn process_vm_readv(
    cx: &mut Cx<'_>,
    pid: Tid,
    local: UserRef<Iovec>,
    local_count: usize,
    remote: UserRef<Iovec>,
    remote_count: usize,
    flags: u64,
) -> SysResult {
    let sides = sides(cx, pid, [(local, local_count), (remote, remote_count)], flags)?;
    let mm = cx.mm();
    transfer(&sides.other, &sides.remote, &mm, &sides.local)
}

/// process_vm_writev. See [process_vm_writev(2)](https://man7.org/linux/man-pages/man2/process_vm_writev.2.html).
pub fn process_vm_writev(
    cx: &mut Cx<'_>,
    pid: Tid,
    local: UserRef<Iovec>,
    local_count: usize,
    remote: UserRef<Iovec>,
    remote_count: usize,
    flags: u64,
) -> SysResult {
    let sides = sides(cx, pid, [(local, local_count), (remote, remote_count)], flags)?;
    let mm = cx.mm();
    transfer(&mm, &sides.local, &sides.other, &sides.remote)
}

struct Sides {
    other: Arc<Mm>,
    local: Vec<UserSlice>,
    remote: Vec<UserSlice>,
}

fn sides(
    cx: &Cx<'_>,
    pid: Tid,
    vectors: [(UserRef<Iovec>, usize); 2],
    flags: u64,
) -> Result<Sides> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let [local, remote] = vectors.map(|(at, count)| read_vector(cx, at, count));
    let (local, remote) = (local?.to_vec(), remote?.to_vec());
    let thread = cx.kernel.tasks.thread(pid).ok_or(Errno::ESRCH)?;
    may_access(cx, &thread)?;
    let other = thread.mm_if_alive().ok_or(Errno::ESRCH)?;
    Ok(Sides { other, local, remote })
}

/// The check of ptrace(2), "Ptrace access mode checking", with PTRACE_MODE_ATTACH_REALCREDS.
fn may_access(cx: &Cx<'_>, thread: &Thread) -> Result<()> {
    if thread.tgid() == cx.thread.tgid() || cx.cred().has(Caps::SYS_PTRACE) {
        return Ok(());
    }
    let (mine, theirs) = (cx.cred(), thread.cred());
    let same_user = [theirs.euid, theirs.suid, theirs.ruid].iter().all(|uid| *uid == mine.ruid);
    let same_group = [theirs.egid, theirs.sgid, theirs.rgid].iter().all(|gid| *gid == mine.rgid);
    let is_dumpable = thread.group.image.lock().dumpable == 1;
    let no_more_power = mine.permitted.contains(theirs.permitted);
    if same_user && same_group && is_dumpable && no_more_power { Ok(()) } else { Err(Errno::EPERM) }
}

/// Copies as far as both sides go; a bad page ends it, and is an error only for the first byte.
fn transfer(from: &Mm, from_ranges: &[UserSlice], to: &Mm, to_ranges: &[UserSlice]) -> SysResult {
    let mut source = UserSource::new(from, from_ranges);
    let mut sink = UserSink::new(to, to_ranges);
    let wanted = source.remaining().min(sink.remaining());
    let mut buffer = vec![0; wanted.min(CHUNK)];
    let mut done = 0;
    while done < wanted {
        let room = buffer.len().min(wanted - done);
        let step = source
            .take(buffer.get_mut(..room).unwrap_or_default())
            .and_then(|got| sink.put(buffer.get(..got).unwrap_or_default()));
        match step {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(errno) if done == 0 => return Err(errno.into()),
            Err(_) => break,
        }
    }
    Ok(done as u64)
}
