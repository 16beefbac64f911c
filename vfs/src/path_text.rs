//! Paths as text: what readlink(2) of /proc/PID/fd/N, /proc/PID/maps and getcwd(2) say.

use std::sync::Arc;

use abi::{Errno, Result};

use crate::dentry::{Dentry, Kind, Name, Path};

/// The components from the top down to `path`, and whether the way up ended at `root`.
fn climb(root: &Path, path: &Path) -> (Vec<Name>, bool) {
    let mut names = Vec::new();
    let mut at = path.clone();
    loop {
        if at.is_same(root) {
            return (names, true);
        }
        if Arc::ptr_eq(&at.dentry, at.mount.root_dentry()) {
            match at.mount.mount_point() {
                Some(point) => at = point,
                None => return (names, false),
            }
            continue;
        }
        let (parent, name) = {
            let place = at.dentry.place();
            (place.parent.clone(), Arc::clone(&place.name))
        };
        names.push(name);
        match parent {
            Some(parent) => at.dentry = parent,
            None => return (names, false),
        }
    }
}

fn join(names: &[Name]) -> Vec<u8> {
    if names.is_empty() {
        return b"/".to_vec();
    }
    let mut text = Vec::with_capacity(names.iter().map(|name| name.len() + 1).sum());
    for name in names.iter().rev() {
        text.push(b'/');
        text.extend_from_slice(name);
    }
    text
}

/// The absolute path as seen from `root` (d_path in Linux): " (deleted)" is added when the object has lost its
/// name; a place that `root` cannot reach is told from the top of its own tree.
#[must_use]
pub fn path_string(root: &Path, path: &Path) -> Vec<u8> {
    if path.dentry.kind == Kind::Anonymous {
        return path.name().to_vec();
    }
    let (names, _) = climb(root, path);
    let mut text = join(&names);
    if path.dentry.is_deleted() {
        text.extend_from_slice(b" (deleted)");
    }
    text
}

/// The text of getcwd(2): `ENOENT` for a removed directory, "(unreachable)" before one outside `root`.
///
/// # Errors
/// As above.
pub fn cwd_string(root: &Path, cwd: &Path) -> Result<Vec<u8>> {
    if cwd.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    let (names, is_reached) = climb(root, cwd);
    let mut text = if is_reached { Vec::new() } else { b"(unreachable)".to_vec() };
    text.extend_from_slice(&join(&names));
    Ok(text)
}

/// The path inside one mount, as the "root" field of mountinfo shows it.
#[must_use]
pub fn dentry_string(dentry: &Arc<Dentry>) -> Vec<u8> {
    let mut names = Vec::new();
    let mut at = Arc::clone(dentry);
    while let Some(parent) = at.parent() {
        names.push(at.name());
        at = parent;
    }
    join(&names)
}
