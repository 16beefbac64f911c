//! The small files: comm, oom_score_adj, io, cgroup and the like.

use abi::{Errno, Result};
use base::cred::Caps;

use super::table::Asked;
use crate::fs::procfs::system::parse_trimmed;

fn line(text: impl std::fmt::Display) -> Result<Vec<u8>> {
    Ok(format!("{text}\n").into_bytes())
}

pub fn comm(asked: &Asked<'_>) -> Result<Vec<u8>> {
    let mut name = asked.task.comm();
    name.push(b'\n');
    Ok(name)
}

/// Threads of the same process only.
pub fn set_comm(asked: &Asked<'_>, text: &[u8]) -> Result<()> {
    if asked.task.ids().tgid != asked.cx.caller.tgid {
        return Err(Errno::EINVAL);
    }
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    asked.task.set_comm(text.get(..end.min(15)).unwrap_or(&[]));
    Ok(())
}

pub fn personality(asked: &Asked<'_>) -> Result<Vec<u8>> {
    line(format_args!("{:08x}", asked.task.personality()))
}

pub fn oom_score(asked: &Asked<'_>) -> Result<Vec<u8>> {
    // Linux shows 2/3 of (badness in thousandths + adjustment + 1000); memory use hardly moves it.
    line((1000 + i64::from(asked.task.oom_score_adj())) * 2 / 3)
}

pub fn oom_score_adj(asked: &Asked<'_>) -> Result<Vec<u8>> {
    line(asked.task.oom_score_adj())
}

pub fn set_oom_score_adj(asked: &Asked<'_>, text: &[u8]) -> Result<()> {
    let value: i32 = parse_trimmed(text)?;
    if !(-1000..=1000).contains(&value) {
        return Err(Errno::EINVAL);
    }
    let lowers = value < asked.task.oom_score_adj();
    if lowers && !asked.cx.cred.has(Caps::SYS_RESOURCE) {
        return Err(Errno::EACCES);
    }
    asked.task.set_oom_score_adj(value);
    Ok(())
}

/// The older scale, -17 to 15.
pub fn oom_adj(asked: &Asked<'_>) -> Result<Vec<u8>> {
    let value = asked.task.oom_score_adj();
    line(if value == 1000 { 15 } else { value * 17 / 1000 })
}

pub fn set_oom_adj(asked: &Asked<'_>, text: &[u8]) -> Result<()> {
    let value: i32 = parse_trimmed(text)?;
    if !(-17..=15).contains(&value) {
        return Err(Errno::EINVAL);
    }
    let scaled = if value == 15 { 1000 } else { value * 1000 / 17 };
    set_oom_score_adj(asked, scaled.to_string().as_bytes())
}

pub fn io(asked: &Asked<'_>) -> Result<Vec<u8>> {
    let io = asked.task.io();
    let (rchar, wchar, syscr, syscw) =
        (io.read_chars, io.write_chars, io.read_calls, io.write_calls);
    Ok(format!(
        "rchar: {rchar}\nwchar: {wchar}\nsyscr: {syscr}\nsyscw: {syscw}\n\
         read_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n"
    )
    .into_bytes())
}

pub fn sched(asked: &Asked<'_>) -> Result<Vec<u8>> {
    let (ids, sched) = (asked.task.ids(), asked.task.scheduling());
    let times = asked.task.times(asked.at.scope);
    let name = asked.task.comm();
    let runtime = (times.user_ns + times.system_ns) as f64 / 1e6;
    let switches = times.voluntary_switches + times.involuntary_switches;
    let rule = "-".repeat(67);
    Ok(format!(
        "{} ({}, #threads: {})\n{rule}\n\
         se.sum_exec_runtime                          : {runtime:20.6}\n\
         nr_switches                                  : {switches:20}\n\
         nr_voluntary_switches                        : {:20}\n\
         nr_involuntary_switches                      : {:20}\n\
         policy                                       : {:20}\n\
         prio                                         : {:20}\n",
        name.escape_ascii(),
        ids.tid,
        asked.task.threads().len(),
        times.voluntary_switches,
        times.involuntary_switches,
        sched.policy,
        120 + sched.nice
    )
    .into_bytes())
}

pub fn schedstat(asked: &Asked<'_>) -> Result<Vec<u8>> {
    let times = asked.task.times(asked.at.scope);
    let switches = times.voluntary_switches + times.involuntary_switches;
    line(format_args!("{} 0 {switches}", times.user_ns + times.system_ns))
}

pub fn syscall(_: &Asked<'_>) -> Result<Vec<u8>> {
    line("running")
}

/// What Linux shows when it does not tell.
pub fn wchan(_: &Asked<'_>) -> Result<Vec<u8>> {
    Ok(b"0".to_vec())
}

pub fn empty(_: &Asked<'_>) -> Result<Vec<u8>> {
    Ok(Vec::new())
}

pub fn cgroup(_: &Asked<'_>) -> Result<Vec<u8>> {
    line("0::/")
}

pub fn cpuset(_: &Asked<'_>) -> Result<Vec<u8>> {
    line("/")
}

/// Nobody has logged in, as after boot.
pub fn loginuid(_: &Asked<'_>) -> Result<Vec<u8>> {
    Ok(u32::MAX.to_string().into_bytes())
}

pub fn set_loginuid(_: &Asked<'_>, _: &[u8]) -> Result<()> {
    Err(Errno::EPERM)
}

/// The initial user namespace: everyone is who they are.
pub fn id_map(_: &Asked<'_>) -> Result<Vec<u8>> {
    line(format_args!("{:10} {:10} {:10}", 0, 0, u32::MAX))
}

pub fn setgroups(_: &Asked<'_>) -> Result<Vec<u8>> {
    line("allow")
}

pub fn set_refused(_: &Asked<'_>, _: &[u8]) -> Result<()> {
    Err(Errno::EPERM)
}

pub fn coredump_filter(_: &Asked<'_>) -> Result<Vec<u8>> {
    line("00000033")
}

/// Valid, and without effect: there are no core dumps to filter.
pub fn set_ignored(_: &Asked<'_>, _: &[u8]) -> Result<()> {
    Ok(())
}

pub fn autogroup(_: &Asked<'_>) -> Result<Vec<u8>> {
    line("/autogroup-1 nice 0")
}

pub fn timer_slack(asked: &Asked<'_>) -> Result<Vec<u8>> {
    line(asked.task.timer_slack_ns())
}
