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
