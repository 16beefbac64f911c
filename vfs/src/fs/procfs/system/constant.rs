//! Files that never change.

use crate::fs::procfs::view::SystemView;

pub fn empty(_: &dyn SystemView) -> String {
    String::new()
}

pub fn cmdline(_: &dyn SystemView) -> String {
    "quiet\n".into()
}

pub fn version(view: &dyn SystemView) -> String {
    let uts = view.uts();
    format!("Linux version {} (root@sandbox) (rustc) {}\n", uts.release, uts.version)
}

/// What mount(2) knows.
pub fn filesystems(_: &dyn SystemView) -> String {
    let virtual_ones =
        ["sysfs", "tmpfs", "proc", "devtmpfs", "devpts", "pipefs", "sockfs", "overlay", "ramfs"];
    virtual_ones.iter().map(|name| format!("nodev\t{name}\n")).collect()
}

pub fn devices(_: &dyn SystemView) -> String {
    "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\n\
     Block devices:\n"
        .into()
}

pub fn partitions(_: &dyn SystemView) -> String {
    "major minor  #blocks  name\n\n".into()
}

pub fn swaps(_: &dyn SystemView) -> String {
    "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".into()
}

pub fn cgroups(_: &dyn SystemView) -> String {
    "#subsys_name\thierarchy\tnum_cgroups\tenabled\n".into()
}

/// Only the heading: there are no devices that interrupt.
pub fn interrupts(view: &dyn SystemView) -> String {
    let mut text = String::from("           ");
    for cpu in 0..view.cpus() {
        text.push_str(&format!("CPU{cpu:<8}"));
    }
    text.push('\n');
    text
}
