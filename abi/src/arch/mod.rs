//! What differs between architectures.
//!
//! | module | what |
//! | --- | --- |
//! | `x86_64` | registers |
//! | `x86_64_calls` | numbers and names of the system calls |

pub mod x86_64;
pub mod x86_64_calls;

pub use x86_64::{Call, Registers};
