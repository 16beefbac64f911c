//! Long streams through pipes: the same bytes natively and here, and few calls for them.

use sandbox_tests::{Case, binaries, program, same_as_native, sh};

fn layers(family: &str, platform: &str) -> Case {
    let binary = binaries::conformance().to_str().expect("a plain path").to_owned();
    program(&[&binary, family]).option(&format!("--platform={platform}")).limit(120)
}

/// A stream of 20 MB whose bytes tell where they are, through a pipeline.
fn numbers(pipeline: &str) -> Case {
    sh(&format!("seq 1 2700000 | {pipeline}"))
}

same_as_native! {
    through_many_hands => numbers("cat | dd bs=10k 2>/dev/null | tee /dev/null | md5sum");
    through_a_compressor => numbers("gzip -1 | gzip -d | md5sum");
    through_threads => numbers("sort -n -r | head -n 1000 | md5sum");
    through_a_shell => numbers("{ head -c 9000001 | md5sum; cat | md5sum; }");
    side_by_side => sh("{ for n in 1 2 3 4 5 6; do seq $n 600000 | cat | md5sum & done; wait; } | sort");
    without_answers => layers("pipe_stream", "seccomp,no-answer");
    without_spinning => layers("pipe_stream", "seccomp,no-spin");
    waits_without_answers => layers("pipe_waits", "seccomp,no-answer");
    waits_without_spinning => layers("pipe_waits", "seccomp,no-spin");
    without_rewriting => layers("pipe_stream", "seccomp,no-rewrite");
}

const STREAM: &str = "dd if=/dev/zero bs=10k count=12000 2>/dev/null | wc -c";

/// How many read(2) and write(2) the sentry answered.
fn transfers(case: Case) -> u64 {
    let output = case.option("--stats").run_in_sandbox();
    assert_eq!(output.code, 0, "{output}");
    let text = output.stderr();
    let rows = text.lines().filter_map(|line| line.trim().split_once(' '));
    let counts = rows.filter(|(_, name)| matches!(*name, "read" | "write"));
    counts.filter_map(|(count, _)| count.parse::<u64>().ok()).sum()
}

#[test]
fn streams_need_few_calls() {
    let few = transfers(sh(STREAM));
    assert!(few < 9_000, "{few}");
    let all = transfers(sh(STREAM).option("--platform=seccomp,no-answer"));
    assert!(all > 18_000, "{all}");
}

#[test]
fn traces_show_all_transfers() {
    let script =
        "dd if=/dev/zero bs=10k count=500 2>/dev/null | dd bs=10k of=/dev/null 2>/dev/null";
    let output = sh(script).option("--strace").run_in_sandbox();
    let writes = output.stderr().lines().filter(|line| line.contains("write(1, ")).count();
    assert!(writes >= 1000, "{writes}");
}
