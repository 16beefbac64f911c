//! Headers of executables that are run again and again: read once, as long as nobody can change them.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use abi::Result;
use base::lock::Mutex;
use vfs::File;

use crate::loader::elf::{Elf, ReadAt};
use crate::lock_order;

/// Files that are remembered at once; then all are forgotten.
const MOST_FILES: usize = 256;

/// By the address of the host's descriptor; the reference tells whether it is still the same one.
type Known = HashMap<usize, (Weak<OwnedFd>, Arc<Elf>)>;

/// See the module.
#[derive(Debug, Default)]
pub struct Headers(Mutex<Known, lock_order::Leaf>);

impl Headers {
    /// What is known of a file.
    pub fn find(&self, file: &File) -> Option<Arc<Elf>> {
        let host = host_of(file)?;
        let known = self.0.lock();
        let (same, elf) = known.get(&Arc::as_ptr(&host).addr())?;
        (same.strong_count() > 0).then(|| Arc::clone(elf))
    }

    /// Headers of a file, read where they are not known.
    ///
    /// # Errors
    /// See [`Elf::read`].
    pub fn read(&self, file: &File, from: &dyn ReadAt) -> Result<Arc<Elf>> {
        if let Some(elf) = self.find(file) {
            return Ok(elf);
        }
        let elf = Arc::new(Elf::read(from)?);
        if let Some(host) = host_of(file) {
            let mut known = self.0.lock();
            if known.len() >= MOST_FILES {
                known.clear();
            }
            let entry = (Arc::downgrade(&host), Arc::clone(&elf));
            known.insert(Arc::as_ptr(&host).addr(), entry);
        }
        Ok(elf)
    }
}

/// What a file's bytes come from, while they stay the same.
fn host_of(file: &File) -> Option<Arc<OwnedFd>> {
    if file.inode().is_settled() { file.ops().lendable() } else { None }
}
