//! fcntl and flock: descriptor and status flags, locks, pipe sizes, seals.

use std::sync::Arc;

use abi::fcntl::{self, Flock, OwnerEx, Seals};
use abi::ids::{Fd, Tid};
use abi::open::OpenFlags;
use abi::poll::PollEvents;
use abi::signal::Signal;
use abi::{Errno, Result, UserAddr};
use vfs::File;
use vfs::fs::tmpfs;
use vfs::record_lock::{self, Held, LockKind, Owner as LockOwner, Range};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::files::async_io::Owner;
use crate::io_wait::on_queue;
use crate::ledger;
use crate::mm::UserRef;
use crate::syscalls::args::Hex;
use crate::syscalls::names::{FcntlCommand, FlockOperation};
use crate::syscalls::table::Attempt;

/// fcntl, the commands that never wait. See [fcntl(2)](https://man7.org/linux/man-pages/man2/fcntl.2.html).
pub fn try_fcntl(cx: &mut Cx<'_>, fd: Fd, command: FcntlCommand, arg: Hex) -> Attempt {
    let command = command.0;
    if matches!(command, fcntl::F_SETLKW | fcntl::F_OFD_SETLKW) {
        return Attempt::WouldBlock { begun: 0 };
    }
    Attempt::Done(fcntl_now(cx, fd, command, arg.0))
}

/// fcntl, the commands that may wait for a lock.
pub async fn fcntl(cx: &mut Cx<'_>, fd: Fd, command: FcntlCommand, arg: Hex) -> SysResult {
    let command = command.0;
    let file = cx.file(fd)?;
    let owner = lock_owner(cx, &file, command);
    let (kind, range) = lock_request(cx, &file, UserRef::new(UserAddr(arg.0)), command)?;
    cx.files().note_lock();
    let queue = record_lock::wait_queue(&file);
    let me = cx.thread.tgid();
    let set = |cx: &mut Cx<'_>| {
        let taken = record_lock::set(&file, owner, kind, range);
        let holder = match (taken, kind) {
            (Err(Errno::EAGAIN), Some(kind)) => record_lock::test(&file, owner, kind, range),
            _ => None,
        };
        // Only the locks of processes make circles: a description does not wait.
        if let (LockOwner::Process(_), Some(Held { owner: LockOwner::Process(holder), .. })) =
            (owner, holder)
        {
            cx.kernel.lock_waits.begin(me, holder)?;
        }
        taken
    };
    let taken = on_queue(cx, &queue, PollEvents::all(), None, set).await;
    cx.kernel.lock_waits.end(me);
    taken?;
    give_up_lock_of_closed(cx, fd, &file, owner, range);
    Ok(0)
}

fn fcntl_now(cx: &mut Cx<'_>, fd: Fd, command: u32, arg: u64) -> SysResult {
    // The commands that an O_PATH descriptor takes too.
    let any_file = cx.path_file(fd)?;
    match command {
        fcntl::F_DUPFD => return dup_above(cx, any_file, arg, false),
        fcntl::F_DUPFD_CLOEXEC => return dup_above(cx, any_file, arg, true),
        fcntl::F_GETFD => return Ok(u64::from(cx.files().is_cloexec(fd)?)),
        fcntl::F_SETFD => {
            cx.files().set_cloexec(fd, arg & u64::from(fcntl::FD_CLOEXEC) != 0)?;
            return Ok(0);
        }
        fcntl::F_GETFL => return Ok(u64::from(any_file.flags().bits())),
        fcntl::F_DUPFD_QUERY => {
            let other = cx.path_file(Fd(arg as i32))?;
            return Ok(u64::from(Arc::ptr_eq(&any_file, &other)));
        }
        _ => {}
    }
    let file = cx.file(fd)?;
    match command {
        fcntl::F_SETFL => {
            file.set_status_flags(OpenFlags::from_bits_retain(arg as u32));
            cx.files().look_again();
            Ok(0)
        }
        fcntl::F_GETLK | fcntl::F_OFD_GETLK => get_lock(cx, &file, command, arg),
        fcntl::F_SETLK | fcntl::F_OFD_SETLK => set_lock(cx, fd, &file, command, arg),
        fcntl::F_GETPIPE_SZ => Ok(file.ops().pipe_size(None)? as u64),
        fcntl::F_SETPIPE_SZ => {
            let size = usize::try_from(arg as u32).map_err(|_| Errno::EINVAL)?;
            Ok(file.ops().pipe_size(Some(size))? as u64)
        }
        fcntl::F_ADD_SEALS => {
            let seals = Seals::from_bits(arg as u32).ok_or(Errno::EINVAL)?;
            tmpfs::add_seals(&file, seals)?;
            Ok(0)
        }
        fcntl::F_GET_SEALS => Ok(u64::from(tmpfs::seals(&file)?.bits())),
        _ => own_and_lease(cx, &file, command, arg),
    }
}

/// Whom SIGIO goes to, and leases.
fn own_and_lease(cx: &Cx<'_>, file: &Arc<File>, command: u32, arg: u64) -> SysResult {
    let owners = &cx.kernel.async_owners;
    let user = UserRef::<OwnerEx>::new(UserAddr(arg));
    match command {
        fcntl::F_SETOWN => {
            let owner = match arg as i32 {
                0 => Owner::Nobody,
                i32::MIN => return Err(Errno::EINVAL.into()),
                pid @ 1.. => Owner::Process(Tid(pid)),
                pgid => Owner::ProcessGroup(Tid(-pgid)),
            };
            set_owner(cx, file, owner)
        }
        fcntl::F_GETOWN => Ok(match owners.owner(file) {
            Owner::Nobody => 0,
            Owner::Thread(id) | Owner::Process(id) => i64::from(id.0).cast_unsigned(),
            Owner::ProcessGroup(id) => i64::from(-id.0).cast_unsigned(),
        }),
        fcntl::F_SETOWN_EX => {
            let OwnerEx { kind, pid } = user.read(&cx.mm())?;
            let owner = match (kind, pid) {
                (fcntl::F_OWNER_TID | fcntl::F_OWNER_PID | fcntl::F_OWNER_PGRP, 0) => Owner::Nobody,
                (fcntl::F_OWNER_TID, pid) => Owner::Thread(Tid(pid)),
                (fcntl::F_OWNER_PID, pid) => Owner::Process(Tid(pid)),
                (fcntl::F_OWNER_PGRP, pid) => Owner::ProcessGroup(Tid(pid)),
                _ => return Err(Errno::EINVAL.into()),
            };
            set_owner(cx, file, owner)
        }
        fcntl::F_GETOWN_EX => {
            let (kind, id) = match owners.owner(file) {
                Owner::Nobody => (fcntl::F_OWNER_TID, Tid(0)),
                Owner::Thread(id) => (fcntl::F_OWNER_TID, id),
                Owner::Process(id) => (fcntl::F_OWNER_PID, id),
                Owner::ProcessGroup(id) => (fcntl::F_OWNER_PGRP, id),
            };
            user.write(&cx.mm(), &OwnerEx { kind, pid: id.0 })?;
            Ok(0)
        }
        fcntl::F_SETSIG => {
            let signal = match arg {
                0 => None,
                number => Some(Signal::new(number).ok_or(Errno::EINVAL)?),
            };
            owners.set_signal(cx.kernel, file, signal);
            Ok(0)
        }
        fcntl::F_GETSIG => Ok(owners.signal(file).map_or(0, |signal| u64::from(signal.number()))),
        fcntl::F_GETLEASE => Ok(u64::from(fcntl::F_UNLCK.cast_unsigned())),
        _ => Err(Errno::EINVAL.into()),
    }
}

fn set_owner(cx: &Cx<'_>, file: &Arc<File>, owner: Owner) -> SysResult {
    let tables = &cx.kernel.tasks;
    let exists = match owner {
        Owner::Nobody => true,
        Owner::Thread(id) | Owner::Process(id) => tables.thread(id).is_some(),
        Owner::ProcessGroup(id) => tables.lock().members_of(id).next().is_some(),
    };
    if !exists {
        return Err(Errno::ESRCH.into());
    }
    cx.kernel.async_owners.set_owner(cx.kernel, file, owner, cx.cred());
    Ok(0)
}

fn dup_above(cx: &Cx<'_>, file: Arc<File>, lowest: u64, cloexec: bool) -> SysResult {
    let lowest = i32::try_from(lowest as i64).map_err(|_| Errno::EINVAL)?;
    if lowest < 0 {
        return Err(Errno::EINVAL.into());
    }
    let limit = cx.fd_limit();
    if u64::from(lowest.cast_unsigned()) >= limit {
        return Err(Errno::EINVAL.into());
    }
    let fd = cx.files().install(file, cloexec, Fd(lowest), limit)?;
    Ok(u64::from(fd.0.cast_unsigned()))
}

fn lock_owner(cx: &Cx<'_>, file: &Arc<File>, command: u32) -> LockOwner {
    match command {
        fcntl::F_GETLK | fcntl::F_SETLK | fcntl::F_SETLKW => LockOwner::Process(cx.thread.tgid()),
        _ => LockOwner::of_file(file),
    }
}

/// Decodes `struct flock`: what to take (`None`: release) and where.
fn lock_request(
    cx: &Cx<'_>,
    file: &Arc<File>,
    at: UserRef<Flock>,
    command: u32,
) -> Result<(Option<LockKind>, Range)> {
    let request = at.read(&cx.mm())?;
    let is_ofd = command >= fcntl::F_OFD_GETLK;
    if is_ofd && request.pid != 0 {
        return Err(Errno::EINVAL);
    }
    let kind = match request.kind {
        fcntl::F_RDLCK => Some(LockKind::Shared),
        fcntl::F_WRLCK => Some(LockKind::Exclusive),
        fcntl::F_UNLCK => None,
        _ => return Err(Errno::EINVAL),
    };
    let is_test = matches!(command, fcntl::F_GETLK | fcntl::F_OFD_GETLK);
    let allowed = match kind {
        _ if is_test => true,
        Some(LockKind::Shared) => file.flags().reads(),
        Some(LockKind::Exclusive) => file.flags().writes(),
        None => true,
    };
    if !allowed {
        return Err(Errno::EBADF);
    }
    Ok((kind, lock_range(file, &request)?))
}

fn lock_range(file: &File, request: &Flock) -> Result<Range> {
    let base = match u32::try_from(i32::from(request.whence)).map_err(|_| Errno::EINVAL)? {
        fcntl::SEEK_SET => 0,
        fcntl::SEEK_CUR => *file.position(),
        fcntl::SEEK_END => file.inode().attr()?.size,
        _ => return Err(Errno::EINVAL),
    };
    let base = i64::try_from(base).map_err(|_| Errno::EOVERFLOW)?;
    let start = base.checked_add(request.start).ok_or(Errno::EOVERFLOW)?;
    Range::new(start, request.len)
}

fn get_lock(cx: &Cx<'_>, file: &Arc<File>, command: u32, arg: u64) -> SysResult {
    let at = UserRef::<Flock>::new(UserAddr(arg));
    let (kind, range) = lock_request(cx, file, at, command)?;
    let kind = kind.ok_or(Errno::EINVAL)?;
    let owner = lock_owner(cx, file, command);
    let mut answer = at.read(&cx.mm())?;
    match record_lock::test(file, owner, kind, range) {
        None => answer.kind = fcntl::F_UNLCK,
        Some(held) => answer = describe(&held),
    }
    at.write(&cx.mm(), &answer)?;
    Ok(0)
}

fn describe(held: &Held) -> Flock {
    let is_open_ended = held.range.end > i64::MAX as u64;
    let len = if is_open_ended { 0 } else { held.range.end.saturating_sub(held.range.start) };
    Flock {
        kind: match held.kind {
            LockKind::Shared => fcntl::F_RDLCK,
            LockKind::Exclusive => fcntl::F_WRLCK,
        },
        whence: 0,
        start: held.range.start.cast_signed(),
        len: len.cast_signed(),
        pid: match held.owner {
            LockOwner::Process(tgid) => tgid.0,
            LockOwner::Description(_) => -1,
        },
        ..Flock::default()
    }
}

fn set_lock(cx: &Cx<'_>, fd: Fd, file: &Arc<File>, command: u32, arg: u64) -> SysResult {
    let owner = lock_owner(cx, file, command);
    let (kind, range) = lock_request(cx, file, UserRef::new(UserAddr(arg)), command)?;
    cx.files().note_lock();
    record_lock::set(file, owner, kind, range)?;
    give_up_lock_of_closed(cx, fd, file, owner, range);
    if let LockOwner::Process(_) = owner {
        ledger::after_lock(cx, fd, file);
    }
    Ok(0)
}

/// Another thread may have closed the descriptor meanwhile: then nobody would ever release the lock.
fn give_up_lock_of_closed(cx: &Cx<'_>, fd: Fd, file: &Arc<File>, owner: LockOwner, range: Range) {
    let is_open = cx.files().get(fd).is_ok_and(|now| Arc::ptr_eq(&now, file));
    if !is_open && matches!(owner, LockOwner::Process(_)) {
        // Releasing cannot conflict.
        let _ = record_lock::set(file, owner, None, range);
    }
}

/// flock. See [flock(2)](https://man7.org/linux/man-pages/man2/flock.2.html).
pub async fn flock(cx: &mut Cx<'_>, fd: Fd, operation: FlockOperation) -> SysResult {
    let operation = operation.bits();
    let file = cx.file(fd)?;
    let kind = match operation & !fcntl::LOCK_NB {
        fcntl::LOCK_SH => Some(LockKind::Shared),
        fcntl::LOCK_EX => Some(LockKind::Exclusive),
        fcntl::LOCK_UN => None,
        _ => return Err(Errno::EINVAL.into()),
    };
    cx.files().note_lock();
    if operation & fcntl::LOCK_NB != 0 || kind.is_none() {
        record_lock::flock(&file, kind)?;
        return Ok(0);
    }
    let queue = record_lock::wait_queue(&file);
    let lock = |_: &mut Cx<'_>| record_lock::flock(&file, kind);
    on_queue(cx, &queue, PollEvents::all(), None, lock).await?;
    Ok(0)
}
