//! `cargo xtask bench`: ours beside native, gVisor's runsc and bubblewrap, as far as they are installed.
//!
//! Two kinds of rows: *micro*, single operations that a guest program times inside, and *workloads*, whole programs
//! timed from outside with their start. Runtimes take turns so that a noisy machine disturbs all alike; medians
//! of the rounds are compared. Absolute figures do not carry over between machines, ratios mostly do.
//!
//! | module | what |
//! | --- | --- |
//! | `micro` | rows of single operations |
//! | `workloads` | table of whole programs |
//! | `inputs` | files and folders that workloads work on |
//! | `run` | rounds of workloads: time, output, failures |
//! | `cpu` | CPU seconds of all processes of a run |
//! | `runtimes` | the ways to run a program, start-up times, memory |
//! | `report` | the tables, JSON |

mod cpu;
mod inputs;
mod micro;
mod report;
mod run;
mod runtimes;
mod workloads;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use runtimes::Runtime;

pub const USAGE: &str = "bench [--quick] [--micro|--workloads] [--rounds N] [--sandbox PATH] [--json FILE] \
    [--markdown FILE] [NAME...]";

#[derive(Default)]
struct Options {
    quick: bool,
    /// Only this kind of rows; both without.
    kind: Option<Kind>,
    /// Rounds of workloads.
    rounds: Option<usize>,
    /// Measure this command instead of building one.
    sandbox: Option<PathBuf>,
    json: Option<String>,
    markdown: Option<String>,
    names: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Micro,
    Workloads,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|n| n == name)
    }

    /// Is there a row of this kind to measure?
    fn wants_kind(&self, kind: Kind) -> bool {
        self.kind.is_none_or(|only| only == kind) && names(kind).any(|name| self.wants(name))
    }
}

fn names(kind: Kind) -> Box<dyn Iterator<Item = &'static str>> {
    match kind {
        Kind::Micro => Box::new(micro::ROWS.iter().map(|(name, _)| *name)),
        Kind::Workloads => Box::new(workloads::WORKLOADS.iter().map(|workload| workload.name)),
    }
}

pub fn run(root: &Path, args: impl Iterator<Item = String>) -> ExitCode {
    let Some(mut options) = parse(args) else {
        eprintln!("usage: cargo xtask {USAGE}");
        return ExitCode::from(2);
    };
    let given = std::env::var_os("SANDBOX_BIN").map(PathBuf::from);
    options.sandbox = options.sandbox.take().or(given);
    if !build(root, &options) {
        return ExitCode::FAILURE;
    }
    match measure(root, &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--micro" if options.kind.is_none() => options.kind = Some(Kind::Micro),
            "--workloads" if options.kind.is_none() => options.kind = Some(Kind::Workloads),
            "--rounds" => options.rounds = Some(args.next()?.parse().ok().filter(|n| *n > 0)?),
            "--sandbox" => options.sandbox = Some(args.next()?.into()),
            "--json" => options.json = Some(args.next()?),
            "--markdown" => options.markdown = Some(args.next()?),
            name if names(Kind::Micro).chain(names(Kind::Workloads)).any(|row| row == name) => {
                options.names.push(arg);
            }
            _ => return None,
        }
    }
    Some(options)
}

/// Builds the command unless one was given, and the guest program if it is needed.
fn build(root: &Path, options: &Options) -> bool {
    let mut packages = Vec::new();
    if options.sandbox.is_none() {
        packages.extend(["-p", "sandbox"]);
    }
    if options.wants_kind(Kind::Micro) {
        packages.extend(["-p", "sandbox-tests"]);
    }
    if packages.is_empty() {
        return true;
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--bins"]).args(packages).current_dir(root);
    cargo.status().is_ok_and(|status| status.success())
}

fn measure(root: &Path, options: &Options) -> std::io::Result<()> {
    let target = root.join("target/x86_64-unknown-linux-gnu/release");
    let sandbox = options.sandbox.clone().unwrap_or_else(|| target.join("sandbox"));
    let runtimes = runtimes::all(&std::path::absolute(sandbox)?);
    let mut tables = Vec::new();
    let mut parts = Vec::new();
    if options.wants_kind(Kind::Micro) {
        // Single calls under bubblewrap are the host's own.
        let runtimes: Vec<&Runtime> = runtimes.iter().filter(|r| r.name != "bwrap").collect();
        let figures = micro::measure(&runtimes, &target.join("bench-guest"), options);
        let names: Vec<&'static str> = runtimes.iter().map(|runtime| runtime.name).collect();
        tables.push(report::micro_table(&figures, &names, micro::ROWS));
        parts.push(format!("\"micro\": {}", report::micro_json(&figures)));
    }
    if options.wants_kind(Kind::Workloads) {
        let runtimes: Vec<&Runtime> = runtimes.iter().collect();
        let cells = run::measure(&runtimes, options)?;
        tables.push(report::workload_table(&cells, names(Kind::Workloads)));
        parts.push(format!("\"workloads\": {}", report::workload_json(&cells)));
    }
    let text = tables.join("\n");
    println!("{text}");
    let json = format!("{{\n{}\n}}\n", parts.join(",\n"));
    for (path, text) in [(&options.markdown, text), (&options.json, json)] {
        if let Some(path) = path {
            std::fs::write(path, text)
                .map_err(|error| std::io::Error::other(format!("cannot write {path}: {error}")))?;
        }
    }
    Ok(())
}
