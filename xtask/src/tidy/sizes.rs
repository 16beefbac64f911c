//! Lines per file and per function. Tables may be long; logic may not.

use super::{Finding, Source};

const FILE_WARN: usize = 500;
const FILE_ERROR: usize = 800;
const FUNCTION_WARN: usize = 70;
const FUNCTION_ERROR: usize = 100;

/// Files that are data in Rust's clothes.
const TABLES: &[&str] = &["sentry/src/syscalls/table.rs", "abi/src/errno.rs"];

/// Lines of code from a function's `fn` to its closing brace, without blank and comment lines.
struct Function {
    line: usize,
    name: String,
    length: usize,
}

pub fn check(source: &Source, findings: &mut Vec<Finding>) {
    if TABLES.iter().any(|table| source.path.ends_with(table)) {
        return;
    }
    let lines = source.text.lines().count();
    let split = "split it by verb or by layer";
    if lines > FILE_ERROR {
        let message = format!("{lines} lines, the limit is {FILE_ERROR}: {split}");
        findings.push(Finding::error(&source.path, 0, message));
    } else if lines > FILE_WARN {
        let message = format!("{lines} lines, aim at {FILE_WARN} or less: {split}");
        findings.push(Finding::warning(&source.path, 0, message));
    }
    for function in functions(&source.text) {
        let Function { line, name, length } = function;
        let message = format!("fn {name} has {length} lines (warned above {FUNCTION_WARN})");
        if length > FUNCTION_ERROR {
            findings.push(Finding::error(&source.path, line, message));
        } else if length > FUNCTION_WARN {
            findings.push(Finding::warning(&source.path, line, message));
        }
    }
}

/// Finds functions by rustfmt's layout: the closing brace stands at the indentation of the line with `fn`.
fn functions(text: &str) -> Vec<Function> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        let body = &lines[index..];
        // A declaration without a body, or one that fits a line, ends before any brace of its own.
        if line.trim_end().ends_with([';', '}']) {
            continue;
        }
        let Some(end) = body.iter().position(|l| *l == closing) else { continue };
        let length = body[..=end].iter().filter(|l| is_code(l)).count();
        found.push(Function { line: index + 1, name, length });
    }
    found
}

fn is_code(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with("//")
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().take(8).skip_while(|word| {
        matches!(*word, "pub" | "pub(crate)" | "pub(super)" | "const" | "async" | "unsafe")
            || matches!(*word, "extern" | "\"C\"")
    });
    if words.next() != Some("fn") {
        return None;
    }
    let name = words.next()?;
    Some(name.split(['(', '<']).next().unwrap_or(name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_code_lines_of_each_function() {
        let text =
            "pub fn a() {\n    // why\n    b();\n\n}\nimpl X {\n    fn c(&self) {\n    }\n}\n";
        let found: Vec<_> = functions(text).into_iter().map(|f| (f.name, f.length)).collect();
        assert_eq!(found, [("a".to_owned(), 3), ("c".to_owned(), 2)]);
    }
}
