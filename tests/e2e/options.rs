//! The options of `sandbox run`.

use sandbox_tests::{program, sh};

fn prints(case: &sandbox_tests::Case, expected: &str) {
    let output = case.run_in_sandbox();
    assert_eq!((output.stdout().as_str(), output.code), (expected, 0), "{output}");
}

#[test]
fn env_sets_and_limits_variables() {
    prints(&sh("echo $A $COLOUR").env("COLOUR", "blue").option("--env=A=1"), "1 blue\n");
    prints(
        &sh("echo ${COLOUR-none} $B").env("COLOUR", "blue").env("B", "2").option("--env=B"),
        "none 2\n",
    );
}

#[test]
fn workdir_is_where_the_program_starts() {
    prints(&sh("pwd").option("--workdir=/usr/share"), "/usr/share\n");
    prints(&program(&["/bin/cat", "f"]).file("sub/f", "x\n").option("--workdir=sub"), "x\n");
}

#[test]
fn workdir_that_is_missing_is_told() {
    sh("pwd").option("--workdir=/no/such").assert_fails(125, &["sandbox:", "/no/such"]);
}

#[test]
fn user_by_number_and_by_name() {
    prints(&sh("id -u; id -g").option("--user=1234:77"), "1234\n77\n");
    prints(&sh("id -un; id -g").option("--user=nobody"), "nobody\n65534\n");
}

#[test]
fn hostname_is_seen_by_the_program() {
    prints(&sh("hostname; uname -n").option("--hostname=inside"), "inside\ninside\n");
}

#[test]
fn write_lets_changes_through() {
    let case = sh("echo new > f; mkdir d; echo deep > d/g; mv f h; ln -s h l; chmod 600 h")
        .option("--write=.");
    let scratch = case.scratch();
    let output = case.start_in_sandbox(&scratch).finish(std::time::Duration::from_secs(30));
    assert_eq!(output.code, 0, "{output}");
    let read = |name| std::fs::read_to_string(scratch.path().join(name)).unwrap_or_default();
    assert_eq!(
        (read("h").as_str(), read("d/g").as_str(), read("l").as_str()),
        ("new\n", "deep\n", "new\n")
    );
    assert!(!scratch.path().join("f").exists());
}

#[test]
fn write_keeps_the_rest_unwritable() {
    let case = sh("echo x > sub/f; echo y > other").file("sub/f", "").option("--write=sub");
    let scratch = case.scratch();
    let output = case.start_in_sandbox(&scratch).finish(std::time::Duration::from_secs(30));
    assert_eq!(output.code, 0, "{output}");
    assert_eq!(std::fs::read_to_string(scratch.path().join("sub/f")).unwrap_or_default(), "x\n");
    assert!(!scratch.path().join("other").exists());
}

/// Also in an overlay, where it is a copy.
#[test]
fn a_program_that_is_written_anew_is_the_new_one() {
    for option in ["--write=.", "--pids=100"] {
        let script = "cp /bin/true p; for i in 1 2 3; do ./p; cat /bin/sh > p; ./p -c 'echo sh'
            cat /bin/true > p; ./p -c 'echo sh'; done";
        prints(&sh(script).option(option), "sh\nsh\nsh\n");
    }
}

#[test]
fn mount_shows_a_directory_elsewhere() {
    let case = sh("cat /mnt/f; echo x > /mnt/g").file("data/f", "content\n");
    prints(&case.option("--mount=data:/mnt"), "content\n");
    let read_only =
        sh("cat /mnt/f; echo x 2>/dev/null > /mnt/g; echo $?").file("data/f", "content\n");
    prints(&read_only.option("--mount=data:/mnt:ro"), "content\n1\n");
}

#[test]
fn rootfs_replaces_the_hosts_files() {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed by .ci/run");
    let case = program(&[
        "/bin/busybox",
        "sh",
        "-c",
        "pwd; busybox ls /; busybox cat /etc/motd; echo w > /new; busybox cat /new",
    ])
    .executable("root/bin/busybox", busybox)
    .file("root/etc/motd", "welcome\n")
    .option("--rootfs=root");
    let output = case.run_in_sandbox();
    assert_eq!(output.code, 0, "{output}");
    let text = output.stdout();
    assert!(text.starts_with("/\n") && text.ends_with("welcome\nw\n"), "{text}");
    assert!(!text.contains("usr"), "{text}");
}

#[test]
fn memory_limit_holds() {
    let script = "python3 -c \"x = bytearray(400_000_000)\"; echo $?";
    let output = sh(script).option("--memory=128M").run_in_sandbox();
    assert_ne!(output.stdout(), "0\n", "{output}");
    let output = sh("grep MemTotal /proc/meminfo").option("--memory=128M").run_in_sandbox();
    assert_eq!(output.stdout().split_whitespace().nth(1), Some("131072"), "{output}");
}

#[test]
fn pids_limit_holds() {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1 & done; wait";
    let output = sh(script).option("--pids=6").limit(60).run_in_sandbox();
    assert!(output.stderr().contains("fork"), "{output}");
}

#[test]
fn strace_prints_one_line_per_call() {
    let output = program(&["/bin/echo", "x"]).option("--strace").run_in_sandbox();
    assert_eq!(output.stdout(), "x\n");
    let text = output.stderr();
    assert!(text.contains("write(1") && text.contains("openat(") && text.contains(" = "), "{text}");
    let case = program(&["/bin/cat", "/no/such"]).option("--strace=calls.txt");
    let scratch = case.scratch();
    let output = case.start_in_sandbox(&scratch).finish(std::time::Duration::from_secs(30));
    assert!(!output.stderr().contains("openat("), "{output}");
    let text = std::fs::read_to_string(scratch.path().join("calls.txt")).unwrap_or_default();
    assert!(text.contains("/no/such") && text.contains("ENOENT"), "{text}");
}

#[test]
fn options_after_the_program_are_the_programs() {
    let output = program(&["/bin/echo", "--memory", "-v", "--", "x"]).run_in_sandbox();
    assert_eq!(output.stdout(), "--memory -v -- x\n");
}

#[test]
fn verbose_logs_to_standard_error_only() {
    let output = program(&["/bin/echo", "x"]).option("-v").run_in_sandbox();
    assert_eq!(output.stdout(), "x\n");
    assert!(output.stderr().contains("sentry"), "{output}");
}
