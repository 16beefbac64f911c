//! Walks through directories of the host by names: nearly all of what they do is answered in the guest.

use sandbox_tests::{Case, binaries, names, program, same_as_native, sh};

/// A tree of the host, called `name`, and a program that walks through it.
fn with_tree(mut case: Case, name: &str) -> Case {
    for (path, bytes) in names::files() {
        case = case.file(&format!("{name}/{path}"), bytes);
    }
    case
}

/// Calls that the sentry answered, and those answered in the guest.
fn calls(case: Case) -> (u64, u64) {
    let output = case.option("--stats").run_in_sandbox();
    assert_eq!(output.code, 0, "{output}");
    let text = output.stderr();
    let counts = |start: &str| -> u64 {
        let lines = text.lines().filter_map(|line| line.trim().split_once(": "));
        let lines = lines.filter(|(name, _)| name.starts_with(start));
        lines.filter_map(|(_, count)| count.split(' ').next()?.parse::<u64>().ok()).sum()
    };
    (counts("calls "), counts("answered by shims"))
}
