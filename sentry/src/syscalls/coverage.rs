//! `docs/SYSCALLS.md` and `sandbox syscalls`: what the table says, for readers.

use std::fmt::Write as _;

use abi::arch::x86_64_calls::CALLS;

use crate::syscalls::dispatch::RESTART_SYSCALL;
use crate::syscalls::table::{self, Support};

/// Every x86-64 call up to Linux 6.18 with its support, as Markdown.
#[must_use]
pub fn markdown() -> String {
    let absent: Vec<&str> =
        CALLS.iter().filter(|(number, _)| row(*number).is_none()).map(|(_, name)| *name).collect();
    let present = CALLS.len() - absent.len();
    let mut text = format!(
        "# System calls\n\nGenerated from `sentry/src/syscalls/table.rs`; `sandbox syscalls` prints the same.\n\n\
         {present} of the {} calls of x86-64 up to Linux 6.18 are there; the rest answers `ENOSYS` and is named at \
         the end. *Partial* says what is missing from a call that is there.\n\n\
         | number | call | support |\n| ---: | --- | --- |\n",
        CALLS.len()
    );
    for (number, name) in CALLS {
        let Some(support) = row(*number) else { continue };
        // Writing to a string cannot fail.
        let _ = match support {
            Support::Full => writeln!(text, "| {number} | {name} | full |"),
            Support::Partial(missing) => {
                writeln!(text, "| {number} | {name} | partial: {missing} |")
            }
        };
    }
    text.push_str("\n## Absent\n\n");
    for line in wrapped(&absent) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// Support of a call; `dispatch` answers restart_syscall(2) by itself.
fn row(number: u32) -> Option<Support> {
    if u64::from(number) == RESTART_SYSCALL {
        return Some(Support::Full);
    }
    table::row(u64::from(number)).map(|row| row.support)
}

/// Names separated by commas, in lines of at most 118 characters.
fn wrapped(names: &[&str]) -> Vec<String> {
    let mut lines = vec![String::new()];
    for (index, name) in names.iter().enumerate() {
        let end = if index + 1 == names.len() { "." } else { "," };
        let word = format!("{name}{end}");
        match lines.last_mut() {
            Some(line) if line.is_empty() => *line = word,
            Some(line) if line.len() + 1 + word.len() <= 118 => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE_DOCS=1 cargo test -p sentry syscalls_page` writes the page anew.
    #[test]
    fn syscalls_page_is_what_the_table_says() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/SYSCALLS.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(page, markdown()).unwrap();
        }
        let committed = std::fs::read_to_string(page).unwrap_or_default();
        let hint =
            "docs/SYSCALLS.md is stale: run UPDATE_DOCS=1 cargo test -p sentry syscalls_page";
        assert!(committed == markdown(), "{hint}");
    }

    #[test]
    fn every_row_is_on_the_page() {
        let text = markdown();
        for row in table::ROWS {
            assert!(text.contains(&format!("| {} | {} |", row.number, row.name)), "{}", row.name);
        }
        assert!(text.contains("io_uring_setup"));
    }
}
