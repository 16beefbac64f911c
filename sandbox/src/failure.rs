//! Why the sandbox itself failed: one line that says what, why and what to do.

use std::fmt;

/// Our own failure, as opposed to the program's.
const FAILED: u8 = 125;
/// `--timeout` ran out, as timeout(1) reports it.
const TIMED_OUT: u8 = 124;

/// A failure and the exit code that tells it to scripts.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into() }
    }

    /// A failed host call: what we wanted and what the host said.
    pub fn host(what: &str, error: impl fmt::Display) -> Self {
        Self::new(format!("{what}: {error}"))
    }

    pub fn timed_out(seconds: f64) -> Self {
        let message = format!("the program was killed after {seconds} s (--timeout)");
        Self { code: TIMED_OUT, message }
    }

    /// What the sentry reported: it knows the code (125, 126 or 127) and the words.
    pub fn of_sentry(code: u8, message: String) -> Self {
        Self { code, message }
    }

    /// A command line that cannot be understood: clap's first paragraph in one line.
    pub fn usage(error: &clap::Error) -> Self {
        if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            return Self::new("no command given; see 'sandbox --help'");
        }
        let text = error.to_string();
        let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
        let is_news = |line: &&str| !line.is_empty() && !line.starts_with("For more information");
        let words: Vec<&str> = lines.filter(is_news).collect();
        let line = words.join(" ").replace(" tip: ", "; ");
        let line = line.strip_prefix("error: ").unwrap_or(&line);
        Self::new(format!("{line}; see 'sandbox --help' or 'sandbox run --help'"))
    }

    pub fn code(&self) -> u8 {
        self.code
    }
}
