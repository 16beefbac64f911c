//! Runs the guest programs of `tests/conformance` natively and in the sandbox.
//!
//! `expectations.toml` lists the tests that cannot pass in the sandbox yet, each with its reason; one that passes
//! although it is listed fails, so that the list never grows stale.

use std::collections::BTreeMap;
use std::path::Path;

use sandbox_tests::{Output, Who, binaries, names, program};

const FAMILIES: &[&str] = &[
    "read_write",
    "lent_reads",
    "lent_sharing",
    "own_acts",
    "known_descriptors",
    "known_effects",
    "known_names",
    "changed_names",
    "names_model",
    "known_paths",
    "told_paths",
    "known_watches",
    "directory",
    "memory",
    "heap",
    "heap_model",
    "library",
    "process",
    "signal",
    "signal_calls",
    "frame",
    "thread",
    "layout",
    "private_futex",
    "time",
    "poll",
    "identity",
    "call_sites",
    "stat",
    "pipe",
    "pipe_stream",
    "pipe_waits",
    "socket",
    "network",
    "exec",
    "misc",
    "fcntl",
    "timer",
    "terminal",
    "watch",
    "proc",
    "hostile",
];

/// Trees that a family walks through, one for each test.
fn trees(family: &str) -> &'static [&'static str] {
    match family {
        "known_names" => &[
            "sizes", "listings", "numbers", "again", "many", "children", "exec", "threads",
            "refused", "watched", "ends",
        ],
        "changed_names" => {
            &["files", "open", "names", "closed", "moved-names", "users", "halves", "mounts"]
        }
        "told_paths" => {
            &["told-0", "told-1", "told-2", "told-3", "told-4", "told-5", "told-6", "told-7"]
        }
        "names_model" => &["model-0", "model-1", "model-2", "numbers-read"],
        _ => &[],
    }
}

fn run(family: &str, who: Who, native: bool) -> Output {
    let binary = binaries::conformance().to_str().expect("a plain path").to_owned();
    let mut case = program(&[&binary, family]).by(who).limit(60);
    // Files that were there before, for those who change one: of the host, in the sandbox.
    for name in ["mode", "link", "name", "folder", "moved"] {
        case = case.file(&format!("{name}/subject"), "a file\n");
    }
    for name in trees(family) {
        for (path, bytes) in names::files() {
            case = case.file(&format!("{name}/{path}"), bytes);
        }
    }
    if native { case.run_natively() } else { case.run_in_sandbox() }
}

/// Test name to `ok` or what went wrong.
fn results(output: &Output) -> BTreeMap<String, String> {
    let text = output.stdout();
    let lines = text.lines().filter_map(|line| line.strip_prefix("test ")?.split_once(": "));
    lines.map(|(name, result)| (name.to_owned(), result.to_owned())).collect()
}

/// `"family/test" = "reason"` lines.
fn expectations() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/expectations.toml");
    let text = std::fs::read_to_string(path).expect("the list is part of the repository");
    let lines =
        text.lines().filter(|line| line.starts_with('"')).filter_map(|line| line.split_once(" = "));
    let bare = |text: &str| text.trim().trim_matches('"').to_owned();
    lines.map(|(name, reason)| (bare(name), bare(reason))).collect()
}

fn check(family: &str, who: Who) {
    let known = expectations();
    let native = run(family, who, true);
    let ours = run(family, who, false);
    let (expected, found) = (results(&native), results(&ours));
    let mut wrong = Vec::new();
    for (name, result) in &expected {
        if result != "ok" {
            wrong.push(format!("{name} fails natively: {result}"));
        }
        let full = format!("{family}/{name}");
        let result = found.get(name).map_or("did not finish", String::as_str);
        match (result == "ok", known.get(&full)) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(_)) => wrong.push(format!("{full} passes: take it off expectations.toml")),
            (false, None) => wrong.push(format!("{full}: {result}")),
        }
    }
    assert!(!expected.is_empty(), "no tests in {family}\n{native}");
    assert!(wrong.is_empty(), "{who:?}\n{}\n=== sandbox\n{ours}", wrong.join("\n"));
}

macro_rules! families {
    ($($family:ident)*) => {
        $(mod $family {
            #[test]
            fn as_caller() {
                super::check(stringify!($family), super::Who::Caller);
            }

            #[test]
            fn as_ordinary_user() {
                super::check(stringify!($family), super::Who::OrdinaryUser);
            }
        })*

        #[test]
        fn every_family_is_run() {
            assert_eq!(FAMILIES, [$(stringify!($family)),*]);
        }
    };
}

families! {
    read_write lent_reads lent_sharing own_acts known_descriptors known_effects known_names changed_names names_model known_paths told_paths known_watches directory memory heap heap_model library process signal signal_calls frame thread layout private_futex time poll identity call_sites stat pipe pipe_stream pipe_waits socket
    network
    exec misc fcntl timer terminal watch proc hostile
}
