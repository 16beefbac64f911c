//! Where the things under test are.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The `sandbox` command: `SANDBOX_BIN`, or the one built next to this test.
pub fn sandbox() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let path =
            std::env::var_os("SANDBOX_BIN").map_or_else(|| beside_test("sandbox"), Into::into);
        readable_by_all(&path)
    })
}

/// The conformance programs.
pub fn conformance() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| readable_by_all(&beside_test("conformance")))
}

fn beside_test(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own file");
    // target/TRIPLE/PROFILE/deps/TEST
    let profile = test.ancestors().nth(2).expect("cargo puts tests two directories down");
    let path = profile.join(name);
    assert!(path.exists(), "{} is missing: cargo build --workspace", path.display());
    path
}

/// The file itself, or a copy that ordinary users can reach when the checkout is in somebody's home.
fn readable_by_all(path: &Path) -> PathBuf {
    let is_open = |p: &Path| p.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0);
    if path.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()).all(is_open) {
        return path.to_owned();
    }
    let modified = path.metadata().and_then(|meta| meta.modified()).ok();
    let stamp = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let stamp = stamp.map_or(0, |age| age.as_nanos());
    let name = path.file_name().expect("a binary has a name").to_string_lossy();
    let copy = std::env::temp_dir().join(format!("sandbox-tests-{name}-{stamp}"));
    if !copy.exists() {
        let partial = copy.with_extension(std::process::id().to_string());
        std::fs::copy(path, &partial).expect("the temporary directory takes a copy");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&partial, mode).expect("it is ours");
        std::fs::rename(&partial, &copy).expect("it is ours");
    }
    copy
}
