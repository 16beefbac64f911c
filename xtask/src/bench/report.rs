//! The table, and the same as JSON.

use std::fmt::Write;

use super::Figures;

/// One row per operation: each runtime's median, ours as a multiple of the others, and the design's target.
pub fn markdown(figures: &Figures, runtimes: &[&'static str], rows: &[(&str, &str)]) -> String {
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
            let ratio = median("ours").zip(median(name)).map(|(ours, other)| ours / other);
            let _ = write!(text, "{} | ", ratio.map_or("-".into(), |ratio| format!("{ratio:.2}")));
        }
        let _ = writeln!(text, "{target} |");
    }
    text.push_str("\nMedians of rounds taking turns; lower is better. N: native, R: runsc.\n");
    text
}

/// `{"operation": {"runtime": [figures]}}`, in nanoseconds and bytes.
pub fn json(figures: &Figures) -> String {
    let mut text = String::from("{\n");
    let mut rows: Vec<&str> = figures.keys().map(|(row, _)| row.as_str()).collect();
    rows.dedup();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> = figures
            .iter()
            .filter(|((name, _), _)| name == row)
            .map(|((_, runtime), figures)| format!("\"{runtime}\": {figures:?}"))
            .collect();
        let comma = if index + 1 < rows.len() { "," } else { "" };
        let _ = writeln!(text, "  \"{row}\": {{{}}}{comma}", cells.join(", "));
    }
    text.push_str("}\n");
    text
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
        let text = markdown(&figures, &["native", "ours"], &[("stat", "1 µs")]);
        assert!(text.contains("| stat | 200 ns | 300 ns | 1.50 | 1 µs |"), "{text}");
        assert!(json(&figures).contains("\"ours\": [300.0]"));
    }
}
