//! The checks that no reviewer should have to argue about.
//!
//! | module | checks |
//! | --- | --- |
//! | `sizes` | lines per file and per function |
//! | `edges` | which crate may depend on which |
//! | `text` | `unsafe`, TODO form, `allow`, forbidden words |

mod edges;
mod sizes;
mod text;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// One thing found, at a place.
pub struct Finding {
    pub severity: Severity,
    pub path: PathBuf,
    /// 1-based; 0 means the whole file.
    pub line: usize,
    pub message: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Warning,
    Error,
}

impl Finding {
    pub fn error(path: &Path, line: usize, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, path: path.to_owned(), line, message: message.into() }
    }

    pub fn warning(path: &Path, line: usize, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {}:{}: {}", self.path.display(), self.line, self.message)
    }
}

/// A tracked text file.
pub struct Source {
    /// Relative to the repository's top.
    pub path: PathBuf,
    pub text: String,
}

impl Source {
    pub fn is_rust(&self) -> bool {
        self.path.extension().is_some_and(|e| e == "rs")
    }
}

/// Runs every check on the tracked files under `root` and prints what it found.
pub fn run(root: &Path) -> ExitCode {
    let sources = match tracked_files(root) {
        Ok(sources) => sources,
        Err(error) => {
            eprintln!("tidy: cannot list the repository's files with git: {error}");
            return ExitCode::from(2);
        }
    };
    let mut findings = Vec::new();
    for source in &sources {
        if source.is_rust() {
            sizes::check(source, &mut findings);
        }
        text::check(source, &mut findings);
        edges::check(source, &mut findings);
    }
    for finding in &findings {
        println!("{finding}");
    }
    let errors = findings.iter().filter(|f| f.severity == Severity::Error).count();
    println!(
        "tidy: {} files, {} warnings, {errors} errors",
        sources.len(),
        findings.len() - errors
    );
    if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Everything git tracks or would track, as far as it is UTF-8 text.
fn tracked_files(root: &Path) -> std::io::Result<Vec<Source>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()?;
    if !output.status.success() {
        return Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let sources = names.split('\0').filter(|name| !name.is_empty()).filter_map(|name| {
        let text = std::fs::read_to_string(root.join(name)).ok()?;
        Some(Source { path: PathBuf::from(name), text })
    });
    Ok(sources.collect())
}
