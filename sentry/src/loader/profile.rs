//! What programs map after they have started, for those who start them again: mostly the same libraries.
//!
//! A descriptor that is in the guest already needs no way to the host when it is mapped; given with the program itself,
//! several cost little more than one. Those that everybody may find are offered to the platform, which may have them in
//! every new address space.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use base::lock::Mutex;
use vfs::Path;

use crate::lock_order;

/// Programs that are remembered at once; then all are forgotten.
const MOST_PROGRAMS: usize = 64;
/// Files that one program's start brings along.
const MOST_FILES: usize = 5;

/// Mode bits of a directory that everybody may search.
const SEARCHABLE: u32 = 0o111;

/// Of all programs.
#[derive(Debug, Default)]
pub struct Profiles(Mutex<HashMap<usize, (Weak<OwnedFd>, Arc<Profile>)>, lock_order::Leaf>);

/// Of one program.
#[derive(Debug, Default)]
pub struct Profile(Mutex<Vec<Mapped>, lock_order::Leaf>);

/// A file that a program maps.
#[derive(Debug, Clone)]
pub struct Mapped {
    pub fd: Arc<OwnedFd>,
    /// Everybody may find it: see [`is_public`].
    pub is_public: bool,
}

impl Profiles {
    /// The profile of the program with this descriptor.
    pub fn of(&self, program: &Arc<OwnedFd>) -> Arc<Profile> {
        let key = Arc::as_ptr(program).addr();
        let mut profiles = self.0.lock();
        if let Some((known, profile)) = profiles.get(&key)
            && std::ptr::eq(known.as_ptr(), Arc::as_ptr(program))
            && known.strong_count() > 0
        {
            return Arc::clone(profile);
        }
        if profiles.len() >= MOST_PROGRAMS {
            profiles.clear();
        }
        let profile = Arc::<Profile>::default();
        profiles.insert(key, (Arc::downgrade(program), Arc::clone(&profile)));
        profile
    }
}

impl Profile {
    /// The program maps this file.
    pub fn note(&self, fd: &Arc<OwnedFd>, is_public: impl FnOnce() -> bool) {
        let is_new = |files: &[Mapped]| {
            files.len() < MOST_FILES && !files.iter().any(|known| Arc::ptr_eq(&known.fd, fd))
        };
        if !is_new(&self.0.lock()) {
            return;
        }
        let mapped = Mapped { fd: Arc::clone(fd), is_public: is_public() };
        let mut files = self.0.lock();
        if is_new(&files) {
            files.push(mapped);
        }
    }

    #[must_use]
    pub fn files(&self) -> Vec<Mapped> {
        self.0.lock().clone()
    }
}

/// Whether everybody may search all directories on the way to a file, and nobody can change it under that name: copies of what
/// the host has are made before they are. (Whether everybody may read it, the platform asks.)
#[must_use]
pub fn is_public(path: &Path) -> bool {
    let fs = path.mount.fs();
    let is_fixed = fs.is_read_only() || fs.name() == "overlay";
    if !is_fixed || path.is_anonymous() || path.dentry.is_deleted() {
        return false;
    }
    let (mut mount, mut dentry) = (Arc::clone(&path.mount), Arc::clone(&path.dentry));
    loop {
        while let Some(parent) = dentry.parent() {
            let mode = parent.inode().attr().map_or(0, |attr| attr.mode);
            if mode & SEARCHABLE != SEARCHABLE {
                return false;
            }
            dentry = parent;
        }
        let Some(point) = mount.mount_point() else { return true };
        (mount, dentry) = (point.mount, point.dentry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Arc<OwnedFd> {
        Arc::new(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap())
    }

    #[test]
    fn a_program_is_known_again_by_its_descriptor_only() {
        let (profiles, program, library) = (Profiles::default(), file(), file());
        profiles.of(&program).note(&library, || true);
        profiles.of(&program).note(&library, || false);
        assert_eq!(profiles.of(&program).files().len(), 1);
        assert!(profiles.of(&file()).files().is_empty());
    }

    #[test]
    fn neither_programs_nor_files_are_kept_without_bound() {
        let (profiles, program) = (Profiles::default(), file());
        for _ in 0..2 * MOST_FILES {
            profiles.of(&program).note(&file(), || false);
        }
        assert_eq!(profiles.of(&program).files().len(), MOST_FILES);
        let many: Vec<_> = (0..3 * MOST_PROGRAMS).map(|_| file()).collect();
        for other in &many {
            profiles.of(other);
        }
        assert!(profiles.0.lock().len() <= MOST_PROGRAMS);
    }
}
