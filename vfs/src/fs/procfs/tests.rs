//! Formats, against a world of one process.

use std::sync::Arc;

use abi::ids::{Fd, Tid};
use abi::open::OpenFlags;
use abi::{Errno, Result};
use base::cred::Credentials;

use super::ProcFs;
use super::view::{
    Counters, CpuTimes, IoCounts, Load, MapName, MapView, Scheduling, Scope, SignalState,
    SystemMemory, SystemView, TaskIds, TaskMemory, TaskState, TaskTimes, TaskView, Uts,
};
use crate::context::{Caller, VfsCx};
use crate::dentry::Path;
use crate::file::{File, Whence};
use crate::mount_namespace::MountNamespace;
use crate::test_support::World;

struct One;

impl SystemView for One {
    fn processes(&self) -> Vec<Tid> {
        vec![Tid(7)]
    }
    fn task(&self, tid: Tid) -> Option<Arc<dyn TaskView>> {
        (tid == Tid(7)).then(|| Arc::new(One) as Arc<dyn TaskView>)
    }
    fn cpuinfo(&self) -> String {
        "processor\t: 0\n".into()
    }
    fn cpus(&self) -> u32 {
        2
    }
    fn memory(&self) -> SystemMemory {
        SystemMemory { total: 8 << 30, free: 4 << 30, ..SystemMemory::default() }
    }
    fn cpu_times(&self) -> CpuTimes {
        CpuTimes { user: 30_000_000, system: 10_000_000, idle: 20_000_000_000 }
    }
    fn counters(&self) -> Counters {
        Counters::default()
    }
    fn load(&self) -> Load {
        Load { hundredths: [5, 110, 0], runnable: 1, threads: 3, last_pid: 9 }
    }
    fn uptime_ns(&self) -> u64 {
        12_340_000_000
    }
    fn boot_time(&self) -> u64 {
        1_000
    }
    fn uts(&self) -> Uts {
        Uts { hostname: b"box".to_vec(), ..Uts::default() }
    }
    fn set_hostname(&self, _: &VfsCx<'_>, _: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }
    fn set_domainname(&self, _: &VfsCx<'_>, _: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }
}

impl TaskView for One {
    fn ids(&self) -> TaskIds {
        TaskIds { tid: Tid(7), tgid: Tid(7), ppid: Tid(1), tty_pgid: -1, ..TaskIds::default() }
    }
    fn cred(&self) -> Arc<Credentials> {
        Arc::new(Credentials::root())
    }
    fn comm(&self) -> Vec<u8> {
        b"a) b".to_vec()
    }
    fn set_comm(&self, _: &[u8]) {}
    fn state(&self) -> TaskState {
        TaskState::Sleeping
    }
    fn threads(&self) -> Vec<Tid> {
        vec![Tid(7)]
    }
    fn times(&self, _: Scope) -> TaskTimes {
        TaskTimes { user_ns: 50_000_000, ..TaskTimes::default() }
    }
    fn scheduling(&self) -> Scheduling {
        Scheduling { nice: -5, affinity: vec![0b1011], ..Scheduling::default() }
    }
    fn signals(&self) -> SignalState {
        SignalState { exit_signal: 17, ..SignalState::default() }
    }
    fn limits(&self) -> Vec<(u64, u64)> {
        vec![(u64::MAX, u64::MAX); 16]
    }
    fn exe(&self) -> Option<Path> {
        None
    }
    fn cwd(&self) -> Option<Path> {
        None
    }
    fn root(&self) -> Option<Path> {
        None
    }
    fn umask(&self) -> Option<u32> {
        Some(0o22)
    }
    fn mounts(&self) -> Option<Arc<MountNamespace>> {
        None
    }
    fn fds(&self) -> Vec<Fd> {
        Vec::new()
    }
    fn file(&self, _: Fd) -> Option<(Arc<File>, bool)> {
        None
    }
    fn fd_slots(&self) -> usize {
        64
    }
    fn memory(&self) -> Option<TaskMemory> {
        Some(TaskMemory { size: 8 << 20, resident: 1 << 20, ..TaskMemory::default() })
    }
    fn maps(&self) -> Vec<MapView> {
        vec![MapView {
            start: 0x40_0000,
            end: 0x40_1000,
            is_readable: true,
            is_writable: false,
            is_executable: true,
            is_shared: false,
            offset: 0,
            name: MapName::Special("[heap]".into()),
            resident: 4096,
            anonymous: 4096,
            is_locked: false,
        }]
    }
    fn cmdline(&self) -> Result<Vec<u8>> {
        Ok(b"sleep\x001\0".to_vec())
    }
    fn environ(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
    fn auxv(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
    fn read_memory(&self, _: u64, _: &mut [u8]) -> usize {
        0
    }
    fn write_memory(&self, _: u64, _: &[u8]) -> usize {
        0
    }
    fn personality(&self) -> u32 {
        0
    }
    fn no_new_privs(&self) -> bool {
        false
    }
    fn is_dumpable(&self) -> bool {
        true
    }
    fn timer_slack_ns(&self) -> u64 {
        50_000
    }
    fn oom_score_adj(&self) -> i32 {
        0
    }
    fn set_oom_score_adj(&self, _: i32) {}
    fn io(&self) -> IoCounts {
        IoCounts::default()
    }
}

fn world() -> World {
    World::new(ProcFs::new(Arc::new(One)))
}

fn text(path: &str) -> String {
    String::from_utf8(world().read(path).unwrap()).unwrap()
}

#[test]
fn stat_has_all_fields_in_their_places() {
    let stat = text("/7/stat");
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split_whitespace().collect();
    assert!(stat.starts_with("7 (a) b) S 1 "));
    // proc(5) numbers fields from 1; state is the third.
    let field = |number: usize| fields[number - 3];
    assert_eq!(fields.len(), 50);
    assert_eq!((field(8), field(14), field(18), field(19)), ("-1", "5", "15", "-5"));
    assert_eq!((field(20), field(23), field(24)), ("1", "8388608", "256"));
    assert_eq!((field(25), field(38)), ("18446744073709551615", "17"));
}

#[test]
fn maps_line_is_aligned() {
    let line = text("/7/maps");
    assert_eq!(&line[..49], "00400000-00401000 r-xp 00000000 00:00 0          ");
    assert_eq!(line.find("[heap]\n"), Some(73));
}

#[test]
fn status_tells_the_cpus_as_list_and_mask() {
    let status = text("/7/status");
    assert!(status.contains("Cpus_allowed:\tb\nCpus_allowed_list:\t0-1,3\n"));
    assert!(status.contains("VmSize:\t    8192 kB\n"));
}

#[test]
fn system_files_have_linux_format() {
    assert_eq!(text("/uptime"), "12.34 20.00\n");
    assert_eq!(text("/loadavg"), "0.05 1.10 0.00 1/3 9\n");
    assert!(text("/meminfo").starts_with("MemTotal:        8388608 kB\nMemFree: "));
    assert!(text("/stat").starts_with("cpu  3 0 1 2000 0 0 0 0 0 0\ncpu0 1 0 0 1000 "));
    assert_eq!(text("/sys/kernel/hostname"), "box\n");
    assert_eq!(text("/sys/fs/inotify/max_user_instances"), "128\n");
    assert_eq!(text("/sys/kernel/random/uuid").len(), 37);
}

#[test]
fn processes_come_and_go_by_number() {
    let world = world();
    assert!(world.list("/").unwrap().contains(&"7".to_owned()));
    assert_eq!(world.path("/8").map(|_| ()), Err(Errno::ENOENT));
    assert_eq!(world.path("/07").map(|_| ()), Err(Errno::ENOENT));
    assert_eq!(world.list("/7/task").unwrap(), ["7"]);
    assert!(!world.list("/7/task/7").unwrap().contains(&"task".to_owned()));
}

#[test]
fn text_is_made_anew_from_the_beginning_only() {
    let world = world();
    let file = world.open("/uptime", OpenFlags::empty()).unwrap();
    let mut buffer = [0; 6];
    assert_eq!(file.read(&world.cx(), &mut &mut buffer[..]), Ok(6));
    assert_eq!(world.read_file(&file).unwrap(), b"20.00\n");
    assert_eq!(file.seek(0, Whence::Set), Ok(0));
    assert_eq!(world.read_file(&file).unwrap(), b"12.34 20.00\n");
}

#[test]
fn own_links_follow_the_caller() {
    let world = world();
    let mut cx = world.cx();
    cx.caller = Caller { tid: Tid(8), tgid: Tid(7), ..Caller::default() };
    let link = world.lpath("/self").unwrap();
    assert_eq!(link.inode().readlink(&cx).unwrap(), b"7");
    let link = world.lpath("/thread-self").unwrap();
    assert_eq!(link.inode().readlink(&cx).unwrap(), b"7/task/8");
}
