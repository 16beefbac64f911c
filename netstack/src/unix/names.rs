//! Who is bound where, in one network namespace.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Weak};

use abi::{Errno, Result};
use base::lock::Mutex;

use super::address::Key;
use super::socket::UnixSocket;
use crate::lock_order;

/// Abstract names that autobind tries: five hexadecimal digits, as Linux makes them.
const AUTO_NAMES: u32 = 1 << 20;

/// Bound sockets by key.
#[derive(Default)]
pub struct Names {
    inner: Mutex<Inner, lock_order::UnixNames>,
}

#[derive(Default)]
struct Inner {
    bound: HashMap<Key, Weak<UnixSocket>>,
    next_auto: u32,
}

impl Names {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The socket that is bound to `key`.
    ///
    /// # Errors
    /// `ECONNREFUSED` when there is none.
    pub fn find(&self, key: &Key) -> Result<Arc<UnixSocket>> {
        let inner = self.inner.lock();
        inner.bound.get(key).and_then(Weak::upgrade).ok_or(Errno::ECONNREFUSED)
    }

    /// An inode's number may be that of a removed one whose socket is still there: the newest wins.
    pub(super) fn bind(&self, key: Key, socket: &Weak<UnixSocket>) -> Result<()> {
        let is_abstract = matches!(key, Key::Abstract(_));
        match self.inner.lock().bound.entry(key) {
            Entry::Occupied(held) if is_abstract && held.get().strong_count() > 0 => {
                Err(Errno::EADDRINUSE)
            }
            Entry::Occupied(mut held) => {
                held.insert(Weak::clone(socket));
                Ok(())
            }
            Entry::Vacant(free) => {
                free.insert(Weak::clone(socket));
                Ok(())
            }
        }
    }

    /// Binds to an abstract name that is free; returns it.
    pub(super) fn bind_auto(&self, socket: &Weak<UnixSocket>) -> Result<Vec<u8>> {
        let mut inner = self.inner.lock();
        for _ in 0..AUTO_NAMES {
            let name = format!("{:05x}", inner.next_auto).into_bytes();
            inner.next_auto = (inner.next_auto + 1) % AUTO_NAMES;
            if let Entry::Vacant(free) = inner.bound.entry(Key::Abstract(name.clone())) {
                free.insert(Weak::clone(socket));
                return Ok(name);
            }
        }
        Err(Errno::ENOSPC)
    }

    /// Forgets `key` if it still leads to the socket at `address`.
    pub(super) fn unbind(&self, key: &Key, socket: *const UnixSocket) {
        let mut inner = self.inner.lock();
        if inner.bound.get(key).is_some_and(|held| std::ptr::eq(held.as_ptr(), socket)) {
            inner.bound.remove(key);
        }
    }
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Names({} bound)", self.inner.lock().bound.len())
    }
}
