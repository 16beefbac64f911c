//! A directory of its own for every test.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    owner: Option<(u32, u32)>,
}

/// What is in a directory: type, mode and content of every entry.
pub type Snapshot = BTreeMap<PathBuf, (u32, Vec<u8>)>;

impl Scratch {
    /// A new directory that belongs to `owner`, or to us.
    pub fn new(owner: Option<(u32, u32)>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sandbox-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("the temporary directory is writable");
        let scratch = Self { path, owner };
        scratch.give_away(&scratch.path, 0o755);
        scratch
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a file in it, with its parents.
    pub fn write(&self, name: &str, content: &[u8], mode: u32) {
        let path = self.path.join(name);
        let parents: Vec<_> =
            path.ancestors().skip(1).take_while(|dir| *dir != self.path).collect();
        for dir in parents.into_iter().rev() {
            if !dir.exists() {
                std::fs::create_dir(dir).expect("the directory is ours");
                self.give_away(dir, 0o755);
            }
        }
        std::fs::write(&path, content).expect("the directory is ours");
        self.give_away(&path, mode);
    }

    /// Everything in it, to see later whether something changed.
    pub fn snapshot(&self) -> Snapshot {
        let mut found = Snapshot::new();
        collect(&self.path, &mut found);
        found
    }

    fn give_away(&self, path: &Path, mode: u32) {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("it is ours");
        if let Some((uid, gid)) = self.owner {
            chown(path, Some(uid), Some(gid)).expect("only root has other owners");
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A failing test may leave what cannot be removed; the next boot will.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn collect(dir: &Path, found: &mut Snapshot) {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let Ok(meta) = path.symlink_metadata() else { continue };
        let content = if meta.is_file() {
            std::fs::read(&path).unwrap_or_default()
        } else if meta.is_symlink() {
            let target = std::fs::read_link(&path).unwrap_or_default();
            target.as_os_str().as_bytes().to_vec()
        } else {
            Vec::new()
        };
        if meta.is_dir() {
            collect(&path, found);
        }
        found.insert(path, (meta.mode(), content));
    }
}
