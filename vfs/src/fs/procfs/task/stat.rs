//! /proc/PID/stat. See proc_pid_stat(5).

use abi::Result;

use super::may_inspect;
use super::table::Asked;
use crate::fs::procfs::system::ticks;
use crate::fs::procfs::view::{Scope, TaskState};

/// `PF_RANDOMIZE`, as most tasks of a host show it.
const FLAGS: u32 = 0x0040_0000;
const RLIMIT_RSS: usize = 5;
const PAGE: u64 = 4096;

pub fn show(asked: &Asked<'_>) -> Result<Vec<u8>> {
    let task = asked.task;
    let (ids, scope) = (task.ids(), asked.at.scope);
    let (times, sched, signals) = (task.times(scope), task.scheduling(), task.signals());
    let memory = task.memory().unwrap_or_default();
    let may_see = may_inspect(asked.cx, task);
    let secret = |address: u64| if may_see { address } else { 0 };
    let rss_limit = task.limits().get(RLIMIT_RSS).map_or(u64::MAX, |limit| limit.0);
    let is_zombie = task.state() == TaskState::Zombie;
    let threads = task.threads().len().max(1);
    let number = if scope == Scope::Process { ids.tgid } else { ids.tid };

    let mut text = format!("{number} (").into_bytes();
    text.extend_from_slice(&task.comm());
    let fields: [u64; 40] = [
        u64::from(FLAGS),
        times.minor_faults,
        0,
        times.major_faults,
        0,
        ticks(times.user_ns),
        ticks(times.system_ns),
        ticks(times.children_user_ns),
        ticks(times.children_system_ns),
        priority(sched.policy, sched.rt_priority, sched.nice) as u64,
        i64::from(sched.nice) as u64,
        threads as u64,
        0,
        ticks(times.start_ns),
        memory.size,
        memory.resident / PAGE,
        rss_limit,
        secret(memory.start_code),
        secret(memory.end_code),
        secret(memory.start_stack),
        0,
        0,
        // 31 bits only, as Linux keeps it for old readers.
        signals.pending & 0x7fff_ffff,
        signals.blocked & 0x7fff_ffff,
        signals.ignored & 0x7fff_ffff,
        signals.caught & 0x7fff_ffff,
        0,
        0,
        0,
        signals.exit_signal as u64,
        u64::from(sched.last_cpu),
        u64::from(sched.rt_priority),
        u64::from(sched.policy),
        0,
        0,
        0,
        secret(memory.start_data),
        secret(memory.end_data),
        secret(memory.start_brk),
        secret(memory.arg_start),
    ];
    let head = format!(
        ") {} {} {} {} {} {}",
        asked.state().letter(),
        ids.ppid,
        ids.pgid,
        ids.sid,
        ids.tty as u32,
        ids.tty_pgid
    );
    text.extend_from_slice(head.as_bytes());
    for (at, field) in fields.iter().enumerate() {
        // Priority, nice and exit signal may be negative.
        let is_signed = matches!(at, 9 | 10 | 29);
        let shown = if is_signed { (*field as i64).to_string() } else { field.to_string() };
        text.push(b' ');
        text.extend_from_slice(shown.as_bytes());
    }
    let exit_code = if may_see && is_zombie { signals.exit_code } else { 0 };
    let tail = format!(
        " {} {} {} {exit_code}\n",
        secret(memory.arg_end),
        secret(memory.env_start),
        secret(memory.env_end)
    );
    text.extend_from_slice(tail.as_bytes());
    Ok(text)
}

/// The kernel's priority less 100: 20 + nice, or -1 - priority for real-time policies.
fn priority(policy: u32, rt_priority: u32, nice: i32) -> i64 {
    match policy {
        1 | 2 => -1 - i64::from(rt_priority),
        _ => 20 + i64::from(nice),
    }
}
