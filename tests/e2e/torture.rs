//! Many threads, many processes, faults and vector state: right results, nothing left. The programs are part of the
//! conformance binary (family `torture`), so that nothing has to be compiled here.

use sandbox_tests::{Case, binaries, program, same_as_native, sh};

fn torture(name: &str) -> Case {
    let binary = binaries::conformance().to_str().expect("a plain path").to_owned();
    program(&[&binary, "torture", name]).limit(180)
}

same_as_native! {
    futexes_and_mutexes_of_64_threads => torture("mutex_of_64_threads");
    condition_variables => torture("ping_pong_on_condvars");
    fork_tree_of_500_processes => torture("fork_tree_of_500");
    fork_and_exec_2000_times => sh("for i in $(seq 2000); do /bin/true; done; echo done").limit(180);
    faults_on_an_alternate_stack => torture("segv_on_alternate_stack_1000_times");
    vector_state_across_calls_and_signals => torture("vector_state_survives");
    pipes_between_many_processes => torture("pipe_ring_of_50");
}

/// As many spinning threads as CPUs must not be slowed by a spinning kernel.
#[test]
fn spin_barrier_is_at_most_one_and_a_half_times_native() {
    let case = torture("spin_barrier");
    let scratch = case.scratch();
    let time = |native: bool| {
        let mut best = f64::MAX;
        for _ in 0..3 {
            let mut command = std::process::Command::new(binaries::sandbox());
            command
                .args(["run", "--"])
                .arg(binaries::conformance())
                .args(["torture", "spin_barrier"]);
            if native {
                command = std::process::Command::new(binaries::conformance());
                command.args(["torture", "spin_barrier"]);
            }
            command.current_dir(scratch.path());
            let output = sandbox_tests::run::start(&mut command, b"")
                .finish(std::time::Duration::from_secs(60));
            assert_eq!(output.code, 0, "{output}");
            let text = output.stdout();
            let nanoseconds = text.split_whitespace().find_map(|word| word.parse::<f64>().ok());
            best = best.min(nanoseconds.unwrap_or(f64::MAX));
        }
        best
    };
    let (native, ours) = (time(true), time(false));
    assert!(ours <= 1.5 * native, "native {native} ns, ours {ours} ns per round");
}
