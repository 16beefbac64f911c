//! Which descriptors may stay in guests, asked for once of each: every execve(2) maps the same few files.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;
use rustix::fs::{OFlags, SealFlags};

/// Mode bits of a file that everybody may read.
pub const EVERYBODY: u32 = 0o444;
/// More would be a program that opens many files, each once.
const MOST_KNOWN: usize = 256;

/// By address; the reference tells whether it is still the same one.
type Known = HashMap<usize, (Weak<OwnedFd>, bool)>;

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

/// Whether all that a descriptor is good for is to read what everybody may read.
pub fn is_holdable(file: &Arc<OwnedFd>) -> bool {
    let key = Arc::as_ptr(file).addr();
    let mut known = KNOWN.lock();
    if let Some((same, verdict)) = known.get(&key)
        && same.strong_count() != 0
    {
        return *verdict;
    }
    let verdict = ask(file);
    if known.len() >= MOST_KNOWN {
        known.clear();
    }
    known.insert(key, (Arc::downgrade(file), verdict));
    verdict
}

fn ask(file: &OwnedFd) -> bool {
    let access = rustix::fs::fcntl_getfl(file).map(|flags| flags & OFlags::ACCMODE);
    let is_sealed =
        || rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::WRITE));
    (access == Ok(OFlags::RDONLY) || is_sealed())
        && rustix::fs::fstat(file).is_ok_and(|stat| stat.st_mode & EVERYBODY == EVERYBODY)
}
