//! Tests of time, in a test binary of their own: cargo runs one binary after the other, so nothing else disturbs them,
//! and a lock keeps them from disturbing each other.

use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sandbox_tests::processes::{cpu_ticks, descendants, kill};
use sandbox_tests::{binaries, run, sh};

static ALONE: Mutex<()> = Mutex::new(());

/// Nanoseconds per round that the spin barrier of the conformance programs prints.
fn spin_barrier(in_sandbox: bool) -> f64 {
    let mut command = if in_sandbox {
        let mut command = Command::new(binaries::sandbox());
        command.args(["run", "--"]).arg(binaries::conformance());
        command
    } else {
        Command::new(binaries::conformance())
    };
    command.args(["torture", "spin_barrier"]);
    let output = run::start(&mut command, b"").finish(Duration::from_secs(60));
    assert_eq!(output.code, 0, "{output}");
    output.stdout().trim().parse().expect("it prints a number")
}

/// As many spinning threads as CPUs must not be slowed by a spinning kernel.
#[test]
fn spin_barrier_is_at_most_one_and_a_half_times_native() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut native, mut ours) = (f64::MAX, f64::MAX);
    // Taking turns, best of each: somebody else's load may disturb some rounds, but not all.
    for _ in 0..8 {
        native = native.min(spin_barrier(false));
        ours = ours.min(spin_barrier(true));
        if ours <= 1.5 * native {
            return;
        }
    }
    panic!("native {native} ns, ours {ours} ns per round");
}

/// A waiting program costs nothing: no ticks, no spinning.
#[test]
fn idle_sandbox_uses_no_cpu() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let case = sh("sleep 100");
    let scratch = case.scratch();
    let running = case.start_in_sandbox(&scratch);
    let supervisor = i32::try_from(running.child.id()).expect("a pid fits");
    std::thread::sleep(Duration::from_secs(2));
    let used = || -> u64 {
        let all = descendants(supervisor).into_iter().chain([supervisor]);
        all.map(cpu_ticks).sum()
    };
    let before = used();
    std::thread::sleep(Duration::from_secs(10));
    let ticks = used() - before;
    kill(supervisor, libc::SIGTERM);
    running.finish(Duration::from_secs(30));
    assert!(ticks <= 1, "{ticks} ticks of 10 ms in 10 s");
}
