//! Facts of the host that the guest may see; read before anything is confined.

use sentry::config::HostFacts;

/// The ABI we offer: a long-term kernel of today, whatever the host runs.
const KERNEL_RELEASE: &str = "6.12.0";

pub fn read() -> HostFacts {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let cpus = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count()).max(1);
    HostFacts {
        cpuinfo,
        cpus,
        mem_total: field(&meminfo, "MemTotal:"),
        swap_total: field(&meminfo, "SwapTotal:"),
        kernel_release: KERNEL_RELEASE.into(),
    }
}

/// A line of /proc/meminfo, in bytes.
fn field(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}
