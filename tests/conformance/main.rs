//! Guest programs that assert what Linux does: one file per family, run natively (the oracle) and in the sandbox.
//!
//! `conformance FAMILY` runs every test of a family, each in a process of its own, and prints `test NAME: ok` or what
//! went wrong; `conformance FAMILY NAME` runs one test in this process; `conformance` lists the families.
//! Static, so that it needs nothing of its environment. A family `f` has its tests in `f::TESTS`.

mod call_sites;
mod changed_names;
mod directory;
mod exec;
mod fcntl;
mod frame;
mod heap;
mod heap_model;
mod hostile;
mod identity;
mod known_descriptors;
mod known_effects;
mod known_names;
mod known_paths;
mod known_watches;
mod layout;
mod lent_file;
mod lent_reads;
mod lent_sharing;
mod library;
mod memory;
mod misc;
mod names_model;
mod names_tree;
mod network;
mod own_acts;
mod pipe;
mod pipe_stream;
mod pipe_waits;
mod poll;
mod private_futex;
mod proc;
mod process;
mod read_write;
mod signal;
mod signal_calls;
mod socket;
mod stat;
mod support;
mod terminal;
mod thread;
mod time;
mod timer;
mod told_paths;
mod torture;
mod watch;

use std::process::ExitCode;

use support::Test;

const FAMILIES: &[(&str, &[Test])] = &[
    ("read_write", read_write::TESTS),
    ("known_descriptors", known_descriptors::TESTS),
    ("known_effects", known_effects::TESTS),
    ("known_names", known_names::TESTS),
    ("changed_names", changed_names::TESTS),
    ("names_model", names_model::TESTS),
    ("known_paths", known_paths::TESTS),
    ("told_paths", told_paths::TESTS),
    ("known_watches", known_watches::TESTS),
    ("lent_reads", lent_reads::TESTS),
    ("lent_sharing", lent_sharing::TESTS),
    ("own_acts", own_acts::TESTS),
    ("directory", directory::TESTS),
    ("memory", memory::TESTS),
    ("heap", heap::TESTS),
    ("heap_model", heap_model::TESTS),
    ("library", library::TESTS),
    ("process", process::TESTS),
    ("signal", signal::TESTS),
    ("signal_calls", signal_calls::TESTS),
    ("frame", frame::TESTS),
    ("thread", thread::TESTS),
    ("layout", layout::TESTS),
    ("private_futex", private_futex::TESTS),
    ("time", time::TESTS),
    ("poll", poll::TESTS),
    ("identity", identity::TESTS),
    ("call_sites", call_sites::TESTS),
    ("stat", stat::TESTS),
    ("pipe", pipe::TESTS),
    ("pipe_stream", pipe_stream::TESTS),
    ("pipe_waits", pipe_waits::TESTS),
    ("socket", socket::TESTS),
    ("network", network::TESTS),
    ("exec", exec::TESTS),
    ("misc", misc::TESTS),
    ("hostile", hostile::TESTS),
    ("fcntl", fcntl::TESTS),
    ("timer", timer::TESTS),
    ("terminal", terminal::TESTS),
    ("watch", watch::TESTS),
    ("proc", proc::TESTS),
    ("torture", torture::TESTS),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let family =
        |name: &str| FAMILIES.iter().find(|(family, _)| *family == name).map(|(_, tests)| *tests);
    match words.as_slice() {
        [] => {
            FAMILIES.iter().for_each(|(name, tests)| println!("{name} {}", tests.len()));
            ExitCode::SUCCESS
        }
        // What the exec family executes.
        ["helper", rest @ ..] => exec::helper(rest),
        [name] => match family(name) {
            Some(tests) => support::run_all(tests),
            None => ExitCode::from(2),
        },
        [name, test, ..] => {
            match family(name).and_then(|tests| tests.iter().find(|t| t.name == *test)) {
                Some(test) => {
                    (test.run)();
                    ExitCode::SUCCESS
                }
                None => ExitCode::from(2),
            }
        }
    }
}
