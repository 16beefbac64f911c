//! Scheduling: the host schedules; what the guest asks for is remembered and told back.

use std::sync::Arc;

use abi::ids::{Tid, Uid};
use abi::rlimit::Resource;
use abi::time::Timespec;
use abi::{Errno, Result, UserAddr};
use base::cred::Caps;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::mm::UserRef;
use crate::syscalls::args::{In, Out};
use crate::syscalls::usage::thread_by_id;
use crate::task::Thread;

const SCHED_OTHER: u32 = 0;
const SCHED_FIFO: u32 = 1;
const SCHED_RR: u32 = 2;
const SCHED_BATCH: u32 = 3;
const SCHED_IDLE: u32 = 5;
const SCHED_RESET_ON_FORK: u32 = 0x4000_0000;

/// sched_yield: lets others run. See [sched_yield(2)](https://man7.org/linux/man-pages/man2/sched_yield.2.html).
pub fn sched_yield(_cx: &mut Cx<'_>) -> SysResult {
    // The guest's host thread gave up its CPU to come here.
    Ok(0)
}

/// sched_getaffinity: CPUs of a thread. See [sched_setaffinity(2)](https://man7.org/linux/man-pages/man2/sched_setaffinity.2.html).
pub fn sched_getaffinity(cx: &mut Cx<'_>, tid: Tid, len: usize, mask: UserAddr) -> SysResult {
    let thread = thread_by_id(cx, tid).map_err(|_| Errno::ESRCH)?;
    let affinity = thread.attrs.lock().affinity.clone();
    let bytes: Vec<u8> = affinity.iter().flat_map(|word| word.to_le_bytes()).collect();
    if len < bytes.len() || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL.into());
    }
    cx.mm().write(mask, &bytes)?;
    Ok(bytes.len() as u64)
}

/// sched_setaffinity: chooses CPUs of a thread. See [sched_setaffinity(2)](https://man7.org/linux/man-pages/man2/sched_setaffinity.2.html).
pub fn sched_setaffinity(cx: &mut Cx<'_>, tid: Tid, len: usize, mask: UserAddr) -> SysResult {
    let thread = thread_by_id(cx, tid).map_err(|_| Errno::ESRCH)?;
    may_schedule(cx, &thread)?;
    let mut words = crate::task::Attrs::new(cx.kernel.host.cpus).affinity;
    let mut bytes = vec![0; words.len() * 8];
    let count = bytes.len().min(len);
    cx.mm().read(mask, &mut bytes[..count])?;
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word &= bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    if words.iter().all(|word| *word == 0) {
        return Err(Errno::EINVAL.into());
    }
    thread.attrs.lock().affinity = words;
    Ok(0)
}

/// The owner of a thread, or CAP_SYS_NICE.
fn may_schedule(cx: &Cx<'_>, target: &Thread) -> Result<()> {
    let (caller, target) = (cx.cred(), target.cred());
    let is_owner = caller.euid == target.euid || caller.euid == target.ruid;
    if is_owner || caller.has(Caps::SYS_NICE) { Ok(()) } else { Err(Errno::EPERM) }
}

/// sched_getscheduler: policy of a thread. See [sched_setscheduler(2)](https://man7.org/linux/man-pages/man2/sched_setscheduler.2.html).
pub fn sched_getscheduler(cx: &mut Cx<'_>, tid: Tid) -> SysResult {
    let thread = thread_by_id(cx, tid)?;
    let attrs = thread.attrs.lock();
    let reset = if attrs.reset_on_fork { SCHED_RESET_ON_FORK } else { 0 };
    Ok(u64::from(attrs.policy | reset))
}

/// sched_setscheduler: sets policy and priority. See [sched_setscheduler(2)](https://man7.org/linux/man-pages/man2/sched_setscheduler.2.html).
pub fn sched_setscheduler(cx: &mut Cx<'_>, tid: Tid, policy: u32, param: In<u32>) -> SysResult {
    let priority = param.optional().ok_or(Errno::EINVAL)?.read(&cx.mm())?;
    let thread = thread_by_id(cx, tid)?;
    set_policy(cx, &thread, policy, priority)?;
    Ok(0)
}

fn set_policy(cx: &Cx<'_>, thread: &Thread, policy: u32, priority: u32) -> Result<()> {
    let (reset, policy) = (policy & SCHED_RESET_ON_FORK != 0, policy & !SCHED_RESET_ON_FORK);
    let is_valid = match policy {
        SCHED_FIFO | SCHED_RR => (1..=99).contains(&priority),
        SCHED_OTHER | SCHED_BATCH | SCHED_IDLE => priority == 0,
        _ => false,
    };
    if !is_valid {
        return Err(Errno::EINVAL);
    }
    may_schedule(cx, thread)?;
    let is_real_time = matches!(policy, SCHED_FIFO | SCHED_RR);
    let limit = thread.group.limit(Resource::Rtprio);
    if is_real_time && u64::from(priority) > limit && !cx.cred().has(Caps::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let mut attrs = thread.attrs.lock();
    (attrs.policy, attrs.rt_priority, attrs.reset_on_fork) = (policy, priority, reset);
    Ok(())
}

/// sched_getparam: priority of a thread. See [sched_setparam(2)](https://man7.org/linux/man-pages/man2/sched_setparam.2.html).
pub fn sched_getparam(cx: &mut Cx<'_>, tid: Tid, param: Out<u32>) -> SysResult {
    let param = param.optional().ok_or(Errno::EINVAL)?;
    let priority = thread_by_id(cx, tid)?.attrs.lock().rt_priority;
    param.write(&cx.mm(), &priority)?;
    Ok(0)
}

/// sched_setparam: sets the priority. See [sched_setparam(2)](https://man7.org/linux/man-pages/man2/sched_setparam.2.html).
pub fn sched_setparam(cx: &mut Cx<'_>, tid: Tid, param: In<u32>) -> SysResult {
    let priority = param.optional().ok_or(Errno::EINVAL)?.read(&cx.mm())?;
    let thread = thread_by_id(cx, tid)?;
    let policy = thread.attrs.lock().policy;
    set_policy(cx, &thread, policy, priority)?;
    Ok(0)
}

/// sched_get_priority_max: see [sched_get_priority_max(2)](https://man7.org/linux/man-pages/man2/sched_get_priority_max.2.html).
pub fn sched_get_priority_max(_cx: &mut Cx<'_>, policy: u32) -> SysResult {
    priority_bound(policy, 99)
}

/// sched_get_priority_min: see [sched_get_priority_max(2)](https://man7.org/linux/man-pages/man2/sched_get_priority_max.2.html).
pub fn sched_get_priority_min(_cx: &mut Cx<'_>, policy: u32) -> SysResult {
    priority_bound(policy, 1)
}

fn priority_bound(policy: u32, real_time: u64) -> SysResult {
    match policy {
        SCHED_FIFO | SCHED_RR => Ok(real_time),
        // SCHED_DEADLINE and SCHED_EXT have none either.
        SCHED_OTHER | SCHED_BATCH | SCHED_IDLE | 6 => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// sched_rr_get_interval: see [sched_rr_get_interval(2)](https://man7.org/linux/man-pages/man2/sched_rr_get_interval.2.html).
pub fn sched_rr_get_interval(cx: &mut Cx<'_>, tid: Tid, out: Out<Timespec>) -> SysResult {
    let thread = thread_by_id(cx, tid)?;
    let nsec = match thread.attrs.lock().policy {
        SCHED_FIFO => 0,
        SCHED_RR => 100_000_000,
        _ => 3_000_000,
    };
    out.write(&cx.mm(), &Timespec { sec: 0, nsec })?;
    Ok(0)
}

/// `struct sched_attr`, first version.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// sched_getattr: see [sched_setattr(2)](https://man7.org/linux/man-pages/man2/sched_setattr.2.html).
pub fn sched_getattr(cx: &mut Cx<'_>, tid: Tid, out: UserAddr, size: u32, flags: u32) -> SysResult {
    let own_size = size_of::<SchedAttr>();
    if flags != 0 || (size as usize) < own_size || size > 4096 {
        return Err(Errno::EINVAL.into());
    }
    let attrs = thread_by_id(cx, tid)?.attrs.lock().clone();
    let attr = SchedAttr {
        size: 48,
        policy: attrs.policy,
        flags: u64::from(attrs.reset_on_fork),
        nice: attrs.nice,
        priority: attrs.rt_priority,
        ..SchedAttr::default()
    };
    UserRef::new(out).write(&cx.mm(), &attr)?;
    Ok(0)
}

/// sched_setattr: see [sched_setattr(2)](https://man7.org/linux/man-pages/man2/sched_setattr.2.html).
pub fn sched_setattr(cx: &mut Cx<'_>, tid: Tid, new: In<SchedAttr>, flags: u32) -> SysResult {
    let attr = new.optional().ok_or(Errno::EINVAL)?.read(&cx.mm())?;
    if flags != 0 || attr.flags > 1 {
        return Err(Errno::EINVAL.into());
    }
    let thread = thread_by_id(cx, tid)?;
    let reset = if attr.flags & 1 != 0 { SCHED_RESET_ON_FORK } else { 0 };
    set_policy(cx, &thread, attr.policy | reset, attr.priority)?;
    if matches!(attr.policy, SCHED_OTHER | SCHED_BATCH) {
        set_nice(cx, &thread, attr.nice.clamp(-20, 19)).map_err(|_| Errno::EPERM)?;
    }
    Ok(0)
}

/// getpriority: 20 minus the nice value. See [getpriority(2)](https://man7.org/linux/man-pages/man2/getpriority.2.html).
pub fn getpriority(cx: &mut Cx<'_>, which: i32, who: i32) -> SysResult {
    let targets = targets(cx, which, who)?;
    let best = targets.iter().map(|thread| 20 - thread.attrs.lock().nice).max();
    Ok(u64::from(best.ok_or(Errno::ESRCH)?.cast_unsigned()))
}

/// setpriority: sets the nice value. See [getpriority(2)](https://man7.org/linux/man-pages/man2/getpriority.2.html).
pub fn setpriority(cx: &mut Cx<'_>, which: i32, who: i32, nice: i32) -> SysResult {
    let targets = targets(cx, which, who)?;
    let mut result = Err(Errno::ESRCH);
    for thread in targets {
        match set_nice(cx, &thread, nice.clamp(-20, 19)) {
            Ok(()) if matches!(result, Err(Errno::ESRCH)) => result = Ok(()),
            Ok(()) => {}
            Err(errno) => result = Err(errno),
        }
    }
    result?;
    Ok(0)
}

fn set_nice(cx: &Cx<'_>, thread: &Thread, nice: i32) -> Result<()> {
    may_schedule(cx, thread)?;
    let current = thread.attrs.lock().nice;
    let floor = 20 - i64::try_from(thread.group.limit(Resource::Nice)).unwrap_or(40).min(40);
    if nice < current && i64::from(nice) < floor && !cx.cred().has(Caps::SYS_NICE) {
        return Err(Errno::EACCES);
    }
    thread.attrs.lock().nice = nice;
    Ok(())
}

/// PRIO_PROCESS, PRIO_PGRP, PRIO_USER; IOPRIO_WHO_* are one higher.
fn targets(cx: &Cx<'_>, which: i32, who: i32) -> Result<Vec<Arc<Thread>>> {
    let tables = cx.kernel.tasks.lock();
    let threads = tables.threads.values();
    Ok(match which {
        0 if who == 0 => vec![Arc::clone(cx.thread)],
        0 => tables.threads.get(&Tid(who)).cloned().into_iter().collect(),
        1 => {
            let pgid = if who == 0 { cx.thread.group.pgid() } else { Tid(who) };
            threads.filter(|thread| thread.group.pgid() == pgid).cloned().collect()
        }
        2 => {
            let uid = if who == 0 { cx.cred().ruid } else { Uid(who.cast_unsigned()) };
            threads.filter(|thread| thread.cred().ruid == uid).cloned().collect()
        }
        _ => return Err(Errno::EINVAL),
    })
}

/// ioprio_get: I/O priority. See [ioprio_set(2)](https://man7.org/linux/man-pages/man2/ioprio_set.2.html).
pub fn ioprio_get(cx: &mut Cx<'_>, which: i32, who: i32) -> SysResult {
    let targets = targets(cx, which.checked_sub(1).ok_or(Errno::EINVAL)?, who)?;
    let best = targets.iter().map(|thread| thread.attrs.lock().io_priority).min();
    Ok(u64::from(best.ok_or(Errno::ESRCH)?))
}

/// ioprio_set: sets the I/O priority. See [ioprio_set(2)](https://man7.org/linux/man-pages/man2/ioprio_set.2.html).
pub fn ioprio_set(cx: &mut Cx<'_>, which: i32, who: i32, priority: i32) -> SysResult {
    let (class, level) = (priority >> 13, priority & 0x1fff);
    let is_valid = match class {
        0 => level == 0,
        1 | 2 => level & 7 == level,
        3 => true,
        _ => false,
    };
    let value = u16::try_from(priority).map_err(|_| Errno::EINVAL)?;
    if !is_valid {
        return Err(Errno::EINVAL.into());
    }
    if class == 1 && !cx.cred().has(Caps::SYS_ADMIN) && !cx.cred().has(Caps::SYS_NICE) {
        return Err(Errno::EPERM.into());
    }
    let targets = targets(cx, which.checked_sub(1).ok_or(Errno::EINVAL)?, who)?;
    if targets.is_empty() {
        return Err(Errno::ESRCH.into());
    }
    for thread in targets {
        may_schedule(cx, &thread)?;
        thread.attrs.lock().io_priority = value;
    }
    Ok(0)
}
