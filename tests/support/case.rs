//! A command with its files, input and options, and the comparison of its two runs.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::binaries;
use crate::run::{self, Output, Running};
use crate::scratch::Scratch;

/// `nobody` of every Debian, and an ordinary user like any other.
const ORDINARY: (u32, u32) = (65534, 65534);

/// Programs come from here, not from a developer's own places.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// Who runs the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Caller,
    /// An ordinary user, also when the tests run as root.
    OrdinaryUser,
}

/// A command to be run on both kernels.
#[derive(Debug)]
pub struct Case {
    command: Vec<String>,
    options: Vec<String>,
    files: Vec<(String, Vec<u8>, u32)>,
    env: Vec<(String, String)>,
    stdin: Vec<u8>,
    limit: Duration,
    who: Who,
    normalize: fn(String) -> String,
    ignore_stderr: bool,
    may_change_files: bool,
}

/// A shell script.
pub fn sh(script: &str) -> Case {
    program(&["/bin/bash", "-c", script])
}

/// A program and its arguments.
pub fn program(command: &[&str]) -> Case {
    Case {
        command: command.iter().map(ToString::to_string).collect(),
        options: Vec::new(),
        files: Vec::new(),
        env: Vec::new(),
        stdin: Vec::new(),
        limit: Duration::from_secs(60),
        who: Who::Caller,
        normalize: |text| text,
        ignore_stderr: false,
        may_change_files: false,
    }
}

impl Case {
    #[must_use]
    pub fn by(mut self, who: Who) -> Self {
        self.who = who;
        self
    }

    /// A file in the command's directory.
    #[must_use]
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.file_with_mode(name, content, 0o644)
    }

    #[must_use]
    pub fn executable(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.file_with_mode(name, content, 0o755)
    }

    #[must_use]
    pub fn file_with_mode(mut self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> Self {
        self.files.push((name.into(), content.as_ref().to_vec(), mode));
        self
    }

    #[must_use]
    pub fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.stdin = bytes.as_ref().to_vec();
        self
    }

    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// An option of `sandbox run`.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.into());
        self
    }

    /// Seconds after which each run is killed and reported.
    #[must_use]
    pub fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Applied to both standard outputs before they are compared, for what rightly differs.
    #[must_use]
    pub fn normalize(mut self, normalize: fn(String) -> String) -> Self {
        self.normalize = normalize;
        self
    }

    #[must_use]
    pub fn ignore_stderr(mut self) -> Self {
        self.ignore_stderr = true;
        self
    }

    /// With `--write .`: the sandbox may change the command's directory.
    #[must_use]
    pub fn writes_here(mut self) -> Self {
        self.options.push("--write=.".into());
        self.may_change_files = true;
        self
    }

    /// Runs it on both kernels and panics when they differ.
    pub fn assert_same(self) {
        let sandbox_dir = self.scratch();
        let before = sandbox_dir.snapshot();
        let ours = self.start_in_sandbox(&sandbox_dir).finish(self.limit);
        let may_change_files = self.may_change_files || tests_are_native();
        let is_untouched = may_change_files || sandbox_dir.snapshot() == before;
        // The same directory again, for programs that print it; fresh files, if the sandbox changed them.
        if may_change_files {
            self.renew(&sandbox_dir);
        }
        let native = run::start(&mut self.native_command(sandbox_dir.path()), &self.stdin);
        let native = native.finish(self.limit);
        let normalize = |text: String| (self.normalize)(text);
        let is_same = normalize(ours.stdout()) == normalize(native.stdout())
            && (self.ignore_stderr
                || without_job_pids(&ours.stderr()) == without_job_pids(&native.stderr()))
            && ours.code == native.code
            && !ours.timed_out
            && !native.timed_out;
        let left = survivors(sandbox_dir.path());
        if is_same && is_untouched && left.is_empty() {
            return;
        }
        let mut report = self.describe(sandbox_dir.path());
        if !is_untouched {
            report += "*** the sandbox changed files of the host\n";
        }
        if !left.is_empty() {
            report += &format!("*** still running: {left:?}\n");
        }
        panic!("{report}=== native\n{native}\n=== sandbox\n{ours}");
    }

    /// Runs it in the sandbox only.
    pub fn run_in_sandbox(&self) -> Output {
        let scratch = self.scratch();
        let output = self.start_in_sandbox(&scratch).finish(self.limit);
        let left = survivors(scratch.path());
        assert!(left.is_empty(), "{}still running: {left:?}", self.describe(scratch.path()));
        output
    }

    /// Runs it on the host's kernel only.
    pub fn run_natively(&self) -> Output {
        let scratch = self.scratch();
        run::start(&mut self.native_command(scratch.path()), &self.stdin).finish(self.limit)
    }

    /// Runs it in the sandbox and panics unless it ends with `code` and its standard error has all of `words`.
    pub fn assert_fails(&self, code: i32, words: &[&str]) {
        let output = self.run_in_sandbox();
        let stderr = output.stderr();
        let is_right = output.code == code && words.iter().all(|word| stderr.contains(word));
        let description = self.describe(Path::new("a directory of its own"));
        assert!(
            is_right,
            "{description}expected exit code {code} and {words:?} on stderr\n{output}"
        );
    }

    /// The case's directory with its files.
    pub fn scratch(&self) -> Scratch {
        let scratch = Scratch::new(self.drops_privileges().then_some(ORDINARY));
        self.renew(&scratch);
        scratch
    }

    /// Starts it in the sandbox, to be waited for by the caller.
    pub fn start_in_sandbox(&self, scratch: &Scratch) -> Running {
        if tests_are_native() {
            return run::start(&mut self.native_command(scratch.path()), &self.stdin);
        }
        run::start(&mut self.sandbox_command(scratch.path()), &self.stdin)
    }

    fn renew(&self, scratch: &Scratch) {
        for entry in std::fs::read_dir(scratch.path()).into_iter().flatten().flatten() {
            let path = entry.path();
            let _ = if path.is_dir() {
                std::fs::remove_dir_all(path)
            } else {
                std::fs::remove_file(path)
            };
        }
        for (name, content, mode) in &self.files {
            scratch.write(name, content, *mode);
        }
    }

    fn drops_privileges(&self) -> bool {
        // SAFETY: always succeeds, changes nothing.
        self.who == Who::OrdinaryUser && unsafe { libc::geteuid() } == 0
    }

    fn sandbox_command(&self, dir: &Path) -> Command {
        let mut command = Command::new(binaries::sandbox());
        command.arg("run").args(&self.options).arg("--").args(&self.command);
        self.prepare(&mut command, dir);
        command
    }

    fn native_command(&self, dir: &Path) -> Command {
        let (first, rest) = self.command.split_first().expect("a case has a program");
        let mut command = Command::new(first);
        command.args(rest);
        self.prepare(&mut command, dir);
        command
    }

    fn prepare(&self, command: &mut Command, dir: &Path) {
        command.current_dir(dir).env_clear();
        command.env("PATH", PATH).env("HOME", dir).env("LANG", "C.UTF-8").env("PWD", dir);
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        if self.drops_privileges() {
            command.uid(ORDINARY.0).gid(ORDINARY.1);
        }
        // Its own process group: terminal signals for the test runner are not for it.
        command.process_group(0);
    }

    fn describe(&self, dir: &Path) -> String {
        let Self { command, options, who, .. } = self;
        let dir = dir.display();
        format!("\ncommand: {command:?}\noptions: {options:?}\nwho: {who:?}\ndirectory: {dir}\n")
    }
}

/// A shell tells of killed children with their pids, in columns.
fn without_job_pids(text: &str) -> String {
    let is_number = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit());
    let line = |line: &str| match line.split_once(": line ") {
        Some((shell, rest)) => {
            let words: Vec<&str> =
                rest.split_whitespace().filter(|word| !is_number(word)).collect();
            format!("{shell}: line {}\n", words.join(" "))
        }
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// Whether both sides run on the host, to check the tests themselves.
fn tests_are_native() -> bool {
    std::env::var_os("SANDBOX_TESTS_NATIVE").is_some()
}

/// Processes of a sandbox that was started in `dir` and should be gone: they still have its environment.
fn survivors(dir: &Path) -> Vec<String> {
    let home = [b"HOME=", dir.as_os_str().as_encoded_bytes(), b"\0"].concat();
    let mut left = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        if environment.windows(home.len()).any(|window| window == home) {
            let name = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            left.push(format!("{} {}", entry.file_name().display(), name.replace('\0', " ")));
        }
    }
    left
}
