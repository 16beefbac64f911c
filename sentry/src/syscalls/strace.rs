//! `--strace`: one decoded line per call, printed when it is done, in strace(1)'s spelling.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;

use abi::arch::x86_64_calls;
use abi::ids::Tid;

use crate::error::{Restart, SysError, SysResult};
use crate::mm::Mm;
use crate::syscalls::args::Render;
use crate::syscalls::table::Words;

/// Where the lines go.
#[derive(Debug)]
pub struct Tracer {
    out: OwnedFd,
}

impl Tracer {
    #[must_use]
    pub fn new(out: OwnedFd) -> Self {
        Self { out }
    }

    /// Writes one line in one go, so that lines of several threads do not mix. A reader that went away is no
    /// reason to stop the guest.
    pub fn write_line(&self, line: &str) {
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            match rustix::io::write(&self.out, rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// An argument that is only known when the call is done: fills in for itself.
pub trait LateArg: Send {
    /// `result` is the call's return value.
    fn render_late(&self, out: &mut String, mm: &Mm, result: u64);
    /// What to show when the call failed.
    fn render_failed(&self, out: &mut String);
}

/// The line of one running call.
pub struct Trace {
    name: &'static str,
    line: String,
    /// Arguments to be filled in, with their places in `line`.
    late: Vec<(usize, Box<dyn LateArg>)>,
}

impl Trace {
    /// `raw`: the words of a call without a row, shown in hexadecimal.
    #[must_use]
    pub fn start(number: u64, raw: Option<&Words>) -> Self {
        let name = x86_64_calls::name(number).unwrap_or("syscall");
        let mut line = format!("{name}(");
        if name == "syscall" {
            let _ = write!(line, "{number:#x}, ");
        }
        if let Some(words) = raw {
            let words: Vec<String> = words.iter().map(|word| format!("{word:#x}")).collect();
            line.push_str(&words.join(", "));
        }
        Self { name, line, late: Vec::new() }
    }

    /// Adds the next argument.
    pub fn arg(&mut self, value: &dyn Render, mm: &Mm) {
        if !self.line.ends_with('(')
            || self.late.last().is_some_and(|late| late.0 == self.line.len())
        {
            self.line.push_str(", ");
        }
        match value.late() {
            Some(late) => self.late.push((self.line.len(), late)),
            None => value.render(&mut self.line, mm),
        }
    }

    /// The whole line, with its newline.
    #[must_use]
    pub fn finish(self, tid: Tid, mm: &Mm, result: &SysResult) -> String {
        let mut text = format!("[{tid}] ");
        let mut done = 0;
        for (at, late) in self.late {
            text.push_str(self.line.get(done..at).unwrap_or_default());
            done = at;
            match result {
                Ok(value) => late.render_late(&mut text, mm, *value),
                Err(_) => late.render_failed(&mut text),
            }
        }
        text.push_str(self.line.get(done..).unwrap_or_default());
        drop_unused_mode(&mut text, self.name);
        text.push_str(") = ");
        push_result(&mut text, self.name, result);
        text.push('\n');
        text
    }
}

/// The mode of open(2) is garbage unless it creates something.
fn drop_unused_mode(text: &mut String, name: &str) {
    let is_open = matches!(name, "open" | "openat");
    if is_open
        && !text.contains("O_CREAT")
        && !text.contains("O_TMPFILE")
        && let Some(end) = text.rfind("|O_").or_else(|| text.rfind(", O_"))
        && let Some(comma) = text.get(end + 2..).and_then(|rest| rest.rfind(", 0"))
    {
        text.truncate(end + 2 + comma);
    }
}

fn push_result(text: &mut String, name: &str, result: &SysResult) {
    let is_address = matches!(name, "mmap" | "brk" | "mremap" | "shmat");
    let _ = match result {
        Ok(value) if is_address => write!(text, "{value:#x}"),
        Ok(value) => write!(text, "{}", value.cast_signed()),
        Err(SysError::Errno(errno)) => write!(text, "-1 {errno:?} ({})", errno.text()),
        Err(SysError::Restart(restart)) => write!(text, "? {}", restart_text(*restart)),
        Err(SysError::RegsSet) => write!(text, "0"),
        Err(SysError::Exited) => write!(text, "?"),
    };
}

const fn restart_text(restart: Restart) -> &'static str {
    match restart {
        Restart::IfAsked => "ERESTARTSYS (To be restarted if SA_RESTART is set)",
        Restart::NoHandler => "ERESTARTNOHAND (To be restarted if no handler)",
        Restart::Always => "ERESTARTNOINTR (To be restarted)",
        Restart::Block => "ERESTART_RESTARTBLOCK (Interrupted by signal)",
    }
}
