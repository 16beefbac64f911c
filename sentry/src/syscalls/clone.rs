//! Making threads and processes.

use abi::clone::{CLONE_ARGS_SIZE_VER0, CSIGNAL, CloneArgs, CloneFlags};
use abi::{Errno, UserAddr};
use zerocopy::IntoBytes;

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::{UserRef, UserSlice};
use crate::syscalls::args::Hex;
use crate::task::clone as task_clone;

crate::loose_flags_arg!(CloneFlags as "CLONE_");

/// clone: a thread or process, by flags. See [clone(2)](https://man7.org/linux/man-pages/man2/clone.2.html).
pub async fn clone(
    cx: &mut Cx<'_>,
    flags: CloneFlags,
    stack: Hex,
    parent_tid: UserRef<i32>,
    child_tid: UserRef<i32>,
    tls: Hex,
) -> SysResult {
    // Only the low half counts: the rest is clone3's.
    let bits = flags.bits() & 0xffff_ffff;
    let args = CloneArgs {
        flags: bits & !CSIGNAL,
        pidfd: parent_tid.addr.0,
        child_tid: child_tid.addr.0,
        parent_tid: parent_tid.addr.0,
        exit_signal: bits & CSIGNAL,
        stack: stack.0,
        tls: tls.0,
        ..CloneArgs::default()
    };
    let both = CloneFlags::PIDFD | CloneFlags::PARENT_SETTID;
    if flags.contains(both) {
        // One pointer cannot take both.
        return Err(Errno::EINVAL.into());
    }
    task_clone::clone(cx, &args).await
}

/// clone3: clone with its arguments in a struct. See [clone(2)](https://man7.org/linux/man-pages/man2/clone.2.html).
pub async fn clone3(cx: &mut Cx<'_>, args: UserSlice) -> SysResult {
    let args = read_args(cx, args)?;
    let flags = CloneFlags::from_bits(args.flags).ok_or(Errno::EINVAL)?;
    let is_odd = args.flags & CSIGNAL & !CloneFlags::NEWTIME.bits() != 0
        || flags.contains(CloneFlags::DETACHED)
        || args.exit_signal > 64
        || (args.exit_signal != 0 && flags.intersects(CloneFlags::THREAD | CloneFlags::PARENT))
        || (args.stack == 0) != (args.stack_size == 0);
    if is_odd {
        return Err(Errno::EINVAL.into());
    }
    if args.set_tid_size != 0 {
        // Choosing ids needs CAP_CHECKPOINT_RESTORE and is not there.
        return Err(Errno::EPERM.into());
    }
    task_clone::clone(cx, &args).await
}

/// As `copy_struct_from_user` of Linux: a longer struct must be zero beyond what we know.
fn read_args(cx: &Cx<'_>, slice: UserSlice) -> abi::Result<CloneArgs> {
    if slice.len > abi::addr::PAGE_SIZE as usize {
        return Err(Errno::E2BIG);
    }
    if slice.len < CLONE_ARGS_SIZE_VER0 {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; slice.len];
    cx.mm().read(slice.addr, &mut bytes)?;
    let mut args = CloneArgs::default();
    let known = bytes.len().min(size_of::<CloneArgs>());
    if bytes[known..].iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    args.as_mut_bytes()[..known].copy_from_slice(&bytes[..known]);
    Ok(args)
}

/// fork: a copy of the process. See [fork(2)](https://man7.org/linux/man-pages/man2/fork.2.html).
pub async fn fork(cx: &mut Cx<'_>) -> SysResult {
    task_clone::clone(cx, &task_clone::fork_args()).await
}

/// vfork: a child in the caller's memory, which waits. See [vfork(2)](https://man7.org/linux/man-pages/man2/vfork.2.html).
pub async fn vfork(cx: &mut Cx<'_>) -> SysResult {
    let flags = (CloneFlags::VM | CloneFlags::VFORK).bits();
    task_clone::clone(cx, &CloneArgs { flags, ..task_clone::fork_args() }).await
}

/// set_tid_address: where to write 0 at the thread's end. See [set_tid_address(2)](https://man7.org/linux/man-pages/man2/set_tid_address.2.html).
pub fn set_tid_address(cx: &mut Cx<'_>, addr: UserAddr) -> SysResult {
    cx.thread.signals.lock().set_tid_address(addr);
    Ok(u64::from(cx.thread.tid().0.cast_unsigned()))
}
