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
