//! CPU seconds (user and system) of everything that a run starts, daemons included.
//!
//! The bench puts itself into a control group of its own, so that whatever it starts is in there, too, however it
//! detaches; the bench's own share is taken off. Version 1 (`cpuacct`) and version 2 (`cpu.stat`, which needs no
//! controller) both do. Without a writable hierarchy there is only the kernel's sum over children that were waited
//! for, in ticks of 10 ms: see [proc_pid_stat(5)](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub enum Meter {
    Group(Group),
    /// Blind to processes that detach from their parents.
    Children,
}

pub struct Group {
    folder: PathBuf,
    /// Where the bench was before.
    home: PathBuf,
}

impl Meter {
    pub fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let found = hierarchies(&mounts, &groups).into_iter().find_map(|home| Group::enter(&home));
        found.map_or(Self::Children, Self::Group)
    }

    pub fn sees_daemons(&self) -> bool {
        matches!(self, Self::Group(_))
    }

    /// Seconds used up to now; only differences mean something.
    pub fn seconds(&self) -> Option<f64> {
        match self {
            Self::Group(group) => Some(group.seconds()? - own_seconds()),
            Self::Children => children_seconds(),
        }
    }

    /// Processes in the group besides the bench; none when there is no group.
    pub fn others(&self) -> Vec<String> {
        let Self::Group(group) = self else { return Vec::new() };
        let own = std::process::id().to_string();
        let list = fs::read_to_string(group.folder.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter(|pid| *pid != own).map(ToOwned::to_owned).collect()
    }

    /// Gives what outlives its parent a moment to end by itself, kills the rest, and says how many that were.
    pub fn settle(&self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(1);
        while !self.others().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let strays = self.others();
        kill(&strays);
        strays.len()
    }
}

/// Sends SIGKILL to processes or, by a leading minus, process groups.
pub fn kill(targets: &[String]) {
    if !targets.is_empty() {
        let mut command = Command::new("kill");
        let _ = command.args(["-KILL", "--"]).args(targets).stderr(Stdio::null()).status();
    }
}

impl Group {
    fn enter(home: &Path) -> Option<Self> {
        let folder = home.join(format!("sandbox-bench-{}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        let group = Self { folder, home: home.to_owned() };
        fs::write(group.folder.join("cgroup.procs"), "0").ok()?;
        group.seconds().map(|_| group)
    }

    fn seconds(&self) -> Option<f64> {
        if let Ok(nanoseconds) = fs::read_to_string(self.folder.join("cpuacct.usage")) {
            return nanoseconds.trim().parse::<f64>().ok().map(|ns| ns / 1e9);
        }
        let text = fs::read_to_string(self.folder.join("cpu.stat")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
        line.parse::<f64>().ok().map(|us| us / 1e6)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.home.join("cgroup.procs"), "0");
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Folders of the groups this process is in, of the hierarchies that count CPU time. The finer clock comes first.
fn hierarchies(mounts: &str, groups: &str) -> Vec<PathBuf> {
    let path_of = |controller: &str| {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|name| name == controller).then_some(path)
        })
    };
    let find = |kind: &str, controller: &str| {
        mounts.lines().find_map(|line| {
            // Two halves: ids, root, mount point, options; then type, source, options of the filesystem.
            let (mount, filesystem) = line.split_once(" - ")?;
            let (fstype, options) = filesystem.split_once(' ')?;
            let counts = controller.is_empty()
                || options.split([' ', ',']).any(|option| option == controller);
            let point = mount.split(' ').nth(4).filter(|_| fstype == kind && counts)?;
            Some(Path::new(point).join(path_of(controller)?.trim_start_matches('/')))
        })
    };
    find("cgroup", "cpuacct").into_iter().chain(find("cgroup2", "")).collect()
}

/// What the bench's main thread used itself: the first figure is nanoseconds.
fn own_seconds() -> f64 {
    let text = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).map_or(0.0, |ns| ns / 1e9)
}

fn children_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything; cutime and cstime are fields 16 and 17, the state after it is 3.
    let (_, fields) = text.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(13).take(2).map(|field| field.parse::<f64>().ok());
    ticks.sum::<Option<f64>>().map(|ticks| ticks / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_both_kinds_of_hierarchy() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                      31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let groups = "4:cpu,cpuacct:/user\n0::/user/session\n";
        let wanted = ["/sys/fs/cgroup/cpu,cpuacct/user", "/sys/fs/cgroup/unified/user/session"];
        assert_eq!(hierarchies(mounts, groups), wanted.map(PathBuf::from));
        assert!(hierarchies("", groups).is_empty());
    }

    #[test]
    fn knows_its_childrens_ticks() {
        let spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let before = children_seconds().expect("the kernel tells");
        assert!(Command::new("sh").args(["-c", spin]).status().is_ok_and(|s| s.success()));
        let used = children_seconds().expect("the kernel tells") - before;
        assert!((0.01..60.0).contains(&used), "{used}");
    }
}
