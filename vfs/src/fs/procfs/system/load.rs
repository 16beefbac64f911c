//! /proc/loadavg and /proc/uptime.

use crate::fs::procfs::view::SystemView;

fn hundredths(value: u64) -> String {
    format!("{}.{:02}", value / 100, value % 100)
}

pub fn loadavg(view: &dyn SystemView) -> String {
    let load = view.load();
    let [one, five, fifteen] = load.hundredths.map(hundredths);
    format!("{one} {five} {fifteen} {}/{} {}\n", load.runnable, load.threads, load.last_pid)
}

pub fn uptime(view: &dyn SystemView) -> String {
    let (up, idle) = (view.uptime_ns(), view.cpu_times().idle);
    format!("{} {}\n", hundredths(up / 10_000_000), hundredths(idle / 10_000_000))
}
