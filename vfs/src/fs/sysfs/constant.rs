//! What never changes.

use super::tree::Tree;

pub fn add_to(tree: &mut Tree) {
    for path in [
        "block",
        "bus",
        "class/block",
        "class/tty",
        "class/misc",
        "dev/block",
        "dev/char",
        "devices/virtual",
        "firmware",
        "fs",
        "hypervisor",
        "kernel/debug",
        "kernel/security",
        "kernel/tracing",
        "module",
        "power",
    ] {
        tree.dir(path);
    }
    add_huge_pages(tree);
    add_loopback(tree);
    tree.file("kernel/uevent_seqnum", 0);
    tree.file("devices/system/clocksource/clocksource0/current_clocksource", "tsc");
    tree.file("devices/system/clocksource/clocksource0/available_clocksource", "tsc");
}

fn add_huge_pages(tree: &mut Tree) {
    let top = "kernel/mm/transparent_hugepage";
    for (name, value) in [
        ("enabled", "always [madvise] never"),
        ("defrag", "always defer defer+madvise [madvise] never"),
        ("shmem_enabled", "always within_size advise [never] deny force"),
        ("hpage_pmd_size", "2097152"),
        ("use_zero_page", "1"),
    ] {
        tree.file(&format!("{top}/{name}"), value);
    }
    let top = "kernel/mm/hugepages/hugepages-2048kB";
    for name in ["nr_hugepages", "free_hugepages", "resv_hugepages", "surplus_hugepages"] {
        tree.file(&format!("{top}/{name}"), 0);
    }
}

fn add_loopback(tree: &mut Tree) {
    tree.link("class/net/lo", "../../devices/virtual/net/lo");
    let top = "devices/virtual/net/lo";
    for (name, value) in [
        ("address", "00:00:00:00:00:00"),
        ("addr_len", "6"),
        ("broadcast", "00:00:00:00:00:00"),
        ("carrier", "1"),
        ("dev_id", "0x0"),
        ("flags", "0x9"),
        ("ifindex", "1"),
        ("iflink", "1"),
        ("mtu", "65536"),
        ("operstate", "unknown"),
        ("tx_queue_len", "1000"),
        ("type", "772"),
    ] {
        tree.file(&format!("{top}/{name}"), value);
    }
    for name in ["rx_bytes", "rx_packets", "rx_errors", "tx_bytes", "tx_packets", "tx_errors"] {
        tree.file(&format!("{top}/statistics/{name}"), 0);
    }
}
