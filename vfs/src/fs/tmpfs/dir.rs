//! Entries of a directory, with positions that stay true while others come and go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::dentry::Name;
use crate::name_hash::NameHasher;

/// Position of the first entry after "." and "..".
pub(crate) const FIRST: u64 = 2;

/// A table of entries by name and by position, for any kind of inode.
pub(crate) struct Entries<T> {
    by_name: HashMap<Name, u64, NameHasher>,
    by_position: BTreeMap<u64, (Name, T)>,
    next: u64,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self { by_name: HashMap::default(), by_position: BTreeMap::new(), next: FIRST }
    }
}

impl<T> Entries<T> {
    pub(crate) fn get(&self, name: &[u8]) -> Option<&T> {
        let position = self.by_name.get(name)?;
        self.by_position.get(position).map(|(_, value)| value)
    }

    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        self.by_name.contains_key(name)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Puts `value` under `name`; an entry that was there keeps its position and is returned.
    pub(crate) fn insert(&mut self, name: &[u8], value: T) -> Option<T> {
        if let Some(position) = self.by_name.get(name)
            && let Some((_, old)) = self.by_position.get_mut(position)
        {
            return Some(std::mem::replace(old, value));
        }
        let name: Name = Arc::from(name);
        self.by_name.insert(Arc::clone(&name), self.next);
        self.by_position.insert(self.next, (name, value));
        self.next += 1;
        None
    }

    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<T> {
        let position = self.by_name.remove(name)?;
        self.by_position.remove(&position).map(|(_, value)| value)
    }

    /// Entries from `position` on.
    pub(crate) fn from(&self, position: u64) -> impl Iterator<Item = (u64, &Name, &T)> {
        self.by_position.range(position..).map(|(at, (name, value))| (*at, name, value))
    }

    /// Takes everything out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.by_name.clear();
        std::mem::take(&mut self.by_position).into_values().map(|(_, value)| value)
    }
}
