//! Killed parts, signals, time limits: all of it ends, with a message and the right exit code.

use std::path::Path;
use std::time::{Duration, Instant};

use sandbox_tests::processes::{children, descendants, kill, resident_pages};
use sandbox_tests::{Case, Output, sh};

const LIMIT: Duration = Duration::from_secs(30);

/// Starts the case, waits until it prints `ready`, does something to its supervisor's pid, and waits for its end.
fn disturb(case: &Case, act: impl FnOnce(i32)) -> Output {
    let scratch = case.scratch();
    let running = case.start_in_sandbox(&scratch);
    let supervisor = i32::try_from(running.child.id()).expect("a pid fits");
    let deadline = Instant::now() + Duration::from_secs(20);
    // Two shells' worth of memory: the script and its sleeping child are up.
    let is_up = || {
        descendants(supervisor).iter().skip(2).filter(|pid| resident_pages(**pid) > 150).count()
            >= 2
    };
    while !is_up() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    act(supervisor);
    let output = running.finish(LIMIT);
    assert!(!output.timed_out, "{output}");
    output
}

/// The supervisor starts the sentry first, then the gofer.
fn sentry(supervisor: i32) -> i32 {
    *children(supervisor).first().expect("there is a sentry")
}

fn gofer(supervisor: i32) -> i32 {
    *children(supervisor).get(1).expect("there is a gofer")
}

fn assert_all_gone(pids: &[i32]) {
    let deadline = Instant::now() + Duration::from_secs(5);
    let is_there = |pid: &i32| Path::new(&format!("/proc/{pid}")).exists();
    while pids.iter().any(is_there) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let left: Vec<_> = pids.iter().filter(|pid| is_there(pid)).collect();
    assert!(left.is_empty(), "still there: {left:?}");
}

#[test]
fn killed_sentry_ends_everything() {
    let mut all = Vec::new();
    let output = disturb(&sh("sleep 100 & sleep 100"), |supervisor| {
        all = descendants(supervisor);
        kill(sentry(supervisor), libc::SIGKILL);
    });
    assert_eq!(output.code, 125, "{output}");
    assert!(output.stderr().contains("sandbox: the sentry died (signal 9)"), "{output}");
    assert_all_gone(&all);
}

#[test]
fn killed_gofer_ends_everything() {
    let mut all = Vec::new();
    let output = disturb(&sh("sleep 100 & sleep 100"), |supervisor| {
        all = descendants(supervisor);
        kill(gofer(supervisor), libc::SIGKILL);
    });
    assert_eq!(output.code, 125, "{output}");
    assert!(output.stderr().contains("gofer"), "{output}");
    assert_eq!(output.stderr().lines().count(), 1, "{output}");
    assert_all_gone(&all);
}

#[test]
fn killed_supervisor_takes_everything_along() {
    let mut all = Vec::new();
    let output = disturb(&sh("sleep 100 & sleep 100"), |supervisor| {
        all = descendants(supervisor);
        kill(supervisor, libc::SIGKILL);
    });
    assert_eq!(output.code, 128 + 9, "{output}");
    assert!(all.len() >= 3, "{all:?}");
    assert_all_gone(&all);
}

/// A guest process whose host process is killed is a program killed by SIGKILL, nothing more.
#[test]
fn killed_guest_process_is_a_killed_program() {
    let case = sh("sleep 100; echo \"got $?\"; exit 3");
    let output = disturb(&case, |supervisor| {
        // Of all, the one with most memory of its own: not the zygote, not one of its spare clones.
        let guests = descendants(sentry(supervisor)).into_iter();
        kill(
            guests.max_by_key(|pid| resident_pages(*pid)).expect("there are guests"),
            libc::SIGKILL,
        );
    });
    assert!(!output.stderr().contains("the sentry died"), "{output}");
    assert!(output.code == 3 || output.code == 137, "{output}");
}

#[test]
fn signals_are_forwarded_to_the_program() {
    let case = sh("trap 'echo usr1; exit 7' USR1; sleep 100 & wait");
    let output = disturb(&case, |supervisor| kill(supervisor, libc::SIGUSR1));
    assert_eq!((output.stdout().as_str(), output.code), ("usr1\n", 7), "{output}");
}

#[test]
fn sigterm_ends_a_program_that_does_not_mind_it() {
    let output = disturb(&sh("sleep 100; exit 1"), |supervisor| kill(supervisor, libc::SIGTERM));
    assert_eq!(output.code, 128 + libc::SIGTERM, "{output}");
}

#[test]
fn timeout_kills_and_is_124() {
    let started = Instant::now();
    let case = sh("sleep 100 & while :; do :; done").option("--timeout=1");
    case.assert_fails(124, &["sandbox:", "--timeout"]);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn background_processes_end_with_the_program() {
    let started = Instant::now();
    let output = sh("sleep 100 & disown; setsid sleep 100 & echo started").run_in_sandbox();
    assert_eq!((output.stdout().as_str(), output.code), ("started\n", 0), "{output}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn no_zombie_and_no_time_is_left_behind() {
    let output =
        sh("for i in $(seq 50); do (exit 0) & done; wait; ps ax -o stat= | grep -c Z; exit 0")
            .run_in_sandbox();
    assert_eq!(output.stdout(), "0\n", "{output}");
}
