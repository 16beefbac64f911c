//! Mutexes whose level is a type.
//!
//! A thread may take a lock only when every lock it holds has a lower rank. Debug builds keep a per-thread
//! stack and panic on a violation, naming both levels; release builds are plain `parking_lot`.
//! Each crate lists its levels, in order, in `lock_order.rs` through [`lock_levels!`](crate::lock_levels).
//! Bands: sentry 1000.., vfs 2000.., netstack 3000.., platform 4000.., base 9000...
//! A lock is never held across an `.await`, nor while a callback runs.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// Place of a lock in the global order.
pub trait Level {
    const RANK: u16;
    const NAME: &'static str;
}

/// Declares levels in rising order: `lock_levels! { base = 2000; Mounts, Dentry, Inode }`.
#[macro_export]
macro_rules! lock_levels {
    (base = $base:expr; $($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        $crate::lock_levels!(@step $base; $($(#[$doc])* $name,)+);
    };
    (@step $rank:expr; $(#[$doc:meta])* $name:ident, $($rest:tt)*) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}
        impl $crate::lock::Level for $name {
            const RANK: u16 = $rank;
            const NAME: &'static str = stringify!($name);
        }
        $crate::lock_levels!(@step $rank + 10; $($rest)*);
    };
    (@step $rank:expr;) => {};
}

/// A mutex at level `L`.
pub struct Mutex<T: ?Sized, L> {
    level: PhantomData<fn() -> L>,
    inner: parking_lot::Mutex<T>,
}

impl<T, L: Level> Mutex<T, L> {
    pub const fn new(value: T) -> Self {
        Self { level: PhantomData, inner: parking_lot::Mutex::new(value) }
    }

    pub fn into_inner(self) -> T {
        self.inner.into_inner()
    }
}

impl<T: ?Sized, L: Level> Mutex<T, L> {
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let held = Held::enter::<L>(false);
        MutexGuard { inner: self.inner.lock(), _held: held }
    }

    /// For a second lock of the same level (a directory pair, two pipes): the caller orders them, by address
    /// or by ancestry, and says so where it calls this.
    pub fn lock_nested(&self) -> MutexGuard<'_, T> {
        let held = Held::enter::<L>(true);
        MutexGuard { inner: self.inner.lock(), _held: held }
    }

    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let inner = self.inner.try_lock()?;
        Some(MutexGuard { inner, _held: Held::enter::<L>(true) })
    }

    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
}

impl<T: Default, L: Level> Default for Mutex<T, L> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: fmt::Debug + ?Sized, L> fmt::Debug for Mutex<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Access to what a [`Mutex`] guards.
pub struct MutexGuard<'a, T: ?Sized> {
    inner: parking_lot::MutexGuard<'a, T>,
    _held: Held,
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

#[cfg(debug_assertions)]
mod order {
    use std::cell::RefCell;

    thread_local! {
        static HELD: RefCell<Vec<(u16, &'static str)>> = const { RefCell::new(Vec::new()) };
    }

    /// One entry of the per-thread stack of held levels.
    pub struct Held(u16);

    impl Held {
        pub fn enter<L: super::Level>(same_level_allowed: bool) -> Self {
            HELD.with_borrow_mut(|held| {
                if let Some((rank, name)) = held.iter().max_by_key(|(rank, _)| *rank) {
                    let in_order = *rank < L::RANK || (same_level_allowed && *rank == L::RANK);
                    assert!(in_order, "lock order: {} taken while {name} is held", L::NAME);
                }
                held.push((L::RANK, L::NAME));
            });
            Self(L::RANK)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            HELD.with_borrow_mut(|held| {
                if let Some(at) = held.iter().rposition(|(rank, _)| *rank == self.0) {
                    held.remove(at);
                }
            });
        }
    }
}

#[cfg(not(debug_assertions))]
mod order {
    /// Nothing is tracked in release builds.
    pub struct Held;

    impl Held {
        pub const fn enter<L: super::Level>(_same_level_allowed: bool) -> Self {
            Self
        }
    }
}

use order::Held;

#[cfg(test)]
mod tests {
    use super::*;

    lock_levels! { base = 1; Outer, Inner }

    #[test]
    fn rising_order_is_accepted() {
        let (outer, inner) = (Mutex::<_, Outer>::new(1), Mutex::<_, Inner>::new(2));
        let a = outer.lock();
        let b = inner.lock();
        assert_eq!(*a + *b, 3);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "lock order: Outer taken while Inner is held")]
    fn falling_order_is_refused() {
        let (outer, inner) = (Mutex::<_, Outer>::new(1), Mutex::<_, Inner>::new(2));
        let _b = inner.lock();
        let _a = outer.lock();
    }
}
