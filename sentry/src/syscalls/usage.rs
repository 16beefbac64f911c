//! Time and memory used.

use abi::clone::RusageBuf;
use abi::{Errno, Result};

use crate::cx::Cx;
use crate::error::SysResult;
use crate::syscalls::args::Out;
use crate::task::Rusage;

const NANOS_PER_SEC: u64 = 1_000_000_000;
/// Clock ticks are 10 ms (`USER_HZ`).
const NANOS_PER_TICK: u64 = 10_000_000;

const RUSAGE_SELF: i32 = 0;
const RUSAGE_CHILDREN: i32 = -1;
const RUSAGE_THREAD: i32 = 1;

/// getrusage: resources used. See [getrusage(2)](https://man7.org/linux/man-pages/man2/getrusage.2.html).
pub fn getrusage(cx: &mut Cx<'_>, who: i32, out: Out<RusageBuf>) -> SysResult {
    let usage = match who {
        // The host accounts per address space: a thread is told what its process used.
        RUSAGE_SELF | RUSAGE_THREAD => cx.thread.group.rusage(),
        RUSAGE_CHILDREN => cx.thread.group.usage.lock().children,
        _ => return Err(Errno::EINVAL.into()),
    };
    out.write(&cx.mm(), &rusage_buf(&usage))?;
    Ok(0)
}

/// times: process times in clock ticks. See [times(2)](https://man7.org/linux/man-pages/man2/times.2.html).
pub fn times(cx: &mut Cx<'_>, out: Out<[u64; 4]>) -> SysResult {
    if let Some(out) = out.optional() {
        let own = cx.thread.group.rusage();
        let children = cx.thread.group.usage.lock().children;
        let ticks = [own.user_ns, own.system_ns, children.user_ns, children.system_ns];
        out.write(&cx.mm(), &ticks.map(|ns| ns / NANOS_PER_TICK))?;
    }
    Ok(cx.kernel.now() / NANOS_PER_TICK)
}

/// getcpu: processor and node of the caller. See [getcpu(2)](https://man7.org/linux/man-pages/man2/getcpu.2.html).
pub fn getcpu(cx: &mut Cx<'_>, cpu: Out<u32>, node: Out<u32>) -> SysResult {
    // Where a guest thread runs is the host's business; the first CPU of its affinity is as good an answer as any.
    let first = {
        let attrs = cx.thread.attrs.lock();
        let word = attrs.affinity.iter().position(|word| *word != 0).unwrap_or(0);
        let bit = attrs.affinity.get(word).map_or(0, |word| word.trailing_zeros());
        u32::try_from(word).unwrap_or(0) * 64 + bit
    };
    let mm = cx.mm();
    if let Some(cpu) = cpu.optional() {
        cpu.write(&mm, &first)?;
    }
    if let Some(node) = node.optional() {
        node.write(&mm, &0)?;
    }
    Ok(0)
}

/// In the ABI's form.
#[must_use]
pub fn rusage_buf(usage: &Rusage) -> RusageBuf {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let seconds = |ns: u64| signed(ns / NANOS_PER_SEC);
    let micros = |ns: u64| signed(ns % NANOS_PER_SEC / 1000);
    RusageBuf {
        utime_sec: seconds(usage.user_ns),
        utime_usec: micros(usage.user_ns),
        stime_sec: seconds(usage.system_ns),
        stime_usec: micros(usage.system_ns),
        maxrss: signed(usage.max_rss_bytes / 1024),
        minflt: signed(usage.minor_faults),
        majflt: signed(usage.major_faults),
        nvcsw: signed(usage.voluntary_switches),
        nivcsw: signed(usage.involuntary_switches),
        ..RusageBuf::default()
    }
}

/// Who is meant by `pid` in calls that take a thread: 0 is the caller.
pub fn thread_by_id(cx: &Cx<'_>, id: abi::ids::Tid) -> Result<std::sync::Arc<crate::task::Thread>> {
    if id.0 < 0 {
        return Err(Errno::EINVAL);
    }
    if id.0 == 0 {
        return Ok(std::sync::Arc::clone(cx.thread));
    }
    cx.kernel.tasks.thread(id).ok_or(Errno::ESRCH)
}
