//! What programs look for.

use super::{Machine, SysFs};
use crate::test_support::World;

fn world(cpus: u32) -> World {
    let memory = 4 << 30;
    World::new(SysFs::new(&Machine { cpus, memory, memory_limit: Some(memory), pids_limit: None }))
}

#[test]
fn processors_are_listed() {
    let world = world(2);
    assert_eq!(world.read("/devices/system/cpu/online").unwrap(), b"0-1\n");
    assert_eq!(world.read("/devices/system/cpu/cpu1/topology/core_id").unwrap(), b"1\n");
    assert_eq!(world.read("/devices/system/cpu/cpu1/topology/package_cpus").unwrap(), b"3\n");
    assert_eq!(world.read("/devices/system/node/node0/cpu1/node0/cpulist").unwrap(), b"0-1\n");
    let many = super::tests::world(40);
    let mask = many.read("/devices/system/node/node0/cpumap").unwrap();
    assert_eq!(mask, b"ff,ffffffff\n");
}

#[test]
fn limits_and_devices_are_there() {
    let world = world(1);
    assert_eq!(world.read("/devices/system/cpu/possible").unwrap(), b"0\n");
    assert_eq!(world.read("/fs/cgroup/memory.max").unwrap(), b"4294967296\n");
    assert_eq!(world.read("/fs/cgroup/pids.max").unwrap(), b"max\n");
    assert_eq!(world.read("/class/net/lo/mtu").unwrap(), b"65536\n");
    assert_eq!(world.list("/block").unwrap(), [""; 0]);
}
