//! What the gofer is asked before everything else: the ways to what the first program needs.
//!
//! Linux has its own caches for that. Here each name on the way, each link and each file that is opened would cost a round
//! trip; the gofer looks along these ways while the sentry still builds its walls.

use crate::config::{Config, MountSource};

/// What a dynamic loader looks at, where the common distributions have it.
const LOADER: &[&[u8]] = &[
    b"/lib64/ld-linux-x86-64.so.2",
    b"/etc/ld.so.preload",
    b"/etc/ld.so.cache",
    b"/lib/x86_64-linux-gnu/libc.so.6",
    b"/lib64/libc.so.6",
];

/// Places in tree 0 that boot and the first program will want, each ended by NUL.
pub fn paths(config: &Config) -> Vec<u8> {
    let mut paths = Vec::new();
    if !config.mounts.first().is_some_and(|root| {
        root.target == b"/" && matches!(root.source, MountSource::Gofer { tree: 0, .. })
    }) {
        return paths;
    }
    let targets: Vec<&[u8]> = config.mounts.iter().skip(1).map(|mount| &*mount.target).collect();
    for target in &targets {
        // What lies in another mount is not the tree's.
        let is_in = |above: &&[u8]| {
            target.strip_prefix(*above).is_some_and(|rest| rest.first() == Some(&b'/'))
        };
        if !targets.iter().any(is_in) {
            add(&mut paths, &[target]);
        }
    }
    add(&mut paths, &[&config.cwd]);
    let program = config.args.first().map_or(&b""[..], |name| name);
    paths.extend(program_paths(&config.cwd, program, &config.env));
    LOADER.iter().for_each(|path| add(&mut paths, &[path]));
    paths
}

/// Where `program` may be.
fn program_paths(cwd: &[u8], program: &[u8], env: &[Vec<u8>]) -> Vec<u8> {
    let mut paths = Vec::new();
    if program.starts_with(b"/") {
        add(&mut paths, &[program]);
    } else if program.contains(&b'/') {
        add(&mut paths, &[cwd, b"/", program]);
    } else {
        for dir in super::program::search_path(env) {
            add(&mut paths, &[if dir.is_empty() { cwd } else { dir }, b"/", program]);
        }
    }
    paths
}

/// Adds a path; one with a NUL in it is none, and nobody will find it.
fn add(paths: &mut Vec<u8>, parts: &[&[u8]]) {
    if parts.iter().all(|part| !part.contains(&0)) {
        parts.iter().for_each(|part| paths.extend_from_slice(part));
        paths.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_as_execvp_does() {
        let env = [b"A=1".to_vec(), b"PATH=/a::/b".to_vec()];
        let told = |program: &[u8]| {
            let paths = program_paths(b"/here", program, &env);
            paths.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        assert_eq!(told(b"/x/y"), [&b"/x/y"[..], b""]);
        assert_eq!(told(b"./y"), [&b"/here/./y"[..], b""]);
        assert_eq!(told(b"y"), [&b"/a/y"[..], b"/here/y", b"/b/y", b""]);
        assert_eq!(told(b"y\0z"), [b""]);
    }
}
