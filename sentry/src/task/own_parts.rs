//! What a thread holds, as its own calls look at it: without a lock and without counting references.
//!
//! A thread's parts are changed by its own calls only. So its task may keep them from one call to the next, as long as it asks each
//! time whether they were changed ([`OwnParts::is_current`]), and gives them up where it counts how many have them: before execve(2),
//! after a call that has changed them, and before the thread ends.

use std::ops::Deref;
use std::sync::Arc;

use platform::{AddressSpace, Context};

use crate::task::{Parts, Thread};

/// See the module.
pub struct OwnParts {
    version: u64,
    pub parts: Parts,
    pub space: Arc<dyn AddressSpace>,
}

impl OwnParts {
    #[must_use]
    pub fn of(thread: &Thread, context: &dyn Context) -> Self {
        let version = thread.parts_version();
        Self { version, parts: thread.parts(), space: Arc::clone(context.space()) }
    }

    #[must_use]
    pub fn is_current(&self, thread: &Thread) -> bool {
        self.version == thread.parts_version()
    }
}

/// One of them; or a reference of its own, where they are not at hand.
pub enum Part<'a, T> {
    Kept(&'a Arc<T>),
    Taken(Arc<T>),
}

impl<T> Deref for Part<'_, T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        match self {
            Self::Kept(part) => part,
            Self::Taken(part) => part,
        }
    }
}
