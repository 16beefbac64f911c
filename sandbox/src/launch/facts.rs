//! Facts of the host that the guest may see; read before anything is confined.

use std::os::fd::OwnedFd;

use sentry::config::HostFacts;

/// The ABI we offer: a long-term kernel of today, whatever the host runs.
const KERNEL_RELEASE: &str = "6.12.0";

pub fn read() -> HostFacts {
    let memory = rustix::system::sysinfo();
    let bytes = |units| u64::from(memory.mem_unit).saturating_mul(units);
    let cpus = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count()).max(1);
    HostFacts {
        cpuinfo: std::fs::File::open("/proc/cpuinfo").ok().map(OwnedFd::from),
        cpus,
        mem_total: bytes(memory.totalram),
        swap_total: bytes(memory.totalswap),
        kernel_release: KERNEL_RELEASE.into(),
    }
}
