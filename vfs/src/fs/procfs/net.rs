//! /proc/PID/net: headings, and loopback; sockets are listed once the network stack tells of them.

use std::sync::Arc;

use abi::stat::FileType;

use super::Shared;
use crate::context::VfsCx;
use crate::fs::kernfs::{DirInode, FixedDir, TextInode};
use crate::inode::Inode;

const SOCKETS: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  \
                       timeout inode";

const FILES: &[(&str, &str)] = &[
    ("arp", "IP address       HW type     Flags       HW address            Mask     Device\n"),
    (
        "dev",
        "Inter-|   Receive                                                |  Transmit\n \
         face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo \
         colls carrier compressed\n    lo:       0       0    0    0    0     0          0         0        \
         0       0    0    0    0     0       0          0\n",
    ),
    ("if_inet6", "00000000000000000000000000000001 01 80 10 80       lo\n"),
    (
        "netlink",
        "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n",
    ),
    ("packet", "sk       RefCnt Type Proto  Iface R Rmem   User   Inode\n"),
    (
        "route",
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT                                                       \n",
    ),
    (
        "sockstat",
        "sockets: used 0\nTCP: inuse 0 orphan 0 tw 0 alloc 0 mem 0\nUDP: inuse 0 mem 0\nUDPLITE: inuse 0\n\
         RAW: inuse 0\nFRAG: inuse 0 memory 0\n",
    ),
    ("unix", "Num       RefCount Protocol Flags    Type St Inode Path\n"),
    (
        "wireless",
        "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n",
    ),
];

pub fn make(shared: &Arc<Shared>) -> Arc<dyn Inode> {
    let mut dir = FixedDir::new();
    let file = |text: String| {
        let node = shared.node(FileType::Regular, 0o444);
        TextInode::new(node, move |_: &VfsCx<'_>| Ok(text.clone().into_bytes()))
    };
    for (name, text) in FILES {
        dir = dir.with(*name, file((*text).to_owned()));
    }
    for name in ["tcp", "udp", "raw", "icmp", "tcp6", "udp6", "raw6", "icmp6"] {
        dir = dir.with(name, file(format!("{SOCKETS}\n")));
    }
    DirInode::new(shared.node(FileType::Directory, 0o555), dir)
}
