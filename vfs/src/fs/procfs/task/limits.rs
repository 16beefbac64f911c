//! /proc/PID/limits. See proc_pid_limits(5).

use std::fmt::Write as _;

use abi::Result;

use super::table::Asked;

/// Name and unit by `RLIMIT_*` number.
const ROWS: [(&str, &str); 16] = [
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
];

fn value(limit: u64) -> String {
    if limit == u64::MAX { "unlimited".into() } else { limit.to_string() }
}

pub fn show(asked: &Asked<'_>) -> Result<Vec<u8>> {
    let mut out =
        format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    let limits = asked.task.limits();
    for ((name, unit), (soft, hard)) in ROWS.iter().zip(limits) {
        let (soft, hard) = (value(soft), value(hard));
        // What a String cannot refuse needs no error.
        let _ = writeln!(out, "{name:<25} {soft:<20} {hard:<20} {unit:<10}");
    }
    Ok(out.into_bytes())
}
