//! What procfs asks about tasks: implements vfs's traits.
//!
//! | module | what |
//! | --- | --- |
//! | `system` | the whole sandbox |
//! | `task` | one thread and its process |
//! | `load` | load averages without a clock tick |

mod load;
mod system;
mod task;

pub use system::ProcView;
