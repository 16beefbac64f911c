//! Tests of time, in a test binary of their own: cargo runs one binary after the other, so nothing else disturbs them,
//! and a lock keeps them from disturbing each other.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sandbox_tests::processes::{children, cpu_ticks, descendants, kill};
use sandbox_tests::{binaries, program as program_of, sh};

static ALONE: Mutex<()> = Mutex::new(());

/// As many spinning threads as CPUs must not be slowed by a spinning kernel: it leaves the CPUs to them.
#[test]
fn the_kernel_leaves_the_cpus_to_a_spin_barrier() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let program = binaries::conformance();
    let case = program_of(&[&program.to_string_lossy(), "torture", "spin_barrier"]);
    let scratch = case.scratch();
    let running = case.start_in_sandbox(&scratch);
    let supervisor = i32::try_from(running.child.id()).expect("a pid fits");
    // The last figures seen of each process, for it is gone at the end.
    let mut used = HashMap::new();
    loop {
        let before = used.len();
        for pid in descendants(supervisor) {
            let ticks = cpu_ticks(pid);
            let entry = used.entry(pid).or_insert((name(pid), 0));
            entry.1 = ticks.max(entry.1);
        }
        if before > 0 && children(supervisor).is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = running.finish(Duration::from_secs(60));
    assert_eq!(output.code, 0, "{output}");
    let sum = |is_guest: bool| -> u64 {
        let wanted = used.values().filter(|(name, _)| name.contains("shim") == is_guest);
        wanted.map(|(_, ticks)| ticks).sum()
    };
    let (guest, kernel) = (sum(true), sum(false));
    assert!(guest > 20, "{used:?}");
    assert!(kernel <= guest / 10 + 2, "kernel {kernel}, guest {guest} ticks: {used:?}");
}

fn name(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
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
