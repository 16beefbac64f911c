//! /sys/fs/cgroup: the root of a version 2 hierarchy with the sandbox's limits, which JVM, Go, node and others size
//! themselves by. Nothing can be made in it.

use super::Machine;
use super::tree::Tree;

fn limit(value: Option<u64>) -> String {
    value.map_or_else(|| "max".to_owned(), |value| value.to_string())
}

pub fn add_to(tree: &mut Tree, machine: &Machine) {
    let top = "fs/cgroup";
    for (name, value) in [
        ("cgroup.controllers", "cpu memory pids".to_owned()),
        ("cgroup.subtree_control", String::new()),
        ("cgroup.type", "domain".to_owned()),
        ("cpu.max", "max 100000".to_owned()),
        ("cpu.weight", "100".to_owned()),
        ("memory.max", limit(machine.memory_limit)),
        ("memory.high", "max".to_owned()),
        ("memory.low", "0".to_owned()),
        ("memory.min", "0".to_owned()),
        ("memory.swap.max", "max".to_owned()),
        ("pids.max", limit(machine.pids_limit.map(u64::from))),
    ] {
        tree.file(&format!("{top}/{name}"), value);
    }
}
