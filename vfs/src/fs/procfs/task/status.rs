//! /proc/PID/status. See proc_pid_status(5).

use std::fmt::Write as _;

use abi::Result;
use base::cred::Credentials;

use super::table::Asked;
use crate::fs::procfs::system::cpu_list;
use crate::fs::procfs::view::TaskMemory;

const RLIMIT_SIGPENDING: usize = 11;

pub fn show(asked: &Asked<'_>) -> Result<Vec<u8>> {
    let task = asked.task;
    let mut out = String::new();
    // What a String cannot refuse needs no error.
    let _ = head(&mut out, asked);
    if let Some(memory) = task.memory() {
        let _ = sizes(&mut out, &memory);
    }
    let _ = rest(&mut out, asked);
    Ok(out.into_bytes())
}

fn head(out: &mut String, asked: &Asked<'_>) -> std::fmt::Result {
    let task = asked.task;
    let (ids, cred) = (task.ids(), task.cred());
    writeln!(out, "Name:\t{}", task.comm().escape_ascii())?;
    if let Some(umask) = task.umask() {
        writeln!(out, "Umask:\t{umask:04o}")?;
    }
    writeln!(out, "State:\t{}", asked.state().text())?;
    writeln!(out, "Tgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{}", ids.tgid, ids.tid, ids.ppid)?;
    writeln!(out, "TracerPid:\t0")?;
    writeln!(out, "Uid:\t{}\t{}\t{}\t{}", cred.ruid, cred.euid, cred.suid, cred.fsuid)?;
    writeln!(out, "Gid:\t{}\t{}\t{}\t{}", cred.rgid, cred.egid, cred.sgid, cred.fsgid)?;
    writeln!(out, "FDSize:\t{}", task.fd_slots())?;
    out.push_str("Groups:\t");
    for group in cred.groups.iter() {
        write!(out, "{group} ")?;
    }
    if cred.groups.is_empty() {
        out.push(' ');
    }
    writeln!(out, "\nNStgid:\t{}\nNSpid:\t{}", ids.tgid, ids.tid)?;
    writeln!(out, "NSpgid:\t{}\nNSsid:\t{}\nKthread:\t0", ids.pgid, ids.sid)
}

fn sizes(out: &mut String, memory: &TaskMemory) -> std::fmt::Result {
    let anonymous = memory.resident.saturating_sub(memory.resident_file);
    let rows = [
        ("VmPeak", memory.peak_size.max(memory.size)),
        ("VmSize", memory.size),
        ("VmLck", memory.locked),
        ("VmPin", 0),
        ("VmHWM", memory.peak_resident.max(memory.resident)),
        ("VmRSS", memory.resident),
        ("RssAnon", anonymous),
        ("RssFile", memory.resident_file),
        ("RssShmem", 0),
        ("VmData", memory.data),
        ("VmStk", memory.stack),
        ("VmExe", memory.text),
        ("VmLib", memory.library),
        ("VmPTE", memory.resident / 512 + 32768),
        ("VmSwap", memory.swap),
        ("HugetlbPages", 0),
    ];
    for (name, bytes) in rows {
        writeln!(out, "{name}:\t{:8} kB", bytes / 1024)?;
    }
    writeln!(out, "CoreDumping:\t0\nTHP_enabled:\t1\nuntag_mask:\t0xffffffffffffffff")
}

fn capabilities(out: &mut String, cred: &Credentials) -> std::fmt::Result {
    let rows = [
        ("CapInh", cred.inheritable),
        ("CapPrm", cred.permitted),
        ("CapEff", cred.effective),
        ("CapBnd", cred.bounding),
        ("CapAmb", cred.ambient),
    ];
    for (name, caps) in rows {
        writeln!(out, "{name}:\t{:016x}", caps.bits())?;
    }
    Ok(())
}

fn rest(out: &mut String, asked: &Asked<'_>) -> std::fmt::Result {
    let task = asked.task;
    let (signals, sched) = (task.signals(), task.scheduling());
    let limit = task.limits().get(RLIMIT_SIGPENDING).map_or(0, |limit| limit.0);
    writeln!(out, "Threads:\t{}", task.threads().len().max(1))?;
    writeln!(out, "SigQ:\t{}/{limit}", signals.queued)?;
    let rows = [
        ("SigPnd", signals.pending),
        ("ShdPnd", signals.shared_pending),
        ("SigBlk", signals.blocked),
        ("SigIgn", signals.ignored),
        ("SigCgt", signals.caught),
    ];
    for (name, set) in rows {
        writeln!(out, "{name}:\t{set:016x}")?;
    }
    capabilities(out, &task.cred())?;
    writeln!(out, "NoNewPrivs:\t{}", u8::from(task.no_new_privs()))?;
    writeln!(out, "Seccomp:\t0\nSeccomp_filters:\t0")?;
    writeln!(out, "Speculation_Store_Bypass:\tthread vulnerable")?;
    writeln!(out, "SpeculationIndirectBranch:\tconditional enabled")?;
    writeln!(out, "Cpus_allowed:\t{}", cpu_mask(&sched.affinity))?;
    writeln!(out, "Cpus_allowed_list:\t{}", cpu_list(&sched.affinity))?;
    writeln!(out, "Mems_allowed:\t1\nMems_allowed_list:\t0")?;
    let times = task.times(asked.at.scope);
    writeln!(out, "voluntary_ctxt_switches:\t{}", times.voluntary_switches)?;
    writeln!(out, "nonvoluntary_ctxt_switches:\t{}", times.involuntary_switches)
}

/// Groups of 32 bits, highest first, as `%*pb` prints.
fn cpu_mask(words: &[u64]) -> String {
    let halves: Vec<u32> =
        words.iter().flat_map(|word| [*word as u32, (*word >> 32) as u32]).collect();
    let used = halves.iter().rposition(|half| *half != 0).unwrap_or(0);
    let mut text = format!("{:x}", halves.get(used).copied().unwrap_or(0));
    for half in halves.iter().take(used).rev() {
        text.push_str(&format!(",{half:08x}"));
    }
    text
}
