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

const FIND: &str = "for n in 1 2 3 4 5 6; do find tree -type f -size +1; done | sort | uniq -c";
const GREP: &str = "for n in 1 2 3 4 5 6; do grep -rc x tree; done | sort | uniq -c";

same_as_native! {
    finds_are_the_same => with_tree(sh(FIND), "tree");
    greps_are_the_same => with_tree(sh(GREP), "tree");
    copies_are_the_same => with_tree(sh("cp -r tree other && diff -r tree other && rm -r tree && find . | sort"), "tree").writes_here();
}

/// A walk of a whole family's size, and tools that walk but once.
#[test]
fn walks_need_no_calls() {
    let binary = binaries::conformance().to_str().expect("a plain path").to_owned();
    let walk =
        || with_tree(program(&[&binary, "known_names", "a_number_again_and_again"]), "again");
    let (asked, answered) = calls(walk());
    // 60 directories of 14 files, each of which is opened, read and closed.
    assert!(answered > 60 * 14 * 3 && asked < answered / 3, "{asked} {answered}");
    let (asked, _) = calls(walk().option("--platform=seccomp,no-answer"));
    assert!(asked > 60 * 14 * 3, "{asked}");
}

#[test]
fn tools_that_walk_make_few_calls() {
    let (asked, answered) =
        calls(with_tree(program(&["/usr/bin/grep", "-rc", "x", "tree"]), "tree"));
    assert!(answered > 84 * 4 && asked < 84 * 4, "{asked} {answered}");
}
