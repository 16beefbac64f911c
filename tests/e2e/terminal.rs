//! A real terminal: script(1) gives one, on the host and around the sandbox.

use std::process::Command;
use std::time::Duration;

use sandbox_tests::{Output, binaries, run};

/// Runs a shell script under a new terminal, in the sandbox; each of `keys` is typed after a moment, as printf(1)
/// renders it.
fn on_terminal(script: &str, keys: &[&str]) -> Output {
    let sandbox = binaries::sandbox().display();
    let inner = format!("{sandbox} run -- /bin/bash -c {}", quoted(script));
    let keys: String =
        keys.iter().map(|key| format!("sleep 1; printf {}; ", quoted(key))).collect();
    let typed = format!("({keys}sleep 1) | script -qec {} /dev/null", quoted(&inner));
    let mut command = Command::new("/bin/bash");
    command.args(["-c", &typed]).env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "xterm");
    run::start(&mut command, b"").finish(Duration::from_secs(30))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[test]
fn streams_are_a_terminal() {
    let output = on_terminal("test -t 0 && test -t 1 && test -t 2 && echo all; tty", &[]);
    assert!(output.stdout().contains("all\r\n"), "{output}");
    assert!(output.stdout().contains("/dev/pts/"), "{output}");
}

#[test]
fn interrupt_key_reaches_the_foreground_job() {
    let output = on_terminal("trap 'echo interrupted; exit 5' INT; sleep 20", &["\\003"]);
    assert!(output.stdout().contains("interrupted"), "{output}");
    assert_eq!(output.code, 5, "{output}");
}

#[test]
fn end_of_file_key_ends_input() {
    let output = on_terminal("cat; echo after", &["line\\n", "\\004"]);
    assert!(output.stdout().contains("line\r\nline\r\n"), "{output}");
    assert!(output.stdout().contains("after"), "{output}");
}

#[test]
fn terminal_is_restored() {
    let sandbox = binaries::sandbox().display();
    let script = format!(
        "a=$(stty -g); {sandbox} run -- /bin/true; b=$(stty -g); [ \"$a\" = \"$b\" ] && echo same"
    );
    let mut command = Command::new("script");
    command.args(["-qec", &script, "/dev/null"]).env("TERM", "xterm");
    let output = run::start(&mut command, b"").finish(Duration::from_secs(30));
    assert!(output.stdout().contains("same"), "{output}");
}

#[test]
fn window_size_is_the_terminals() {
    let sandbox = binaries::sandbox().display();
    let script = format!("stty rows 33 cols 77; {sandbox} run -- stty size");
    let mut command = Command::new("script");
    command.args(["-qec", &script, "/dev/null"]).env("TERM", "xterm");
    let output = run::start(&mut command, b"").finish(Duration::from_secs(30));
    assert!(output.stdout().contains("33 77"), "{output}");
}

#[test]
fn job_control_works_in_an_interactive_shell() {
    let output = on_terminal(
        "exec bash --norc -i",
        // A second more until the key: bash's child that is stopped before it executes the program ignores SIGTERM still.
        &["sleep 50\\n", "", "\\032", "jobs; kill %%1\\n", "wait\\n", "exit 6\\n"],
    );
    assert!(output.stdout().contains("Stopped"), "{output}");
    assert_eq!(output.code, 6, "{output}");
}

#[test]
fn pipeline_output_stays_a_pipe() {
    let sandbox = binaries::sandbox().display();
    let script = format!(
        "{sandbox} run -- /bin/sh -c 'test -t 1 || echo piped; test -t 0 && echo typed' | cat"
    );
    let mut command = Command::new("script");
    command.args(["-qec", &script, "/dev/null"]).env("TERM", "xterm");
    let output = run::start(&mut command, b"").finish(Duration::from_secs(30));
    assert!(output.stdout().contains("piped") && output.stdout().contains("typed"), "{output}");
}
