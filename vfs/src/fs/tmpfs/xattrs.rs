//! Extended attributes in memory.

use std::collections::BTreeMap;

use abi::xattr::XattrFlags;
use abi::{Errno, Result};

/// Bytes of names and values that one object may have: they are the sentry's memory.
const LIMIT: usize = 128 * 1024;

/// The attributes of one object; most have none.
#[derive(Default, Clone)]
pub(crate) struct Xattrs(BTreeMap<Vec<u8>, Vec<u8>>);

/// Only these namespaces are kept; POSIX ACLs (`system.`) are not.
fn check(name: &[u8]) -> Result<()> {
    let kept = [&b"user."[..], b"trusted.", b"security."];
    if kept.iter().any(|prefix| name.starts_with(prefix) && name.len() > prefix.len()) {
        Ok(())
    } else {
        Err(Errno::EOPNOTSUPP)
    }
}

impl Xattrs {
    pub(crate) fn get(&self, name: &[u8]) -> Result<Vec<u8>> {
        check(name)?;
        self.0.get(name).cloned().ok_or(Errno::ENODATA)
    }

    pub(crate) fn set(&mut self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        check(name)?;
        let exists = self.0.contains_key(name);
        if exists && flags & XattrFlags::CREATE.bits() != 0 {
            return Err(Errno::EEXIST);
        }
        if !exists && flags & XattrFlags::REPLACE.bits() != 0 {
            return Err(Errno::ENODATA);
        }
        if self.bytes() + name.len() + value.len() > LIMIT {
            return Err(Errno::ENOSPC);
        }
        self.0.insert(name.to_vec(), value.to_vec());
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &[u8]) -> Result<()> {
        check(name)?;
        self.0.remove(name).map(drop).ok_or(Errno::ENODATA)
    }

    /// Bytes of names and values.
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Names, each with its NUL.
    pub(crate) fn list(&self) -> Vec<u8> {
        let names = self.0.keys();
        names.flat_map(|name| name.iter().copied().chain([0])).collect()
    }
}
