//! The layers of the platform can be left out one by one, with the same results; and what `--stats` says of them.

use sandbox_tests::{Case, binaries, program, same_as_native, sh};

/// A program of the conformance family `torture`, with layers left out.
fn torture(name: &str, platform: &str) -> Case {
    let binary = binaries::conformance().to_str().expect("a plain path").to_owned();
    program(&[&binary, "torture", name]).option(&format!("--platform={platform}")).limit(180)
}

fn shell(platform: &str) -> Case {
    let script = "for i in $(seq 60); do /bin/true; done; seq 2000 | sort -n | tail -1; kill -TERM $$ & wait";
    sh(script).option(&format!("--platform={platform}"))
}

same_as_native! {
    threads_without_rewriting => torture("mutex_of_64_threads", "seccomp,no-rewrite");
    threads_without_answers => torture("mutex_of_64_threads", "seccomp,no-answer");
    threads_without_spinning => torture("mutex_of_64_threads", "seccomp,no-spin");
    threads_without_any => torture("mutex_of_64_threads", "seccomp,no-rewrite,no-answer,no-spin");
    vectors_without_rewriting => torture("vector_state_survives", "seccomp,no-rewrite");
    vectors_without_answers => torture("vector_state_survives", "seccomp,no-answer");
    vectors_without_spinning => torture("vector_state_survives", "seccomp,no-spin");
    pipes_without_spinning => torture("pipe_ring_of_50", "seccomp,no-spin");
    processes_without_rewriting => shell("seccomp,no-rewrite");
    processes_without_answers => shell("seccomp,no-answer");
    processes_without_spinning => shell("seccomp,no-spin");
}

#[test]
fn unknown_layers_are_refused() {
    sh("true").option("--platform=seccomp,no-brakes").assert_fails(125, &["no-brakes"]);
    sh("true").option("--platform=warp").assert_fails(125, &["warp"]);
}

/// The share of calls through rewritten sites that `--stats` prints, in percent.
fn share(case: Case) -> f64 {
    let output = case.option("--stats").run_in_sandbox();
    assert_eq!(output.code, 0, "{output}");
    let text = output.stderr();
    let share = text.lines().find_map(|line| line.split_once('(')?.1.strip_suffix(" %)"));
    share.and_then(|share| share.parse().ok()).unwrap_or_else(|| panic!("{output}"))
}

#[test]
fn hot_programs_hardly_trap() {
    let script = "import os\nfor i in range(20000): os.stat('/')";
    assert!(share(program(&["/usr/bin/python3", "-c", script])) > 95.0);
    assert!(share(sh("for i in $(seq 100); do /bin/true; done")) > 80.0);
    // What the shim answers comes through rewritten sites as well.
    let script = "import os\nfor i in range(20000): os.getuid()";
    let output = program(&["/usr/bin/python3", "-c", script]).option("--stats").run_in_sandbox();
    let text = output.stderr();
    let answered = text.lines().find_map(|line| line.trim().strip_prefix("answered by shims: "));
    let answered: u64 = answered.and_then(|count| count.parse().ok()).unwrap_or(0);
    assert!(answered > 19_000, "{output}");
    // A shell that hears of the end of each.
    assert!(share(sh("for i in $(seq 400); do /bin/true; done")) > 95.0);
    let off = sh("true").option("--platform=seccomp,no-rewrite").option("--stats");
    let output = off.run_in_sandbox();
    assert!(output.stderr().contains("not rewritten"), "{output}");
}

/// A short program has hardly any rewritten sites yet.
#[test]
fn calls_that_trap_are_answered_as_well() {
    let output = program(&["/bin/true"]).option("--stats").run_in_sandbox();
    let text = output.stderr();
    let count = |name: &str| -> u64 {
        let count = text.lines().find_map(|line| line.trim().strip_prefix(name));
        let count = count.and_then(|count| count.split(' ').next()?.parse().ok());
        count.unwrap_or_else(|| panic!("{output}"))
    };
    assert!(count("calls that trapped: ") > 15, "{output}");
    assert!(count("answered by shims: ") > count("through rewritten sites: ") + 5, "{output}");
}

/// What an epoll watches is changed without a call, while it is its only process's.
#[test]
fn changes_of_epolls_are_answered() {
    let script = "
import os, select
epoll, (a, b) = select.epoll(), os.pipe()
for i in range(20000):
    epoll.register(a, select.EPOLLIN); epoll.modify(a, 0); epoll.unregister(a)
os.write(b, b'x'); epoll.register(a, select.EPOLLIN)
assert epoll.poll(0) == [(a, select.EPOLLIN)]";
    let output = program(&["/usr/bin/python3", "-c", script]).option("--stats").run_in_sandbox();
    assert_eq!(output.code, 0, "{output}");
    let text = output.stderr();
    let answered = text.lines().find_map(|line| line.trim().strip_prefix("answered by shims: "));
    let answered: u64 = answered.and_then(|count| count.parse().ok()).unwrap_or(0);
    assert!(answered > 50_000, "{output}");
}

#[test]
fn stats_name_what_was_called_most() {
    let output = sh("for i in $(seq 60); do /bin/true; done").option("--stats").run_in_sandbox();
    assert_eq!(output.code, 0, "{output}");
    let text = output.stderr();
    let count_of = |name: &str| -> Option<u64> {
        let mut rows = text.lines().filter_map(|line| line.trim().split_once(' '));
        rows.find_map(|(count, called)| (called == name).then(|| count.parse().ok())?)
    };
    assert!(count_of("execve").is_some_and(|count| (60..80).contains(&count)), "{output}");
    assert_eq!(count_of("no_such_call"), None);
    let rings = text.lines().find_map(|line| line.trim().strip_prefix("rings of the doorbell: "));
    assert!(
        rings.and_then(|rings| rings.parse().ok()).is_some_and(|rings: u64| rings > 60),
        "{output}"
    );
}
