//! What programs map after they have started, for those who start them again: mostly the same libraries.
//!
//! A descriptor that is in the guest already needs no way to the host when it is mapped; given with the program itself,
//! several cost little more than one.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use base::lock::Mutex;

use crate::lock_order;

/// Programs that are remembered at once; then all are forgotten.
const MOST_PROGRAMS: usize = 64;
/// Files that one program's start brings along.
const MOST_FILES: usize = 5;

/// Of all programs.
#[derive(Debug, Default)]
pub struct Profiles(Mutex<HashMap<usize, (Weak<OwnedFd>, Arc<Profile>)>, lock_order::Leaf>);

/// Of one program.
#[derive(Debug, Default)]
pub struct Profile(Mutex<Vec<Arc<OwnedFd>>, lock_order::Leaf>);

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
    pub fn note(&self, file: &Arc<OwnedFd>) {
        let mut files = self.0.lock();
        if files.len() < MOST_FILES && !files.iter().any(|known| Arc::ptr_eq(known, file)) {
            files.push(Arc::clone(file));
        }
    }

    #[must_use]
    pub fn files(&self) -> Vec<Arc<OwnedFd>> {
        self.0.lock().clone()
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
        profiles.of(&program).note(&library);
        profiles.of(&program).note(&library);
        assert_eq!(profiles.of(&program).files().len(), 1);
        assert!(profiles.of(&file()).files().is_empty());
    }

    #[test]
    fn neither_programs_nor_files_are_kept_without_bound() {
        let (profiles, program) = (Profiles::default(), file());
        for _ in 0..2 * MOST_FILES {
            profiles.of(&program).note(&file());
        }
        assert_eq!(profiles.of(&program).files().len(), MOST_FILES);
        let many: Vec<_> = (0..3 * MOST_PROGRAMS).map(|_| file()).collect();
        for other in &many {
            profiles.of(other);
        }
        assert!(profiles.0.lock().len() <= MOST_PROGRAMS);
    }
}
