//! When absolute paths may lead elsewhere: for who remembers what one was.
//!
//! A number goes up with each mount, each change of a directory's mode or owner, and each name that goes, moves or is new, if
//! somebody has remembered what was there since the number last changed: programs make and remove names all the time, but mostly not
//! those that others have asked for. Symbolic links are followed under the same names.
//!
//! Who remembers reads the number, looks, marks what it found on the way ([`Dentry::remember`]: under the lock of each directory's
//! list, and only what is listed), and tells it with that number. Who changes a list looks at the mark of what was there after that,
//! under the same lock or later, and so does who only forgets (an eviction): either the one sees the change or the other the mark.
//!
//! [`Dentry::remember`]: crate::dentry::Dentry::remember

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::dentry::{Child, Path};

static GENERATION: AtomicU64 = AtomicU64::new(0);
static LISTENER: OnceLock<Box<dyn Fn(u64) + Send + Sync>> = OnceLock::new();

/// Whom to tell the number whenever it is another, before the call that changed it returns. Once; further listeners are ignored.
pub fn on_change(listener: impl Fn(u64) + Send + Sync + 'static) {
    let _ = LISTENER.set(Box::new(listener));
}

/// What is found out from now on holds as long as this is the number.
#[must_use]
pub fn generation() -> u64 {
    GENERATION.load(Ordering::SeqCst)
}

/// Something has changed.
pub(crate) fn changed() {
    publish(GENERATION.fetch_add(1, Ordering::SeqCst) + 1);
}

fn publish(generation: u64) {
    if let Some(listener) = LISTENER.get() {
        listener(generation);
    }
}

/// On what is listed in a directory: as of when somebody last remembered it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(u64);

impl Mark {
    pub fn new(generation: u64) -> Self {
        Self(generation.saturating_add(1))
    }

    /// What has the mark is not there any more, or not known to be.
    pub fn ends(self) {
        let now = generation();
        if self == Self::new(now) {
            changed();
        } else if self != Self::default() {
            // What was told of it does not hold since: who said so may still be about to tell.
            publish(now);
        }
    }
}

/// A [`Mark`] that many set.
#[derive(Debug, Default)]
pub(crate) struct SharedMark(AtomicU64);

impl SharedMark {
    pub fn set(&self, mark: Mark) {
        self.0.fetch_max(mark.0, Ordering::SeqCst);
    }

    pub fn get(&self) -> Mark {
        Mark(self.0.load(Ordering::SeqCst))
    }
}

/// Marks all names on the way to `at`, for who has read `generation` before it was found. False: it cannot be remembered.
#[must_use]
pub fn remember(at: &Path, generation: u64) -> bool {
    let mut at = at.clone();
    loop {
        if Arc::ptr_eq(&at.dentry, at.mount.root_dentry()) {
            match at.mount.mount_point() {
                Some(point) => at = point,
                None => return true,
            }
            continue;
        }
        let Some(parent) = at.dentry.parent() else { return false };
        let listed = parent.remember(&at.dentry.name(), generation);
        let is_it =
            matches!(&listed, Some(Child::Present(child)) if Arc::ptr_eq(child, &at.dentry));
        if !is_it {
            return false;
        }
        at.dentry = parent;
    }
}

/// The same of one name in the directory `dir`, which is known to have `child` there.
#[must_use]
pub fn remember_child(dir: &Path, name: &[u8], child: &Path, generation: u64) -> bool {
    matches!(dir.dentry.remember(name, generation),
        Some(Child::Present(listed)) if Arc::ptr_eq(&listed, &child.dentry))
}
