//! `cargo xtask bench [--quick] [--json FILE] [--markdown FILE] [NAME...]`: the design's table as ratios.
//!
//! The same guest program runs natively, in our sandbox and, when it is installed, in gVisor's runsc, taking turns so
//! that a noisy machine disturbs all alike; medians of the rounds are compared. Absolute figures do not carry
//! over between machines, ratios mostly do.
//!
//! | module | what |
//! | --- | --- |
//! | `runtimes` | the ways to run a program, start-up times, memory |
//! | `report` | the table, JSON |

mod report;
mod runtimes;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

use runtimes::Runtime;

/// Operation and what the design wants of it, as a multiple of native or an absolute figure.
const ROWS: &[(&str, &str)] = &[
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

/// Row and runtime to the figures of each round.
pub type Figures = BTreeMap<(String, &'static str), Vec<f64>>;

struct Options {
    quick: bool,
    json: Option<String>,
    markdown: Option<String>,
    names: Vec<String>,
}

pub fn run(root: &Path, args: impl Iterator<Item = String>) -> ExitCode {
    let Some(options) = parse(args) else {
        eprintln!("usage: cargo xtask bench [--quick] [--json FILE] [--markdown FILE] [NAME...]");
        return ExitCode::from(2);
    };
    if !build(root) {
        return ExitCode::FAILURE;
    }
    let target = root.join("target/x86_64-unknown-linux-gnu/release");
    let runtimes = runtimes::all(&target);
    let figures = measure(&runtimes, &target.join("bench-guest"), &options);
    let names: Vec<&'static str> = runtimes.iter().map(|runtime| runtime.name).collect();
    let table = report::markdown(&figures, &names, ROWS);
    println!("{table}");
    let written = [(options.markdown, table), (options.json, report::json(&figures))];
    for (path, text) in written {
        if let Some(path) = path
            && let Err(error) = std::fs::write(&path, text)
        {
            eprintln!("bench: cannot write {path}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn parse(mut args: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options { quick: false, json: None, markdown: None, names: Vec::new() };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--json" => options.json = Some(args.next()?),
            "--markdown" => options.markdown = Some(args.next()?),
            name if ROWS.iter().any(|(row, _)| *row == name) => options.names.push(arg),
            _ => return None,
        }
    }
    Some(options)
}

fn build(root: &Path) -> bool {
    let packages = ["-p", "sandbox", "-p", "sandbox-tests", "--bins"];
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release"])
        .args(packages)
        .current_dir(root)
        .status();
    status.is_ok_and(|status| status.success())
}

fn measure(runtimes: &[Runtime], guest: &Path, options: &Options) -> Figures {
    let (rounds, milliseconds, starts) = if options.quick { (3, "60", 5) } else { (7, "200", 15) };
    let wants = |name: &str| options.names.is_empty() || options.names.iter().any(|n| n == name);
    let mut figures = Figures::new();
    let mut note = |name: &str, runtime: &Runtime, figure: f64| {
        figures.entry((name.to_owned(), runtime.name)).or_default().push(figure);
    };
    for round in 1..=rounds {
        eprintln!("bench: round {round} of {rounds}");
        for runtime in runtimes {
            let guest = guest.to_string_lossy();
            for (name, _) in ROWS.iter().filter(|(name, _)| wants(name)) {
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
        for runtime in runtimes.iter().filter(|_| wants("cold_start")) {
            runtime.start_time().into_iter().for_each(|figure| note("cold_start", runtime, figure));
        }
    }
    for runtime in runtimes.iter().filter(|_| wants("idle_memory")) {
        runtime.idle_memory().into_iter().for_each(|figure| note("idle_memory", runtime, figure));
    }
    figures
}
