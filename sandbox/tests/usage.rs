//! The command line itself, without a program. (This file also makes cargo build the binary for every test run.)

use std::process::{Command, Output};

fn sandbox(args: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_sandbox")).args(args).output();
    command.expect("the binary was built for this test")
}

fn assert_refused(args: &[&str], words: &[&str]) {
    let output = sandbox(args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    assert!(stderr.starts_with("sandbox: "), "{args:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{args:?}: no {word:?} in {stderr}");
    }
}

#[test]
fn usage_errors_are_one_line_and_exit_code_125() {
    assert_refused(&["run", "--no-such-option", "true"], &["--no-such-option", "--help"]);
    assert_refused(&["rum"], &["rum", "run"]);
    assert_refused(&["run"], &["PROGRAM"]);
    assert_refused(&[], &["--help"]);
    assert_refused(&["run", "--memory", "lots", "true"], &["--memory", "lots"]);
    assert_refused(&["run", "--pids", "0", "true"], &["--pids"]);
    assert_refused(&["run", "--timeout=-1", "true"], &["--timeout"]);
}

#[test]
fn paths_that_cannot_be_used_are_named() {
    assert_refused(&["run", "--write", "/no/such/path", "true"], &["--write", "/no/such/path"]);
    assert_refused(&["run", "--mount", "/tmp", "true"], &["--mount", "SRC:DST"]);
    assert_refused(&["run", "--rootfs", "/etc/passwd", "true"], &["--rootfs", "not a directory"]);
    assert_refused(&["run", "--user", "no-such-user", "true"], &["--user", "no-such-user"]);
    assert_refused(&["run", "--strace=/no/such/dir/file", "true"], &["--strace", "/no/such/dir"]);
}

#[test]
fn help_names_options_and_exit_codes() {
    let output = sandbox(&["run", "--help"]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for word in ["--memory", "--write", "--strace", "127", "Examples"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
}

#[test]
fn doctor_reports_what_the_host_offers() {
    let output = sandbox(&["doctor"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("seccomp-user-notify"), "{text}");
    assert!(text.contains("user namespaces"), "{text}");
}
