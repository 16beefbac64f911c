//! The host stays as it was, whatever runs inside.

use std::time::Duration;

use sandbox_tests::{Who, sh};

const WRITE_EVERYTHING: &str = r#"
for f in keep.txt sub/deep.txt /etc/hostname /etc/passwd /usr/bin/env; do echo broken > $f 2>/dev/null; done
for d in . sub /tmp /var/tmp /etc /usr /usr/bin /root /home /opt; do
  echo broken > $d/sandbox-was-here 2>/dev/null; mkdir $d/sandbox-dir-was-here 2>/dev/null
done
mv keep.txt moved.txt; rm -rf sub; ln -s /etc/passwd link; chmod 000 moved.txt; touch -d 2001-01-01 .
mkdir new && mv new newer; truncate -s 0 gone.txt; rm -f gone.txt; chown 12:34 . 2>/dev/null
rm -rf /usr/share/doc /var/lib/dpkg /boot 2>/dev/null
kill -9 -1 2>/dev/null
exit 0
"#;

fn write_everything(who: Who) {
    let case = sh(WRITE_EVERYTHING)
        .by(who)
        .file("keep.txt", "kept\n")
        .file("gone.txt", "still here\n")
        .file("sub/deep.txt", "deep\n")
        .limit(120);
    let scratch = case.scratch();
    let before = scratch.snapshot();
    let passwd = std::fs::read("/etc/passwd").ok();
    let output = case.start_in_sandbox(&scratch).finish(Duration::from_secs(120));
    assert!(!output.timed_out, "{output}");
    assert!(scratch.snapshot() == before, "files changed\n{output}");
    assert_eq!(std::fs::read("/etc/passwd").ok(), passwd);
    for dir in ["/tmp", "/var/tmp", "/etc", "/usr", "/usr/bin", "/root", "/home", "/opt"] {
        for name in ["sandbox-was-here", "sandbox-dir-was-here"] {
            let path = std::path::Path::new(dir).join(name);
            assert!(!path.exists(), "{} is on the host\n{output}", path.display());
        }
    }
    assert!(std::path::Path::new("/var/lib/dpkg/status").exists());
}

#[test]
fn write_everything_script_of_the_caller() {
    write_everything(Who::Caller);
}

#[test]
fn write_everything_script_of_an_ordinary_user() {
    write_everything(Who::OrdinaryUser);
}

/// What the program changed is there for the program.
#[test]
fn writes_are_seen_inside() {
    let script =
        "echo changed > f && cat f && rm g && ls && echo root > /etc/new-file 2>/dev/null; cat f";
    let output = sh(script).file("f", "original\n").file("g", "").run_in_sandbox();
    assert_eq!(output.stdout(), "changed\nf\nchanged\n", "{output}");
}

/// The sentry's process as the host sees it: no files, no capabilities, a filter, namespaces of its own.
#[test]
fn sentry_is_confined() {
    let case = sh("sleep 100");
    let scratch = case.scratch();
    let running = case.start_in_sandbox(&scratch);
    let supervisor = running.child.id();
    std::thread::sleep(Duration::from_millis(1500));
    let children = format!("/proc/{supervisor}/task/{supervisor}/children");
    let children = std::fs::read_to_string(children).unwrap_or_default();
    let sentry = children.split_whitespace().next().expect("there is a sentry").to_owned();
    let status = std::fs::read_to_string(format!("/proc/{sentry}/status")).unwrap_or_default();
    let entries = std::fs::read_dir(format!("/proc/{sentry}/root")).map(Iterator::count);
    // SAFETY: signals a process this test started.
    unsafe { libc::kill(i32::try_from(supervisor).expect("a pid fits"), libc::SIGTERM) };
    running.finish(Duration::from_secs(10));
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().to_owned()
    };
    assert_eq!(field("CapEff:"), "0000000000000000", "{status}");
    assert_eq!(field("CapPrm:"), "0000000000000000", "{status}");
    assert_eq!(field("NoNewPrivs:"), "1", "{status}");
    assert_eq!(field("Seccomp:"), "2", "{status}");
    assert!(!field("Uid:").starts_with("0\t"), "{status}");
    assert!(matches!(entries, Ok(0) | Err(_)), "the sentry sees {entries:?} entries");
}
