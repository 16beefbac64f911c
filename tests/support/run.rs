//! Processes with a time limit.

use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Exit code, or 128 + signal as a shell tells it.
    pub code: i32,
    pub timed_out: bool,
    pub took: Duration,
}

impl Output {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, timed_out, took, .. } = self;
        let note = if *timed_out { ", killed by the time limit" } else { "" };
        writeln!(f, "exit code {code}{note}, after {took:.1?}")?;
        writeln!(f, "--- stdout\n{}", shorten(&self.stdout()))?;
        write!(f, "--- stderr\n{}", shorten(&self.stderr()))
    }
}

fn shorten(text: &str) -> String {
    const MOST: usize = 6000;
    if text.len() <= MOST {
        return text.to_owned();
    }
    let head: String = text.chars().take(MOST / 2).collect();
    let tail: String =
        text.chars().rev().take(MOST / 2).collect::<Vec<_>>().into_iter().rev().collect();
    format!("{head}\n[... {} bytes in all ...]\n{tail}", text.len())
}

/// A process that was started but not waited for.
#[derive(Debug)]
pub struct Running {
    pub child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    started: Instant,
}

/// Starts a command that reads `stdin` and whose output is collected.
pub fn start(command: &mut Command, stdin: &[u8]) -> Running {
    let started = Instant::now();
    let spawned =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let mut input = child.stdin.take().expect("it was asked for");
    let stdin = stdin.to_vec();
    // A command that does not read its input ends the writing with EPIPE, which is no matter.
    std::thread::spawn(move || input.write_all(&stdin));
    let stdout = collect(child.stdout.take().expect("it was asked for"));
    let stderr = collect(child.stderr.take().expect("it was asked for"));
    Running { child, stdout, stderr, started }
}

impl Running {
    /// Waits for the end, at most `limit`; then kills.
    pub fn finish(mut self, limit: Duration) -> Output {
        let mut timed_out = false;
        let status = loop {
            match self.child.try_wait().expect("it is our child") {
                Some(status) => break status,
                None if self.started.elapsed() < limit => {
                    std::thread::sleep(Duration::from_millis(2))
                }
                None => {
                    timed_out = true;
                    let _ = self.child.kill();
                    break self.child.wait().expect("it is our child");
                }
            }
        };
        let took = self.started.elapsed();
        let join = |thread: JoinHandle<Vec<u8>>| -> Vec<u8> {
            // Whoever inherited the pipe may outlive the command; do not hang on that.
            let deadline = Instant::now() + Duration::from_secs(5);
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            if thread.is_finished() {
                thread.join().unwrap_or_default()
            } else {
                b"[still open]".to_vec()
            }
        };
        Output {
            stdout: join(self.stdout),
            stderr: join(self.stderr),
            code: exit_code(status),
            timed_out,
            took,
        }
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn collect(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}
