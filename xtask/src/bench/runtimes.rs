//! The ways to run a program.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A prefix that makes a command run somewhere.
pub struct Runtime {
    pub name: &'static str,
    pub scratch: ScratchParent,
    /// Does it leave work to processes that it does not wait for?
    pub has_daemons: bool,
    prefix: Vec<String>,
}

/// Where programs make their scratch folder: always in memory, so that no disk is measured.
pub enum ScratchParent {
    /// The bench's own folder, which it empties after each run.
    Prepared,
    /// A path inside, whose files vanish with the sandbox.
    Own(&'static str),
}

/// Native, ours, and those of the others that are installed and work.
pub fn all(sandbox: &Path) -> Vec<Runtime> {
    let sandbox = sandbox.to_string_lossy();
    let runtime = |name, words: &[&str], scratch| Runtime {
        name,
        scratch,
        has_daemons: name == "runsc",
        prefix: words.iter().map(ToString::to_string).collect(),
    };
    // Else its processes leave the control group in which their CPU time is counted.
    let runsc = ["runsc", "--network=none", "--platform=systrap", "--ignore-cgroups", "do"];
    // All but the user namespace, in which root may not read files of users that are not mapped.
    let bwrap = "bwrap --bind / / --dev /dev --proc /proc --unshare-ipc --unshare-pid --unshare-net --unshare-uts \
                 --unshare-cgroup-try --cap-add ALL";
    let bwrap: Vec<&str> = bwrap.split_whitespace().collect();
    let mut runtimes = vec![
        runtime("native", &[], ScratchParent::Prepared),
        runtime("ours", &[&sandbox, "run", "--"], ScratchParent::Own("/tmp")),
        runtime("runsc", &runsc, ScratchParent::Own("/tmp")),
        // Its root is the host's, writable; /dev/shm lies on its own /dev.
        runtime("bwrap", &bwrap, ScratchParent::Own("/dev/shm")),
    ];
    runtimes.retain(|runtime| {
        let is_optional = !matches!(runtime.name, "native" | "ours");
        !is_optional || runtime.output(&["/bin/true"]).is_ok()
    });
    runtimes
}

impl Runtime {
    pub fn command(&self, program: &[&str]) -> Command {
        let mut words = self.prefix.iter().map(String::as_str).chain(program.iter().copied());
        let mut command = Command::new(words.next().unwrap_or("true"));
        // Cargo's is for this program; the loader would look there for each program that a guest starts.
        command.args(words).stdin(Stdio::null()).env_remove("LD_LIBRARY_PATH");
        command
    }

    /// Standard output of a program that must succeed.
    pub fn output(&self, program: &[&str]) -> Result<String, String> {
        let output = self.command(program).output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{}: {}", output.status, stderr.lines().next().unwrap_or("")));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Nanoseconds from start to end of /bin/true.
    pub fn start_time(&self) -> Option<f64> {
        let started = Instant::now();
        let status = self.command(&["/bin/true"]).stdout(Stdio::null()).status().ok()?;
        status.success().then(|| started.elapsed().as_secs_f64() * 1e9)
    }

    /// Bytes of memory (proportional set size) of all processes while a program sleeps.
    pub fn idle_memory(&self) -> Option<f64> {
        let mut child = self.command(&["/bin/sleep", "3"]).spawn().ok()?;
        std::thread::sleep(Duration::from_millis(1500));
        let bytes = family(child.id()).into_iter().filter_map(proportional_set_size).sum::<f64>();
        // The sleep ends by itself; killing would leave runsc's state behind.
        child.wait().ok()?;
        (bytes > 0.0).then_some(bytes)
    }
}

/// A process and all its descendants.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(pid) = all.get(next).copied() {
        for entry in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten()
        {
            let list = std::fs::read_to_string(entry.path().join("children")).unwrap_or_default();
            all.extend(list.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        next += 1;
    }
    all
}

fn proportional_set_size(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib * 1024.0)
}
