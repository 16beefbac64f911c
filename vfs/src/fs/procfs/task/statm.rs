//! /proc/PID/statm: pages. See proc_pid_statm(5).

use abi::Result;

use super::table::Asked;

const PAGE: u64 = 4096;

pub fn show(asked: &Asked<'_>) -> Result<Vec<u8>> {
    let memory = asked.task.memory().unwrap_or_default();
    Ok(format!(
        "{} {} {} {} 0 {} 0\n",
        memory.size / PAGE,
        memory.resident / PAGE,
        memory.resident_file / PAGE,
        memory.text / PAGE,
        (memory.data + memory.stack) / PAGE
    )
    .into_bytes())
}
