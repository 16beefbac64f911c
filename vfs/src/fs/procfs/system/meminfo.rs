//! /proc/meminfo. See proc_meminfo(5).

use crate::fs::procfs::view::SystemView;

pub fn show(view: &dyn SystemView) -> String {
    let memory = view.memory();
    let rows = [
        ("MemTotal", memory.total),
        ("MemFree", memory.free),
        ("MemAvailable", memory.available),
        ("Buffers", 0),
        ("Cached", memory.cached),
        ("SwapCached", 0),
        ("Active", memory.anonymous + memory.cached / 2),
        ("Inactive", memory.cached / 2),
        ("Active(anon)", memory.anonymous),
        ("Inactive(anon)", 0),
        ("Active(file)", memory.cached / 2),
        ("Inactive(file)", memory.cached / 2),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", memory.swap_total),
        ("SwapFree", memory.swap_free),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", memory.anonymous),
        ("Mapped", memory.cached / 2),
        ("Shmem", memory.shared),
        ("KReclaimable", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("KernelStack", 0),
        ("PageTables", 0),
        ("NFS_Unstable", 0),
        ("Bounce", 0),
        ("WritebackTmp", 0),
        ("CommitLimit", memory.swap_total + memory.total / 2),
        ("Committed_AS", memory.committed),
        ("VmallocTotal", 34_359_738_367 * 1024),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
        ("Percpu", 0),
        ("AnonHugePages", 0),
        ("ShmemHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FileHugePages", 0),
        ("FilePmdMapped", 0),
    ];
    let mut text = String::new();
    for (name, bytes) in rows {
        let label = format!("{name}:");
        text.push_str(&format!("{label:<15} {:8} kB\n", bytes / 1024));
    }
    for name in ["HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp"] {
        let label = format!("{name}:");
        text.push_str(&format!("{label:<15} {:7}\n", 0));
    }
    text.push_str("Hugepagesize:       2048 kB\nHugetlb:               0 kB\n");
    text
}
