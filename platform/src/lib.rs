//! How guest code is run.
//!
//! The sentry decides; a platform executes. It knows nothing of tasks, files, signals or VMAs: it hands out
//! address spaces and execution contexts, reports what guest code did as values ([`Event`]) and carries out
//! host operations ([`HostOp`]) inside an address space. Nothing above these traits may assume host processes.
//!
//! | module | what |
//! | --- | --- |
//! | `seccomp` | the user-notify platform: zygote, stubs, channels, doorbell |
//! | `rewrite` | system-call sites turned into jumps: analysis and encoding only |
//! | `processor` | what programs ask the processor, asked once for all |
//! | `linger` | whether who polls a task has time to wait in it |
//! | `capabilities` | what this host offers; feeds `sandbox doctor` |

pub mod capabilities;
mod host_op;
pub mod linger;
mod notes;
pub mod processor;
pub mod rewrite;
pub mod seccomp;
mod traits;

pub use host_op::*;
pub use notes::*;
pub use traits::*;
