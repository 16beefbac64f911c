//! Which process waits for which because of a record lock: what fcntl(2) needs for `EDEADLK`.

use std::collections::HashMap;

use abi::ids::Tid;
use abi::{Errno, Result};
use base::lock::Mutex;

use crate::lock_order;

/// Waiting processes and whom they wait for.
#[derive(Default)]
pub struct LockWaits {
    map: Mutex<HashMap<Tid, Tid>, lock_order::Leaf>,
}

/// Longest chain that is followed, as `MAX_DEADLK_ITERATIONS` of Linux.
const MAX_CHAIN: usize = 10;

impl LockWaits {
    /// `waiter` is about to wait for `holder`.
    ///
    /// # Errors
    /// `EDEADLK` when `holder` waits for `waiter` already, directly or not.
    pub fn begin(&self, waiter: Tid, holder: Tid) -> Result<()> {
        let mut map = self.map.lock();
        let mut at = holder;
        for _ in 0..MAX_CHAIN {
            match map.get(&at) {
                Some(next) if *next == waiter => return Err(Errno::EDEADLK),
                Some(next) => at = *next,
                None => break,
            }
        }
        map.insert(waiter, holder);
        Ok(())
    }

    /// It waits no more.
    pub fn end(&self, waiter: Tid) {
        self.map.lock().remove(&waiter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_refused() {
        let waits = LockWaits::default();
        assert_eq!(waits.begin(Tid(1), Tid(2)), Ok(()));
        assert_eq!(waits.begin(Tid(2), Tid(3)), Ok(()));
        assert_eq!(waits.begin(Tid(3), Tid(1)), Err(Errno::EDEADLK));
        waits.end(Tid(2));
        assert_eq!(waits.begin(Tid(3), Tid(1)), Ok(()));
    }
}
