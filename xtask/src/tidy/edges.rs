//! Crates point downwards only. A new edge is a change of this table, and reviewed as one.

use super::{Finding, Source};

/// Crate and the workspace crates it may name, for building or for its tests.
const ALLOWED: &[(&str, &[&str])] = &[
    ("abi", &[]),
    ("base", &["abi"]),
    ("host", &["abi"]),
    ("shim-abi", &["abi"]),
    ("gofer-protocol", &["host", "base", "abi"]),
    ("gofer-server", &["gofer-protocol", "host", "abi"]),
    ("platform", &["shim-abi", "host", "base", "abi"]),
    ("netstack", &["base", "abi"]),
    // The server is there for vfs's tests only: client and server of the protocol against each other.
    ("vfs", &["gofer-protocol", "gofer-server", "host", "base", "abi"]),
    ("sentry", &["vfs", "netstack", "platform", "gofer-protocol", "host", "base", "abi"]),
    (
        "sandbox",
        &["sentry", "gofer-server", "gofer-protocol", "platform", "vfs", "host", "base", "abi"],
    ),
    // Tests know the built binary, never the crates' insides.
    ("sandbox-tests", &[]),
    ("conformance", &[]),
    ("xtask", &[]),
];

pub fn check(source: &Source, findings: &mut Vec<Finding>) {
    if source.path.file_name().is_none_or(|name| name != "Cargo.toml") {
        return;
    }
    let manifest = Manifest::read(&source.text);
    let Some(package) = manifest.package else { return };
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package) else {
        if !source.path.starts_with("platform/shim") {
            let message = format!("crate {package} is missing from xtask's table of crate edges");
            findings.push(Finding::error(&source.path, 0, message));
        }
        return;
    };
    for (line, dependency) in manifest.dependencies {
        let is_ours = ALLOWED.iter().any(|(name, _)| *name == dependency);
        if is_ours && !allowed.contains(&dependency) {
            let message = format!("{package} may not depend on {dependency} (table in xtask)");
            findings.push(Finding::error(&source.path, line, message));
        }
    }
}

/// As much of a manifest as the check needs, read line by line.
struct Manifest<'a> {
    package: Option<&'a str>,
    dependencies: Vec<(usize, &'a str)>,
}

impl<'a> Manifest<'a> {
    fn read(text: &'a str) -> Self {
        let mut manifest = Self { package: None, dependencies: Vec::new() };
        let mut section = "";
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            let key = key.trim();
            if section == "package" && key == "name" {
                manifest.package = Some(value.trim().trim_matches('"'));
            } else if section.ends_with("dependencies") && !section.starts_with("workspace") {
                let name = key.split('.').next().unwrap_or(key);
                manifest.dependencies.push((index + 1, name));
            }
        }
        manifest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upward_edge_is_an_error() {
        let text = "[package]\nname = \"vfs\"\n[dependencies]\nsentry.workspace = true\n";
        let source = Source { path: "vfs/Cargo.toml".into(), text: text.into() };
        let mut findings = Vec::new();
        check(&source, &mut findings);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].line, 4);
    }
}
