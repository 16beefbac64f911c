//! /proc/stat. See proc_stat(5).

use super::ticks;
use crate::fs::procfs::view::SystemView;

pub fn show(view: &dyn SystemView) -> String {
    let (times, counters, cpus) = (view.cpu_times(), view.counters(), view.cpus().max(1));
    let line = |name: &str, share: u64| {
        let (user, system, idle) =
            (ticks(times.user) / share, ticks(times.system) / share, ticks(times.idle) / share);
        format!("{name} {user} 0 {system} {idle} 0 0 0 0 0 0\n")
    };
    let mut text = line("cpu ", 1);
    for cpu in 0..cpus {
        text.push_str(&line(&format!("cpu{cpu}"), u64::from(cpus)));
    }
    text.push_str(&format!(
        "intr 0\nctxt {}\nbtime {}\nprocesses {}\nprocs_running {}\nprocs_blocked {}\n\
         softirq 0 0 0 0 0 0 0 0 0 0 0\n",
        counters.context_switches,
        view.boot_time(),
        counters.forks,
        counters.running.max(1),
        counters.blocked
    ));
    text
}
