//! What may stand in a line: `unsafe`, TODO, `allow`, words that belong to somebody's machine.

use super::{Finding, Source};

/// Where `unsafe` may live. Everything else starts with `#![forbid(unsafe_code)]`.
const UNSAFE_ROOMS: &[&str] = &["host/", "platform/", "tests/"];

/// Paths of a developer's machine; split so that this file does not contain them.
const FORBIDDEN: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/root/", ".cargo"),
    concat!("/root/", ".rustup"),
    concat!("/tmp/", "bash_jobs"),
];

pub fn check(source: &Source, findings: &mut Vec<Finding>) {
    let is_lock_file = source.path.ends_with("Cargo.lock");
    for (index, line) in source.text.lines().enumerate() {
        let mut error =
            |message: String| findings.push(Finding::error(&source.path, index + 1, message));
        if let Some(word) = FORBIDDEN.iter().find(|word| !is_lock_file && line.contains(**word)) {
            error(format!("{word} is a path of one machine"));
        }
        if source.is_rust()
            && let Some(message) = rust_line(line, may_be_unsafe(source))
        {
            error(message.to_owned());
        }
    }
    if source.is_rust() && is_crate_root(source) && !may_be_unsafe(source) {
        let forbids = source.text.contains("#![forbid(unsafe_code)]");
        if !forbids {
            let message = "the crate must start with #![forbid(unsafe_code)]";
            findings.push(Finding::error(&source.path, 1, message));
        }
    }
}

fn may_be_unsafe(source: &Source) -> bool {
    UNSAFE_ROOMS.iter().any(|room| source.path.starts_with(room))
}

fn is_crate_root(source: &Source) -> bool {
    source.path.ends_with("src/lib.rs") || source.path.ends_with("src/main.rs")
}

/// What is wrong with one line of Rust, if anything.
fn rust_line(line: &str, may_be_unsafe: bool) -> Option<&'static str> {
    // Two slashes inside a string literal start no comment.
    let is_comment = |(code, _): &(&str, &str)| code.matches('"').count() % 2 == 0;
    let (code, comment) = line.split_once("//").filter(is_comment).unwrap_or((line, ""));
    let comment = comment.trim_start_matches(['/', '!', ' ']);
    let is_promise = ["TODO", "FIXME", "XXX"].iter().any(|word| comment.starts_with(word));
    if is_promise && !comment.starts_with("TODO(#") {
        return Some("write TODO(#issue): every one has an issue number");
    }
    let code = code.trim();
    let is_allow = code.starts_with("#[allow(") || code.starts_with("#![allow(");
    if is_allow && !code.contains("reason = ") {
        return Some("use #[expect(lint, reason = \"...\")]; an allow needs its reason");
    }
    let opens = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"];
    if !may_be_unsafe && !code.contains('"') && opens.iter().any(|open| code.contains(open)) {
        return Some("unsafe lives in host and platform only");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_todo_is_refused_and_a_numbered_one_passes() {
        assert!(rust_line("    // TODO later", true).is_some());
        assert!(rust_line("    // TODO(#12): later", true).is_none());
    }

    #[test]
    fn unsafe_is_refused_outside_its_rooms() {
        assert!(rust_line("    unsafe { f() }", false).is_some());
        assert!(rust_line("    unsafe { f() }", true).is_none());
    }
}
