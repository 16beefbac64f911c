//! Which entries a task's directory has.

use std::sync::Arc;

use abi::Result;
use abi::stat::FileType;

use super::{TaskRef, fd, limits, links, maps, memory, mounts, settings, stat, statm, status};
use crate::context::VfsCx;
use crate::fs::kernfs::{TextInode, TextSource};
use crate::fs::procfs::root;
use crate::fs::procfs::view::{Scope, TaskState, TaskView};
use crate::inode::Inode;

/// What a text file's function works with.
pub struct Asked<'a> {
    pub cx: &'a VfsCx<'a>,
    pub at: &'a TaskRef,
    pub task: &'a dyn TaskView,
}

impl Asked<'_> {
    /// Whoever reads about itself is running, in our code.
    pub fn state(&self) -> TaskState {
        if self.task.ids().tid == self.cx.caller.tid {
            return TaskState::Running;
        }
        self.task.state()
    }
}

type Show = fn(&Asked<'_>) -> Result<Vec<u8>>;
type Store = fn(&Asked<'_>, &[u8]) -> Result<()>;

/// How an entry is made.
pub enum Make {
    /// Anyone whom the mode lets may read it.
    Text(Show),
    /// Only who may inspect the task.
    Private(Show),
    Writable(Show, Store),
    Other(FileType, fn(&TaskRef, u64) -> Arc<dyn Inode>),
}

pub struct Entry {
    pub name: &'static str,
    pub mode: u32,
    pub make: Make,
}

const fn text(name: &'static str, show: Show) -> Entry {
    Entry { name, mode: 0o444, make: Make::Text(show) }
}

const fn private(name: &'static str, mode: u32, show: Show) -> Entry {
    Entry { name, mode, make: Make::Private(show) }
}

const fn writable(name: &'static str, show: Show, store: Store) -> Entry {
    Entry { name, mode: 0o644, make: Make::Writable(show, store) }
}

const fn link(name: &'static str, make: fn(&TaskRef, u64) -> Arc<dyn Inode>) -> Entry {
    Entry { name, mode: 0o777, make: Make::Other(FileType::Symlink, make) }
}

const fn dir(name: &'static str, make: fn(&TaskRef, u64) -> Arc<dyn Inode>) -> Entry {
    Entry { name, mode: 0o555, make: Make::Other(FileType::Directory, make) }
}

/// Entries of /proc/PID; those from [`PROCESS_ONLY`] on are not in task/TID.
pub static ENTRIES: &[Entry] = &[
    dir("fd", fd::fd_dir),
    dir("fdinfo", fd::fdinfo_dir),
    dir("ns", links::ns_dir),
    dir("net", |task, _| root::net_dir(&task.shared)),
    private("environ", 0o400, memory::environ),
    private("auxv", 0o400, memory::auxv),
    text("status", status::show),
    private("personality", 0o400, settings::personality),
    text("limits", limits::show),
    text("sched", settings::sched),
    writable("comm", settings::comm, settings::set_comm),
    private("syscall", 0o400, settings::syscall),
    text("cmdline", memory::cmdline),
    text("stat", stat::show),
    text("statm", statm::show),
    private("maps", 0o444, maps::maps),
    private("smaps", 0o444, maps::smaps),
    private("smaps_rollup", 0o444, maps::smaps_rollup),
    Entry { name: "mem", mode: 0o600, make: Make::Other(FileType::Regular, memory::mem) },
    link("cwd", links::cwd),
    link("root", links::root),
    link("exe", links::exe),
    text("mounts", mounts::mounts),
    text("mountinfo", mounts::mountinfo),
    private("stack", 0o400, settings::empty),
    text("wchan", settings::wchan),
    text("schedstat", settings::schedstat),
    text("cpuset", settings::cpuset),
    text("cgroup", settings::cgroup),
    text("oom_score", settings::oom_score),
    writable("oom_adj", settings::oom_adj, settings::set_oom_adj),
    writable("oom_score_adj", settings::oom_score_adj, settings::set_oom_score_adj),
    writable("loginuid", settings::loginuid, settings::set_loginuid),
    text("sessionid", settings::loginuid),
    private("io", 0o400, settings::io),
    writable("uid_map", settings::id_map, settings::set_refused),
    writable("gid_map", settings::id_map, settings::set_refused),
    writable("setgroups", settings::setgroups, settings::set_refused),
    private("mountstats", 0o400, mounts::mountstats),
    writable("coredump_filter", settings::coredump_filter, settings::set_ignored),
    dir("task", super::dir::task_dir),
    writable("autogroup", settings::autogroup, settings::set_refused),
    writable("timerslack_ns", settings::timer_slack, settings::set_refused),
];

/// Names that only processes have.
pub const PROCESS_ONLY: &[&str] = &["task", "autogroup", "timerslack_ns", "mountstats"];

pub fn is_in(entry: &Entry, scope: Scope) -> bool {
    scope == Scope::Process || !PROCESS_ONLY.contains(&entry.name)
}

pub fn kind(entry: &Entry) -> FileType {
    match entry.make {
        Make::Other(kind, _) => kind,
        _ => FileType::Regular,
    }
}

pub fn make(entry: &'static Entry, index: u64, task: &TaskRef) -> Arc<dyn Inode> {
    if let Make::Other(_, make) = entry.make {
        return make(task, index);
    }
    let node = task.node(index, FileType::Regular, entry.mode);
    TextInode::new(node, TaskText { task: task.clone(), entry })
}

struct TaskText {
    task: TaskRef,
    entry: &'static Entry,
}

impl TextSource for TaskText {
    fn text(&self, cx: &VfsCx<'_>) -> Result<Vec<u8>> {
        let (show, task) = match self.entry.make {
            Make::Text(show) | Make::Writable(show, _) => (show, self.task.get()?),
            Make::Private(show) => (show, self.task.inspect(cx)?),
            Make::Other(..) => return Ok(Vec::new()),
        };
        show(&Asked { cx, at: &self.task, task: &*task })
    }

    fn store(&self, cx: &VfsCx<'_>, text: &[u8]) -> Result<()> {
        let Make::Writable(_, store) = self.entry.make else { return Err(abi::Errno::EACCES) };
        let task = self.task.get()?;
        store(&Asked { cx, at: &self.task, task: &*task }, text)
    }
}
