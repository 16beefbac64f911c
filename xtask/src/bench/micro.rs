//! Single operations: a guest program times them inside, one at a time.

use std::path::Path;

use super::Options;
use super::report::Figures;
use super::runtimes::Runtime;

/// Operation and what the design wants of it, as a multiple of native or an absolute figure.
pub const ROWS: &[(&str, &str)] = &[
    ("null_call", "2 N"),
    ("clock_gettime", "1 N"),
    ("read_1_byte", "3 N"),
    ("write_1_byte", "3 N"),
    ("pread_4k", "R"),
    ("pread_64k", "R"),
    ("stat", "1 µs"),
    ("open_close", "4 µs"),
    ("mmap_munmap_4k", "3 N"),
    ("mmap_touch_1m", "1.2 N"),
    ("fork_wait", "2 N"),
    ("fork_exec_wait", "2 N"),
    ("vfork_exec_wait", "2 N"),
    ("thread_create_join", "3 N"),
    ("pipe_ping_pong", "R"),
    ("cold_start", "30 ms"),
    ("idle_memory", "10 MiB"),
];

pub fn measure(runtimes: &[&Runtime], guest: &Path, options: &Options) -> Figures {
    let (rounds, milliseconds, starts) = if options.quick { (3, "60", 5) } else { (7, "200", 15) };
    let mut figures = Figures::new();
    let mut note = |name: &str, runtime: &Runtime, figure: f64| {
        figures.entry((name.to_owned(), runtime.name)).or_default().push(figure);
    };
    for round in 1..=rounds {
        eprintln!("bench: micro, round {round} of {rounds}");
        for runtime in runtimes {
            let guest = guest.to_string_lossy();
            for (name, _) in ROWS.iter().filter(|(name, _)| options.wants(name)) {
                if matches!(*name, "cold_start" | "idle_memory") {
                    continue;
                }
                match runtime.output(&[&guest, milliseconds, name]) {
                    Ok(text) => {
                        let figure =
                            text.split_whitespace().nth(1).and_then(|word| word.parse().ok());
                        figure.into_iter().for_each(|figure| note(name, runtime, figure));
                    }
                    Err(error) => eprintln!("bench: {} {name}: {error}", runtime.name),
                }
            }
        }
    }
    for _ in 0..starts {
        for runtime in runtimes.iter().filter(|_| options.wants("cold_start")) {
            runtime.start_time().into_iter().for_each(|figure| note("cold_start", runtime, figure));
        }
    }
    for runtime in runtimes.iter().filter(|_| options.wants("idle_memory")) {
        runtime.idle_memory().into_iter().for_each(|figure| note("idle_memory", runtime, figure));
    }
    figures
}
