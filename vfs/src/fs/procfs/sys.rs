//! /proc/sys. See proc_sys(5).
//!
//! Values are those of an ordinary host; most can be read only, for nothing here would obey a new one.

use std::sync::Arc;

use abi::Result;
use abi::stat::FileType;

use super::Shared;
use super::view::SystemView;
use crate::context::VfsCx;
use crate::fs::kernfs::{DirInode, FixedDir, LateDir, TextInode, TextSource};
use crate::fs::pipefs::PIPE_MAX_SIZE;
use crate::inode::Inode;

/// Value by name; a name with a slash is in a directory.
const KERNEL: &[(&str, &str)] = &[
    ("acct", "4\t2\t30"),
    ("cap_last_cap", "40"),
    ("core_pattern", "core"),
    ("core_uses_pid", "0"),
    ("ctrl-alt-del", "0"),
    ("dmesg_restrict", "1"),
    ("io_uring_disabled", "2"),
    ("keys/maxkeys", "200"),
    ("kptr_restrict", "1"),
    ("modules_disabled", "1"),
    ("msgmax", "8192"),
    ("msgmnb", "16384"),
    ("msgmni", "32000"),
    ("ngroups_max", "65536"),
    ("numa_balancing", "0"),
    ("ostype", "Linux"),
    ("overflowgid", "65534"),
    ("overflowuid", "65534"),
    ("panic", "0"),
    ("panic_on_oops", "0"),
    ("perf_event_paranoid", "4"),
    ("pid_max", "4194304"),
    ("printk", "4\t4\t1\t7"),
    ("random/entropy_avail", "256"),
    ("random/poolsize", "256"),
    ("random/urandom_min_reseed_secs", "60"),
    ("random/write_wakeup_threshold", "256"),
    ("randomize_va_space", "2"),
    ("sched_autogroup_enabled", "0"),
    ("sched_child_runs_first", "0"),
    ("sched_rt_period_us", "1000000"),
    ("sched_rt_runtime_us", "950000"),
    ("seccomp/actions_avail", "kill_process kill_thread trap errno user_notif trace log allow"),
    ("sem", "32000\t1024000000\t500\t32000"),
    ("shmall", "18446744073692774399"),
    ("shmmax", "18446744073692774399"),
    ("shmmni", "4096"),
    ("sysrq", "0"),
    ("tainted", "0"),
    ("threads-max", "192730"),
    ("timer_migration", "1"),
    ("unprivileged_bpf_disabled", "2"),
    ("yama/ptrace_scope", "0"),
];

const VM: &[(&str, &str)] = &[
    ("dirty_background_ratio", "10"),
    ("dirty_bytes", "0"),
    ("dirty_ratio", "20"),
    ("drop_caches", "0"),
    ("legacy_va_layout", "0"),
    ("max_map_count", "1048576"),
    ("min_free_kbytes", "67584"),
    ("mmap_min_addr", "65536"),
    ("mmap_rnd_bits", "28"),
    ("nr_hugepages", "0"),
    ("nr_overcommit_hugepages", "0"),
    ("oom_kill_allocating_task", "0"),
    ("overcommit_kbytes", "0"),
    ("overcommit_memory", "0"),
    ("overcommit_ratio", "50"),
    ("panic_on_oom", "0"),
    ("swappiness", "60"),
    ("unprivileged_userfaultfd", "0"),
    ("vfs_cache_pressure", "100"),
    ("zone_reclaim_mode", "0"),
];

const FS: &[(&str, &str)] = &[
    ("aio-max-nr", "65536"),
    ("aio-nr", "0"),
    ("dentry-state", "0\t0\t45\t0\t0\t0"),
    ("epoll/max_user_watches", "5459271"),
    ("file-max", "9223372036854775807"),
    ("file-nr", "0\t0\t9223372036854775807"),
    ("inode-nr", "0\t0"),
    ("inotify/max_queued_events", "16384"),
    ("inotify/max_user_instances", "128"),
    ("inotify/max_user_watches", "193000"),
    ("lease-break-time", "45"),
    ("leases-enable", "1"),
    ("mount-max", "100000"),
    ("mqueue/msg_default", "10"),
    ("mqueue/msg_max", "10"),
    ("mqueue/msgsize_default", "8192"),
    ("mqueue/msgsize_max", "8192"),
    ("mqueue/queues_max", "256"),
    ("nr_open", "1048576"),
    ("overflowgid", "65534"),
    ("overflowuid", "65534"),
    ("pipe-user-pages-hard", "0"),
    ("pipe-user-pages-soft", "16384"),
    ("protected_fifos", "1"),
    ("protected_hardlinks", "1"),
    ("protected_regular", "1"),
    ("protected_symlinks", "1"),
    ("suid_dumpable", "0"),
];

const NET: &[(&str, &str)] = &[
    ("core/netdev_max_backlog", "1000"),
    ("core/optmem_max", "131072"),
    ("core/rmem_default", "212992"),
    ("core/rmem_max", "212992"),
    ("core/somaxconn", "4096"),
    ("core/wmem_default", "212992"),
    ("core/wmem_max", "212992"),
    ("ipv4/ip_forward", "0"),
    ("ipv4/ip_local_port_range", "32768\t60999"),
    ("ipv4/ip_local_reserved_ports", ""),
    ("ipv4/ip_unprivileged_port_start", "1024"),
    ("ipv4/tcp_available_congestion_control", "reno cubic"),
    ("ipv4/tcp_congestion_control", "cubic"),
    ("ipv4/tcp_fastopen", "1"),
    ("ipv4/tcp_fin_timeout", "60"),
    ("ipv4/tcp_keepalive_intvl", "75"),
    ("ipv4/tcp_keepalive_probes", "9"),
    ("ipv4/tcp_keepalive_time", "7200"),
    ("ipv4/tcp_max_syn_backlog", "1024"),
    ("ipv4/tcp_mem", "289446\t385929\t578892"),
    ("ipv4/tcp_rmem", "4096\t131072\t6291456"),
    ("ipv4/tcp_sack", "1"),
    ("ipv4/tcp_syn_retries", "6"),
    ("ipv4/tcp_timestamps", "1"),
    ("ipv4/tcp_window_scaling", "1"),
    ("ipv4/tcp_wmem", "4096\t16384\t4194304"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("unix/max_dgram_qlen", "512"),
];

pub fn make(shared: &Arc<Shared>) -> Arc<dyn Inode> {
    let node = shared.node(FileType::Directory, 0o555);
    let shared = Arc::clone(shared);
    DirInode::new(node, LateDir::new(move || children(&shared)))
}

fn children(shared: &Arc<Shared>) -> FixedDir {
    let mut kernel = Tree::new(shared);
    kernel.constants(KERNEL);
    kernel.add("hostname", 0o644, Hostname { view: Arc::clone(&shared.view) });
    kernel.add("domainname", 0o644, Domainname { view: Arc::clone(&shared.view) });
    let view = Arc::clone(&shared.view);
    kernel.add("osrelease", 0o444, move |_: &VfsCx<'_>| line(view.uts().release));
    let view = Arc::clone(&shared.view);
    kernel.add("version", 0o444, move |_: &VfsCx<'_>| line(view.uts().version));
    let boot_id = uuid();
    kernel.add("random/boot_id", 0o444, move |_: &VfsCx<'_>| line(&boot_id));
    kernel.add("random/uuid", 0o444, |_: &VfsCx<'_>| line(uuid()));
    let mut fs = Tree::new(shared);
    fs.constants(FS);
    fs.add("pipe-max-size", 0o444, |_: &VfsCx<'_>| line(PIPE_MAX_SIZE));
    let (mut vm, mut net) = (Tree::new(shared), Tree::new(shared));
    vm.constants(VM);
    net.constants(NET);
    let mut top = FixedDir::new();
    for (name, tree) in [("fs", fs), ("kernel", kernel), ("net", net), ("vm", vm)] {
        top = top.with(name, tree.finish());
    }
    for name in ["abi", "debug", "dev", "user"] {
        top = top.with(name, Tree::new(shared).finish());
    }
    top
}

fn line(value: impl std::fmt::Display) -> Result<Vec<u8>> {
    Ok(format!("{value}\n").into_bytes())
}

/// A random (version 4) UUID as text.
fn uuid() -> String {
    let mut bytes = [0; 16];
    // The kernel's generator, once seeded, refuses nothing of this size.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

struct Hostname {
    view: Arc<dyn SystemView>,
}

impl TextSource for Hostname {
    fn text(&self, _: &VfsCx<'_>) -> Result<Vec<u8>> {
        line(String::from_utf8_lossy(&self.view.uts().hostname))
    }

    fn store(&self, cx: &VfsCx<'_>, text: &[u8]) -> Result<()> {
        self.view.set_hostname(cx, name_in(text))
    }
}

struct Domainname {
    view: Arc<dyn SystemView>,
}

impl TextSource for Domainname {
    fn text(&self, _: &VfsCx<'_>) -> Result<Vec<u8>> {
        line(String::from_utf8_lossy(&self.view.uts().domainname))
    }

    fn store(&self, cx: &VfsCx<'_>, text: &[u8]) -> Result<()> {
        self.view.set_domainname(cx, name_in(text))
    }
}

/// The first line, at most as long as uname(2) holds.
fn name_in(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| matches!(byte, b'\n' | 0)).unwrap_or(text.len());
    text.get(..end.min(64)).unwrap_or(&[])
}

/// A directory under construction; names with slashes make directories.
struct Tree<'a> {
    shared: &'a Arc<Shared>,
    files: Vec<(String, Arc<dyn Inode>)>,
    dirs: Vec<(String, Tree<'a>)>,
}

impl<'a> Tree<'a> {
    fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared, files: Vec::new(), dirs: Vec::new() }
    }

    fn constants(&mut self, values: &'static [(&'static str, &'static str)]) {
        for (name, value) in values {
            self.add(name, 0o444, move |_: &VfsCx<'_>| line(value));
        }
    }

    fn add(&mut self, name: &str, mode: u32, source: impl TextSource) {
        let Some((dir, rest)) = name.split_once('/') else {
            let node = self.shared.node(FileType::Regular, mode);
            self.files.push((name.to_owned(), TextInode::new(node, source)));
            return;
        };
        let at = self.dirs.iter().position(|(known, _)| known == dir).unwrap_or_else(|| {
            self.dirs.push((dir.to_owned(), Tree::new(self.shared)));
            self.dirs.len() - 1
        });
        self.dirs[at].1.add(rest, mode, source);
    }

    fn finish(self) -> Arc<dyn Inode> {
        let mut entries = self.files;
        entries.extend(self.dirs.into_iter().map(|(name, tree)| (name, tree.finish())));
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let dir =
            entries.into_iter().fold(FixedDir::new(), |dir, (name, inode)| dir.with(name, inode));
        DirInode::new(self.shared.node(FileType::Directory, 0o555), dir)
    }
}
