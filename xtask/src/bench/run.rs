//! Runs workloads, runtimes taking turns.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::Options;
use super::cpu::{self, Meter};
use super::inputs::Folders;
use super::runtimes::{Runtime, ScratchParent};
use super::workloads::{WORKLOADS, Workload};

/// Longer than anything here takes in any runtime.
const LIMIT: Duration = Duration::from_secs(120);

/// What all rounds of one workload gave in one runtime.
#[derive(Default)]
pub struct Cell {
    pub wall_seconds: Vec<f64>,
    pub cpu_seconds: Vec<f64>,
    /// Why rounds failed, or what was wrong with their output.
    pub remarks: Vec<String>,
    /// A round was so long that there are no more.
    pub is_given_up: bool,
}

/// Workload and runtime to what was measured.
pub type Cells = BTreeMap<(&'static str, &'static str), Cell>;

struct Sample {
    wall_seconds: f64,
    cpu_seconds: Option<f64>,
    stdout: String,
    strays: usize,
}

struct Stage<'a> {
    folders: Folders,
    meter: Meter,
    options: &'a Options,
}

pub fn measure(runtimes: &[&Runtime], options: &Options) -> io::Result<Cells> {
    let stage = Stage { folders: Folders::create(options.quick)?, meter: Meter::new(), options };
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 5 });
    let mut cells = Cells::new();
    for workload in WORKLOADS.iter().filter(|workload| options.wants(workload.name)) {
        if let Some(program) = workload.missing() {
            eprintln!("bench: {} is skipped: {program} is not installed", workload.name);
            continue;
        }
        eprintln!("bench: {}, {rounds} rounds", workload.name);
        // The first native run counts for nothing but warm caches and the output that all others must have.
        let wanted = runtimes.first().and_then(|native| stage.run(native, workload).ok());
        let wanted = wanted.map(|sample| sample.stdout);
        for round in 0..rounds {
            for runtime in runtimes.iter().cycle().skip(round).take(runtimes.len()) {
                let cell = cells.entry((workload.name, runtime.name)).or_default();
                if !cell.is_given_up {
                    cell.add(stage.run(runtime, workload), wanted.as_deref());
                }
            }
        }
    }
    Ok(cells)
}

impl Cell {
    fn add(&mut self, result: Result<Sample, String>, wanted: Option<&str>) {
        let sample = match result {
            Ok(sample) => sample,
            Err(error) => {
                self.is_given_up = error.starts_with(TIMED_OUT);
                self.remarks.push(error);
                return;
            }
        };
        self.wall_seconds.push(sample.wall_seconds);
        self.cpu_seconds.extend(sample.cpu_seconds);
        if let Some(wanted) = wanted.filter(|wanted| *wanted != sample.stdout) {
            let (is, should) = (sample.stdout.trim(), wanted.trim());
            self.remarks.push(format!("printed {is:?} instead of {should:?}"));
        }
        if sample.strays > 0 {
            self.remarks.push(format!("left {} processes behind", sample.strays));
        }
    }
}

const TIMED_OUT: &str = "timed out";

impl Stage<'_> {
    fn run(&self, runtime: &Runtime, workload: &Workload) -> Result<Sample, String> {
        let result = self.run_once(runtime, workload);
        self.folders.empty_scratch();
        result
    }

    fn run_once(&self, runtime: &Runtime, workload: &Workload) -> Result<Sample, String> {
        let text = workload.shell_text();
        let inputs = self.folders.inputs.to_string_lossy();
        let scratch = match runtime.scratch {
            ScratchParent::Prepared => self.folders.scratch.to_string_lossy(),
            ScratchParent::Own(path) => path.into(),
        };
        let size = workload.size(self.options.quick);
        let mut command = runtime.command(&["/bin/sh", "-c", &text, "sh", &inputs, size, &scratch]);
        let out = self.folders.inputs.join("stdout");
        let err = self.folders.inputs.join("stderr");
        let open = |path| File::create(path).map_err(|error| error.to_string());
        // Files, for a daemon that keeps a pipe open would make a reader wait for it.
        command.stdout(Stdio::from(open(&out)?)).stderr(Stdio::from(open(&err)?)).process_group(0);

        let cpu_before = self.meter.seconds();
        let started = Instant::now();
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let group = format!("-{}", child.id());
        let (status, is_late) = with_limit(
            LIMIT,
            || child.wait(),
            || cpu::kill(&[self.meter.others(), vec![group]].concat()),
        );
        let wall_seconds = started.elapsed().as_secs_f64();
        // Daemons may still be ending; their time belongs to this run.
        let strays = self.meter.settle();
        let cpu_after = self.meter.seconds();
        let status = status.map_err(|error| error.to_string())?;
        if is_late {
            return Err(format!("{TIMED_OUT} after {} s", LIMIT.as_secs()));
        }
        let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        if !status.success() {
            let stderr = read(&err);
            return Err(format!("{status}: {}", stderr.lines().next().unwrap_or("(no message)")));
        }
        let is_told = self.meter.sees_daemons() || !runtime.has_daemons;
        let cpu = cpu_before.zip(cpu_after).map(|(before, after)| after - before);
        let cpu_seconds = cpu.filter(|_| is_told);
        Ok(Sample { wall_seconds, cpu_seconds, stdout: read(&out), strays })
    }
}

/// Waits, and acts when that takes longer than `limit`. Tells whether it did.
fn with_limit<T>(
    limit: Duration,
    wait: impl FnOnce() -> T,
    act: impl FnOnce() + Send,
) -> (T, bool) {
    std::thread::scope(|scope| {
        let (done, is_done) = mpsc::channel::<()>();
        let watchdog = scope.spawn(move || {
            let is_late = is_done.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
            if is_late {
                act();
            }
            is_late
        });
        let result = wait();
        drop(done);
        (result, watchdog.join().unwrap_or(true))
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_takes_too_long_is_killed() {
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().expect("sleep");
        let group = format!("-{}", child.id());
        let (status, is_late) =
            with_limit(Duration::from_millis(20), || child.wait(), || cpu::kill(&[group]));
        assert!(is_late && !status.expect("a status").success());
        let (answer, is_late) = with_limit(Duration::from_secs(60), || 42, || unreachable!());
        assert!(answer == 42 && !is_late);
    }
}
