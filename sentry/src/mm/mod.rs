//! A guest's address space: the rules. The host does the pages.
//!
//! | module | what |
//! | --- | --- |
//! | `user_copy` | the one reader and writer of guest pointers |

mod user_copy;

use std::sync::Arc;

use platform::AddressSpace;

pub use user_copy::{UserCStr, UserRef, UserSink, UserSlice, UserSource};

/// One address space; shared by threads and vfork children.
pub struct Mm {
    space: Arc<dyn AddressSpace>,
}

impl Mm {
    #[must_use]
    pub fn new(space: Arc<dyn AddressSpace>) -> Arc<Self> {
        Arc::new(Self { space })
    }

    /// Host side of this address space.
    pub fn space(&self) -> &Arc<dyn AddressSpace> {
        &self.space
    }
}
