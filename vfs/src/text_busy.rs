//! Files that run as programs cannot be opened for writing meanwhile: `ETXTBSY` of open(2) and truncate(2).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use abi::{Errno, Result};
use parking_lot::Mutex;

use crate::inode::Inode;

/// Device and inode number of what runs, and how often. A leaf lock: held for a look or a change.
static RUNNING: LazyLock<Mutex<HashMap<(u64, u64), usize>>> = LazyLock::new(Mutex::default);

/// Keeps a file from being written for as long as it lives.
#[derive(Debug)]
pub struct Running {
    key: (u64, u64),
}

impl Running {
    /// # Errors
    /// Of the file's attributes.
    pub fn new(inode: &Arc<dyn Inode>) -> Result<Arc<Self>> {
        let attr = inode.attr()?;
        let key = (attr.dev, attr.ino);
        *RUNNING.lock().entry(key).or_insert(0) += 1;
        Ok(Arc::new(Self { key }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = RUNNING.lock();
        if let Some(count) = running.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.key);
            }
        }
    }
}

/// # Errors
/// `ETXTBSY` when the file runs.
pub(crate) fn check(inode: &Arc<dyn Inode>) -> Result<()> {
    let attr = inode.attr()?;
    let is_running = RUNNING.lock().contains_key(&(attr.dev, attr.ino));
    if is_running { Err(Errno::ETXTBSY) } else { Ok(()) }
}
