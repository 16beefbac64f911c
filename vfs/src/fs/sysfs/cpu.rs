//! /sys/devices/system/cpu and node: one package, one thread per core, one memory node.

use super::Machine;
use super::tree::Tree;

/// Bit mask of CPUs `0..cpus`, in groups of 32 bits.
fn mask(cpus: u32) -> String {
    let groups = cpus.div_ceil(32).max(1);
    let group = |index: u32| match cpus.saturating_sub(index * 32) {
        0 => 0,
        32.. => u32::MAX,
        left => (1 << left) - 1,
    };
    let mut text = format!("{:x}", group(groups - 1));
    for index in (0..groups - 1).rev() {
        text.push_str(&format!(",{:08x}", group(index)));
    }
    text
}

/// Mask with only `cpu`.
fn single_mask(cpu: u32) -> String {
    format!("{:x}{}", 1u32 << (cpu % 32), ",00000000".repeat((cpu / 32) as usize))
}

pub fn add_to(tree: &mut Tree, machine: &Machine) {
    let cpus = machine.cpus.max(1);
    let all = if cpus == 1 { "0".to_owned() } else { format!("0-{}", cpus - 1) };
    let top = "devices/system/cpu";
    for name in ["online", "possible", "present"] {
        tree.file(&format!("{top}/{name}"), &all);
    }
    for name in ["offline", "isolated", "nohz_full"] {
        tree.file(&format!("{top}/{name}"), "");
    }
    tree.file(&format!("{top}/kernel_max"), cpus - 1);
    tree.file(&format!("{top}/smt/active"), 0);
    tree.file(&format!("{top}/smt/control"), "notsupported");
    for cpu in 0..cpus {
        let at = format!("{top}/cpu{cpu}");
        tree.file(&format!("{at}/online"), 1);
        for (name, value) in [
            ("physical_package_id", "0".to_owned()),
            ("die_id", "0".to_owned()),
            ("core_id", cpu.to_string()),
            ("core_cpus", single_mask(cpu)),
            ("core_cpus_list", cpu.to_string()),
            ("thread_siblings", single_mask(cpu)),
            ("thread_siblings_list", cpu.to_string()),
            ("core_siblings", mask(cpus)),
            ("core_siblings_list", all.clone()),
            ("package_cpus", mask(cpus)),
            ("package_cpus_list", all.clone()),
        ] {
            tree.file(&format!("{at}/topology/{name}"), value);
        }
        tree.link(&format!("{at}/node0"), "../../node/node0");
    }
    add_node(tree, machine, cpus, &all);
}

fn add_node(tree: &mut Tree, machine: &Machine, cpus: u32, all: &str) {
    let top = "devices/system/node";
    for name in ["online", "possible", "has_cpu", "has_memory", "has_normal_memory"] {
        tree.file(&format!("{top}/{name}"), 0);
    }
    let total_kb = machine.memory / 1024;
    let rows = [("MemTotal", total_kb), ("MemFree", total_kb), ("MemUsed", 0)];
    let meminfo: Vec<String> =
        rows.iter().map(|(name, kb)| format!("Node 0 {name}: {kb:14} kB")).collect();
    tree.file(&format!("{top}/node0/meminfo"), meminfo.join("\n"));
    tree.file(&format!("{top}/node0/cpulist"), all);
    tree.file(&format!("{top}/node0/cpumap"), mask(cpus));
    tree.file(&format!("{top}/node0/distance"), 10);
    for cpu in 0..cpus {
        tree.link(&format!("{top}/node0/cpu{cpu}"), &format!("../../cpu/cpu{cpu}"));
    }
}
