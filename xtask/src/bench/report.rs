//! The tables, and the same as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::run::{Cell, Cells};
use super::workloads::START_UP;

/// Row and runtime to the figures of each round.
pub type Figures = BTreeMap<(String, &'static str), Vec<f64>>;

/// One row per operation: each runtime's median, ours as a multiple of the others, and the design's target.
pub fn micro_table(figures: &Figures, runtimes: &[&'static str], rows: &[(&str, &str)]) -> String {
    let mut text = String::from("| operation | ");
    let others: Vec<&str> = runtimes.iter().copied().filter(|name| *name != "ours").collect();
    for name in runtimes {
        let _ = write!(text, "{name} | ");
    }
    for name in &others {
        let _ = write!(text, "ours / {name} | ");
    }
    text.push_str("target |\n|---|");
    text.push_str(&"--:|".repeat(runtimes.len() + others.len() + 1));
    text.push('\n');
    for (row, target) in rows {
        let median = |name| median(figures.get(&(row.to_string(), name))?);
        if runtimes.iter().all(|name| median(name).is_none()) {
            continue;
        }
        let _ = write!(text, "| {row} | ");
        for name in runtimes {
            let _ = write!(
                text,
                "{} | ",
                median(name).map_or("-".into(), |figure| pretty(row, figure))
            );
        }
        for name in &others {
            let _ = write!(text, "{} | ", ratio_text(ratio(median("ours"), median(name))));
        }
        let _ = writeln!(text, "{target} |");
    }
    text.push_str("\nMedians of rounds taking turns; lower is better. N: native, R: runsc.\n");
    text
}

/// `{"operation": {"runtime": [figures]}}`, in nanoseconds and bytes.
pub fn micro_json(figures: &Figures) -> String {
    let mut rows: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for ((row, runtime), figures) in figures {
        rows.entry(row).or_default().push(format!("\"{runtime}\": {figures:?}"));
    }
    object(&rows)
}

/// The columns after the runtimes' own: two runtimes, and whether their CPU time is compared.
const RATIOS: [(&str, &str, bool); 5] = [
    ("ours", "native", false),
    ("runsc", "native", false),
    ("ours", "runsc", false),
    ("ours", "native", true),
    ("runsc", "native", true),
];

const COLUMNS: [&str; 4] = ["native", "ours", "runsc", "bwrap"];

/// One row per workload, the geometric means of the ratios, and what went wrong.
pub fn workload_table(cells: &Cells, rows: impl Iterator<Item = &'static str>) -> String {
    let mut text = String::from("| workload |");
    for name in COLUMNS {
        let _ = write!(text, " {name} |");
    }
    for (one, other, is_cpu) in RATIOS {
        let _ = write!(text, " {}{one} / {other} |", if is_cpu { "CPU " } else { "" });
    }
    let _ = writeln!(text, "\n|---|{}", "--:|".repeat(COLUMNS.len() + RATIOS.len()));
    let mut columns = [const { Vec::new() }; RATIOS.len()];
    for row in rows.filter(|row| cells.keys().any(|(name, _)| name == row)) {
        let _ = write!(text, "| {row} |");
        for name in COLUMNS {
            let _ = write!(text, " {} |", cell_text(cells.get(&(row, name))));
        }
        for ((one, other, is_cpu), column) in RATIOS.into_iter().zip(&mut columns) {
            let figure = |name| median(cells.get(&(row, name))?.seconds(is_cpu));
            let ratio = ratio(figure(one), figure(other));
            column.extend(ratio.filter(|_| row != START_UP));
            let _ = write!(text, " {} |", ratio_text(ratio));
        }
        text.push('\n');
    }
    let _ = write!(text, "| **geometric mean** |{}", " |".repeat(COLUMNS.len()));
    for column in &columns {
        let _ = write!(text, " **{}** |", ratio_text(geometric_mean(column)));
    }
    text.push_str(
        "\n\nWall seconds with the start of the runtime, medians of rounds taking turns; lower is better. CPU: user and \
         system time of all its processes. The means leave out start_up. *: see below.\n",
    );
    for ((row, runtime), cell) in cells {
        let mut remarks: BTreeMap<&str, usize> = BTreeMap::new();
        cell.remarks.iter().for_each(|remark| *remarks.entry(remark).or_default() += 1);
        for (remark, count) in remarks {
            let _ = write!(text, "\n* {row} in {runtime}, {count} times: {remark}");
        }
    }
    text.trim_end().to_owned() + "\n"
}

/// `{"workload": {"runtime": {"wall_seconds": [...], "cpu_seconds": [...], "remarks": [...]}}}`.
pub fn workload_json(cells: &Cells) -> String {
    let mut rows: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for ((row, runtime), cell) in cells {
        let remarks: Vec<String> = cell.remarks.iter().map(|remark| quoted(remark)).collect();
        rows.entry(row).or_default().push(format!(
            "\"{runtime}\": {{\"wall_seconds\": {:?}, \"cpu_seconds\": {:?}, \"remarks\": [{}]}}",
            cell.wall_seconds,
            cell.cpu_seconds,
            remarks.join(", ")
        ));
    }
    object(&rows)
}

impl Cell {
    fn seconds(&self, is_cpu: bool) -> &[f64] {
        if is_cpu { &self.cpu_seconds } else { &self.wall_seconds }
    }
}

fn cell_text(cell: Option<&Cell>) -> String {
    let Some(cell) = cell else { return "-".into() };
    let mark = if cell.remarks.is_empty() { "" } else { "*" };
    median(&cell.wall_seconds)
        .map_or_else(|| "failed*".into(), |seconds| format!("{seconds:.3} s{mark}"))
}

fn object(rows: &BTreeMap<&str, Vec<String>>) -> String {
    let rows: Vec<String> =
        rows.iter().map(|(row, cells)| format!("  \"{row}\": {{{}}}", cells.join(", "))).collect();
    format!("{{\n{}\n}}", rows.join(",\n"))
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            _ if u32::from(c) < 0x20 => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn ratio(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.zip(other).map(|(one, other)| one / other)
}

fn ratio_text(ratio: Option<f64>) -> String {
    ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"))
}

fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    let logs: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    (!ratios.is_empty()).then(|| (logs / ratios.len() as f64).exp())
}

fn median(figures: &[f64]) -> Option<f64> {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

fn pretty(row: &str, figure: f64) -> String {
    if row == "idle_memory" {
        return format!("{:.1} MiB", figure / f64::from(1 << 20));
    }
    match figure {
        _ if figure < 1e3 => format!("{figure:.0} ns"),
        _ if figure < 1e6 => format!("{:.2} µs", figure / 1e3),
        _ => format!("{:.2} ms", figure / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_medians() {
        let mut figures = Figures::new();
        figures.insert(("stat".into(), "native"), vec![100.0, 900.0, 200.0]);
        figures.insert(("stat".into(), "ours"), vec![300.0]);
        let text = micro_table(&figures, &["native", "ours"], &[("stat", "1 µs")]);
        assert!(text.contains("| stat | 200 ns | 300 ns | 1.50 | 1 µs |"), "{text}");
        assert!(micro_json(&figures).contains("\"ours\": [300.0]"));
    }

    #[test]
    fn a_failed_workload_is_told_and_leaves_no_ratio() {
        let cell = |wall: &[f64], remarks: &[&str]| Cell {
            wall_seconds: wall.to_vec(),
            cpu_seconds: wall.to_vec(),
            remarks: remarks.iter().map(ToString::to_string).collect(),
            ..Cell::default()
        };
        let mut cells = Cells::new();
        cells.insert(("find", "native"), cell(&[1.0], &[]));
        cells.insert(("find", "ours"), cell(&[2.0], &[]));
        cells.insert(("git", "native"), cell(&[1.0], &[]));
        cells.insert(("git", "ours"), cell(&[], &["exit status: 1: \"no\""]));
        let text = workload_table(&cells, ["find", "git"].into_iter());
        assert!(text.contains("| git | 1.000 s | failed* | - | - | - |"), "{text}");
        assert!(text.contains("| **geometric mean** | | | | | **2.00** | **-** |"), "{text}");
        assert!(text.contains("* git in ours, 1 times: exit status: 1: \"no\""), "{text}");
        assert!(workload_json(&cells).contains(r#"["exit status: 1: \"no\""]"#));
    }
}
