//! Files of /proc that are about the whole sandbox.
//!
//! | module | what |
//! | --- | --- |
//! | `meminfo`, `cpuinfo`, `stat`, `load` | memory, CPUs, counters, uptime and loadavg |
//! | `constant` | version, filesystems, devices and what never changes |
//! | `vmstat` | vmstat, zoneinfo, buddyinfo |

mod constant;
mod cpuinfo;
mod load;
mod meminfo;
mod stat;
mod vmstat;

use std::sync::Arc;

use abi::stat::FileType;
use abi::{Errno, Result};
use base::clock::Nanos;

use super::Shared;
use super::view::SystemView;
use crate::context::VfsCx;
use crate::fs::kernfs::{DirInode, FixedDir, TextInode};

type Show = fn(&dyn SystemView) -> String;

/// Clock ticks (`USER_HZ`, 100 per second).
pub fn ticks(ns: Nanos) -> u64 {
    ns / 10_000_000
}

/// Both parts of a device number.
pub fn major_minor(dev: u64) -> (u64, u64) {
    let major = (dev >> 8) & 0xfff | (dev >> 32) & 0xffff_f000;
    let minor = dev & 0xff | (dev >> 12) & 0xffff_ff00;
    (major, minor)
}

/// CPUs of a mask as `0-3,5`.
pub fn cpu_list(words: &[u64]) -> String {
    let is_set = |cpu: usize| words.get(cpu / 64).is_some_and(|word| word >> (cpu % 64) & 1 == 1);
    let mut parts: Vec<String> = Vec::new();
    let mut cpu = 0;
    while cpu < words.len() * 64 {
        if !is_set(cpu) {
            cpu += 1;
            continue;
        }
        let first = cpu;
        while is_set(cpu + 1) {
            cpu += 1;
        }
        parts.push(if first == cpu { cpu.to_string() } else { format!("{first}-{cpu}") });
        cpu += 1;
    }
    parts.join(",")
}

/// A number that a guest wrote, blanks around it.
pub fn parse_trimmed<T: std::str::FromStr>(text: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
    text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0')
        .parse()
        .map_err(|_| Errno::EINVAL)
}

/// Adds the files to /proc.
pub fn add_to(dir: FixedDir, shared: &Arc<Shared>) -> FixedDir {
    let files: &[(&str, u32, Show)] = &[
        ("buddyinfo", 0o444, vmstat::buddyinfo),
        ("cgroups", 0o444, constant::cgroups),
        ("cmdline", 0o444, constant::cmdline),
        ("cpuinfo", 0o444, cpuinfo::show),
        ("devices", 0o444, constant::devices),
        ("diskstats", 0o444, constant::empty),
        ("filesystems", 0o444, constant::filesystems),
        ("interrupts", 0o444, constant::interrupts),
        ("kmsg", 0o400, constant::empty),
        ("loadavg", 0o444, load::loadavg),
        ("locks", 0o444, constant::empty),
        ("meminfo", 0o444, meminfo::show),
        ("misc", 0o444, constant::empty),
        ("modules", 0o444, constant::empty),
        ("partitions", 0o444, constant::partitions),
        ("softirqs", 0o444, constant::interrupts),
        ("stat", 0o444, stat::show),
        ("swaps", 0o444, constant::swaps),
        ("uptime", 0o444, load::uptime),
        ("version", 0o444, constant::version),
        ("vmstat", 0o444, vmstat::vmstat),
        ("zoneinfo", 0o444, vmstat::zoneinfo),
    ];
    let dir = files.iter().fold(dir, |dir, (name, mode, show)| {
        let view = Arc::clone(&shared.view);
        let show = *show;
        let node = shared.node(FileType::Regular, *mode);
        dir.with(*name, TextInode::new(node, move |_: &VfsCx<'_>| Ok(show(&*view).into_bytes())))
    });
    // Programs look whether these directories are there; what they hold is optional on Linux too.
    ["bus", "driver", "fs", "irq", "tty"].iter().fold(dir, |dir, name| {
        let node = shared.node(FileType::Directory, 0o555);
        dir.with(*name, DirInode::new(node, FixedDir::new()))
    })
}
